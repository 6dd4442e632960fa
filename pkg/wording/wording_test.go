package wording

import (
	"strings"
	"testing"
	"unicode"

	"github.com/portreeve/portreeve/pkg/event"
)

// TestTexts: what somebody reads in a bounce fits a line of RFC 5321 with the
// session's id, is plain ASCII, has a note, and a reason exactly if it refuses; what is
// only for now says whose turn it is.
func TestTexts(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		text := r.Error()
		switch {
		case len(text) > 512-len("\r\n [session 0123456789abcdef]"):
			t.Errorf("%q is too long", text)
		case strings.IndexFunc(text, func(c rune) bool { return c > unicode.MaxASCII || !unicode.IsPrint(c) }) >= 0:
			t.Errorf("%q is not printable ASCII", text)
		case r.Note == "":
			t.Errorf("%q has no note", text)
		case (r.Reason != event.NoReason) != (r.Code.Class() >= 4):
			t.Errorf("%q has the reason %q", text, r.Reason)
		case int(r.Enhanced.Class) != r.Code.Class():
			t.Errorf("%q contradicts itself", text)
		case seen[text]:
			t.Errorf("%q is there twice", text)
		}
		seen[text] = true
		if r.Code == 421 && !strings.Contains(text, "please") && !strings.Contains(text, "clos") && !strings.Contains(text, "has to be") && r.Reason != event.ReasonForeign {
			t.Errorf("%q does not say whose turn it is", text)
		}
	}
	if len(all) < 60 {
		t.Errorf("%d texts only", len(all))
	}
}
