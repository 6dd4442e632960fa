package netfilter

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Gateways serve hundreds of addresses and networks of clients, and hardly any rule asks
// which of them it is. So a packet is followed once for all that no rule tells apart.

// Shape returns the packet that stands for all those that no rule tells apart from p: they
// meet the same. It has interfaces, addresses and ports of the first that was asked for.
func (s *Survey) Shape(p Packet) Packet {
	if s.shapes == nil {
		s.shapes = s.newShapes()
	}
	if p.From.IsValid() {
		p.From = s.shapes.from.like(p.From)
	}
	if p.To.IsValid() {
		p.To = s.shapes.to.like(p.To)
	}
	if p.In != "" && p.In != AnyInterface {
		p.In = s.shapes.in.like(p.In)
	}
	if p.Out != "" && p.Out != AnyInterface {
		p.Out = s.shapes.out.like(p.Out)
	}
	if p.Port != 0 {
		p.Port = s.shapes.port.like(p.Port)
	}
	if p.SourcePort != 0 {
		p.SourcePort = s.shapes.sourcePort.like(p.SourcePort)
	}
	return p
}

// shapes tell what rules tell apart of packets.
type shapes struct {
	from, to         kinds[netip.Prefix]
	in, out          kinds[string]
	port, sourcePort kinds[uint16]
	passed           map[passage]passed
	meetings         int // in passed
}

// newShapes collects what is asked of packets.
func (s *Survey) newShapes() *shapes {
	asked := map[field][]condition{}
	seen := map[string]bool{}
	for _, c := range s.chains {
		for _, e := range c.entries {
			for _, c := range e.conditions {
				if key := c.key(); !seen[key] {
					seen[key] = true
					asked[c.field] = append(asked[c.field], c)
				}
			}
		}
		for _, name := range c.devices { // for which there are chains
			one := condition{field: inName, spans: exactly(nameOctets(name))}
			asked[inName] = append(asked[inName], one)
			asked[outName] = append(asked[outName], one)
		}
	}
	return &shapes{
		from:       newKinds(append(asked[source4], asked[source6]...), func(v netip.Prefix) Packet { return Packet{From: v} }),
		to:         newKinds(append(asked[destination4], asked[destination6]...), func(v netip.Prefix) Packet { return Packet{To: v} }),
		in:         newKinds(asked[inName], func(v string) Packet { return Packet{In: v, Out: v} }),
		out:        newKinds(asked[outName], func(v string) Packet { return Packet{In: v, Out: v} }),
		port:       newKinds(asked[port], func(v uint16) Packet { return Packet{Port: v} }),
		sourcePort: newKinds(asked[sourcePort], func(v uint16) Packet { return Packet{SourcePort: v} }),
		passed:     map[passage]passed{},
	}
}

// key is the same for equal conditions; of two that share a large set, too.
func (c condition) key() string {
	const large = 16
	if len(c.spans) > large {
		return fmt.Sprintf("%d %x %t %p %d", c.field, c.mask, c.not, &c.spans[0], len(c.spans))
	}
	return fmt.Sprintf("%d %x %t %x", c.field, c.mask, c.not, c.spans)
}

// kinds tell which values of one field no rule tells apart.
type kinds[V comparable] struct {
	asked  []condition
	packet func(V) Packet // one that has the value
	known  map[V]V        // values by those that stand for them
	first  map[string]V   // the first value by what conditions say of it
}

func newKinds[V comparable](asked []condition, packet func(V) Packet) kinds[V] {
	return kinds[V]{asked, packet, map[V]V{}, map[string]V{}}
}

// like returns the value that stands for v.
func (k *kinds[V]) like(v V) V {
	if one, known := k.known[v]; known {
		return one
	}
	p := k.packet(v)
	var said strings.Builder
	for _, c := range k.asked {
		said.WriteByte('0' + byte(c.fit(p)))
	}
	one, known := k.first[said.String()]
	if !known {
		one = v
		k.first[said.String()] = v
	}
	k.known[v] = one
	return one
}

// passage is a packet at a hook, as far as rules tell.
type passage struct {
	hook string
	Packet
}

// passed is what became of it.
type passed struct {
	met    []Meeting
	after  packetState
	passes bool
}

// mostMeetings is how many meetings are remembered of packets.
const mostMeetings = 1 << 16

// recall returns what has become of such a packet.
func (s *shapes) recall(at passage) (passed, bool) {
	p, known := s.passed[at]
	return p, known
}

// remember keeps what has become of one, unless that takes too much.
func (s *shapes) remember(at passage, p passed) {
	if s.meetings+len(p.met) <= mostMeetings {
		s.passed[at] = p
		s.meetings += len(p.met)
	}
}

// Accepted are the prefixes of a family that rules accept by the source, one of each kind
// that no rule tells apart.
func (s *Survey) Accepted(f plan.Family) []netip.Prefix {
	if all, known := s.accepted[f]; known {
		return all
	}
	all := s.sources(f)
	if s.accepted == nil {
		s.accepted = map[plan.Family][]netip.Prefix{}
	}
	s.accepted[f] = all
	return all
}

// mostSources is how many prefixes are returned of those that rules name.
const mostSources = 64

func (s *Survey) sources(f plan.Family) []netip.Prefix {
	var all []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for _, c := range s.chains {
		for _, e := range c.entries {
			if e.action != accept {
				continue
			}
			for _, p := range (Rule{entry: e}).Sources() {
				if plan.FamilyOf(p.Addr()) != f {
					continue
				}
				if kind := s.Shape(Packet{From: p}).From; !seen[kind] {
					seen[kind] = true
					all = append(all, p)
				}
				if len(all) == mostSources {
					return all
				}
			}
		}
	}
	return all
}
