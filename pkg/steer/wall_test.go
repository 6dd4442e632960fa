package steer

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Giving the interface by which packets come in a role.
func (g *stage) comesBy(side plan.Side) {
	g.Helper()
	if side == 0 {
		g.set.maps[bpfMapRoles].Delete(uint32(cameBy))
		return
	}
	must(g.T, g.set.maps[bpfMapRoles].Put(uint32(cameBy), uint32(side)))
}

// A SYN at the origin side's egress was not steered: alive, dead and hung.
func TestWall(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		for _, c := range []struct {
			what string
			from plan.Side
			to   netip.Addr
			want outcome
		}{
			{"alive", 0, w.origin, dropped(bpfReasonREASON_WALL_LEAK)},
			{"alive, by the client side", plan.ClientSide, w.origin, dropped(bpfReasonREASON_WALL_LEAK)},
			{"alive, one-armed", plan.ClientSide | plan.OriginSide, w.origin, dropped(bpfReasonREASON_WALL_LEAK)},
			{"alive, by the origin side", plan.OriginSide, w.origin, left(bpfReasonREASON_WALL_BYPASS)},
			{"alive, by a bypass", plan.BypassSide, w.origin, left(bpfReasonREASON_WALL_BYPASS)},
			{"dead, closed", 0, w.closed, dropped(bpfReasonREASON_WALL_DEAD_CLOSED)},
			{"dead, open", 0, w.opened, left(bpfReasonREASON_WALL_DEAD_OPEN)},
			{"a bypassed address", 0, w.bypass, left(bpfReasonREASON_WALL_BYPASS)},
			{"the gateway", 0, w.own, ignored},
			{"nobody", 0, w.nobody, ignored},
		} {
			g.comesBy(c.from)
			g.want(wallHook, w.name()+" SYN, "+c.what, w.fromClient(c.to, syn).bytes(), c.want)
			g.want(wallHook, w.name()+" ACK, "+c.what, w.fromClient(c.to, ack).bytes(), ignored)
		}
		g.comesBy(0)
		other := segment(at(w.client, 40000), at(w.origin, 26), syn)
		g.want(wallHook, w.name()+" SYN to another port", other.bytes(), ignored)
	}
	g.register("opened")
	for _, w := range worlds {
		g.want(wallHook, w.name()+" alive, open", w.fromClient(w.opened, syn).bytes(), dropped(bpfReasonREASON_WALL_LEAK))
	}
	g.hang()
	for _, w := range worlds {
		g.want(wallHook, w.name()+" hung, closed", w.fromClient(w.origin, syn).bytes(), dropped(bpfReasonREASON_WALL_DEAD_CLOSED))
		g.want(wallHook, w.name()+" hung, open", w.fromClient(w.opened, syn).bytes(), left(bpfReasonREASON_WALL_DEAD_OPEN))
	}
	must(t, g.Remove(plan.Settings{}))
	g.want(wallHook, "without settings", world4.fromClient(world4.closed, syn).bytes(), ignored)
}

// What hides its ports or flags is dropped by both walls, unless nobody could
// be harmed: no service fails closed and no inspector lives.
func TestHidden(t *testing.T) {
	g := newStage(t)
	g.inspect(dropped(bpfReasonREASON_CLIENT_HIDDEN), dropped(bpfReasonREASON_WALL_HIDDEN))
	g.hang()
	g.inspect(dropped(bpfReasonREASON_CLIENT_HIDDEN), dropped(bpfReasonREASON_WALL_HIDDEN))
	g.add(plan.Service{Name: "mx", Open: true})
	must(t, g.Remove(plan.Service{Name: "closed"}))
	g.inspect(left(bpfReasonREASON_CLIENT_HIDDEN_OPEN), left(bpfReasonREASON_WALL_DEAD_OPEN))
	must(t, g.inspector.Beat(1))
	g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: heartbeat})
	g.inspect(dropped(bpfReasonREASON_CLIENT_HIDDEN), dropped(bpfReasonREASON_WALL_HIDDEN))
	g.comesBy(plan.OriginSide)
	g.inspect(dropped(bpfReasonREASON_CLIENT_HIDDEN), left(bpfReasonREASON_WALL_BYPASS))
}

