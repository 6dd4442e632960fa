package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

const (
	clientMark  = 1 << 20
	originMark  = 1 << 21
	foreignMark = 0x5a // bits that others have set
	heartbeat   = time.Minute
	smtpPort    = 25

	next = -1
	shot = 2
)

// stage is a sandbox with two worlds of addresses, services and listeners.
type stage struct {
	*testing.T
	*Steer
	inspector *Inspector
	set       *pinSet
	listeners []*net.TCPListener
}

// newStage installs everything but links, and registers listeners for mx.
func newStage(t *testing.T) *stage {
	t.Helper()
	s, _ := sandbox(t)
	g := &stage{T: t, Steer: s}
	g.add(plan.Objects{})
	g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: heartbeat})
	g.add(plan.Service{Name: "mx"})
	g.add(plan.Service{Name: "opened", Open: true})
	g.add(plan.Service{Name: "closed"})
	for _, w := range worlds {
		g.bind(w)
		for _, a := range w.all() {
			addAddress(t, a)
		}
	}
	var err error
	g.set, err = s.open()
	must(t, err)
	g.inspector, err = s.Inspector()
	must(t, err)
	t.Cleanup(func() { must(t, g.inspector.Close()) })
	must(t, g.inspector.Beat(1))
	g.register("mx")
	return g
}

func (g *stage) bind(w world) {
	bits := w.origin.BitLen()
	p := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, bits) }
	g.add(plan.Origin{Prefix: p(w.origin), Port: smtpPort})
	g.add(plan.Binding{Prefix: p(w.origin), Port: smtpPort, Service: "mx", Transit: true})
	g.add(plan.Binding{Prefix: p(w.opened), Port: smtpPort, Service: "opened", Transit: true})
	g.add(plan.Binding{Prefix: p(w.closed), Port: smtpPort, Service: "closed", Transit: true})
	g.add(plan.Binding{Prefix: p(w.bypass), Port: smtpPort})
	g.add(plan.Binding{Prefix: p(w.own), Port: smtpPort, Service: "mx", Addressed: true})
}

func (g *stage) add(i plan.Item) {
	g.Helper()
	must(g.T, g.Add(i))
}

// register makes a listener of each family and puts it into the slots.
func (g *stage) register(services ...string) {
	g.Helper()
	l4 := listen(g.T, "127.0.0.1:0")
	l6 := listen(g.T, "[::1]:0")
	must(g.T, g.inspector.Register(services, l4, l6))
	g.listeners = append(g.listeners, l4, l6)
}

// listen listens with plain TCP and IP_TRANSPARENT, as the inspector does.
func listen(t *testing.T, at string) *net.TCPListener {
	t.Helper()
	c := net.ListenConfig{Control: setOption(unix.SOL_IP, unix.IP_TRANSPARENT, 1)}
	c.SetMultipathTCP(false)
	l, err := c.Listen(t.Context(), "tcp", at)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func setOption(level, option, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
		return errors.Join(err, failed)
	}
}

// dial connects from an address, with a mark.
func dial(t *testing.T, from netip.Addr, to string, mark int) *net.TCPConn {
	t.Helper()
	return dialFrom(t, netip.AddrPortFrom(from, 0), to, mark)
}

// dialFrom connects from an address and port.
func dialFrom(t *testing.T, from netip.AddrPort, to string, mark int) *net.TCPConn {
	t.Helper()
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(from),
		Control:   setOption(unix.SOL_SOCKET, unix.SO_MARK, mark),
		Timeout:   10 * time.Second,
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(t.Context(), "tcp", to)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// connect makes a connection from one address to another at a port, and
// returns both ends.
func connect(t *testing.T, from, to netip.Addr, mark int) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l := listen(t, netip.AddrPortFrom(to, smtpPort).String())
	defer l.Close()
	dialled = dial(t, from, l.Addr().String(), mark)
	accepted, err := l.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { accepted.Close() })
	return dialled, accepted
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// hang makes the heartbeat too old: the last one was when the machine started,
// and the limit is short, for that may be not long ago.
func (g *stage) hang() {
	g.Helper()
	must(g.T, g.set.maps[bpfMapHeartbeat].Put(uint32(0), bpfHeartbeat{LastNs: 1, Instance: 1}))
	must(g.T, g.set.putSettings(plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: time.Millisecond}))
}

