package steer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// The hooks of TC, each with a program for Ethernet and one for other links.
var (
	clientHook = plan.TC{Side: plan.ClientSide}
	originHook = plan.TC{Side: plan.OriginSide}
	wallHook   = plan.TC{Side: plan.OriginSide, Egress: true}
)

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// fromClient is a segment of the client to port 25 of an address.
func (w world) fromClient(to netip.Addr, flags byte) ip {
	return segment(at(w.client, 40000), at(to, smtpPort), flags)
}

func TestClientSYN(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		for _, c := range []struct {
			what  string
			to    netip.Addr
			flags byte
			want  outcome
		}{
			{"SYN", w.origin, syn, diverted(bpfReasonREASON_CLIENT_SYN)},
			{"SYN with ECN", w.origin, syn | 0xc0, diverted(bpfReasonREASON_CLIENT_SYN)},
			{"SYN and FIN", w.origin, syn | fin, diverted(bpfReasonREASON_CLIENT_SYN)},
			{"SYN to an open service", w.opened, syn, left(bpfReasonREASON_CLIENT_ABSENT_OPEN)},
			{"SYN to a closed service", w.closed, syn, dropped(bpfReasonREASON_CLIENT_ABSENT_CLOSED)},
			{"SYN to a bypassed address", w.bypass, syn, left(bpfReasonREASON_CLIENT_BYPASS)},
			{"SYN to the gateway", w.own, syn, ignored},
			{"SYN to nobody", w.nobody, syn, ignored},
			{"SYN and ACK", w.origin, synAck, left(bpfReasonREASON_CLIENT_FORWARDED)},
			{"ACK of a stranger", w.origin, ack, left(bpfReasonREASON_CLIENT_FORWARDED)},
			{"RST of a stranger", w.origin, rst, left(bpfReasonREASON_CLIENT_FORWARDED)},
			{"ACK of a stranger to a closed service", w.closed, ack, left(bpfReasonREASON_CLIENT_FORWARDED)},
			{"ACK of a stranger to a bypassed address", w.bypass, ack, left(bpfReasonREASON_CLIENT_FORWARDED)},
			{"ACK to nobody", w.nobody, ack, ignored},
			{"no flags", w.origin, 0, left(bpfReasonREASON_CLIENT_FORWARDED)},
		} {
			g.want(clientHook, w.name()+" "+c.what, w.fromClient(c.to, c.flags).bytes(), c.want)
		}
		other := segment(at(w.client, 40000), at(w.origin, 26), syn)
		g.want(clientHook, w.name()+" SYN to another port", other.bytes(), ignored)
		reply := segment(at(w.client, smtpPort), at(w.origin, 40000), syn)
		g.want(clientHook, w.name()+" SYN from the port", reply.bytes(), ignored)
		udp := w.fromClient(w.origin, syn)
		udp.proto = protoUDP
		g.want(clientHook, w.name()+" UDP", udp.bytes(), ignored)
	}
}

