package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
)

// Stopped names what may reach the origins of transit services today and will
// be stopped once the kernel side is attached, with the words of the
// configuration that keep it.
func Stopped(c *config.Config, links []route.Link, firewall *netfilter.Survey) finding.List {
	e := begin(c, Machine{Links: links, Firewall: firewall})
	e.stopped()
	e.unfollowed()
	return e.report()
}

func (e *exam) stopped() {
	if !e.transit() {
		return
	}
	e.unlisted()
	e.diversionsInto()
}

// unlisted names the interfaces by which packets can come in that are on
// neither side: what they bring to an origin was not steered.
func (e *exam) unlisted() {
	var names []string
	for _, l := range e.m.Links {
		if l.Up && l.Name != "lo" && slices.ContainsFunc(l.Addresses, isRouted) && !slices.Contains(e.listed(), l.Name) {
			names = append(names, l.Name)
		}
	}
	if len(names) > 0 {
		e.warn("interface-unlisted", "interfaces", fmt.Sprintf("new connections that come in by %s to addresses under intercept are stopped while the kernel side is attached, for no list names the interface",
			strings.Join(names, ", ")), "name it under interfaces.client to inspect them, under interfaces.bypass to let them pass uninspected, or leave it")
	}
}

// isRouted tells addresses that more than one link can reach.
func isRouted(p netip.Prefix) bool { return !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() }

// listed are all interfaces of the configuration.
func (g *gateway) listed() []string {
	i := g.c.Interfaces
	return slices.Concat(i.Client, i.Origin, i.Bypass)
}

// diversionsInto names rules that send connections to addresses which nobody
// listed to an origin: the client side does not know those addresses.
func (e *exam) diversionsInto() {
	if e.m.Firewall == nil {
		return
	}
	told := e.diverting() // an error of their own
	for _, s := range e.c.Services {
		for _, t := range s.Intercept {
			for _, d := range e.m.Firewall.DiversionsInto(t.Prefix, t.Port) {
				if slices.ContainsFunc(told, func(m netfilter.Meeting) bool { return m.Same(d.Rule) }) {
					continue
				}
				e.remark(remark{subject: t.String(), Finding: finding.Finding{
					Severity: finding.Warning, Code: "diverted-into", Object: d.Place.String(),
					Text:   fmt.Sprintf("where its rule `%s` sends connections to {}, which service %s intercepts, they are stopped while the kernel side is attached: they were not inspected", d.Rule, s.Name),
					Remedy: "name the address that the rule is for under intercept, beside an origin under origins, and remove the rule",
				}})
			}
		}
	}
}

// diverting are the rules that take connections away from a service, or would without
// ours.
func (g *gateway) diverting() []netfilter.Meeting {
	var all []netfilter.Meeting
	for _, s := range g.c.Services {
		for n, t := range slices.Concat(s.Listen, s.Intercept) {
			p := netfilter.Packet{Family: plan.FamilyOf(t.Prefix.Addr()), In: netfilter.AnyInterface, To: t.Prefix, ToHere: n < len(s.Listen), Port: t.Port, State: netfilter.StateNew, Flags: netfilter.SYN}
			all = append(all, slices.DeleteFunc(g.m.Firewall.Meet("prerouting", p), func(m netfilter.Meeting) bool { return !m.Diverts() })...)
		}
	}
	return all
}

// walls judges what the walls do not see.
func (e *exam) walls() {
	e.stopped()
	if !e.transit() {
		return
	}
	for _, a := range e.m.Ahead {
		e.warn("program-ahead", a, "it comes before a program of portreeve, and can end the chain or change what that one looks at",
			"portreeve attach -c "+e.c.File+" # puts portreeve's own first again; a watcher does it by itself")
	}
	for _, l := range e.m.Links {
		if !slices.Contains(e.interfaces(), l.Name) {
			continue
		}
		if l.Kind == "bridge" {
			e.info("bridge", "interface "+l.Name, "frames that are bridged between its ports never meet IP, and neither inspector nor walls: an origin must not be behind a port of the same bridge as its clients")
		}
		if l.XDP {
			e.warn("xdp", "interface "+l.Name, "an XDP program is attached, which may redirect packets before the walls see them", "make sure that it leaves port 25 alone")
		}
	}
}
