package doctor

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// leg is a kind of packet of ours.
type leg uint8

const (
	addressedSYN   leg = iota // of a client, to an address of the gateway
	addressedLater            // the packets that follow
	addressedReply            // ours to such a client
	loopSYN                   // of a transit client, on its way to the loop link
	steeredSYN                // the same, steered to us
	steeredLater
	transitReply
	originSYN   // ours to an origin
	originReply // the origin's to that
	originLater // ours that follow, where connection tracking sees no replies
	openSYN     // of a transit client, while no inspector lives and the service fails open
	openReply
)

// client reports whether the packets belong to a client's connection.
func (l leg) client() bool { return l < originSYN }

// origin reports whether they belong to an origin's.
func (l leg) origin() bool { return l == originSYN || l == originReply || l == originLater }

// way is what packets of one kind pass on this machine.
type way struct {
	leg
	to     config.Target // of the client's connection, or the origin
	by     string        // the client's interface, or the origin's
	mark   uint32        // one bit of ours, 0: none
	forged bool
	steps  []step
}

// step is a hook, and the packet as it is there, if rules left it alone.
type step struct {
	hook string
	netfilter.Packet
}

// at is the packet at a hook.
func (w way) at(hook string) netfilter.Packet {
	for _, s := range w.steps {
		if s.hook == hook {
			return s.Packet
		}
	}
	return netfilter.Packet{}
}

// gateway is a machine with what it shall do.
type gateway struct {
	c *config.Config
	m Machine
}

// mostTargets is how many targets of a service are followed: of more, the first.
const mostTargets = 256

// some are the first of many targets, of a family.
func some(targets []config.Target, f plan.Family) []config.Target {
	var all []config.Target
	for _, t := range targets {
		if plan.FamilyOf(t.Prefix.Addr()) == f && len(all) < mostTargets {
			all = append(all, t)
		}
	}
	return all
}

// ways are those of all packets that mail needs.
func (g *gateway) ways() []way {
	var all []way
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		for _, s := range g.c.Services {
			for _, t := range some(s.Listen, f) {
				all = append(all, g.each(g.c.Interfaces.Client, t, g.addressed)...)
			}
			for _, t := range some(s.Intercept, f) {
				all = append(all, g.each(g.c.Interfaces.Client, t, g.intercepted)...)
				if s.Fail == config.FailOpen {
					all = append(all, g.each(g.c.Interfaces.Client, t, g.uninspected)...)
				}
			}
			for _, t := range some(plan.Destinations(s), f) {
				for _, by := range g.interfacesTo(t) {
					all = append(all, g.forwarded(t, by, s.Forge.Address != config.ForgeNever)...)
				}
			}
		}
	}
	return all
}

// transits yields the targets of transit with each interface that clients come by.
func (g *gateway) transits() iter.Seq2[config.Target, string] {
	return func(yield func(config.Target, string) bool) {
		for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
			for _, s := range g.c.Services {
				for _, t := range some(s.Intercept, f) {
					for _, by := range g.c.Interfaces.Client {
						if !yield(t, by) {
							return
						}
					}
				}
			}
		}
	}
}

func (g *gateway) each(interfaces []string, t config.Target, ways func(config.Target, string) []way) []way {
	var all []way
	for _, by := range interfaces {
		all = append(all, ways(t, by)...)
	}
	return all
}

// interfacesTo are those that packets to an origin leave by: of one address that of
// its route, of several all on the origin side.
func (g *gateway) interfacesTo(t config.Target) []string {
	if r, asked := g.m.Routes[t.Prefix.Addr()]; asked && t.Prefix.IsSingleIP() && slices.Contains(g.c.Interfaces.Origin, r.Interface) {
		return []string{r.Interface}
	}
	return g.c.Interfaces.Origin
}

// addressed are the ways of connections to an address of the gateway. What comes in
// bears no mark.
func (g *gateway) addressed(t config.Target, by string) []way {
	in := netfilter.Packet{Family: plan.FamilyOf(t.Prefix.Addr()), In: by, To: t.Prefix, ToHere: true, Port: t.Port}
	out := g.reply(t, by)
	out.FromHere, out.State = true, netfilter.StateEstablished
	return []way{
		{leg: addressedSYN, to: t, by: by, steps: arrives(in, netfilter.SYN, netfilter.StateNew)},
		{leg: addressedLater, to: t, by: by, steps: arrives(in, netfilter.ACK, netfilter.StateEstablished)},
		{leg: addressedReply, to: t, by: by, mark: g.c.Kernel.ClientMark, steps: leaves(out)},
	}
}

// reply is a packet of ours to a client.
func (g *gateway) reply(t config.Target, by string) netfilter.Packet {
	return netfilter.Packet{
		Family: plan.FamilyOf(t.Prefix.Addr()), Out: by, From: t.Prefix, SourcePort: t.Port, Mark: g.c.Kernel.ClientMark,
		Flags: netfilter.SYNACK, Sent: true, User: g.m.User, Group: g.m.Group,
	}
}

