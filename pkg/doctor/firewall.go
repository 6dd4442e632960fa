package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// firewall judges the packet filter: what drops at INPUT and OUTPUT, what
// sends the port elsewhere, and what gives forged connections another source.
func (e *exam) firewall() {
	if e.m.Firewall == nil {
		return
	}
	e.input()
	e.output()
	e.refusals()
	e.diversions()
	e.rewrites()
	for _, f := range e.m.Firewall.Flowtables() {
		e.warn(fmt.Sprintf("nftables flowtable %s %s", f.Table, f.Name),
			"flows that it took up before attach pass by the routing rules until they end, unseen",
			"attach before mail flows, or leave port 25 out of the flowtable")
	}
}

// someDestinations are an origin's address and port to which a client's
// connection may go, for each family.
func (e *exam) someDestinations() map[plan.Family]netip.AddrPort {
	some := map[plan.Family]netip.AddrPort{}
	for _, s := range e.c.Services {
		for _, t := range plan.Destinations(s) {
			family := plan.FamilyOf(t.Prefix.Addr())
			if _, have := some[family]; !have {
				some[family] = netip.AddrPortFrom(t.Prefix.Addr(), t.Port)
			}
		}
	}
	return some
}

// cured reports whether our chains overrule a base chain, or will once they
// are attached. They do where they are guarded: where our jump is its first
// rule.
func (e *exam) cured(p netfilter.Place, guarded bool) bool {
	return e.jumpsIn(p) && (guarded || !e.m.Attached)
}

// jumpsIn reports whether attach puts a jump of ours into base chains of this
// kind.
func (e *exam) jumpsIn(p netfilter.Place) bool {
	return e.c.Kernel.Netfilter != config.NetfilterOff && p.Flavour == e.flavour()
}

// headAgain is the remedy where attach put our jump first and somebody put
// another rule before it later.
const headAgain = "portreeve detach, then portreeve attach: that puts its jump before the other rules again"

func (e *exam) flavour() netfilter.Flavour {
	if e.m.Facts.Legacy {
		return netfilter.IPTablesLegacy
	}
	return netfilter.IPTablesNFT
}

// input judges what drops at INPUT: steered packets used to be a matter of
// FORWARD, and are one of INPUT now.
func (e *exam) input() {
	both := e.c.Kernel.ClientMark | e.c.Kernel.OriginMark
	for _, d := range e.m.Firewall.Input() {
		if !e.concerned(d.Families) {
			continue
		}
		if e.cured(d.Place, d.Guarded) {
			e.info(d.Place.String(), d.By+": the chain PORTREEVE-INPUT at its head accepts steered packets")
			continue
		}
		if e.jumpsIn(d.Place) {
			e.problem(d.Place.String(), d.By+": it drops steered packets, for the jump to PORTREEVE-INPUT is not its first rule any more", headAgain)
			continue
		}
		if e.letsMarkedIn(d) {
			e.info(d.Place.String(), d.By+": a rule accepts steered packets by their mark")
		} else {
			e.problem(d.Place.String(), d.By+": it drops steered packets, and rules of iptables cannot overrule it",
				acceptMarked(d.Place, both))
		}
		e.openings(d)
	}
}

// openings judges connections to addressed services, which bear no mark.
func (e *exam) openings(d netfilter.Drop) {
	for _, s := range e.c.Services {
		for _, t := range s.Listen {
			for _, in := range e.c.Interfaces.Client {
				p := netfilter.Packet{In: in, To: t.Prefix.Addr(), Port: t.Port}
				if !contains(d.Families, plan.FamilyOf(p.To)) || d.LetsIn(p) {
					continue
				}
				e.problem(d.Place.String(), fmt.Sprintf("%s: it drops connections to %s by %s, which are for service %s", d.By, t, in, s.Name),
					open(d.Place, in, t))
			}
		}
	}
}

// open is the command that lets connections to a target in.
func open(p netfilter.Place, in string, t config.Target) string {
	if p.Flavour != netfilter.NFT {
		return acceptMarked(p, 0)
	}
	protocol := "ip"
	if t.Prefix.Addr().Is6() {
		protocol = "ip6"
	}
	return fmt.Sprintf("nft insert rule %s %s iifname %s %s daddr %s tcp dport %d accept", p.Table, p.Chain, in, protocol, t.Prefix, t.Port)
}

