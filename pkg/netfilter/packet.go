package netfilter

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Packet is a packet of a TCP connection at one point of its way, as far as it is
// known. A rule that asks for what is not known may concern the packet.
type Packet struct {
	Family      plan.Family  // 0: either
	In, Out     string       // interfaces; empty: it has none here; or AnyInterface
	From, To    netip.Prefix // not valid: a stranger's, who may be anybody
	FromHere    bool         // From is an address of this machine
	ToHere      bool         // To is one
	SourcePort  uint16       // 0: a stranger's
	Port        uint16       // destination port, 0: a stranger's
	Mark        uint32       // fwmark
	Doubt       uint32       // bits of Mark that are not known
	Flags       Flags        // 0: not known
	State       State        // 0: not known
	Sent        bool         // by a socket of this machine, of User and Group
	User, Group uint32
}

// AnyInterface is the one that is not known.
const AnyInterface = "*"

// Flags are those of TCP that say what a packet begins or answers. Others are not
// known.
type Flags uint8

const (
	ACK    Flags = 0x10
	SYN    Flags = 0x02
	SYNACK Flags = SYN | ACK

	shownFlags = 0x17 // FIN, SYN, RST, ACK
)

// State is what connection tracking says of a packet, as a bit of nftables.
type State uint32

const (
	StateInvalid     State = 1 << 0
	StateEstablished State = 1 << 1
	StateNew         State = 1 << 3
	StateUntracked   State = 1 << 6
)

// Single is the prefix that holds one address.
func Single(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
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
	etherType
	version  // of IP, as NFPROTO number
	protocol // TCP's number
	source4
	source6
	destination4
	destination6
	sourceSet      // whatever is asked of the source address
	destinationSet // whatever is asked of the destination address
	sourceType     // as RTN number, in four octets
	destinationType
	port // destination port
	sourcePort
	tcpFlags
	fwmark
	ctState  // of connection tracking, as bits
	ctStatus // as bits
	ctOther  // of which a packet that is not tracked has nothing
	tracked  // 1 if the packet is
	user
	group
)

// known is a field's value: octets in network order, or as a register holds them.
type known struct {
	value []byte
	doubt []byte // bits that are not known; nil: all are
}

// nameSize is the length of an interface's name in the kernel, filled up with
// zeros.
const nameSize = unix.IFNAMSIZ

// look returns a field's value; false if it is not known.
func (p Packet) look(f field) (known, bool) {
	switch f {
	case inName:
		return name(p.In)
	case outName:
		return name(p.Out)
	case etherType:
		return p.etherType()
	case version:
		return p.version()
	case protocol:
		return octets(unix.IPPROTO_TCP)
	case source4:
		return address(p.From, 4)
	case source6:
		return address(p.From, 16)
	case destination4:
		return address(p.To, 4)
	case destination6:
		return address(p.To, 16)
	case sourceType:
		return addressType(p.FromHere)
	case destinationType:
		return addressType(p.ToHere)
	case port:
		return portNumber(p.Port)
	case sourcePort:
		return portNumber(p.SourcePort)
	case tcpFlags:
		return known{[]byte{byte(p.Flags)}, []byte{^byte(shownFlags)}}, p.Flags != 0
	case fwmark:
		return known{native(p.Mark), native(p.Doubt)}, true
	}
	return p.state(f)
}

// state returns what connection tracking says, or the socket.
func (p Packet) state(f field) (known, bool) {
	switch f {
	case ctState:
		return known{value: native(uint32(p.State))}, p.State != 0
	case ctStatus:
		const translated = 1<<4 | 1<<5 // of addresses, which nobody does to these
		return known{native(0), native(^uint32(translated))}, p.State != 0 && p.State != StateUntracked
	case tracked:
		if p.State == StateUntracked {
			return octets(0)
		}
		return known{value: []byte{1}}, p.State != 0
	case user:
		return known{value: numberOctets(p.User)}, p.Sent
	case group:
		return known{value: numberOctets(p.Group)}, p.Sent
	}
	return known{}, false
}

func octets(b ...byte) (known, bool) { return known{value: b}, true }

// native is a number as a register holds it.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func name(s string) (known, bool) {
	return known{value: nameOctets(s)}, s != AnyInterface
}

