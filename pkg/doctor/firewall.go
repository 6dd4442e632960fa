package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
)

// firewall judges the packet filter by following all packets that mail needs.
func (e *exam) firewall() {
	if e.m.Firewall == nil {
		return
	}
	wanted := e.m.Firewall.With(plan.Build(e.c, e.m.Facts))
	e.troubles(wanted)
	e.unmet(wanted)
	e.later(wanted)
	e.masqueraded()
	for _, f := range e.m.Flowtables {
		e.warn("flowtable", fmt.Sprintf("nftables flowtable %s %s", f.Table, f.Name),
			"flows that it took up before attach pass by the routing rules until they end, unseen",
			"attach before mail flows, or leave port 25 out of the flowtable")
	}
	e.unfollowed()
}

// unfollowed tells where packets have more ways than can be followed.
func (e *exam) unfollowed() {
	if e.m.Firewall == nil {
		return
	}
	for _, p := range e.m.Firewall.Unfollowed() {
		e.warn("rules-unfollowed", p.String(), "packets have too many ways through it and the chains that it leads to: they were not followed to the end, so that harm which rules do there may not be named",
			"let fewer rules lead to the same chains, and run doctor again")
	}
}

// troubles judges the rules that packets meet. Not what is there counts, but what
// will be when our rules are in place: what only then does no harm is cured by that.
func (e *exam) troubles(wanted *netfilter.Survey) {
	var lasting, now []trouble
	for _, w := range e.ways() {
		lasting = append(lasting, e.follow(wanted, w)...)
		if e.m.Attached {
			now = append(now, e.follow(e.m.Firewall, w)...)
		}
	}
	for _, g := range grouped(lasting) {
		e.remark(remark{about: g.about(), Finding: finding.Finding{
			Severity: g.severity(), Code: g.code(), Object: g.Place.String(), Text: g.text(), Remedy: cures{e.gateway}.cure(g),
		}})
	}
	cured := func(t trouble) bool { return slices.ContainsFunc(lasting, t.same) }
	for _, g := range grouped(slices.DeleteFunc(now, cured)) {
		e.remark(remark{about: g.about(), Finding: finding.Finding{
			Severity: g.severity(), Code: "rules-astray", Object: g.Place.String(),
			Text: g.text() + ": portreeve's own rules are gone, or not in their place", Remedy: "portreeve attach -c " + e.c.File,
		}})
	}
}

// concernsClients reports whether clients may have the sources that a rule chooses. In
// a network that only another interface of the gateway is in there are none.
func (g *gateway) concernsClients(r netfilter.Rule) bool {
	sources := r.Sources()
	return len(sources) == 0 || slices.ContainsFunc(sources, func(p netip.Prefix) bool { return !g.elsewhere(p) })
}

// elsewhere reports whether a prefix is in a network of an interface that clients do
// not come by.
func (g *gateway) elsewhere(p netip.Prefix) bool {
	for _, l := range g.m.Links {
		for _, n := range l.Addresses {
			if n.Masked().Bits() <= p.Bits() && n.Masked().Contains(p.Addr()) {
				return !slices.Contains(g.c.Interfaces.Client, l.Name)
			}
		}
	}
	return false
}

// masqueraded judges a gateway that gives clients another source on their way out:
// where their own is not known outside, no reply to it comes back.
func (e *exam) masqueraded() {
	for _, s := range e.c.Services {
		if s.Forge.Address == config.ForgeNever {
			continue
		}
		for _, t := range plan.Destinations(s) {
			for _, m := range e.masqueradesOf(t) {
				e.remark(e.masqueradeRemark(s, t, m))
			}
		}
	}
}

// masqueradesOf returns the rules that give clients of a service another source when
// they are forwarded to a destination. A single host is tried: if it answers a forged
// address it needs no such rule, and if a rule meets forged connections to it that rule
// is to blame.
func (g *gateway) masqueradesOf(t config.Target) []netfilter.Meeting {
	if t.Prefix.IsSingleIP() && (!g.unanswered(netip.AddrPortFrom(t.Prefix.Addr(), t.Port)) || g.rewritten(t)) {
		return nil
	}
	var found []netfilter.Meeting
	for _, out := range g.interfacesTo(t) {
		p := netfilter.Packet{Family: plan.FamilyOf(t.Prefix.Addr()), Out: out, To: t.Prefix, Port: t.Port, Flags: netfilter.SYN, State: netfilter.StateNew}
		for _, m := range g.m.Firewall.Meet("postrouting", p) {
			if m.Rewrites() && g.concernsClients(m.Rule) {
				found = append(found, m)
			}
		}
	}
	return found
}

// rewritten reports whether forged connections to a destination get another source.
func (g *gateway) rewritten(t config.Target) bool {
	for _, by := range g.interfacesTo(t) {
		for _, w := range g.forwarded(t, by, true) {
			if slices.ContainsFunc(g.follow(g.m.Firewall, w), func(t trouble) bool { return t.harm == rewrites }) {
				return true
			}
		}
	}
	return false
}

// unanswered reports whether an origin was tried, and its reply did not come back.
func (g *gateway) unanswered(o netip.AddrPort) bool {
	for _, t := range g.m.Probes {
		if t.Origin == o {
			return t.Lost()
		}
	}
	return false
}

func (e *exam) masqueradeRemark(s config.Service, t config.Target, m netfilter.Meeting) remark {
	severity, becomes := finding.Error, "and read 421"
	if s.Forge.Address == config.ForgePrefer {
		severity, becomes = finding.Warning, "until forge.address: prefer has found that out"
	}
	return remark{subject: t.String(), about: []string{"origin " + t.String()}, Finding: finding.Finding{
		Severity: severity, Code: "masquerade-clients", Object: e.c.File + ": service " + s.Name,
		Text: fmt.Sprintf("this gateway gives clients another source towards {} (%s: `%s`), and the service forges their own: where that is not known, no reply comes back, %s",
			m.Place, m.Rule, becomes),
		Remedy: fmt.Sprintf("set forge: {address: never} for service %s: its clients then come from this gateway's own address, as without portreeve", s.Name),
	}}
}

// Masquerades names the rules by which clients that are forged have been given another
// source until now.
func Masquerades(c *config.Config, links []route.Link, firewall *netfilter.Survey) finding.List {
	e := begin(c, Machine{Links: links, Firewall: firewall})
	e.masqueraded()
	e.unfollowed()
	return e.report()
}
