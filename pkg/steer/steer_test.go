package steer

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

func TestSmoke(t *testing.T) {
	s, _ := sandbox(t)
	want := []plan.Item{
		plan.Objects{},
		plan.Settings{ClientMark: 1 << 20, OriginMark: 1 << 21, Heartbeat: 3 * time.Second},
		plan.Service{Name: "mx"},
		plan.Origin{Prefix: netip.MustParsePrefix("172.16.20.254/32"), Port: 25},
		plan.Binding{Prefix: netip.MustParsePrefix("172.16.40.1/32"), Port: 25, Service: "mx", Addressed: true},
		plan.Lookup{},
	}
	for _, i := range want {
		err := s.Add(i)
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			t.Fatalf("%+v", v)
		}
		must(t, err)
	}
	have, err := s.Have()
	must(t, err)
	if d := cmp.Diff(want, have, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Fatal(d)
	}
	_, err = s.Counters()
	must(t, err)
}
