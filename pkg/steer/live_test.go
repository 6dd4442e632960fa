package steer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// triangle is client, gateway and origin, each in a network namespace of its
// own; the sandbox is the gateway.
type triangle struct {
	*stage
	client, origin *space
	clsact         bool  // how the TC programs are attached
	ways           []way // of the families that all links carry
}

// eachDatapath runs a test with clsact filters, and with TCX links where the
// kernel has them.
func eachDatapath(t *testing.T, f func(t *testing.T, clsact bool)) {
	t.Run("clsact", func(t *testing.T) { f(t, true) })
	if hasTCX(t) {
		t.Run("tcx", func(t *testing.T) { f(t, false) })
	}
}

// way is the addresses of one family in the triangle.
type way struct{ client, gateway, inner, origin netip.Addr }

var (
	way4 = newWay("192.0.2.2", "192.0.2.1", "198.51.100.1", "198.51.100.2")
	way6 = newWay("2001:db8:1::2", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::2")
	ways = []way{way4, way6}
)

func newWay(a ...string) way {
	p := netip.MustParseAddr
	return way{p(a[0]), p(a[1]), p(a[2]), p(a[3])}
}

// with is an address with the length of the test's networks.
func with(a netip.Addr) string {
	if a.Is4() {
		return netip.PrefixFrom(a, 24).String()
	}
	return netip.PrefixFrom(a, 64).String()
}

const steeredTable = 100

// newTriangle wires the three, routes both ways, and makes the rules that bring
// marked packets to the gateway's sockets. Nothing of steer is attached.
func newTriangle(t *testing.T, clsact bool) *triangle {
	t.Helper()
	g := unwired(t, clsact)
	wire(t, "ext0", "c0", g.client)
	wire(t, "dmz0", "o0", g.origin)
	g.connect(ways)
	return g
}

// unwired is the three without links.
func unwired(t *testing.T, clsact bool) *triangle {
	t.Helper()
	s, _ := sandbox(t)
	s.UseFilters(clsactFilters{map[plan.TC]ebpf.ProgramID{}})
	return &triangle{stage: &stage{T: t, Steer: s}, client: newSpace(t), origin: newSpace(t), clsact: clsact}
}

// connect gives addresses to links, and routes to all.
func (g *triangle) connect(by []way) {
	t := g.T
	t.Helper()
	g.ways = by
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	for _, w := range by {
		give(t, "ext0", with(w.gateway))
		give(t, "dmz0", with(w.inner))
		g.client.do(func() {
			give(t, "c0", with(w.client))
			must(t, newDefaultRoute(w.gateway))
		})
		g.origin.do(func() {
			give(t, "o0", with(w.origin))
			must(t, newDefaultRoute(w.inner))
		})
		must(t, newLocalRoute(family(w.client), steeredTable))
		must(t, newMarkRule(family(w.client), "ext0", clientMark, steeredTable))
		must(t, newMarkRule(family(w.client), "dmz0", originMark, steeredTable))
	}
}

// items is a plan for the triangle; port 2525 of the gateway is addressed,
// port 25 of the origin transit.
func (g *triangle) items(open bool) []plan.Item {
	items := []plan.Item{
		plan.Objects{},
		plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: heartbeat},
		plan.Service{Name: "mx", Open: open},
		plan.Role{Interface: "ext0", Side: plan.ClientSide},
		plan.Lookup{},
		plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: g.clsact},
		plan.TC{Interface: "dmz0", Side: plan.OriginSide, Clsact: g.clsact},
	}
	for _, w := range g.ways {
		bits := w.client.BitLen()
		items = append(items,
			plan.Origin{Prefix: netip.PrefixFrom(w.origin, bits), Port: smtpPort},
			plan.Binding{Prefix: netip.PrefixFrom(w.origin, bits), Port: smtpPort, Service: "mx", Transit: true},
			plan.Binding{Prefix: netip.PrefixFrom(w.gateway, bits), Port: addressedPort, Service: "mx", Addressed: true})
	}
	return items
}