// arrives is the way of a packet to a socket.
func arrives(p netfilter.Packet, flags netfilter.Flags, state netfilter.State) []step {
	p.Flags = flags
	ingress := step{"ingress", p}
	p.State = state
	return []step{ingress, {"prerouting", p}, {"input", p}}
}

// leaves is the way of a packet from a socket.
func leaves(p netfilter.Packet) []step {
	egress := step{"egress", p}
	egress.State = 0
	return []step{{"output", p}, {"postrouting", p}, egress}
}

// intercepted are the ways of connections of transit. Our rules keep the client legs
// untracked.
func (g *gateway) intercepted(t config.Target, by string) []way {
	mark := g.c.Kernel.ClientMark
	in := netfilter.Packet{Family: plan.FamilyOf(t.Prefix.Addr()), In: by, To: t.Prefix, Port: t.Port, Mark: mark}
	out := g.reply(t, by)
	out.State = netfilter.StateEstablished
	ways := []way{
		{leg: steeredSYN, to: t, by: by, mark: mark, steps: arrives(in, netfilter.SYN, netfilter.StateNew)},
		{leg: steeredLater, to: t, by: by, mark: mark, steps: arrives(in, netfilter.ACK, netfilter.StateEstablished)},
		{leg: transitReply, to: t, by: by, mark: mark, steps: leaves(out)},
	}
	if !plan.Loops(g.c) {
		return ways
	}
	in.Mark, in.Flags = g.c.Kernel.LoopMark, netfilter.SYN
	loop := way{leg: loopSYN, to: t, by: by, mark: in.Mark, steps: passes(in, plan.LoopLink)}
	return append([]way{loop}, ways...)
}

// passes is the way of a new connection that is forwarded.
func passes(p netfilter.Packet, out string) []step {
	steps := []step{{"ingress", p}}
	p.State = netfilter.StateNew
	steps = append(steps, step{"prerouting", p})
	p.Out = out
	steps = append(steps, step{"forward", p})
	p.In = ""
	return append(steps, step{"postrouting", p}, step{"egress", p})
}

// uninspected are the ways of connections that are forwarded as if we were not here.
func (g *gateway) uninspected(t config.Target, by string) []way {
	var all []way
	for _, out := range g.interfacesTo(t) {
		p := netfilter.Packet{Family: plan.FamilyOf(t.Prefix.Addr()), In: by, Out: out, To: t.Prefix, Port: t.Port, Flags: netfilter.SYN, State: netfilter.StateNew}
		r := netfilter.Packet{Family: p.Family, In: out, Out: by, From: t.Prefix, SourcePort: t.Port, Flags: netfilter.SYNACK, State: netfilter.StateEstablished}
		all = append(all,
			way{leg: openSYN, to: t, by: by, steps: []step{{"forward", p}}},
			way{leg: openReply, to: t, by: by, steps: []step{{"forward", r}}})
	}
	return all
}

// forwarded are the ways of a connection to an origin. Its other end is the client's
// address, or the gateway's own.
func (g *gateway) forwarded(t config.Target, by string, forged bool) []way {
	mark := g.c.Kernel.OriginMark
	out := netfilter.Packet{
		Family: plan.FamilyOf(t.Prefix.Addr()), Out: by, FromHere: !forged, To: t.Prefix, Port: t.Port, Mark: mark,
		Flags: netfilter.SYN, State: netfilter.StateNew, Sent: true, User: g.m.User, Group: g.m.Group,
	}
	in := netfilter.Packet{Family: out.Family, In: by, From: t.Prefix, ToHere: !forged, SourcePort: t.Port, Mark: mark}
	if own := g.m.Routes[t.Prefix.Addr()].Source; own.IsValid() && !forged {
		out.From, in.To = netfilter.Single(own), netfilter.Single(own)
	}
	later := out
	later.Flags, later.State = netfilter.ACK, netfilter.StateInvalid
	return []way{
		{leg: originSYN, to: t, by: by, mark: mark, forged: forged, steps: leaves(out)},
		{leg: originReply, to: t, by: by, mark: mark, forged: forged, steps: arrives(in, netfilter.SYNACK, netfilter.StateEstablished)},
		{leg: originLater, to: t, by: by, mark: mark, forged: forged, steps: leaves(later)},
	}
}

// halfTracked reports whether rules hide an origin's replies from connection tracking, and
// not what we send it: to tracking, whatever follows our SYN is invalid then.
func (g *gateway) halfTracked(s *netfilter.Survey, w way) bool {
	ways := g.forwarded(w.to, w.by, w.forged)
	_, syn, _ := s.Pass("output", ways[0].at("output"))
	_, reply, _ := s.Pass("prerouting", ways[1].at("prerouting"))
	return reply.State == netfilter.StateUntracked && syn.State != netfilter.StateUntracked
}

// aboutOrigin names an origin, for findings that explain each other.
func aboutOrigin(o netip.AddrPort) []string { return []string{"origin " + o.String()} }
