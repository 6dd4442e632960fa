package smtp

import (
	"strings"
	"testing"
)

// TestIsHost: what HELO is held to, where it is.
func TestIsHost(t *testing.T) {
	label := strings.Repeat("l", 63)
	for s, want := range map[string]bool{
		"mx.example.org": true, "localhost": true, "a_b.example": true, "1.2": true, "[192.0.2.1]": true, "[IPv6:2001:db8::1]": true, label + ".example": true,
		"": false, "-a.example": false, "a-.example": false, "a.-b": false, "a.b-": false, "a..b": false, ".a": false, "a.": false, "a b": false,
		"[192.0.2.1": false, "[192.0.2.1]x": false, "[300.0.2.1]": false, label + "l.example": false, "a/b": false, "caf\xc3\xa9": false,
	} {
		if got := IsHost([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// TestLongParameter: a parameter is as long as it may be, and not longer.
func TestLongParameter(t *testing.T) {
	g := Grammar{Offered: ^Extensions(0), Parameter: 20}
	for length, want := range map[int]*Reply{20: nil, 21: longParam} {
		var c Command
		line := "MAIL FROM:<a@b> SIZE=1 ENVID=" + strings.Repeat("x", length-len("ENVID="))
		if got := c.Parse([]byte(line), g); got != want {
			t.Errorf("%d octets: %v", length, got)
		}
	}
}