// letsMarkedIn reports whether packets with each of our marks are accepted.
func (e *exam) letsMarkedIn(d netfilter.Drop) bool {
	for family, to := range e.someDestinations() {
		if !contains(d.Families, family) {
			continue
		}
		for _, mark := range []uint32{e.c.Kernel.ClientMark, e.c.Kernel.OriginMark} {
			if !d.LetsIn(netfilter.Packet{To: to.Addr(), Mark: mark}) {
				return false
			}
		}
	}
	return true
}

// acceptMarked is the command that accepts packets with either mark.
func acceptMarked(p netfilter.Place, marks uint32) string {
	if p.Flavour == netfilter.NFT {
		return fmt.Sprintf("nft insert rule %s %s meta mark and 0x%x != 0 accept", p.Table, p.Chain, marks)
	}
	return fmt.Sprintf("set kernel.netfilter to %s, which keeps portreeve's chains beside this one", strings.TrimPrefix(string(p.Flavour), "iptables-"))
}

// output judges what drops at OUTPUT: what the inspector sends to clients and to
// origins. Replies to clients of transit are let out by our chain.
func (e *exam) output() {
	for _, d := range e.m.Firewall.Output() {
		if !e.concerned(d.Families) {
			continue
		}
		var marks uint32
		if !e.letsOut(d, e.c.Kernel.ClientMark) && !(e.letsUntrackedOut(d.Families) && e.cured(d.Place, d.Guarded)) {
			marks |= e.c.Kernel.ClientMark
		}
		if !e.letsOut(d, e.c.Kernel.OriginMark) {
			marks |= e.c.Kernel.OriginMark
		}
		if marks != 0 {
			e.warn(d.Place.String(), d.By+": it may drop what the inspector sends to "+e.peersOf(marks), letOut(d.Place, marks))
		}
	}
}

// letsOut reports whether what bears a mark is accepted, to whichever family.
func (e *exam) letsOut(d netfilter.Drop, mark uint32) bool {
	for family, to := range e.someDestinations() {
		if contains(d.Families, family) && !d.LetsIn(netfilter.Packet{To: to.Addr(), Mark: mark}) {
			return false
		}
	}
	return true
}

// letsUntrackedOut reports whether attach makes a chain for replies to clients in
// each of the families that are in use.
func (e *exam) letsUntrackedOut(families []plan.Family) bool {
	for family := range e.someDestinations() {
		if contains(families, family) && !e.intercepts(family) {
			return false
		}
	}
	return true
}

// intercepts reports whether a service takes transit of a family.
func (e *exam) intercepts(f plan.Family) bool {
	for _, s := range e.c.Services {
		for _, t := range s.Intercept {
			if plan.FamilyOf(t.Prefix.Addr()) == f {
				return true
			}
		}
	}
	return false
}

func (e *exam) peersOf(marks uint32) string {
	switch marks {
	case e.c.Kernel.ClientMark:
		return "clients"
	case e.c.Kernel.OriginMark:
		return "origins"
	}
	return "clients and origins"
}

// letOut is the command that accepts packets with any of the marks.
func letOut(p netfilter.Place, marks uint32) string {
	if p.Flavour == netfilter.NFT {
		return acceptMarked(p, marks)
	}
	tool := string(p.Flavour)
	if contains(p.Families, plan.IPv6) {
		tool = strings.Replace(tool, "ip", "ip6", 1)
	}
	return fmt.Sprintf("%s -t %s -A %s -m mark ! --mark 0x0/0x%x -j ACCEPT", tool, p.Table, p.Chain, marks)
}

