package steer

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// lookupContext is what a sk_lookup program is asked about. The kernel's test
// run knows no interface but number 0, which therefore gets the role; real
// ones are the matter of TestSteeredConnections.
type lookupContext struct {
	local netip.AddrPort
	udp   bool
}

// bytes lays the context out as struct bpf_sk_lookup.
func (c lookupContext) bytes() []byte {
	b := make([]byte, 72)
	put := func(at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
	local := c.local.Addr().AsSlice()
	if c.local.Addr().Is4() {
		put(8, unix.AF_INET)
		copy(b[40:], local)
	} else {
		put(8, unix.AF_INET6)
		copy(b[44:], local)
	}
	put(12, unix.IPPROTO_TCP)
	if c.udp {
		put(12, unix.IPPROTO_UDP)
	}
	put(60, uint32(c.local.Port()))
	return b
}

const (
	skDrop = 0
	skPass = 1
)

// lookedUp is what came of a lookup.
type lookedUp struct {
	verdict  uint32
	selected uint64 // cookie of the socket
	reason   string
}

func (g *stage) lookUp(c lookupContext) lookedUp {
	g.Helper()
	g.clearCounts()
	out := make([]byte, 256)
	ret, err := g.set.programs[bpfProgSteerLookup].Run(&ebpf.RunOptions{Context: c.bytes(), ContextOut: out})
	must(g.T, err)
	return lookedUp{ret, binary.NativeEndian.Uint64(out), g.onlyReason()}
}

// cookie is the listener of a world's family that mx has.
func (g *stage) cookie(w world) uint64 {
	g.Helper()
	l := g.listeners[0]
	if !w.client.Is4() {
		l = g.listeners[1]
	}
	var cookie uint64
	must(g.T, withSocket(l, func(fd int) (err error) {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	}))
	return cookie
}

// giveRole makes interface 0 one of a side; 0 takes its role away.
func (g *stage) giveRole(side plan.Side) {
	g.Helper()
	if side == 0 {
		must(g.T, g.set.maps[bpfMapRoles].Delete(uint32(0)))
		return
	}
	must(g.T, g.set.maps[bpfMapRoles].Put(uint32(0), uint32(side)))
}

func passed(r bpfReason) lookedUp  { return lookedUp{verdict: skPass, reason: Reason(r).String()} }
func refused(r bpfReason) lookedUp { return lookedUp{verdict: skDrop, reason: Reason(r).String()} }

func TestLookup(t *testing.T) {
	g := newStage(t)
	g.giveRole(plan.ClientSide)
	for _, w := range worlds {
		assigned := lookedUp{skPass, g.cookie(w), Reason(bpfReasonREASON_LOOKUP_ASSIGNED).String()}
		for _, c := range []struct {
			what string
			ask  lookupContext
			want lookedUp
		}{
			{"addressed", lookupContext{local: at(w.own, smtpPort)}, assigned},
			{"transit", lookupContext{local: at(w.origin, smtpPort)}, assigned},
			{"another port", lookupContext{local: at(w.own, 80)}, lookedUp{verdict: skPass}},
			{"UDP", lookupContext{local: at(w.own, smtpPort), udp: true}, lookedUp{verdict: skPass}},
			{"an unbound address", lookupContext{local: at(w.nobody, smtpPort)}, passed(bpfReasonREASON_LOOKUP_UNBOUND)},
			{"a bypassed address", lookupContext{local: at(w.bypass, smtpPort)}, passed(bpfReasonREASON_LOOKUP_BYPASS)},
			{"a closed service", lookupContext{local: at(w.closed, smtpPort)}, refused(bpfReasonREASON_LOOKUP_ABSENT_CLOSED)},
			{"an open service", lookupContext{local: at(w.opened, smtpPort)}, passed(bpfReasonREASON_LOOKUP_ABSENT_OPEN)},
		} {
			if got := g.lookUp(c.ask); got != c.want {
				t.Errorf("%s %s: %+v, want %+v", w.name(), c.what, got, c.want)
			}
		}
	}
}

func TestLookupRoles(t *testing.T) {
	g := newStage(t)
	ask := lookupContext{local: at(world4.own, smtpPort)}
	for side, want := range map[plan.Side]string{
		plan.ClientSide:                   Reason(bpfReasonREASON_LOOKUP_ASSIGNED).String(),
		plan.ClientSide | plan.OriginSide: Reason(bpfReasonREASON_LOOKUP_ASSIGNED).String(),
		plan.OriginSide:                   Reason(bpfReasonREASON_LOOKUP_INTERFACE).String(),
		0:                                 Reason(bpfReasonREASON_LOOKUP_INTERFACE).String(),
	} {
		g.giveRole(plan.ClientSide)
		g.giveRole(side)
		if got := g.lookUp(ask).reason; got != want {
			t.Errorf("interface of %s: %s, want %s", side, got, want)
		}
	}
}

func TestLookupHung(t *testing.T) {
	g := newStage(t)
	g.giveRole(plan.ClientSide)
	g.register("opened", "closed")
	g.hang()
	for _, w := range worlds {
		if got, want := g.lookUp(lookupContext{local: at(w.opened, smtpPort)}), passed(bpfReasonREASON_LOOKUP_HUNG_OPEN); got != want {
			t.Errorf("%s open: %+v, want %+v", w.name(), got, want)
		}
		if got, want := g.lookUp(lookupContext{local: at(w.closed, smtpPort)}), refused(bpfReasonREASON_LOOKUP_HUNG_CLOSED); got != want {
			t.Errorf("%s closed: %+v, want %+v", w.name(), got, want)
		}
	}
}

// A listener that the kernel refuses to assign, here one of the other family
// that got into the slot, leads to the fail policy.
func TestLookupRefused(t *testing.T) {
	g := newStage(t)
	g.giveRole(plan.ClientSide)
	l4 := listen(t, "127.0.0.1:0")
	index, err := g.set.index()
	must(t, err)
	for name, want := range map[string]lookedUp{
		"opened": passed(bpfReasonREASON_LOOKUP_REFUSED),
		"closed": refused(bpfReasonREASON_LOOKUP_REFUSED),
	} {
		must(t, withSocket(l4, func(fd int) error {
			return g.set.maps[bpfMapListeners].Put(slot6(index.byName[name]), uint64(fd))
		}))
		to := map[string]netip.Addr{"opened": world6.opened, "closed": world6.closed}[name]
		if got := g.lookUp(lookupContext{local: at(to, smtpPort)}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// The longest prefix decides, within its family: ::/0 does not catch IPv4.
func TestLookupPrefixes(t *testing.T) {
	g := newStage(t)
	g.giveRole(plan.ClientSide)
	const port = 2525
	bind := func(prefix, service string) {
		g.add(plan.Binding{Prefix: netip.MustParsePrefix(prefix), Port: port, Service: service, Addressed: true})
	}
	ask := func(a string) string {
		return g.lookUp(lookupContext{local: at(netip.MustParseAddr(a), port)}).reason
	}
	want := func(a string, r bpfReason) {
		t.Helper()
		if got := ask(a); got != Reason(r).String() {
			t.Errorf("%s: %s, want %s", a, got, Reason(r))
		}
	}
	bind("::/0", "closed")
	want("2001:db8::1", bpfReasonREASON_LOOKUP_ABSENT_CLOSED)
	want("192.0.2.1", bpfReasonREASON_LOOKUP_UNBOUND)
	bind("0.0.0.0/0", "opened")
	bind("192.0.2.0/24", "mx")
	bind("192.0.2.128/25", "")
	bind("192.0.2.200/32", "closed")
	want("192.0.3.1", bpfReasonREASON_LOOKUP_ABSENT_OPEN)
	want("192.0.2.1", bpfReasonREASON_LOOKUP_ASSIGNED)
	want("192.0.2.129", bpfReasonREASON_LOOKUP_BYPASS)
	want("192.0.2.200", bpfReasonREASON_LOOKUP_ABSENT_CLOSED)
	bind("2001:db8::/32", "mx")
	want("2001:db8::1", bpfReasonREASON_LOOKUP_ASSIGNED)
	want("2001:db9::1", bpfReasonREASON_LOOKUP_ABSENT_CLOSED)
}