func TestClientHung(t *testing.T) {
	g := newStage(t)
	g.register("opened", "closed")
	for _, w := range worlds {
		g.want(clientHook, w.name()+" fresh", w.fromClient(w.closed, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
	}
	g.hang()
	for _, w := range worlds {
		g.want(clientHook, w.name()+" hung, open", w.fromClient(w.opened, syn).bytes(), left(bpfReasonREASON_CLIENT_HUNG_OPEN))
		g.want(clientHook, w.name()+" hung, closed", w.fromClient(w.closed, syn).bytes(), dropped(bpfReasonREASON_CLIENT_HUNG_CLOSED))
	}
	ahead, err := clock{}.now()
	must(t, err)
	must(t, g.set.maps[bpfMapHeartbeat].Put(uint32(0), bpfHeartbeat{LastNs: uint64(ahead + time.Hour), Instance: 1}))
	g.want(clientHook, "a clock ahead of the coarse one", world4.fromClient(world4.closed, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
	must(t, g.set.maps[bpfMapHeartbeat].Put(uint32(0), bpfHeartbeat{}))
	g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark, Heartbeat: 1 << 62})
	g.want(clientHook, "never a heartbeat", world4.fromClient(world4.closed, syn).bytes(), dropped(bpfReasonREASON_CLIENT_HUNG_CLOSED))
	g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark})
	g.want(clientHook, "no limit", world4.fromClient(world4.closed, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
}

func TestClientWithoutSettingsLeavesEverything(t *testing.T) {
	g := newStage(t)
	must(t, g.Remove(plan.Settings{}))
	for _, w := range worlds {
		g.want(clientHook, w.name(), w.fromClient(w.origin, syn).bytes(), ignored)
		g.want(clientHook, w.name()+" closed", w.fromClient(w.closed, syn).bytes(), ignored)
	}
}

// A connection is diverted in every state, and its tuple nowhere else.
func TestClientSocket(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		client, server := connect(t, w.client, w.origin, 0)
		from := addrPort(client.LocalAddr())
		to := at(w.origin, smtpPort)
		ours := diverted(bpfReasonREASON_CLIENT_SOCKET)
		for _, flags := range []byte{ack, ack | fin, rst, 0} {
			g.want(clientHook, w.name()+" established", segment(from, to, flags).bytes(), ours)
		}
		g.want(clientHook, w.name()+" SYN on a connection", segment(from, to, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
		stranger := netip.AddrPortFrom(w.router, from.Port())
		g.want(clientHook, w.name()+" another client", segment(stranger, to, ack).bytes(), left(bpfReasonREASON_CLIENT_FORWARDED))

		g.add(plan.Binding{Prefix: netip.PrefixFrom(w.origin, w.origin.BitLen()), Port: smtpPort})
		g.want(clientHook, w.name()+" bypassed since", segment(from, to, ack).bytes(), ours)
		g.add(plan.Binding{Prefix: netip.PrefixFrom(w.origin, w.origin.BitLen()), Port: smtpPort, Service: "mx", Transit: true})

		must(t, server.Close()) // first: this end keeps TIME_WAIT
		must(t, client.Close())
		awaitState(t, timeWait, to, from)
		g.want(clientHook, w.name()+" TIME_WAIT", segment(from, to, ack).bytes(), ours)
	}
}

// A listener that defers the accept keeps the request socket after the
// handshake.
func TestClientRequestSocket(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		l := listen(t, at(w.origin, smtpPort).String())
		raw, err := l.SyscallConn()
		must(t, err)
		must(t, setOption(unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, 100)("", "", raw))
		client := dial(t, w.client, l.Addr().String(), 0)
		from := addrPort(client.LocalAddr())
		awaitState(t, synReceived, at(w.origin, smtpPort), from)
		g.want(clientHook, w.name(), segment(from, at(w.origin, smtpPort), ack).bytes(), diverted(bpfReasonREASON_CLIENT_SOCKET))
		l.Close()
	}
}

// TCP states as /proc/net/tcp shows them.
const (
	synReceived = "03"
	timeWait    = "06"
)

// awaitState waits until a socket is in a state.
func awaitState(t *testing.T, state string, local, remote netip.AddrPort) {
	t.Helper()
	file := "/proc/thread-self/net/tcp"
	if local.Addr().Is6() {
		file += "6"
	}
	want := fmt.Sprintf(" %s %s %s ", procAddr(local), procAddr(remote), state)
	await(t, func() bool {
		text, err := os.ReadFile(file)
		must(t, err)
		return bytes.Contains(text, []byte(want))
	})
}

// procAddr writes an address as /proc/net/tcp does: words in host order.
func procAddr(a netip.AddrPort) string {
	s := ""
	for word := range slices.Chunk(a.Addr().AsSlice(), 4) {
		s += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(word))
	}
	return fmt.Sprintf("%s:%04X", s, a.Port())
}

// A handshake that was answered with a cookie has no socket before its ACK.
func TestClientCookie(t *testing.T) {
	g := newStage(t)
	must(t, os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0))
	for _, w := range worlds {
		to := at(w.origin, smtpPort)
		l := listen(t, to.String())
		if w.origin.Is4() {
			must(t, g.inspector.Register([]string{"mx"}, l, nil))
		} else {
			must(t, g.inspector.Register([]string{"mx"}, nil, l))
		}
		lo := sniff(t, "lo")
		client := dial(t, w.client, to.String(), 0)
		server, err := l.AcceptTCP()
		must(t, err)
		from := addrPort(client.LocalAddr())
		third := lo.await(func(p []byte) bool { return isHandshakeEnd(p, w, from.Port()) })
		must(t, client.SetLinger(0))
		must(t, client.Close())
		must(t, server.Close())

		forged := bytes.Clone(third)
		forged[ipLen(w)+8] ^= 1 // the acknowledged number
		g.want(clientHook, w.name()+" the ACK with the cookie", third, diverted(bpfReasonREASON_CLIENT_COOKIE))
		g.want(clientHook, w.name()+" another ACK", forged, left(bpfReasonREASON_CLIENT_FORWARDED))
		g.add(plan.Binding{Prefix: netip.PrefixFrom(w.origin, w.origin.BitLen()), Port: smtpPort})
		g.want(clientHook, w.name()+" with a bypass", third, left(bpfReasonREASON_CLIENT_FORWARDED))
	}
}

