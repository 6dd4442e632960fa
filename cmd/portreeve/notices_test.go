package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// tap is a writer that can be shut.
type tap struct{ err error }

func (t *tap) Write(b []byte) (int, error) { return len(b), t.err }

func TestOutletTellsOfEachChangeOnce(t *testing.T) {
	var told bytes.Buffer
	w := &tap{}
	o := &outlet{out: w, log: notices(&told)}
	for _, err := range []error{nil, errors.New("disk full"), errors.New("disk full"), nil, nil, errors.New("gone")} {
		w.err = err
		if _, got := o.Write([]byte("record\n")); !errors.Is(got, err) {
			t.Errorf("error %v, want %v", got, err)
		}
	}
	want := []string{"ERROR", "disk full", "INFO", "again", "ERROR", "gone"}
	lines := strings.Split(strings.TrimSpace(told.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("told:\n%s", told.String())
	}
	for i, word := range want {
		if !strings.Contains(lines[i/2], word) {
			t.Errorf("line %q without %q", lines[i/2], word)
		}
	}
}
