package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/portreeve/portreeve/pkg/metrics"
	"github.com/portreeve/portreeve/pkg/route"
)

// TestForgingOfServices: each dialer knows who is next to its origins, those that
// prefer forging ask whether it works, and those that never forge ask nobody.
func TestForgingOfServices(t *testing.T) {
	i := &inspector{Options: Options{Config: mustParse(t, `  - {name: prefers, listen: ["172.16.40.2:25"], origins: ["172.16.20.2:25", "172.16.20.3:25"], forge: {address: prefer}}
  - {name: too, listen: ["172.16.40.3:25"], origins: ["172.16.20.3:25"], forge: {address: prefer}}
  - {name: transparent, intercept: ["172.16.20.5:25", "172.16.21.0/24:25"], forge: {address: prefer}}
  - {name: never, listen: ["172.16.40.4:25"], origins: ["172.16.20.4:25"], forge: {address: never}}
`)}}
	if i.forging() != nil {
		t.Error("origins before there are any")
	}
	if err := i.openForging(); err != nil {
		t.Fatal(err)
	}
	defer i.returns.Close()
	i.networks.last.Store(&route.Connected{{Interface: "dmz0", Prefix: netip.MustParsePrefix("172.16.20.0/24")}})
	services, err := i.serve(addresses{})
	if err != nil {
		t.Fatal(err)
	}
	near, far, origin := netip.MustParseAddr("172.16.20.99"), netip.MustParseAddr("172.16.10.99"), netip.MustParseAddr("172.16.20.2")
	for name, want := range map[string]struct{ onLink, asks bool }{"mx": {true, false}, "prefers": {true, true}, "too": {true, true}, "transparent": {true, true}, "never": {}} {
		d := services[name].Dialer
		if (d.OnLink != nil) != want.onLink || (d.Returns != nil) != want.asks {
			t.Errorf("%s: OnLink %v, Returns %v", name, d.OnLink != nil, d.Returns)
		}
		if want.onLink && (!d.OnLink(near, origin) || d.OnLink(far, origin)) {
			t.Errorf("%s does not know who is next to its origin", name)
		}
	}
	if !i.networks.has(near) || i.networks.has(far) {
		t.Error("an address of a network of the gateway is anybody's")
	}
	want := []metrics.OriginForging{{Origin: netip.MustParseAddrPort("172.16.20.2:25")}, {Origin: netip.MustParseAddrPort("172.16.20.3:25")}, {Origin: netip.MustParseAddrPort("172.16.20.5:25")}}
	if got := i.forging(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the origins of services that prefer forging are %v, not %v", got, want)
	}
}