func nameOctets(s string) []byte {
	return append([]byte(s), make([]byte, max(0, nameSize-len(s)))...)
}

// address returns an address that has so many octets. Of a prefix, the last bits
// are in doubt.
func address(p netip.Prefix, octets int) (known, bool) {
	b := p.Addr().AsSlice()
	if !p.IsValid() || len(b) != octets {
		return known{}, false
	}
	k := known{value: p.Masked().Addr().AsSlice()}
	if !p.IsSingleIP() {
		k.doubt = ones(p.Bits(), len(b)*8)
		for i := range k.doubt {
			k.doubt[i] = ^k.doubt[i]
		}
	}
	return k, true
}

// addressType is what routing says of an address: one of this machine, or another
// host's.
func addressType(here bool) (known, bool) {
	if here {
		return known{value: native(unix.RTN_LOCAL)}, true
	}
	return known{value: native(unix.RTN_UNICAST)}, true
}

func portNumber(n uint16) (known, bool) {
	return known{value: []byte{byte(n >> 8), byte(n)}}, n != 0
}

func (p Packet) version() (known, bool) {
	switch p.Family {
	case plan.IPv4:
		return octets(unix.NFPROTO_IPV4)
	case plan.IPv6:
		return octets(unix.NFPROTO_IPV6)
	}
	return known{}, false
}

func (p Packet) etherType() (known, bool) {
	switch p.Family {
	case plan.IPv4:
		return octets(0x08, 0x00)
	case plan.IPv6:
		return octets(0x86, 0xdd)
	}
	return known{}, false
}

// strange reports whether a field is about the address or port of a stranger: a rule that
// asks for it chooses among clients.
func (p Packet) strange(f field) bool {
	switch f {
	case source4, source6, sourceSet:
		return !p.From.IsValid()
	case destination4, destination6, destinationSet:
		return !p.To.IsValid()
	case port:
		return p.Port == 0
	case sourcePort:
		return p.SourcePort == 0
	}
	return false
}

// span is a range of values, both ends included.
type span struct{ low, high []byte }

// condition is one of those that a rule makes: that the first octets of a
// field, under a mask, are in one of the spans.
type condition struct {
	field  field
	mask   []byte // may be shorter than the field, nil: all ones
	not    bool
	spans  []span
	sorted bool // the spans are in order, and none reaches into another
}

// opaque is a condition that we do not understand.
var opaque = condition{}

func (c condition) fit(p Packet) fit {
	if c.field == ctOther && p.State == StateUntracked {
		return never
	}
	k, known := p.look(c.field)
	if !known {
		return maybe
	}
	among, malformed := c.among(k)
	if malformed {
		return maybe
	}
	if c.not {
		return surely - among
	}
	return among
}

// among reports whether a value is in one of the spans.
func (c condition) among(k known) (among fit, malformed bool) {
	spans := c.spans
	if c.sorted {
		spans = c.near(k)
	}
	var part known
	for _, s := range spans {
		if len(s.low) > len(k.value) || len(s.low) != len(s.high) {
			return maybe, true
		}
		if len(part.value) != len(s.low) {
			part = k.under(c.mask, len(s.low))
		}
		among = max(among, s.holds(part))
		if c.sorted && among != never {
			break // a value that is in no span for sure is so in the first that may have it
		}
	}
	return among, false
}

// near are the sorted spans from the first on that may have a value, and up to the last.
func (c condition) near(k known) []span {
	if len(c.spans) == 0 || len(c.spans[0].low) > len(k.value) {
		return c.spans
	}
	lowest, highest := k.under(c.mask, len(c.spans[0].low)).bounds()
	from, _ := slices.BinarySearchFunc(c.spans, lowest, func(s span, v []byte) int { return bytes.Compare(s.high, v) })
	n, found := slices.BinarySearchFunc(c.spans[from:], highest, func(s span, v []byte) int { return bytes.Compare(s.low, v) })
	if found {
		n++
	}
	return c.spans[from : from+n]
}

// under returns the first octets of a value under a mask.
func (k known) under(mask []byte, n int) known {
	part := known{bytes.Clone(k.value[:n]), make([]byte, n)}
	copy(part.doubt, k.doubt)
	for i := range min(n, len(mask)) {
		part.value[i] &= mask[i]
		part.doubt[i] &= mask[i]
	}
	return part
}

