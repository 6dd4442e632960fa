package steer

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Addresses of the tests.
type world struct {
	client, router netip.Addr // the other ends
	origin         netip.Addr // transit, service mx, which has a listener
	opened, closed netip.Addr // transit, services without a listener
	bypass         netip.Addr
	own            netip.Addr // addressed, service mx
	nobody         netip.Addr // unbound
}

var (
	world4 = newWorld("8.0.0.2", "8.0.0.1", "8.0.1.1", "8.0.1.2", "8.0.1.3", "8.0.1.4", "8.0.1.5", "8.0.1.6")
	world6 = newWorld("2001:db8:86dd::2", "2001:db8:86dd::1", "2001:db8:86dd:1::1", "2001:db8:86dd:1::2",
		"2001:db8:86dd:1::3", "2001:db8:86dd:1::4", "2001:db8:86dd:1::5", "2001:db8:86dd:1::6")
	worlds = []world{world4, world6}
)

func newWorld(a ...string) world {
	p := netip.MustParseAddr
	return world{p(a[0]), p(a[1]), p(a[2]), p(a[3]), p(a[4]), p(a[5]), p(a[6]), p(a[7])}
}

// all returns the addresses that the gateway of the tests answers for.
func (w world) all() []netip.Addr {
	return []netip.Addr{w.client, w.router, w.origin, w.opened, w.closed, w.bypass, w.own, w.nobody}
}

func (w world) name() string {
	if w.client.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

const (
	syn    = 0x02
	rst    = 0x04
	ack    = 0x10
	synAck = syn | ack
	fin    = 0x01

	protoTCP    = 6
	protoUDP    = 17
	protoICMP   = 1
	protoICMPv6 = 58

	extHop      = 0
	extRouting  = 43
	extFragment = 44
	extESP      = 50
	extAH       = 51
	extOptions  = 60
	extMobility = 135
	extHIP      = 139
	extShim6    = 140
)

// tcp returns a TCP header.
func tcp(sport, dport uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	b[12] = 5 << 4
	b[13] = flags
	return b
}

// header is an IPv6 extension header: its kind, and all of it but the first
// byte.
type header struct {
	kind byte
	rest []byte
}

// ip is a packet to build.
type ip struct {
	src, dst netip.Addr
	proto    byte
	options  []byte   // IPv4
	headers  []header // IPv6
	fragment uint16   // IPv4: flags and offset in units of 8 bytes
	payload  []byte
	claim    int // what the length field says beyond the truth
}

func (p ip) bytes() []byte {
	if p.src.Is4() {
		return p.bytes4()
	}
	return p.bytes6()
}

func (p ip) bytes4() []byte {
	h := make([]byte, 20, 60)
	h = append(h, p.options...)
	h[0] = 4<<4 | byte(len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(p.payload)+p.claim))
	binary.BigEndian.PutUint16(h[6:], p.fragment)
	h[8], h[9] = 64, p.proto
	copy(h[12:], p.src.AsSlice())
	copy(h[16:], p.dst.AsSlice())
	return append(h, p.payload...)
}

func (p ip) bytes6() []byte {
	kinds := append([]byte{}, kindsOf(p.headers)...)
	kinds = append(kinds, p.proto)
	var chain []byte
	for i, x := range p.headers {
		chain = append(chain, kinds[i+1])
		chain = append(chain, x.rest...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 6<<4, kinds[0], 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(chain)+len(p.payload)+p.claim))
	copy(h[8:], p.src.AsSlice())
	copy(h[24:], p.dst.AsSlice())
	return slices.Concat(h, chain, p.payload)
}

func kindsOf(hs []header) []byte {
	var kinds []byte
	for _, h := range hs {
		kinds = append(kinds, h.kind)
	}
	return kinds
}

// option is a hop-by-hop or destination options header of 8 bytes per unit.
func option(kind byte, units int) header {
	rest := make([]byte, 8*units-1)
	rest[0] = byte(units - 1)
	return header{kind, rest}
}

// routing is a routing header with a number of segments left.
func routing(left byte) header { return header{extRouting, []byte{0, 4, left, 0, 0, 0, 0}} }

// fragment6 is a fragment header; offset in units of 8 bytes.
func fragment6(offset uint16, more bool) header {
	rest := make([]byte, 7)
	binary.BigEndian.PutUint16(rest[1:], offset<<3)
	if more {
		rest[2] |= 1
	}
	return header{extFragment, rest}
}

// fragment makes a packet a fragment, in either family.
func (p ip) asFragment(offset uint16, more bool) ip {
	if !p.src.Is4() {
		p.headers = append(slices.Clone(p.headers), fragment6(offset, more))
		return p
	}
	p.fragment = offset
	if more {
		p.fragment |= 0x2000
	}
	return p
}

// segment is a TCP packet.
func segment(src, dst netip.AddrPort, flags byte) ip {
	return ip{src: src.Addr(), dst: dst.Addr(), proto: protoTCP, payload: tcp(src.Port(), dst.Port(), flags)}
}

// icmpError is an ICMP error about a packet.
func icmpError(from, to netip.Addr, kind byte, about []byte) ip {
	p := ip{src: from, dst: to, proto: protoICMP, payload: append([]byte{kind, 4, 0, 0, 0, 0, 5, 0}, about...)}
	if !from.Is4() {
		p.proto = protoICMPv6
	}
	return p
}

// errorKinds are the types of ICMP errors of a family, and otherKinds some of
// the rest.
func errorKinds(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{3, 11, 12}
	}
	return []byte{1, 2, 3, 4}
}

func otherKinds(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{0, 4, 5, 8, 13}
	}
	return []byte{0, 5, 128, 129, 135}
}

// ethernet puts a packet into a frame.
func ethernet(packet []byte) []byte {
	kind := uint16(0x0800)
	if packet[0]>>4 == 6 {
		kind = 0x86dd
	}
	return frame(kind, packet)
}

func frame(kind uint16, packet []byte) []byte {
	f := make([]byte, 14, 14+len(packet))
	binary.BigEndian.PutUint16(f[12:], kind)
	return append(f, packet...)
}

// tagged is a frame with an 802.1Q tag.
func tagged(packet []byte) []byte {
	f := ethernet(packet)
	tag := []byte{0, 7, f[12], f[13]}
	binary.BigEndian.PutUint16(f[12:], 0x8100)
	return slices.Insert(f, 14, tag...)
}