// counts returns the counters that are not zero.
func (g *stage) counts() map[Reason]uint64 {
	g.Helper()
	counters, err := g.set.counters()
	must(g.T, err)
	m := map[Reason]uint64{}
	for _, c := range counters {
		if c.Count > 0 {
			m[c.Reason] = c.Count
		}
	}
	return m
}

// clearCounts sets all counters to zero.
func (g *stage) clearCounts() {
	g.Helper()
	zero := make([]uint64, ebpf.MustPossibleCPU())
	for r := range g.counts() {
		must(g.T, g.set.maps[bpfMapStats].Put(uint32(r), zero))
	}
}

// outcome is what a program did with a packet.
type outcome struct {
	verdict int32
	mark    uint32
	reason  string // the counter that it raised, "" for none
}

func (o outcome) String() string {
	return fmt.Sprintf("verdict %d mark 0x%x reason %q", o.verdict, o.mark, o.reason)
}

// left, diverted and dropped are the three things that can happen.
func left(r bpfReason) outcome { return outcome{next, foreignMark, Reason(r).String()} }
func diverted(r bpfReason) outcome {
	return outcome{next, foreignMark | clientMark, Reason(r).String()}
}
func claimed(r bpfReason) outcome {
	return outcome{next, foreignMark | originMark, Reason(r).String()}
}
func dropped(r bpfReason) outcome { return outcome{shot, foreignMark, Reason(r).String()} }

var ignored = outcome{next, foreignMark, ""}

// The places of fields in struct __sk_buff.
const (
	markOffset    = 8
	ingressOffset = 36
)

// cameBy is the interface by which packets of the tests came in. It has no role
// unless a test gives it one, and it need not exist.
const cameBy = 4711

// forwarded is the struct __sk_buff of a packet that came in by cameBy, with a mark
// of somebody else.
func forwarded() []byte {
	b := make([]byte, ingressOffset+4)
	binary.NativeEndian.PutUint32(b[markOffset:], foreignMark)
	binary.NativeEndian.PutUint32(b[ingressOffset:], cameBy)
	return b
}

// runTC runs a TC program on a frame that came in by cameBy. It has a socket of
// the kernel's test run, as no packet from outside does.
func (g *stage) runTC(program string, packet []byte) (outcome, error) {
	out := make([]byte, 256)
	ret, err := g.set.programs[program].Run(&ebpf.RunOptions{Data: packet, Context: forwarded(), ContextOut: out})
	if err != nil {
		return outcome{}, err
	}
	return outcome{verdict: int32(ret), mark: binary.NativeEndian.Uint32(out[markOffset:])}, nil
}

// judge runs a packet through both programs of a hook, that for Ethernet and
// that which reads relative to the network header, and returns their common
// outcome. A test run always has an Ethernet header; TestTunnels has others.
func (g *stage) judge(hook plan.TC, packet []byte) outcome {
	g.Helper()
	var both [2]outcome
	for i, l2 := range []bool{true, false} {
		name, err := tcProgram(hook, l2)
		must(g.T, err)
		g.clearCounts()
		if both[i], err = g.runTC(name, ethernet(packet)); err != nil {
			g.Fatalf("%s on %x: %v", name, packet, err)
		}
		both[i].reason = g.onlyReason()
	}
	if both[0] != both[1] {
		g.Errorf("%s: by the Ethernet header %s, by the network header %s", hook, both[0], both[1])
	}
	return both[0]
}

// onlyReason names the counter that was raised.
func (g *stage) onlyReason() string {
	g.Helper()
	reason := ""
	for r, n := range g.counts() {
		if reason != "" || n != 1 {
			g.Fatalf("several reasons for one packet: %v", g.counts())
		}
		reason = r.String()
	}
	return reason
}

// want checks the outcome of a packet.
func (g *stage) want(hook plan.TC, what string, packet []byte, want outcome) {
	g.Helper()
	if got := g.judge(hook, packet); got != want {
		g.Errorf("%s: %s, want %s\n%x", what, got, want, packet)
	}
}
