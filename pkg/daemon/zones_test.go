package daemon

import (
	"net/netip"
	"testing"

	"github.com/portreeve/portreeve/pkg/zone"
)

// TestZones: each network of the file leads to its zone, with its trust.
func TestZones(t *testing.T) {
	c := mustParse(t, `zones:
  - {name: lan, networks: [10.0.0.0/8, "2001:db8::/32"]}
  - {name: balancers, networks: [10.0.0.5], trust: [PROXY, XFORWARD]}
`)
	table := zones(c.Zones)
	for addr, want := range map[string]zone.Zone{
		"10.0.0.4": {Name: "lan"}, "2001:db8::5": {Name: "lan"}, "192.0.2.1": {},
		"10.0.0.5": {Name: "balancers", Trust: zone.PROXY | zone.XFORWARD},
	} {
		if got := table.Find(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is in %+v, want %+v", addr, got, want)
		}
	}
	if got := zones(mustParse(t, "").Zones).Find(netip.MustParseAddr("10.0.0.5")); got != (zone.Zone{}) {
		t.Errorf("without zones an address is in %+v", got)
	}
}
