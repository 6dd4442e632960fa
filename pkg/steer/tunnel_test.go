package steer

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// tunnel is a kind of tunnel without an Ethernet header inside: packets come out
// of it behind the outer header.
type tunnel struct {
	kind          string
	local, remote netip.Addr
	ways          []way // of the families that it carries
}

var (
	outer4  = [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	outer6  = [2]netip.Addr{netip.MustParseAddr("2001:db8:9::1"), netip.MustParseAddr("2001:db8:9::2")}
	tunnels = []tunnel{
		{"gre", outer4[0], outer4[1], ways},
		{"ipip", outer4[0], outer4[1], []way{way4}},
		{"sit", outer4[0], outer4[1], []way{way6}},
		{"ip6tnl", outer6[0], outer6[1], ways},
		{"ip6gre", outer6[0], outer6[1], ways},
	}
)

// dig connects the sandbox with another network namespace by the tunnel, over a
// wire of its own. It returns false where the kernel has no such tunnels, which
// Debian's have.
func (k *tunnel) dig(t *testing.T, here, there string, other *space) bool {
	t.Helper()
	wire(t, "low0", "low1", other)
	give(t, "low0", with(k.local))
	err := newTunnel(here, k.kind, k.local, k.remote)
	if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv("PORTREEVE_TEST_GUEST") == "" {
		t.Logf("this kernel has no tunnels of kind %s", k.kind)
		return false
	}
	must(t, err)
	up(t, here)
	other.do(func() {
		give(t, "low1", with(k.remote))
		must(t, newTunnel(there, k.kind, k.remote, k.local))
		up(t, there)
	})
	return true
}

// Scrubbing centres deliver by tunnels. Mail that comes by one is taken, whether
// addressed or transit, and the replies find back into it.
func TestTunnelOnClientSide(t *testing.T) { eachTunnel(t, tunnelOnClientSide) }

func tunnelOnClientSide(t *testing.T, k *tunnel, clsact bool) {
	g := unwired(t, clsact)
	if !k.dig(t, "ext0", "c0", g.client) {
		return
	}
	wire(t, "dmz0", "o0", g.origin)
	g.connect(k.ways)
	g.attach(false)
	for _, w := range g.ways {
		g.wantAddressed(w)
		g.wantTransit(w)
	}
}

// On the origin side the replies are found, and the wall stops what was not
// steered.
func TestTunnelOnOriginSide(t *testing.T) { eachTunnel(t, tunnelOnOriginSide) }

func tunnelOnOriginSide(t *testing.T, k *tunnel, clsact bool) {
	g := unwired(t, clsact)
	wire(t, "ext0", "c0", g.client)
	if !k.dig(t, "dmz0", "o0", g.origin) {
		return
	}
	g.connect(k.ways)
	g.attach(false)
	for _, w := range g.ways {
		g.wantTransit(w)
	}
	must(t, g.Remove(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: clsact}))
	g.wantAnswered()
	g.add(plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true, Clsact: clsact})
	g.wantStopped(bpfReasonREASON_WALL_LEAK)
}

func eachTunnel(t *testing.T, f func(t *testing.T, k *tunnel, clsact bool)) {
	for i := range tunnels {
		t.Run(tunnels[i].kind, func(t *testing.T) {
			eachDatapath(t, func(t *testing.T, clsact bool) { f(t, &tunnels[i], clsact) })
		})
	}
}
