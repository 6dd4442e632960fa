package netfilter

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Packet is the first packet of a TCP connection, as far as it is known. What
// is zero is not known: a rule that asks for it may concern the packet.
type Packet struct {
	In, Out  string // interfaces
	From, To netip.Addr
	Port     uint16 // destination port
	Mark     uint32 // fwmark

	Untracked bool // connection tracking was told to leave it alone
}

// fit says whether a rule concerns a packet.
type fit uint8

const (
	never  fit = iota // a condition excludes it
	maybe             // as far as we know the packet and understand the rule
	surely            // it meets all conditions
)

// field is what a condition looks at.
type field uint8

const (
	unknownField field = iota
	inName
	outName
	inIndex  // read as inName
	outIndex // read as outName
	version  // of IP, as NFPROTO number
	protocol // TCP's number
	source4
	source6
	destination4
	destination6
	port // destination port
	fwmark
	ctState // of connection tracking, as bits
)

// stateUntracked is the state of a packet that is not tracked: IP_CT_UNTRACKED in
// nftables and in xt_conntrack alike. It is not the invalid one.
const stateUntracked = 1 << 6

// nameSize is the length of an interface's name in the kernel, filled up with
// zeros.
const nameSize = unix.IFNAMSIZ

// value returns the field's octets in network order, nil when they are not
// known. A packet without an address could be of either family.
func (p Packet) value(f field) []byte {
	switch f {
	case inName:
		return name(p.In)
	case outName:
		return name(p.Out)
	case version:
		return p.version()
	case protocol:
		return []byte{unix.IPPROTO_TCP}
	case source4:
		return address(p.From, 4)
	case source6:
		return address(p.From, 16)
	case destination4:
		return address(p.To, 4)
	case destination6:
		return address(p.To, 16)
	case port:
		if p.Port != 0 {
			return []byte{byte(p.Port >> 8), byte(p.Port)}
		}
	case fwmark:
		if p.Mark != 0 {
			return binary.NativeEndian.AppendUint32(nil, p.Mark) // as a register holds it
		}
	case ctState:
		if p.Untracked {
			return binary.NativeEndian.AppendUint32(nil, stateUntracked)
		}
	}
	return nil
}

func name(s string) []byte {
	if s == "" {
		return nil
	}
	return append([]byte(s), make([]byte, max(0, nameSize-len(s)))...)
}

// address returns the octets of an address that has so many of them.
func address(a netip.Addr, octets int) []byte {
	if b := a.Unmap().AsSlice(); len(b) == octets {
		return b
	}
	return nil
}

func (p Packet) version() []byte {
	a := p.To
	if !a.IsValid() {
		a = p.From
	}
	switch {
	case !a.IsValid():
		return nil
	case a.Unmap().Is4():
		return []byte{unix.NFPROTO_IPV4}
	}
	return []byte{unix.NFPROTO_IPV6}
}

// span is a range of values, both ends included.
type span struct{ low, high []byte }

// condition is one of those that a rule makes: that the first octets of a
// field, under a mask, are in one of the spans.
type condition struct {
	field field
	mask  []byte // may be shorter than the field, nil: all ones
	not   bool
	spans []span
}

// opaque is a condition that we do not understand.
var opaque = condition{}

func (c condition) fit(p Packet) fit {
	v := p.value(c.field)
	if v == nil {
		return maybe
	}
	among := false
	for _, s := range c.spans {
		if len(s.low) > len(v) || len(s.low) != len(s.high) {
			return maybe // malformed
		}
		part := bytes.Clone(v[:len(s.low)])
		for i := range min(len(part), len(c.mask)) {
			part[i] &= c.mask[i]
		}
		among = among || bytes.Compare(s.low, part) <= 0 && bytes.Compare(part, s.high) <= 0
	}
	if among == c.not {
		return never
	}
	return surely
}

// inState asks for one of several states, given as bits.
func inState(bits uint32, not bool) condition {
	none := make([]byte, 4)
	return condition{field: ctState, mask: binary.NativeEndian.AppendUint32(nil, bits), not: !not, spans: exactly(none)}
}

// exactly is the span of one value.
func exactly(v []byte) []span { return []span{{v, v}} }

// inPrefix asks for an address of a prefix.
func inPrefix(at4, at6 field, p netip.Prefix, not bool) condition {
	a := p.Masked().Addr()
	c := condition{field: at4, not: not, spans: exactly(a.AsSlice()), mask: ones(p.Bits(), a.BitLen())}
	if a.Is6() {
		c.field = at6
	}
	return c
}

// ones is a mask of n leading one bits.
func ones(n, of int) []byte {
	m := make([]byte, of/8)
	for i := range n {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// entry is a rule of either flavour.
type entry struct {
	text       string // as its own tool shows or finds it
	conditions []condition
	action     action
	to         string // for jump and goto_
	ourJump    bool
}

// action is what a rule does with a packet that it concerns.
type action uint8

const (
	goOn action = iota // counts, marks, logs
	accept
	drop
	reject
	jumpTo
	goTo
	leave // return
	dnat
	redirect
	tproxy
	snat
	masquerade
)

// String returns the action's name, as in rules.
func (a action) String() string {
	return [...]string{"continue", "accept", "drop", "reject", "jump", "goto", "return",
		"dnat", "redirect", "tproxy", "snat", "masquerade"}[a]
}

// final reports whether no further rule of the base chain sees the packet.
func (a action) final() bool {
	return a != goOn && a != jumpTo && a != goTo && a != leave
}

func (e entry) fit(p Packet) fit {
	all := surely
	for _, c := range e.conditions {
		all = min(all, c.fit(p))
	}
	return all
}

// asks reports whether the rule has a condition about a field.
func (e entry) asks(f field) bool {
	return slices.ContainsFunc(e.conditions, func(c condition) bool { return c.field == f })
}

// always reports whether the rule concerns every packet.
func (e entry) always() bool { return len(e.conditions) == 0 }
