package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
)

// try opens connections to the origins of services that forge, from addresses that
// belong to nobody, and closes them again: they come about only if the origin's
// replies pass the gateway and are claimed there. An origin's log may note a client
// that said nothing.
func try(ctx context.Context, c *config.Config, here route.Connected) []returns.Trial {
	dial := returns.Dialer(c.Kernel.OriginMark)
	taken := func(a netip.Addr) bool {
		_, found := here.Find(a)
		return found
	}
	var trials []returns.Trial
	for _, origin := range forgedOrigins(c) {
		if from := returns.Nobody(origin.Addr(), taken); from.IsValid() {
			trials = append(trials, returns.Try(ctx, dial, origin, from))
		}
	}
	return trials
}

// forgedOrigins are those of services that forge, as far as they are single
// addresses, each once.
func forgedOrigins(c *config.Config) []netip.AddrPort {
	var all []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	for _, s := range c.Services {
		if s.Forge.Address == config.ForgeNever {
			continue
		}
		for _, origin := range single(plan.Destinations(s)) {
			if !seen[origin] {
				all = append(all, origin)
			}
			seen[origin] = true
		}
	}
	return all
}

// single returns the targets that are one address.
func single(targets []config.Target) []netip.AddrPort {
	var all []netip.AddrPort
	for _, t := range targets {
		if t.Prefix.IsSingleIP() {
			all = append(all, netip.AddrPortFrom(t.Prefix.Addr(), t.Port))
		}
	}
	return all
}

// probes judges the connections that were tried.
func (e *exam) probes() {
	if !e.m.Attached && e.forges() {
		e.info("return routes", "not tried: replies to a forged address are claimed only while attached")
	}
	for _, t := range e.m.Probes {
		object := "origin " + t.Origin.String()
		switch {
		case t.Forged == nil:
			e.info(object, fmt.Sprintf("it answers a connection from %s, so its replies to clients pass this gateway", t.From))
		case t.Answered():
			e.problem(object, fmt.Sprintf("it refuses connections; its replies to %s do pass this gateway", t.From), "start the mail server there, or correct the port")
		case t.Lost():
			e.problem(object, fmt.Sprintf("it answers this gateway's own address, but not a connection from %s: its route to its clients does not lead through this gateway, or a packet filter drops them", t.From),
				"on the origin, make this gateway the default route, and let port "+fmt.Sprint(t.Origin.Port())+" in from everywhere")
		case errors.Is(t.Forged, forward.ErrTimeout):
			e.problem(object, fmt.Sprintf("neither %s nor this gateway's own address can connect to it: %v", t.From, t.Plain), "see whether it is up, and whether a packet filter lets port "+fmt.Sprint(t.Origin.Port())+" in")
		default:
			e.problem(object, fmt.Sprintf("cannot connect from %s: %v", t.From, t.Forged), "")
		}
	}
}