// refusals judges rules that let certain states of connection tracking through:
// client legs of transit are not tracked, and have none of them.
func (e *exam) refusals() {
	if e.c.Kernel.Netfilter == config.NetfilterOff {
		return // nothing keeps them from being tracked
	}
	for family, to := range e.someTransit() {
		in := netfilter.Packet{To: to.Addr(), Port: to.Port(), Mark: e.c.Kernel.ClientMark}
		out := netfilter.Packet{From: to.Addr(), Mark: e.c.Kernel.ClientMark}
		for _, r := range slices.Concat(
			e.m.Firewall.Refusals("prerouting", in), e.m.Firewall.Refusals("input", in), e.m.Firewall.Refusals("output", out),
		) {
			if r.Table == "filter" && e.cured(r.Place, r.Guarded) {
				continue
			}
			e.problem(r.Place.String(), fmt.Sprintf("the rule %q drops packets of transit clients (%s): they are not tracked, and it lets other states through only", r.Rule, family),
				letThrough(r.Place, e.c.Kernel.ClientMark))
		}
	}
}

// someTransit is a target of transit for each family.
func (e *exam) someTransit() map[plan.Family]netip.AddrPort {
	some := map[plan.Family]netip.AddrPort{}
	for _, s := range e.c.Services {
		for _, t := range s.Intercept {
			some[plan.FamilyOf(t.Prefix.Addr())] = netip.AddrPortFrom(t.Prefix.Addr(), t.Port)
		}
	}
	return some
}

// letThrough is the command that puts an exception before a rule.
func letThrough(p netfilter.Place, mark uint32) string {
	if p.Flavour == netfilter.NFT {
		return acceptMarked(p, mark)
	}
	return strings.Replace(letOut(p, mark), " -A ", " -I ", 1)
}

// diversions judges DNAT, REDIRECT and TPROXY of what we steer: TC sees the
// packet before such a rule and sk_lookup after it, so a diverted connection
// hangs. No address of a packet is translated that is not tracked, as those of
// transit clients are not.
func (e *exam) diversions() {
	for _, s := range e.c.Services {
		for n, t := range slices.Concat(s.Listen, s.Intercept) {
			untracked := n >= len(s.Listen) && e.c.Kernel.Netfilter != config.NetfilterOff
			for _, d := range e.m.Firewall.Diversions(netfilter.Packet{To: t.Prefix.Addr(), Port: t.Port}) {
				if untracked && d.Action != "tproxy" {
					e.info(d.Place.String(), fmt.Sprintf("the rule %q (%s) does not touch connections to %s by the client side: they are not tracked", d.Rule, d.Action, t))
					continue
				}
				e.problem(d.Place.String(), fmt.Sprintf("the rule %q sends connections to %s elsewhere (%s) before service %s gets them", d.Rule, t, d.Action, s.Name),
					"remove the rule; to serve the address where it points to, name that origin under origins")
			}
		}
	}
}

// rewrites judges SNAT and MASQUERADE towards origins.
func (e *exam) rewrites() {
	if !e.forges() {
		return
	}
	for _, to := range e.someDestinations() {
		for _, t := range e.m.Firewall.Rewrites(netfilter.Packet{To: to.Addr(), Port: to.Port(), Mark: e.c.Kernel.OriginMark}) {
			if e.cured(t.Place, t.Guarded) {
				e.info(t.Place.String(), fmt.Sprintf("the rule %q (%s) does not touch forged connections: PORTREEVE-POSTROUTING comes before it", t.Rule, t.Action))
				continue
			}
			e.problem(t.Place.String(), fmt.Sprintf("the rule %q (%s) gives connections to %s another source, so their replies find no socket", t.Rule, t.Action, to),
				e.keepSource(t.Place, e.c.Kernel.OriginMark))
		}
	}
}

// keepSource is the command that keeps forged connections from being
// rewritten.
func (e *exam) keepSource(p netfilter.Place, mark uint32) string {
	if e.jumpsIn(p) {
		return headAgain
	}
	if p.Flavour == netfilter.NFT {
		return fmt.Sprintf("nft insert rule %s %s meta mark and 0x%x != 0 accept", p.Table, p.Chain, mark)
	}
	return acceptMarked(p, mark)
}

// concerned reports whether a service uses one of the families.
func (e *exam) concerned(families []plan.Family) bool {
	for family := range e.someDestinations() {
		if contains(families, family) {
			return true
		}
	}
	return false
}

func contains(families []plan.Family, f plan.Family) bool {
	for _, one := range families {
		if one == f {
			return true
		}
	}
	return false
}
