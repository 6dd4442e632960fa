package odd

import (
	"strings"
	"testing"
)

// TestJudge: the reference itself, by hand.
func TestJudge(t *testing.T) {
	both := Policy{Normalize: true, Remove: true}
	line := strings.Repeat("x", Longest)
	for _, c := range []struct {
		content string
		Policy
		want Fate
	}{
		{"a\r\n", Policy{}, Fate{Code: 250, Stored: "a\r\n"}},
		{"", Policy{}, Fate{Code: 250}},
		{"a", Policy{}, Fate{Code: 250, Stored: "a\r\n"}},
		{"a\rb\n", Policy{}, Fate{Code: 550, Why: Bare}},
		{"a\r", Policy{}, Fate{Code: 550, Why: Bare}},
		{"a\x00\n", Policy{}, Fate{Code: 554, Why: NUL}},
		{"a\x00\n", Policy{Remove: true}, Fate{Code: 550, Why: Bare}},
		{"a\n\x00", Policy{Normalize: true}, Fate{Code: 554, Why: NUL}},
		{line + "\r\n", Policy{}, Fate{Code: 250, Stored: line + "\r\n"}},
		{line + "x\r\n", both, Fate{Code: 554, Why: Long}},
		{line + "\x00\r\n", both, Fate{Code: 554, Why: Long}},
		{line + "\r", Policy{}, Fate{Code: 550, Why: Bare}},
		{"a\nb\rc\r\r\nd\n\r", both, Fate{Code: 250, Stored: "a\r\nb c \r\nd\r\n \r\n"}},
		{"\x00.\r\n\r\x00\n", both, Fate{Code: 250, Stored: ".\r\n \r\n"}},
		{"a\r\x00\n\r", Policy{Binary: true}, Fate{Code: 250, Stored: "a\r\x00\n\r"}},
	} {
		if got := Judge(c.content, c.Policy); got != c.want {
			t.Errorf("%.40q %+v: %d %s %.80q", c.content, c.Policy, got.Code, got.Why, got.Stored)
		}
	}
	for content, want := range map[string]string{"": "", ".": "..\r\n", ".a\r\n..\n.b": "..a\r\n...\n.b\r\n", "a\r\n\r\n": "a\r\n\r\n"} {
		if got := Wire(content); got != want || Unstuffed(got) != Ended(content) {
			t.Errorf("%q on the wire: %q, and back: %q", content, got, Unstuffed(got))
		}
	}
}