const addressedPort = 2525

// attach applies the items and starts an inspector that only has listeners.
func (g *triangle) attach(open bool) {
	g.Helper()
	g.apply(open)
	g.inspector = g.newInspector()
	must(g.T, g.inspector.Beat(1))
	g.register("mx")
}

// apply brings the items about.
func (g *triangle) apply(open bool) {
	g.Helper()
	apply(g.T, g.Steer, g.items(open))
	var err error
	g.set, err = g.Steer.open()
	must(g.T, err)
}

// listener is the inspector's for a way.
func (g *triangle) listener(w way) *net.TCPListener {
	if w.client.Is4() {
		return g.listeners[0]
	}
	return g.listeners[1]
}

// accept takes a connection that is there already.
func accept(t *testing.T, l *net.TCPListener) *net.TCPConn {
	t.Helper()
	must(t, l.SetDeadline(time.Now().Add(10*time.Second)))
	c, err := l.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// dialFrom connects from inside a network namespace.
func (s *space) dial(from netip.Addr, to netip.AddrPort) (c *net.TCPConn) {
	s.t.Helper()
	s.do(func() { c = dial(s.t, from, to.String(), 0) })
	return c
}

// converse sends a few packets each way.
func converse(t *testing.T, a, b *net.TCPConn) {
	t.Helper()
	for _, pair := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		for n := range 3 {
			sent := bytes.Repeat([]byte{byte(n)}, 3000)
			_, err := pair[0].Write(sent)
			must(t, err)
			got := make([]byte, len(sent))
			must(t, pair[1].SetReadDeadline(time.Now().Add(10*time.Second)))
			_, err = io.ReadFull(pair[1], got)
			must(t, err)
			if !bytes.Equal(got, sent) {
				t.Fatal("other bytes arrived")
			}
		}
	}
}

// wantEnds checks whom a connection is between.
func wantEnds(t *testing.T, c *net.TCPConn, local, remote netip.AddrPort) {
	t.Helper()
	if got := addrPort(c.LocalAddr()); got != local {
		t.Errorf("local end %s, want %s", got, local)
	}
	if got := addrPort(c.RemoteAddr()); got != remote {
		t.Errorf("remote end %s, want %s", got, remote)
	}
}

// Connections to the gateway's address reach the inspector by the client's
// interface, and by no other.
func TestSteeredConnections(t *testing.T) {
	g := newTriangle(t, true)
	g.attach(false)
	for _, w := range ways {
		to := at(w.gateway, addressedPort)
		g.wantAddressed(w)
		g.clearCounts()
		var err error
		g.origin.do(func() { err = g.tryDial(w.origin, to) })
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("from the origin's side: %v", err)
		}
		g.client.do(func() { err = g.tryDial(w.client, at(w.inner, addressedPort)) })
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("to another address: %v", err)
		}
		n := g.counts()
		if n[Reason(bpfReasonREASON_LOOKUP_INTERFACE)] == 0 || n[Reason(bpfReasonREASON_LOOKUP_UNBOUND)] == 0 {
			t.Error(n)
		}
	}
}

// wantAddressed converses with the inspector at the gateway's address.
func (g *triangle) wantAddressed(w way) {
	g.Helper()
	to := at(w.gateway, addressedPort)
	c := g.client.dial(w.client, to)
	a := accept(g.T, g.listener(w))
	wantEnds(g.T, a, to, addrPort(c.LocalAddr()))
	converse(g.T, c, a)
}

