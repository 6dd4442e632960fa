package event

import (
	"regexp"
	"testing"
)

// TestReasonWords: each reason has a word of its own that can label a counter.
func TestReasonWords(t *testing.T) {
	word := regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	seen := map[string]Reason{}
	for r := NoReason + 1; r < Reasons; r++ {
		s := r.String()
		if !word.MatchString(s) {
			t.Errorf("reason %d is called %q", r, s)
		}
		if other, twice := seen[s]; twice {
			t.Errorf("reasons %d and %d are both called %s", other, r, s)
		}
		seen[s] = r
	}
	if s := NoReason.String(); s != "" {
		t.Errorf("no reason is called %q", s)
	}
}