// bounds are the lowest and the highest value that it may be.
func (k known) bounds() (lowest, highest []byte) {
	lowest, highest = bytes.Clone(k.value), bytes.Clone(k.value)
	for i, d := range k.doubt {
		lowest[i] &^= d
		highest[i] |= d
	}
	return lowest, highest
}

// holds reports whether a value is in the span.
func (s span) holds(k known) fit {
	if bytes.Equal(s.low, s.high) {
		differs, doubtful := false, false
		for i, d := range k.doubt {
			differs = differs || (k.value[i]^s.low[i])&^d != 0
			doubtful = doubtful || d != 0
		}
		switch {
		case differs:
			return never
		case doubtful:
			return maybe
		}
		return surely
	}
	lowest, highest := k.bounds()
	switch {
	case bytes.Compare(highest, s.low) < 0 || bytes.Compare(s.high, lowest) < 0:
		return never
	case bytes.Compare(s.low, lowest) <= 0 && bytes.Compare(highest, s.high) <= 0:
		return surely
	}
	return maybe
}

// inState asks for one of several states, given as bits.
func inState(bits uint32, not bool) condition {
	return condition{field: ctState, mask: native(bits), not: !not, spans: exactly(native(0))}
}

// isTracked asks whether connection tracking knows the packet.
func isTracked() condition { return condition{field: tracked, spans: exactly([]byte{1})} }

// marked asks for a mark under a mask.
func marked(mark, mask uint32, not bool) condition {
	return condition{field: fwmark, mask: native(mask), not: not, spans: exactly(native(mark))}
}

// flagged asks for flags of TCP under a mask.
func flagged(flags, mask byte, not bool) condition {
	return condition{field: tcpFlags, mask: []byte{mask}, not: not, spans: exactly([]byte{flags})}
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
	number     int    // in its chain, from 1
	handle     uint64 // of nftables
	text       string // as iptables-legacy shows it
	conditions []condition
	action     action
	to         string // for jumpTo and goTo
	ourJump    bool
	writes     *write // of the mark
	untracks   bool   // tells connection tracking to leave the packet alone
}

// write is what a rule does to a mark: some bits stay, and some are turned.
type write struct {
	stay, turn uint32
	unknown    bool // turn depends on what we do not know
}

// on returns a mark with the bits of it that are not known.
func (w write) on(mark, doubt uint32) (uint32, uint32) {
	doubt &= w.stay
	if w.unknown {
		doubt |= ^w.stay
	}
	return mark&w.stay ^ w.turn, doubt
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
	synproxy
	forwardTo // another interface, past all further rules
)

// String returns the action's name, as in rules.
func (a action) String() string {
	return [...]string{"continue", "accept", "drop", "reject", "jump", "goto", "return",
		"dnat", "redirect", "tproxy", "snat", "masquerade", "synproxy", "fwd"}[a]
}

// final reports whether no further rule of the base chain sees the packet.
func (a action) final() bool {
	return a != goOn && a != jumpTo && a != goTo && a != leave
}

// stops reports whether the packet does not get any further.
func (a action) stops() bool {
	return a == drop || a == reject || a == synproxy || a == forwardTo
}

// match is how a rule, with the jumps that lead to it, concerns a packet.
type match struct {
	fit
	strange  bool // it chooses among strangers
	specific bool // it speaks of the packet's port, address or sender
}

func (e entry) match(p Packet) match {
	m := match{fit: surely}
	for _, c := range e.conditions {
		f := c.fit(p)
		if m.fit = min(m.fit, f); f == never {
			break
		}
		m.strange = m.strange || f == maybe && p.strange(c.field)
		m.specific = m.specific || c.specific() && !p.strange(c.field)
	}
	return m
}

// specific tells conditions that are made for mail, or for an origin.
func (c condition) specific() bool {
	specific := []field{destination4, destination6, source4, source6, port, sourcePort, user, group}
	return !c.not && slices.Contains(specific, c.field)
}

// and joins a jump with a rule behind it.
func (m match) and(n match) match {
	return match{min(m.fit, n.fit), m.strange || n.strange, m.specific || n.specific}
}
