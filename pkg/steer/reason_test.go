package steer

import (
	"encoding/json"
	"strings"
	"testing"
)

// reasonWords are in the hands of whoever reads metrics or status: a change
// here is one for them.
var reasonWords = []string{
	"lookup-assigned", "lookup-bypass", "lookup-interface", "lookup-unbound",
	"lookup-absent-closed", "lookup-absent-open", "lookup-hung-closed", "lookup-hung-open", "lookup-refused",
	"client-syn", "client-tiny", "client-socket", "client-cookie", "client-icmp",
	"client-bypass", "client-forwarded", "client-fragment", "client-hidden", "client-hidden-open", "client-tags",
	"client-absent-closed", "client-absent-open", "client-hung-closed", "client-hung-open",
	"origin-socket", "origin-icmp", "origin-foreign", "origin-forwarded", "origin-fragment", "origin-hidden",
	"wall-leak", "wall-hidden", "wall-dead-closed", "wall-dead-open", "wall-bypass",
	"forward-leak", "forward-hidden", "forward-dead-closed", "forward-dead-open", "forward-bypass",
	"loop-out", "loop-fetched", "loop-stray", "client-intruder",
}

// Every reason of the C enum has its word, in its order, and is explained.
func TestReasons(t *testing.T) {
	all := Reasons()
	if len(all) != len(reasonWords) {
		t.Fatalf("%d reasons, %d words", len(all), len(reasonWords))
	}
	for i, r := range all {
		if r.String() != reasonWords[i] {
			t.Errorf("reason %d is %q, want %q", i, r, reasonWords[i])
		}
		if m := r.Meaning(); m == "" || strings.HasSuffix(m, ".") {
			t.Errorf("%s means %q", r, m)
		}
	}
	for _, r := range []Reason{numReasons, 999} {
		if got := r.String(); !strings.HasPrefix(got, "reason-") {
			t.Error(got)
		}
	}
	b, err := json.Marshal(all[0])
	must(t, err)
	if string(b) != `"lookup-assigned"` {
		t.Errorf("%s", b)
	}
}
