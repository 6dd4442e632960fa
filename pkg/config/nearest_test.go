package config

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"listen", "intercept", "origins", "forge", "fail", "name"}
	for s, want := range map[string]string{
		"listen":     "listen",
		"lisetn":     "listen", // swapped
		"orgins":     "origins",
		"origin":     "origins",
		"intercepts": "intercept",
		"forged":     "forge",
		"fial":       "fail",
		"nam":        "name",
		"n":          "",
		"":           "",
		"tls":        "",
		"greylist":   "",
	} {
		if got := nearest(s, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b        string
		limit, want int
	}{
		{"", "", 9, 0},
		{"", "abc", 9, 3},
		{"abc", "", 9, 3},
		{"kitten", "sitting", 9, 3},
		{"ab", "ba", 9, 1},
		{"table", "tabel", 9, 1},
		{"flaw", "lawn", 9, 2},
		{"kitten", "sitting", 2, 2},
		{"a", "abcdef", 3, 3},
	} {
		if got := distance(tc.a, tc.b, tc.limit); got != tc.want {
			t.Errorf("distance(%q, %q, %d) = %d, want %d", tc.a, tc.b, tc.limit, got, tc.want)
		}
	}
}