// Not even a binding of every address catches mail to the loopback interface.
func TestLoopbackIsLeftAlone(t *testing.T) {
	const port = 2526
	g := newTriangle(t, true)
	g.attach(false)
	for n, loopback := range []string{"127.0.0.1", "::1"} {
		w, own := ways[n], netip.MustParseAddr(loopback)
		all := netip.PrefixFrom(own, 0).Masked()
		g.add(plan.Binding{Prefix: all, Port: port, Service: "mx", Addressed: true})
		converse(t, g.client.dial(w.client, at(w.inner, port)), accept(t, g.listener(w)))
		if err := g.tryDial(own, at(own, port)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", loopback, err)
		}
		l := listen(t, at(own, port).String()) // a mail server of the gateway's own
		converse(t, dial(t, own, at(own, port).String(), 0), accept(t, l))
	}
}

func (g *stage) tryDial(from netip.Addr, to netip.AddrPort) error {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(at(from, 0)), Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", to.String())
	if err == nil {
		c.Close()
	}
	return err
}

// The whole of it: a client's connection to the origin's address is taken by
// the inspector, whose own to the origin bears the client's address.
func TestTransitAndForged(t *testing.T) { eachDatapath(t, transitAndForged) }

func transitAndForged(t *testing.T, clsact bool) {
	g := newTriangle(t, clsact)
	g.attach(false)
	for _, w := range ways {
		g.wantTransit(w)
	}
}

// wantTransit converses with the inspector at the origin's address, and from the
// client's address with the origin.
func (g *triangle) wantTransit(w way) {
	t := g.T
	t.Helper()
	var served *net.TCPListener
	g.origin.do(func() { served = listen(t, at(w.origin, smtpPort).String()) })
	to := at(w.origin, smtpPort)
	g.clearCounts()
	c := g.client.dial(w.client, to)
	clientLeg := accept(t, g.listener(w))
	wantEnds(t, clientLeg, to, addrPort(c.LocalAddr()))
	converse(t, c, clientLeg)

	originLeg := g.forge(w.client, to)
	o := accept(t, served)
	wantEnds(t, o, to, addrPort(originLeg.LocalAddr()))
	converse(t, originLeg, o)

	n := g.counts()
	for _, r := range []bpfReason{bpfReasonREASON_CLIENT_SYN, bpfReasonREASON_CLIENT_SOCKET, bpfReasonREASON_ORIGIN_SOCKET} {
		if n[Reason(r)] == 0 {
			t.Errorf("%s: no %s in %v", w.client, Reason(r), n)
		}
	}
	g.gatewaysOwn(w, to, served)
}

// forge connects with the client's address, as the inspector does.
func (g *triangle) forge(from netip.Addr, to netip.AddrPort) *net.TCPConn {
	g.Helper()
	domain, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
	if from.Is6() {
		domain, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(g.T, err)
	must(g.T, unix.SetsockoptInt(fd, level, option, 1))
	must(g.T, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, originMark))
	must(g.T, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10})) // of connect too
	must(g.T, unix.Bind(fd, sockaddr(at(from, 0))))
	must(g.T, unix.Connect(fd, sockaddr(to)))
	f := os.NewFile(uintptr(fd), "origin leg")
	defer f.Close()
	c, err := net.FileConn(f)
	must(g.T, err)
	g.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// gatewaysOwn connects to the origin as the gateway: never marked.
func (g *triangle) gatewaysOwn(w way, to netip.AddrPort, served *net.TCPListener) {
	g.Helper()
	g.clearCounts()
	own := dial(g.T, w.inner, to.String(), 0)
	converse(g.T, own, accept(g.T, served))
	n := g.counts()
	if n[Reason(bpfReasonREASON_ORIGIN_FOREIGN)] == 0 || n[Reason(bpfReasonREASON_ORIGIN_SOCKET)] > 0 {
		g.Errorf("the gateway's own connection: %v", n)
	}
}

// Connections that were forwarded before the attach live on, in both
// directions, and new ones are taken.
func TestForwardedBefore(t *testing.T) { eachDatapath(t, forwardedBefore) }