// inspect runs packets that hide what they are through both walls.
func (g *stage) inspect(client, wall outcome) {
	g.Helper()
	for what, p := range hidden(world4.origin, world6.origin) {
		g.want(clientHook, what, p, client)
		g.want(wallHook, what, p, wall)
	}
	for _, to := range [][2]netip.Addr{{world4.nobody, world6.nobody}, {world4.bypass, world6.bypass}} {
		for what, p := range hidden(to[0], to[1]) {
			g.want(clientHook, what+" to another", p, ignored)
			g.want(wallHook, what+" to another", p, ignored)
		}
	}
}

// A bypass leaves one port alone. What shows no port may be for another of the
// address.
func TestBypassHidesNoOtherPort(t *testing.T) {
	g := newStage(t)
	const submission = 587
	for _, wide := range []netip.Prefix{netip.PrefixFrom(world4.bypass, 24), netip.PrefixFrom(world6.bypass, 64)} {
		g.add(plan.Binding{Prefix: wide.Masked(), Port: submission, Service: "mx", Transit: true})
	}
	for what, p := range hidden(world4.bypass, world6.bypass) {
		g.want(clientHook, what, p, dropped(bpfReasonREASON_CLIENT_HIDDEN))
		g.want(wallHook, what, p, dropped(bpfReasonREASON_WALL_HIDDEN))
	}
}

// hidden are packets that could begin a connection and do not show it.
func hidden(to4, to6 netip.Addr) map[string][]byte {
	v4, v6 := world4.fromClient(to4, syn), world6.fromClient(to6, syn)
	options := option(extOptions, 1)
	cut := func(headers []header, payload []byte) []byte {
		p := v6
		p.headers = headers
		p.payload = payload
		if len(headers) > 1 && len(payload) == 0 {
			p.proto = extOptions // says that more headers come
		}
		return p.bytes()
	}
	nine := v6
	nine.headers = slices.Repeat([]header{options}, 9)
	padded := v6
	padded.headers, padded.payload, padded.claim = []header{fragment6(0, true)}, tcp(40000, smtpPort, syn), -20
	short := v6
	short.headers, short.claim = []header{option(extHIP, 1)}, -17
	detour := func(kind byte, at int, behind ...header) []byte { // by another address of the origin's
		route := make([]byte, 2*16+7)
		route[0], route[1], route[2] = 4, kind, 1
		copy(route[7+16*at:], to6.AsSlice())
		p := v6
		p.dst, p.headers = netip.MustParseAddr("fd00:77::1"), append([]header{{extRouting, route}}, behind...)
		return p.bytes()
	}
	inside := v4
	inside.fragment = 1
	return map[string][]byte{
		"IPv6 first fragment of nothing but headers":          cut([]header{fragment6(0, true), options}, nil),
		"IPv6 first fragment with three bytes of TCP":         cut([]header{fragment6(0, true)}, tcp(40000, smtpPort, syn)[:3]),
		"IPv6 first fragment without TCP, and TCP as padding": padded.bytes(),
		"IPv6 nine extension headers":                         nine.bytes(),
		"IPv6 three bytes of TCP behind a header":             short.bytes(),
		"IPv6 segments, the first of the list":                detour(4, 0),
		"IPv6 routing header, the last of the list":           detour(0, 1),
		"IPv6 segments before nine extension headers":         detour(4, 0, nine.headers...),
		"IPv4 fragment inside the TCP header":                 inside.bytes(),
	}
}

// Tags that only carry a priority are read to their end; with one that names a
// VLAN a packet is another interface's.
func TestTags(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		packet := w.fromClient(w.origin, syn).bytes()
		for n := 1; n <= 5; n++ {
			for _, kind := range []uint16{0x8100, 0x88a8} {
				want := diverted(bpfReasonREASON_CLIENT_SYN)
				if n == 5 {
					want = dropped(bpfReasonREASON_CLIENT_TAGS)
				}
				g.wantFrame(tags(kind, n, 0, packet), want)
				if n < 5 {
					want = ignored
				}
				g.wantFrame(tags(kind, n, 7, packet), want)
			}
		}
	}
}

