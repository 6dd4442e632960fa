package steer

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Ours goes to the head; what others put before it later is named.
func TestAhead(t *testing.T) {
	if !hasTCX(t) {
		return // there are no links to be before, and route names filters
	}
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	put := func(anchor link.Anchor, hook ebpf.AttachType) {
		foreign, err := ebpf.NewProgram(classifier()) // one is attached once at most
		must(t, err)
		t.Cleanup(func() { foreign.Close() })
		l, err := link.AttachTCX(link.TCXOptions{Interface: int(index(t, "dmz0")), Program: foreign, Attach: hook, Anchor: anchor})
		must(t, err)
		t.Cleanup(func() { l.Close() })
	}
	named := func(want ...string) {
		t.Helper()
		got, err := Ahead("dmz0")
		must(t, err)
		slices.Sort(got)
		if len(got) != len(want) {
			t.Fatalf("ahead: %v, want %v", got, want)
		}
		for i := range got {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("ahead: %v, want %v", got, want)
			}
		}
	}
	put(link.Tail(), ebpf.AttachTCXIngress)
	put(link.Tail(), ebpf.AttachTCXEgress)
	named()
	must(t, s.Add(plan.TC{Interface: "dmz0", Side: plan.ClientSide}))
	must(t, s.Add(plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true}))
	named()
	put(link.Head(), ebpf.AttachTCXEgress)
	named("tcx egress dev dmz0: program steer_probe (id ")
	put(link.Head(), ebpf.AttachTCXIngress)
	named("tcx egress dev dmz0: program steer_probe (id ", "tcx ingress dev dmz0: program steer_probe (id ")

	// Ours go to the head again, and are the same as before.
	want := []plan.Item{
		plan.Objects{}, plan.TC{Interface: "dmz0", Side: plan.ClientSide}, plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true},
	}
	changes := apply(t, s, want)
	if len(changes) != 2 || !strings.HasSuffix(changes[0].Old.String(), "(behind a program of another)") {
		t.Errorf("%v", changes)
	}
	named()
	wantItems(t, s, want)
}