func forwardedBefore(t *testing.T, clsact bool) {
	g := newTriangle(t, clsact)
	type before struct{ c, o *net.TCPConn }
	var all []before
	for _, w := range ways {
		var served *net.TCPListener
		g.origin.do(func() { served = listen(t, at(w.origin, smtpPort).String()) })
		c := g.client.dial(w.client, at(w.origin, smtpPort))
		all = append(all, before{c, accept(t, served)})
	}
	g.attach(false)
	for n, w := range ways {
		converse(t, all[n].c, all[n].o)
		converse(t, g.client.dial(w.client, at(w.origin, smtpPort)), accept(t, g.listener(w)))
	}
	n := g.counts()
	if n[Reason(bpfReasonREASON_CLIENT_FORWARDED)] == 0 || n[Reason(bpfReasonREASON_ORIGIN_FORWARDED)] == 0 {
		t.Error(n)
	}
}

// A dead and a hung inspector, closed and open: it takes effect by itself.
func TestFailPolicy(t *testing.T) { eachDatapath(t, failPolicy) }

func failPolicy(t *testing.T, clsact bool) {
	g := newTriangle(t, clsact)
	g.attach(false)
	for _, w := range ways {
		g.origin.do(func() { listen(t, at(w.origin, smtpPort).String()) })
	}
	g.hang()
	g.wantClosed(bpfReasonREASON_CLIENT_HUNG_CLOSED, bpfReasonREASON_LOOKUP_HUNG_CLOSED)
	g.apply(true)
	g.hang()
	g.wantOpen(bpfReasonREASON_CLIENT_HUNG_OPEN)
	g.apply(true)
	must(t, g.inspector.Beat(1))
	for _, l := range g.listeners {
		must(t, l.Close())
	}
	g.wantOpen(bpfReasonREASON_CLIENT_ABSENT_OPEN)
	g.apply(false)
	g.wantClosed(bpfReasonREASON_CLIENT_ABSENT_CLOSED, bpfReasonREASON_LOOKUP_ABSENT_CLOSED)
	g.register("mx")
	for _, w := range ways { // a new inspector takes over without another attach
		converse(t, g.client.dial(w.client, at(w.origin, smtpPort)), accept(t, g.newest(w)))
	}
}

// newest is the listener that was registered last for a way.
func (g *triangle) newest(w way) *net.TCPListener {
	n := len(g.listeners)
	if w.client.Is4() {
		return g.listeners[n-2]
	}
	return g.listeners[n-1]
}

// wantClosed expects silence for transit and a reset for addressed.
func (g *triangle) wantClosed(transit, addressed bpfReason) {
	g.Helper()
	for _, w := range ways {
		g.clearCounts()
		var fd int
		g.client.do(func() { fd = beginDial(g.T, w.client, at(w.origin, smtpPort)) })
		await(g.T, func() bool { return g.counts()[Reason(transit)] > 0 })
		if state := tcpState(g.T, fd); state != tcpSynSent {
			g.Errorf("%s: transit connection in state %d", w.client, state)
		}
		must(g.T, unix.Close(fd))
		var err error
		g.client.do(func() { err = g.tryDial(w.client, at(w.gateway, addressedPort)) })
		if !errors.Is(err, unix.ECONNREFUSED) {
			g.Errorf("%s: addressed connection: %v", w.client, err)
		}
		if g.counts()[Reason(addressed)] == 0 {
			g.Errorf("no %s in %v", Reason(addressed), g.counts())
		}
	}
}

// beginDial sends a SYN.
func beginDial(t *testing.T, from netip.Addr, to netip.AddrPort) (fd int) {
	t.Helper()
	return beginDialFrom(t, at(from, 0), to)
}

// beginDialFrom sends a SYN from a port.
func beginDialFrom(t *testing.T, from, to netip.AddrPort) (fd int) {
	t.Helper()
	domain := unix.AF_INET
	if from.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	must(t, unix.Bind(fd, sockaddr(from)))
	if err := unix.Connect(fd, sockaddr(to)); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	return fd
}