// wantFrame checks the outcome of a frame on the client side.
func (g *stage) wantFrame(data []byte, want outcome) {
	g.Helper()
	g.clearCounts()
	got, err := g.runTC(bpfProgSteerClient, data)
	must(g.T, err)
	if got.reason = g.onlyReason(); got != want {
		g.Errorf("%s, want %s\n%x", got, want, data)
	}
}

// tags is a frame with n tags, the last of which names a VLAN.
func tags(kind uint16, n int, vlan byte, packet []byte) []byte {
	f := ethernet(packet)
	inner := bytes.Clone(f[12:])
	f = f[:12]
	for i := range n {
		f = append(f, byte(kind>>8), byte(kind))
		if i < n-1 {
			f = append(f, 0xe0, 0)
		} else {
			f = append(f, 0xe0, vlan)
		}
	}
	return append(f, inner...)
}

// The program that a rule asks in FORWARD says yes to what the wall drops.
func TestForwardMatch(t *testing.T) {
	g := newStage(t)
	ask := func(packet []byte) (bool, string) {
		t.Helper()
		g.clearCounts()
		yes, err := g.set.programs[bpfProgSteerForwardMatch].Run(&ebpf.RunOptions{Data: ethernet(packet)})
		must(t, err)
		return yes != 0, g.onlyReason()
	}
	for what, c := range map[string]struct {
		packet []byte
		stop   bool
		reason string
	}{
		"SYN":                     {world6.fromClient(world6.origin, syn).bytes(), true, "forward-leak"},
		"ACK":                     {world6.fromClient(world6.origin, ack).bytes(), false, ""},
		"SYN to nobody":           {world4.fromClient(world4.nobody, syn).bytes(), false, ""},
		"SYN to a bypass":         {world4.fromClient(world4.bypass, syn).bytes(), false, "forward-bypass"},
		"SYN to the port's other": {segment(at(world4.client, 25), at(world4.origin, 26), syn).bytes(), false, ""},
	} {
		if stop, reason := ask(c.packet); stop != c.stop || reason != c.reason {
			t.Errorf("%s: %t %q, want %t %q", what, stop, reason, c.stop, c.reason)
		}
	}
	for what, p := range hidden(world4.origin, world6.origin) {
		if stop, reason := ask(p); !stop || reason != "forward-hidden" {
			t.Errorf("%s: %t %q", what, stop, reason)
		}
	}
	g.hang()
	for to, want := range map[netip.Addr]string{world4.closed: "forward-dead-closed", world4.opened: "forward-dead-open"} {
		if stop, reason := ask(world4.fromClient(to, syn).bytes()); stop != (to == world4.closed) || reason != want {
			t.Errorf("%s: %t %q", to, stop, reason)
		}
	}
}

// Each wall alone, and for each family: a SYN that nobody steered is answered
// by nobody, whatever took the steering away.
func TestEachWallAlone(t *testing.T) { eachDatapath(t, eachWallAlone) }

func eachWallAlone(t *testing.T, clsact bool) {
	g := newTriangle(t, clsact)
	g.attach(false)
	for _, w := range ways {
		g.origin.do(func() { listen(t, at(w.origin, smtpPort).String()) })
	}
	must(t, g.Remove(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: clsact}))
	g.wantAnswered()

	wall := plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true, Clsact: clsact}
	g.add(plan.Role{Interface: "dmz0", Side: plan.OriginSide})
	g.add(wall)
	g.wantStopped(bpfReasonREASON_WALL_LEAK)
	g.hang()
	g.wantStopped(bpfReasonREASON_WALL_DEAD_CLOSED)
	g.add(plan.Service{Name: "mx", Open: true})
	g.wantAnswered()
	g.add(plan.Service{Name: "mx"})
	must(t, g.Remove(wall))
	g.wantAnswered()

	if !hasNFLinks(t) {
		return
	}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		g.add(plan.Forward{Family: f})
	}
	g.wantAnswered() // the way is one of the origin side, which has a wall of its own
	must(t, g.Remove(plan.Role{Interface: "dmz0"}))
	g.wantStopped(bpfReasonREASON_FORWARD_DEAD_CLOSED)
	g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: heartbeat})
	must(t, g.inspector.Beat(1))
	g.wantStopped(bpfReasonREASON_FORWARD_LEAK)
	g.add(plan.Role{Interface: "ext0", Side: plan.BypassSide})
	g.wantAnswered()
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		must(t, g.Remove(plan.Forward{Family: f}))
	}
}

