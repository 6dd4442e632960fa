package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	forging := slices.DeleteFunc(slices.Clone(c.Services), func(s config.Service) bool { return s.Forge.Address == config.ForgeNever })
	var trials []returns.Trial
	for _, origin := range plan.Hosts(forging...) {
		if from := returns.Nobody(origin.Addr(), here.Has); from.IsValid() {
			trials = append(trials, returns.Try(ctx, dial, origin, from))
		}
	}
	return trials
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
