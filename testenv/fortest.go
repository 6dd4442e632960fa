package testenv

import "testing"

// ForTest returns the ordinary network for a test, and closes it at the test's end.
func ForTest(t testing.TB) *Env {
	t.Helper()
	e, err := New(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}