func ipLen(w world) int {
	if w.client.Is4() {
		return 20
	}
	return 40
}

// isHandshakeEnd picks the ACK without data from a port of the client.
func isHandshakeEnd(p []byte, w world, port uint16) bool {
	if p[0]>>4 == 4 != w.client.Is4() {
		return false
	}
	header := p[ipLen(w):]
	return binary.BigEndian.Uint16(header) == port && header[13] == ack && len(header) == int(header[12]>>4)*4
}

func TestClientFragments(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		first := w.fromClient(w.origin, syn)
		whole := first.payload
		g.want(clientHook, w.name()+" first fragment", first.asFragment(0, true).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
		g.want(clientHook, w.name()+" atomic fragment", first.asFragment(0, false).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
		g.want(clientHook, w.name()+" later fragment", first.asFragment(3, true).bytes(), left(bpfReasonREASON_CLIENT_FRAGMENT))
		g.want(clientHook, w.name()+" last fragment", first.asFragment(3, false).bytes(), left(bpfReasonREASON_CLIENT_FRAGMENT))
		stranger := w.fromClient(w.nobody, syn)
		g.want(clientHook, w.name()+" first fragment to nobody", stranger.asFragment(0, true).bytes(), ignored)
		for n := 4; n < len(whole); n++ {
			tiny := first
			tiny.payload = whole[:n]
			what := fmt.Sprintf("%s first fragment with %d bytes of TCP", w.name(), n)
			g.want(clientHook, what, tiny.asFragment(0, true).bytes(), diverted(bpfReasonREASON_CLIENT_TINY))
			tiny.payload, tiny.claim = append(bytes.Clone(whole[:n]), tcp(0, 0, ack)...), -20
			g.want(clientHook, what+" and padding", tiny.asFragment(0, true).bytes(), diverted(bpfReasonREASON_CLIENT_TINY))
			tiny.dst = w.closed
			g.want(clientHook, what+" to a closed service", tiny.asFragment(0, true).bytes(), dropped(bpfReasonREASON_CLIENT_ABSENT_CLOSED))
			tiny.claim, tiny.payload = 0, whole[:n]
			g.want(clientHook, what+", not a fragment", tiny.bytes(), ignored)
		}
	}
}

func TestClientOptions(t *testing.T) {
	g := newStage(t)
	for n := 4; n <= 40; n += 4 {
		p := world4.fromClient(world4.origin, syn)
		p.options = bytes.Repeat([]byte{1}, n)
		g.want(clientHook, fmt.Sprintf("%d bytes of IP options", n), p.bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
	}
}

// A packet of more than 64 KiB, merged by the interface, has a length of 0.
func TestClientBigTCP(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		p := w.fromClient(w.origin, syn)
		p.claim = -len(p.payload)
		if w.client.Is4() {
			p.claim -= 20
		}
		g.want(clientHook, w.name(), p.bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
	}
}

// What is no IP header is not read as one, whatever the EtherType says.
func TestClientMalformed(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		packet := w.fromClient(w.origin, syn).bytes()
		packet[0] = 5<<4 | packet[0]&0x0f
		f := ethernet(packet)
		if w.client.Is6() {
			f = frame(0x86dd, packet)
		}
		if o, err := g.runTC(bpfProgSteerClient, f); err != nil || o.mark != foreignMark {
			t.Errorf("%s of version 5: %s %v", w.name(), o, err)
		}
	}
	// With a header length of 16 the ports would be the destination: port 25.
	to := netip.MustParseAddr("8.0.0.25")
	g.add(plan.Binding{Prefix: netip.PrefixFrom(to, 32), Port: smtpPort, Service: "mx", Transit: true})
	short := ip{src: world4.client, dst: to, proto: protoTCP, payload: bytes.Repeat([]byte{syn}, 40)}.bytes()
	short[0] = 4<<4 | 4
	g.want(clientHook, "header of 16 bytes", short, ignored)
}

func TestClientExtensionHeaders(t *testing.T) {
	g := newStage(t)
	ours, hidden := diverted(bpfReasonREASON_CLIENT_SYN), dropped(bpfReasonREASON_CLIENT_HIDDEN)
	chain := func(n int) []header { return slices.Repeat([]header{option(extOptions, 1)}, n) }
	for _, c := range []struct {
		what    string
		headers []header
		want    outcome
	}{
		{"hop-by-hop options", []header{option(extHop, 1)}, ours},
		{"destination options of 64 bytes", []header{option(extOptions, 8)}, ours},
		{"destination options of 2048 bytes", []header{option(extOptions, 256)}, ours},
		{"a routing header at its end", []header{routing(0)}, ours},
		{"a routing header with segments left", []header{routing(1)}, ours},
		{"one of each", []header{option(extHop, 1), option(extOptions, 2), routing(0), fragment6(0, false), option(extOptions, 1)}, ours},
		{"eight", chain(8), ours},
		{"nine", chain(9), hidden},
		{"eight of 400 bytes", slices.Repeat([]header{option(extOptions, 50)}, 8), ours},
		{"two, the first of which ends behind the packet", []header{{extOptions, []byte{5, 0, 0, 0, 0, 0, 0}}, option(extOptions, 1)}, hidden},
		{"one that ends behind the packet", []header{{extOptions, []byte{5, 0, 0, 0, 0, 0, 0}}}, hidden},
		{"AH", []header{{extAH, append([]byte{1}, make([]byte, 10)...)}}, ours},
		{"mobility, HIP and shim6", []header{option(extMobility, 1), option(extHIP, 1), option(extShim6, 1)}, ours},
		{"ESP", []header{{extESP, make([]byte, 7)}}, ignored},
		{"a header nobody knows", []header{{253, make([]byte, 7)}}, ignored},
		{"a later fragment with options", []header{option(extHop, 1), fragment6(4, true)}, left(bpfReasonREASON_CLIENT_FRAGMENT)},
	} {
		p := world6.fromClient(world6.origin, syn)
		p.headers = c.headers
		g.want(clientHook, c.what, p.bytes(), c.want)
	}
	late := ip{src: world6.client, dst: world6.origin, proto: extOptions, headers: []header{fragment6(4, true)}}
	late.payload = append([]byte{protoTCP, 0, 0, 0, 0, 0, 0, 0}, tcp(40000, smtpPort, syn)...)
	g.want(clientHook, "a later fragment that looks like options", late.bytes(), ignored)
}

// The ICMP errors that count are about packets which a socket of ours sent.
func TestClientICMP(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		client, _ := connect(t, w.client, w.origin, 0)
		peer := addrPort(client.LocalAddr())
		sent := segment(at(w.origin, smtpPort), peer, ack)
		ours := diverted(bpfReasonREASON_CLIENT_ICMP)
		for _, kind := range errorKinds(w.client) {
			what := fmt.Sprintf("%s ICMP type %d", w.name(), kind)
			g.want(clientHook, what, icmpError(w.router, w.origin, kind, sent.bytes()).bytes(), ours)
			cut := sent.bytes()[:ipLen(w)+8]
			g.want(clientHook, what+" about 8 bytes of TCP", icmpError(w.router, w.origin, kind, cut).bytes(), ours)
		}
		for _, kind := range otherKinds(w.client) {
			what := fmt.Sprintf("%s ICMP type %d", w.name(), kind)
			g.want(clientHook, what, icmpError(w.router, w.origin, kind, sent.bytes()).bytes(), ignored)
		}
		kind := errorKinds(w.client)[0]
		about := func(what string, inner ip, want outcome) {
			t.Helper()
			g.want(clientHook, w.name()+" ICMP about "+what, icmpError(w.router, w.origin, kind, inner.bytes()).bytes(), want)
		}
		about("a first fragment", sent.asFragment(0, true), ours)
		about("a later fragment", sent.asFragment(2, true), ignored)
		about("a connection that is not ours", segment(at(w.origin, smtpPort), at(w.router, peer.Port()), ack), ignored)
		about("the other direction", segment(peer, at(w.origin, smtpPort), ack), ignored)
		about("another port", segment(at(w.origin, 26), peer, ack), ignored)
		udp := sent
		udp.proto = protoUDP
		about("UDP", udp, ignored)
		g.want(clientHook, w.name()+" ICMP to another than the sender", icmpError(w.router, w.nobody, kind, sent.bytes()).bytes(), ignored)
		g.want(clientHook, w.name()+" fragment of ICMP", icmpError(w.router, w.origin, kind, sent.bytes()).asFragment(0, true).bytes(), ignored)
		unbound := segment(at(w.nobody, smtpPort), peer, ack)
		g.want(clientHook, w.name()+" ICMP about an unbound address", icmpError(w.router, w.nobody, kind, unbound.bytes()).bytes(), ignored)
		dialled, _ := connect(t, w.client, w.own, 0)
		addressed := segment(at(w.own, smtpPort), addrPort(dialled.LocalAddr()), ack)
		g.want(clientHook, w.name()+" ICMP about an addressed connection", icmpError(w.router, w.own, kind, addressed.bytes()).bytes(), ignored)
		g.checkInnerHeaders(w, kind, sent)
	}
}

