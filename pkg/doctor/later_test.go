package doctor

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/netfilter"
)

// Targets and interfaces that no rule tells apart are judged as one.
func TestTransitOfAKindIsJudgedOnce(t *testing.T) {
	g := &gateway{c: parse(t), m: healthy()}
	judged, firewall := kinds{}, &netfilter.Survey{}
	for n := range 256 {
		to := config.Target{Prefix: netfilter.Single(netip.AddrFrom4([4]byte{172, 16, 1, byte(n)})), Port: 25}
		for i := range 8 {
			for _, w := range g.uninspected(to, fmt.Sprintf("ext%d", i)) {
				judged.isNew(g.kind(firewall, w))
			}
		}
	}
	if len(judged) != 2 {
		t.Errorf("%d kinds of a SYN and its answer", len(judged))
	}
}
