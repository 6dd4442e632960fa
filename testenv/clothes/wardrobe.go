// Package clothes dresses SYNs and sees who answers them. A SYN dressed in tags,
// extension headers, options and fragments is still a SYN to the kernel that it
// reaches: whatever dress lets one pass a closed service unseen is a way around
// the inspector, and the only judge of it is a stock Linux origin that answers.
//
// The package owns the wardrobe (pure, seeded), a sender of raw frames, and a judge
// who listens where the origin speaks. Its test builds networks of several kinds of
// link with testenv, runs the real portreeve in them and counts answers. It has no
// model of what ought to pass: without portreeve the same SYNs are sent first, and
// a garment that is never answered then tests nothing and fails the test.
package clothes

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is a kind of garment. What N and M of a garment mean depends on it.
type Kind uint8

// The kinds, from the innermost layer to the outermost.
const (
	Flags   Kind = iota // TCP flags N beside SYN; M: reserved bits
	Options             // TCP options: set N
	Data                // N octets behind the TCP header
	BadSum              // the TCP checksum is wrong

	Option   // IPv4 option of type N, in variant M
	TTL      // TTL or hop limit N
	Service  // type of service or traffic class N, flow label M
	Whole    // IPv4: do not fragment
	ViaGate  // IPv4: to the gateway, with the source route N to the origin
	Length   // the length of the packet is N off
	Header   // IPv6 extension header of protocol N, in variant M
	Outside  // IPv6: N extension headers stand before the fragment header
	Cut      // the packet is fragmented N*8 octets behind the headers that each fragment has
	Longer   // fragment N reaches M*8 octets into the next
	Twin     // fragment N comes twice, M=1: the second with other content
	Order    // of the fragments: 0 as they are, 1 reversed, 2 the first last, else shuffled by M
	Missing  // fragment N does not come
	Next     // IPv6: fragments but the first say that protocol N follows
	Again    // IPv6: each fragment is fragmented N*8 octets behind its fragment header
	Bare     // IPv4: fragments but the first have no options
	Stranger // the last fragment has another identification

	Tag   // VLAN tag with EtherType N and tag control information M
	Trail // N octets behind the packet
	Frame // link-level form N
	Cast  // link-level destination N: 1 broadcast, 2 multicast
)

// Garment is one thing that a SYN wears.
type Garment struct {
	Kind Kind
	N, M int
}

// Outfit is a SYN with all that it wears, the innermost first. Within a kind the
// order counts.
type Outfit struct {
	Serial   uint32 // tells this SYN from all others: it is in its source address
	V6       bool
	Garments []Garment
}

// has returns the first garment of a kind.
func (o *Outfit) has(k Kind) (Garment, bool) {
	for _, g := range o.Garments {
		if g.Kind == k {
			return g, true
		}
	}
	return Garment{}, false
}

// number returns N of the first garment of a kind, or what holds without one.
func (o *Outfit) number(k Kind, otherwise int) int {
	if g, ok := o.has(k); ok {
		return g.N
	}
	return otherwise
}

// Without returns the outfit without its nth garment.
func (o Outfit) Without(n int) Outfit {
	o.Garments = slices.Delete(slices.Clone(o.Garments), n, n+1)
	return o
}

func (o *Outfit) String() string {
	words := []string{"IPv4"}
	if o.V6 {
		words[0] = "IPv6"
	}
	for _, g := range o.Garments {
		words = append(words, fmt.Sprintf("%s(%#x,%#x)", g.Name(), g.N, g.M))
	}
	return strings.Join(words, " + ")
}

// Name is what a score is kept for.
func (g Garment) Name() string {
	switch g.Kind {
	case Flags:
		return nameFlags(g)
	case Option:
		return "option " + name(optionNames, g.N)
	case Header:
		return nameHeader(g)
	case Tag:
		return nameTag(g)
	case Frame:
		return name(frameNames, g.N)
	case TTL:
		if g.N < 3 {
			return fmt.Sprintf("TTL %d", g.N)
		}
	case Twin:
		if g.M == 1 {
			return "fragment twice, unlike"
		}
	case Order:
		return name(orderNames, min(g.N, 3))
	case Cast:
		return name(map[int]string{1: "broadcast", 2: "multicast"}, g.N)
	}
	return kindNames[g.Kind]
}

func name(names map[int]string, n int) string {
	if s, ok := names[n]; ok {
		return s
	}
	return fmt.Sprint(n)
}