// checkInnerHeaders puts options into the packet that an error is about.
func (g *stage) checkInnerHeaders(w world, kind byte, sent ip) {
	g.Helper()
	if w.client.Is4() {
		sent.options = make([]byte, 40)
	} else {
		sent.headers = []header{option(extHop, 1), option(extOptions, 3)}
	}
	p := icmpError(w.router, w.origin, kind, sent.bytes())
	g.want(clientHook, w.name()+" ICMP about a packet with options", p.bytes(), diverted(bpfReasonREASON_CLIENT_ICMP))
}

// A client's packet does not get into the inspector's own connection to an origin.
func TestClientIntruder(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		for mark, want := range map[int]outcome{
			originMark: dropped(bpfReasonREASON_CLIENT_INTRUDER),
			0:          left(bpfReasonREASON_CLIENT_FORWARDED), // somebody else's
		} {
			leg := addrPort(halfDial(t, w.client, at(w.origin, smtpPort), mark).LocalAddr())
			g.want(clientHook, fmt.Sprintf("%s, mark %d", w.name(), mark), segment(leg, at(w.origin, smtpPort), ack).bytes(), want)
			other := netip.AddrPortFrom(leg.Addr(), leg.Port()+1)
			g.want(clientHook, w.name()+" by another port", segment(other, at(w.origin, smtpPort), ack).bytes(), left(bpfReasonREASON_CLIENT_FORWARDED))
		}
	}
}

// halfDial is a connection of which the other end is not here.
func halfDial(t *testing.T, from netip.Addr, to netip.AddrPort, mark int) net.Conn {
	t.Helper()
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
			}), err)
		},
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(t.Context(), "tcp", to.String())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