const tcpSynSent = 2

func tcpState(t *testing.T, fd int) uint8 {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	must(t, err)
	return info.State
}

// wantOpen expects the origin itself to answer.
func (g *triangle) wantOpen(r bpfReason) {
	g.Helper()
	for _, w := range ways {
		g.clearCounts()
		g.client.do(func() {
			if err := g.tryDial(w.client, at(w.origin, smtpPort)); err != nil {
				g.Error(err)
			}
		})
		if g.counts()[Reason(r)] == 0 {
			g.Errorf("no %s in %v", Reason(r), g.counts())
		}
	}
}

// A listener is handed over under load without a refused connection.
func TestHandover(t *testing.T) {
	g := newTriangle(t, true)
	g.attach(false)
	to := at(way4.gateway, addressedPort)
	for range 50 {
		old := g.newest(way4)
		c := g.client.dial(way4.client, to)
		successor := g.newInspector()
		l4 := listen(t, "127.0.0.1:0")
		must(t, successor.Register([]string{"mx"}, l4, nil))
		converse(t, c, accept(t, old)) // what was queued is the former owner's
		must(t, g.inspector.Unregister([]string{"mx"}))
		must(t, old.Close())
		c = g.client.dial(way4.client, to)
		converse(t, c, accept(t, l4))
		g.inspector = successor
		g.listeners = append(g.listeners, l4, g.listeners[1])
	}
}

// A program behind ours sees every packet, ours and others', with its mark.
func TestForeignProgramStillRuns(t *testing.T) { eachDatapath(t, foreignProgramStillRuns) }

func foreignProgramStillRuns(t *testing.T, clsact bool) {
	g := newTriangle(t, clsact)
	g.attach(true)
	marks, foreign := g.attachBehind(clsact)
	g.client.dial(way4.client, at(way4.origin, smtpPort))
	if seen := marksSeen(t, marks); !slices.Contains(seen, clientMark) {
		t.Errorf("the program behind saw the marks %v", seen)
	}
	must(t, g.Remove(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: clsact}))
	before := foreign()
	g.client.do(func() { must(t, unix.Close(beginDial(t, way4.client, at(way4.origin, smtpPort)))) })
	await(t, func() bool { return foreign() > before })
}

// attachBehind attaches a foreign program behind ours on ext0. It notes the
// marks that it sees, and runs counts its packets.
func (g *stage) attachBehind(clsact bool) (marks *ebpf.Map, runs func() uint64) {
	g.Helper()
	marks, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	must(g.T, err)
	g.Cleanup(func() { marks.Close() })
	p, err := ebpf.NewProgram(markCounter(marks))
	must(g.T, err)
	g.Cleanup(func() { p.Close() })
	ifindex := index(g.T, "ext0")
	if clsact {
		if err := newClsact(ifindex); !errors.Is(err, unix.EEXIST) {
			must(g.T, err)
		}
		must(g.T, putFilter(ifindex, ingressParent, 100, p.FD(), "foreign"))
	} else {
		l, err := link.AttachTCX(link.TCXOptions{Interface: int(ifindex), Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
		must(g.T, err)
		g.Cleanup(func() { l.Close() })
	}
	return marks, func() (n uint64) {
		for _, mark := range marksSeen(g.T, marks) {
			var seen uint64
			must(g.T, marks.Lookup(mark, &seen))
			n += seen
		}
		return n
	}
}

// markCounter counts the packets that it sees by mark.
func markCounter(marks *ebpf.Map) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, markOffset, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, marks.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "first"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Ja.Label("out"),
			asm.Mov.Imm(asm.R1, 1).WithSymbol("first"),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -16),
			asm.Mov.Imm(asm.R4, 0),
			asm.LoadMapPtr(asm.R1, marks.FD()),
			asm.FnMapUpdateElem.Call(),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
			asm.Return(),
		},
	}
}