var kindNames = map[Kind]string{
	Options: "TCP options", Data: "data", BadSum: "wrong checksum",
	TTL: "TTL", Service: "traffic class", Whole: "do not fragment", ViaGate: "by way of the gateway", Length: "wrong length",
	Outside: "headers before the fragment header", Cut: "cut", Longer: "overlap", Twin: "fragment twice", Missing: "fragment missing",
	Next: "fragments disagree on what follows", Again: "fragments of fragments", Bare: "options in the first fragment only",
	Stranger: "another identification", Trail: "trailing octets",
}

var orderNames = map[int]string{0: "fragments in order", 1: "fragments reversed", 2: "first fragment last", 3: "fragments shuffled"}

// TCP flags beside SYN. The others make something else of the packet.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagPSH = 0x08
	flagURG = 0x20
	flagECE = 0x40
	flagCWR = 0x80
)

func nameFlags(g Garment) string {
	words := []string{"SYN"}
	for _, f := range []struct {
		bit  int
		name string
	}{{flagFIN, "FIN"}, {flagPSH, "PSH"}, {flagURG, "URG"}, {flagECE, "ECE"}, {flagCWR, "CWR"}} {
		if g.N&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	if g.M != 0 {
		words = append(words, "reserved bits")
	}
	return strings.Join(words, "+")
}

// IPv4 options (IANA "IP option numbers").
const (
	optEnd       = 0
	optNop       = 1
	optRecord    = 7
	optTimestamp = 68
	optSecurity  = 130
	optLoose     = 131
	optCIPSO     = 134
	optStream    = 136
	optStrict    = 137
	optAlert     = 148
	optUnknown   = 158
)

var optionNames = map[int]string{
	optEnd: "end of list", optNop: "NOP", optRecord: "record route", optTimestamp: "timestamp", optSecurity: "security",
	optLoose: "loose source route", optCIPSO: "CIPSO", optStream: "stream id", optStrict: "strict source route",
	optAlert: "router alert", optUnknown: "unknown",
}

// IPv6 extension headers (IANA "IPv6 Extension Header Types").
const (
	extHop         = 0
	extRouting     = 43
	extFragment    = 44
	extAuth        = 51
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim        = 140
)

var headerNames = map[int]string{
	extHop: "hop-by-hop", extRouting: "routing", extFragment: "atomic fragment", extAuth: "authentication",
	extDestination: "destination options", extMobility: "mobility", extHIP: "HIP", extShim: "shim6",
}

// Contents of options headers.
const (
	fillPad     = iota // padding, or one unknown option that may be skipped
	fillAlert          // a router alert
	fillLimit          // a tunnel encapsulation limit
	fillMany           // many small options
	fillDiscard        // an unknown option for which the packet is to be discarded
	fillReport         // and the sender to be told
)

// routing says what the variant of a routing header means.
func routing(m int) (kind, left byte) {
	return []byte{0, 2, 3, 4, 253}[m&0xff%5], byte(m >> 8)
}

// options says what the variant of an options header means.
func optionsHeader(m int) (units, fill int) { return 1 + m&0xff, m >> 8 }

func nameHeader(g Garment) string {
	s := name(headerNames, g.N)
	switch g.N {
	case extRouting:
		kind, left := routing(g.M)
		if left > 0 {
			return fmt.Sprintf("routing type %d, segments left", kind)
		}
		return fmt.Sprintf("routing type %d", kind)
	case extHop, extDestination:
		_, fill := optionsHeader(g.M)
		return s + []string{"", ", router alert", ", encapsulation limit", ", many options", ", discard", ", report"}[fill]
	}
	return s
}

// EtherTypes of tags.
const (
	tpid8021Q  = 0x8100
	tpid8021ad = 0x88a8
	tpidQinQ   = 0x9100
)

func nameTag(g Garment) string {
	s := name(map[int]string{tpid8021Q: "802.1Q tag", tpid8021ad: "802.1ad tag", tpidQinQ: "0x9100 tag"}, g.N)
	if g.M&0xfff != 0 {
		return s + " with a VID"
	}
	return s + " 0"
}

// Link-level forms beside Ethernet II.
const (
	frameSNAP = 1 + iota
	framePPPoE
	frameMPLS
	frameOther // the EtherType of the other family
)

var frameNames = map[int]string{frameSNAP: "802.3 SNAP", framePPPoE: "PPPoE session", frameMPLS: "MPLS", frameOther: "EtherType of the other family"}
