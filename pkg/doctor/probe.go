package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/plan"
)

// Addresses that belong to nobody, RFC 5737 and RFC 3849. An origin answers
// them by the same default route as it answers its clients.
var (
	Nobody4 = netip.MustParseAddr("192.0.2.1")
	Nobody6 = netip.MustParseAddr("2001:db8::1")
)

// probePort is the source port of a probe as an origin's log shows it: any.
const probePort = 0

// Probe is a connection to an origin from an address that is not the
// gateway's: it comes about only if the origin's replies pass the gateway and
// are claimed there.
type Probe struct {
	Origin netip.AddrPort
	From   netip.Addr
	Err    error
}

// try opens connections to the origins of services that forge, and closes
// them again. An origin's log may note a client that said nothing.
func try(ctx context.Context, c *config.Config, patience time.Duration) []Probe {
	var probes []Probe
	seen := map[netip.AddrPort]bool{}
	for _, s := range c.Services {
		if s.Forge.Address == config.ForgeNever {
			continue
		}
		for _, origin := range single(plan.Destinations(s)) {
			if !seen[origin] {
				probes = append(probes, probe(ctx, c, origin, patience))
			}
			seen[origin] = true
		}
	}
	return probes
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

func probe(ctx context.Context, c *config.Config, origin netip.AddrPort, patience time.Duration) Probe {
	p := Probe{Origin: origin, From: Nobody4}
	if plan.FamilyOf(origin.Addr()) == plan.IPv6 {
		p.From = Nobody6
	}
	d := forward.Dialer{Origins: []netip.AddrPort{origin}, Mark: c.Kernel.OriginMark, Timeout: patience}
	conn, _, err := d.Dial(ctx, flow.Flow{ID: flow.NewID(), Client: netip.AddrPortFrom(p.From, probePort)})
	if err != nil {
		p.Err = err
		return p
	}
	conn.SetLinger(0)
	conn.Close()
	return p
}

// probes judges the connections that were tried.
func (e *exam) probes() {
	if !e.m.Attached && e.forges() {
		e.info("return routes", "not tried: replies to a forged address are claimed only while attached")
	}
	for _, p := range e.m.Probes {
		object := "origin " + p.Origin.String()
		switch {
		case p.Err == nil:
			e.info(object, fmt.Sprintf("it answers a connection from %s, so its replies to clients pass this gateway", p.From))
		case errors.Is(p.Err, forward.ErrRefused):
			e.problem(object, fmt.Sprintf("it refuses connections; its replies to %s do pass this gateway", p.From), "start the mail server there, or correct the port")
		case errors.Is(p.Err, forward.ErrTimeout):
			e.problem(object, fmt.Sprintf("no answer to a connection from %s: its route to its clients does not lead through this gateway, or a packet filter drops them", p.From),
				"on the origin, make this gateway the default route, and let port "+fmt.Sprint(p.Origin.Port())+" in from everywhere")
		default:
			e.problem(object, fmt.Sprintf("cannot connect from %s: %v", p.From, p.Err), "")
		}
	}
}
