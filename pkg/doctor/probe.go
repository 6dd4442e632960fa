package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
)

// try opens connections to the origins of services that forge, from addresses that
// belong to nobody, and closes them again: they come about only if the origin's
// replies pass the gateway and are claimed there. An origin's log may note a client
// that said nothing. It also returns by which interfaces replies came in.
func try(ctx context.Context, c *config.Config, here route.Connected) ([]returns.Trial, map[netip.Addr]string, error) {
	dial := returns.Dialer(c.Kernel.OriginMark)
	forging := slices.DeleteFunc(slices.Clone(c.Services), func(s config.Service) bool { return s.Forge.Address == config.ForgeNever })
	var trials []returns.Trial
	var addresses []netip.Addr
	for _, origin := range plan.Hosts(forging...) {
		if from := returns.Nobody(origin.Addr(), here.Has); from.IsValid() {
			trials = append(trials, returns.Trial{Origin: origin, From: from})
			addresses = append(addresses, from)
		}
	}
	watch, err := watchFor(addresses)
	if err != nil {
		return nil, nil, err
	}
	for i, t := range trials {
		trials[i] = returns.Try(ctx, dial, t.Origin, t.From)
	}
	return trials, watch.end(), nil
}

// Silent are the origins that were tried, and answered nobody.
func (m Machine) Silent() []netip.AddrPort {
	var silent []netip.AddrPort
	for _, t := range m.Probes {
		if errors.Is(t.Forged, forward.ErrTimeout) && t.Plain != nil {
			silent = append(silent, t.Origin)
		}
	}
	return silent
}

// probes judges the connections that were tried.
func (e *exam) probes() {
	if !e.m.Attached && e.forges() {
		e.info("return-route-untried", "return routes", "not tried: replies to a forged address are claimed only while attached")
	}
	for _, t := range e.m.Probes {
		severity, code, text, remedy := e.probe(t)
		e.remark(remark{subject: t.Origin.String(), about: aboutOrigin(t.Origin), Finding: finding.Finding{
			Severity: severity, Code: code, Object: "origin {}", Text: text, Remedy: remedy,
		}})
	}
}

// probe judges one. What came in for the forged address says where the reply was lost.
func (e *exam) probe(t returns.Trial) (severity finding.Severity, code, text, remedy string) {
	by, came := e.m.Replies[t.From]
	port := fmt.Sprint(t.Origin.Port())
	switch {
	case t.Forged == nil:
		return finding.Info, "return-route-works", "it answers an address that is not this gateway's, so its replies to clients pass here", ""
	case t.Answered():
		return finding.Error, "origin-refuses", "it refuses connections; its replies to clients do pass this gateway", "start the mail server there, or correct the port"
	case came && !slices.Contains(e.c.Interfaces.Origin, by):
		return finding.Error, "return-interface", fmt.Sprintf("its replies to clients come in by %s, which is not on the origin side, so they are not for us", by),
			fmt.Sprintf("add %s to interfaces.origin, then portreeve attach -c %s", by, e.c.File)
	case came:
		return finding.Error, "return-lost", fmt.Sprintf("its replies to clients come in by %s, and are lost on this gateway", by), "see what other findings say, and the rules of whatever filters packets here"
	case t.Lost():
		return finding.Error, "return-route", "it answers this gateway's own address, but no other: its route to its clients does not lead through this gateway, or a packet filter drops them",
			"on the origin, make this gateway the default route, and let port " + port + " in from everywhere"
	case errors.Is(t.Forged, forward.ErrTimeout):
		return finding.Error, "origin-silent", "neither a client's address nor this gateway's own can connect to it: " + because(t.Plain), "see whether it is up, and whether a packet filter lets port " + port + " in"
	}
	return finding.Error, "origin-unreachable", "cannot connect to it: " + because(t.Forged), "see whether it is up, and ip route get for its address"
}

// because is why a connection failed, without the address: others may fail for the
// same.
func because(err error) string {
	var e *forward.Error
	if errors.As(err, &e) {
		return e.Class.Error()
	}
	return fmt.Sprint(err)
}