// What leaves by the origin side inside of another packet shows the wall there
// the outer one only, so FORWARD judges it.
func TestWrapped(t *testing.T) {
	needNFLinks(t) // without, the rule asks for all interfaces
	g := newTriangle(t, !hasTCX(t))
	g.attach(false)
	g.add(plan.Role{Interface: "dmz0", Side: plan.OriginSide})
	g.add(plan.TC{Interface: "dmz0", Side: plan.OriginSide, Egress: true, Clsact: g.clsact})
	g.add(plan.Forward{Family: plan.IPv4})
	g.add(plan.Forward{Family: plan.IPv6})
	must(t, g.Remove(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: g.clsact}))
	g.wantStopped(bpfReasonREASON_WALL_LEAK)
	wrap := foreignProgram(t, ebpf.LWTXmit, 0)
	for _, w := range ways {
		must(t, newWrappingRoute(w.origin, index(t, "dmz0"), wrap.FD()))
	}
	g.wantStopped(bpfReasonREASON_FORWARD_LEAK)
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		must(t, g.Remove(plan.Forward{Family: f}))
	}
}

// wantAnswered expects the origin itself to answer.
func (g *triangle) wantAnswered() {
	g.Helper()
	for _, w := range g.ways {
		g.client.do(func() {
			if err := g.tryDial(w.client, at(w.origin, smtpPort)); err != nil {
				g.Error(err)
			}
		})
	}
}

// wantStopped expects silence, and a reason.
func (g *triangle) wantStopped(r bpfReason) {
	g.Helper()
	for _, w := range g.ways {
		g.clearCounts()
		var fd int
		g.client.do(func() { fd = beginDial(g.T, w.client, at(w.origin, smtpPort)) })
		await(g.T, func() bool { return g.counts()[Reason(r)] > 0 })
		if state := tcpState(g.T, fd); state != tcpSynSent {
			g.Errorf("%s: %s: connection in state %d", w.client, Reason(r), state)
		}
		must(g.T, unix.Close(fd))
	}
}

// Netfilter links are made where the kernel has them, and said to be missing
// where not.
func TestNFLinks(t *testing.T) {
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	err := s.Add(plan.Forward{Family: plan.IPv6})
	if !hasNFLinks(t) {
		if err == nil {
			t.Error("a link was made all the same")
		}
		return
	}
	must(t, err)
	wantItems(t, s, []plan.Item{plan.Objects{}, plan.Forward{Family: plan.IPv6}})
}

// Hooks of others at our priorities keep neither an attach nor the programs of
// another build from being put in place.
func TestPrioritiesOfOthers(t *testing.T) {
	needNFLinks(t)
	s, _, _ := gateway(t)
	must(t, s.Add(plan.Objects{}))
	set, err := s.open()
	must(t, err)
	for range 2 {
		other, err := attachForward(plan.IPv4, set.programs[bpfProgSteerForward])
		must(t, err)
		defer other.Close()
	}
	must(t, s.Add(plan.Forward{Family: plan.IPv4}))
	must(t, s.dir().replace(bpfProgSteerOrigin, foreignProgram(t, ebpf.SchedCLS, 0)))
	must(t, s.Replace(plan.Objects{Fault: "another build"}, plan.Objects{}))
	wantItems(t, s, []plan.Item{plan.Objects{}, plan.Forward{Family: plan.IPv4}})
}

// hasNFLinks reports whether the kernel has netfilter links. One that should and
// does not fails the test.
func hasNFLinks(t *testing.T) bool {
	t.Helper()
	has, err := NFLinksSupported()
	must(t, err)
	if want := runningRelease(t) >= release(t, "6.4"); has != want {
		t.Fatalf("netfilter links supported: %t, want %t", has, want)
	}
	return has
}

// needNFLinks skips a test about what older kernels do not have;
// testenv/kernels/allowed-skips says on which.
func needNFLinks(t *testing.T) {
	t.Helper()
	if !hasNFLinks(t) {
		t.Skip("Linux before 6.4 has no netfilter links")
	}
}
