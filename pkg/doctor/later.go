package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// later names rules of FORWARD that stop connections of some clients behind their SYN: no
// other packet of a transit connection passes FORWARD, and its answers leave by OUTPUT.
func (e *exam) later(wanted *netfilter.Survey) {
	if !plan.Loops(e.c) {
		return
	}
	judged, told := kinds{}, map[netfilter.RuleID]bool{}
	for t, by := range e.transits() {
		for _, w := range e.uninspected(t, by) {
			if !judged.isNew(e.kind(wanted, w)) {
				continue
			}
			for _, m := range e.stopping(wanted, w) {
				if !told[m.ID()] {
					told[m.ID()] = true
					e.unmetLater(wanted, w, m)
				}
			}
		}
	}
}

// kind is what rules can tell of a way of connections in transit. Gateways have many of a
// kind.
type kind struct {
	leg
	begins  netfilter.Packet // as it is forwarded to the loop
	forward netfilter.Packet // as it would be forwarded without us
}

// kinds are those that were judged.
type kinds map[kind]bool

// isNew reports whether a kind was not judged yet.
func (k kinds) isNew(one kind) bool {
	judged := k[one]
	k[one] = true
	return !judged
}

func (g *gateway) kind(wanted *netfilter.Survey, w way) kind {
	loop := g.intercepted(w.to, w.by)[0]
	return kind{w.leg, wanted.Shape(loop.at("forward")), wanted.Shape(w.at("forward"))}
}

// ephemeral is a port that a client may connect from. Rules that ask for another one
// are about what clients serve.
const ephemeral = 49152

// stopping are the rules that stop what follows a SYN, or answers it, for some clients.
func (g *gateway) stopping(wanted *netfilter.Survey, w way) []netfilter.Meeting {
	p := w.at("forward")
	if w.leg == openReply {
		p.Port = ephemeral
		if g.mayBeUntracked(wanted, w) {
			p.State = 0
		}
	} else {
		p.SourcePort, p.Flags, p.State = ephemeral, netfilter.ACK, netfilter.StateEstablished
	}
	met := slices.DeleteFunc(wanted.Meet("forward", p), func(m netfilter.Meeting) bool { return !m.Stops() || !m.Choosing || m.Policy() })
	if w.leg == openReply {
		return met
	}
	syn := rulesOf(wanted.Meet("forward", w.at("forward")))
	met = slices.DeleteFunc(met, func(m netfilter.Meeting) bool { return syn[m.ID()] })
	return append(met, begun(wanted, w.at("forward"), p)...)
}

// begun are the rules that are sure to stop a later packet of a client whom some rule
// accepts, and whose SYN passes.
func begun(wanted *netfilter.Survey, syn, later netfilter.Packet) []netfilter.Meeting {
	var all []netfilter.Meeting
	for _, client := range wanted.Accepted(syn.Family) {
		syn.From, later.From = client, client
		if _, _, passes := wanted.Pass("forward", syn); !passes {
			continue
		}
		for _, m := range wanted.Meet("forward", later) {
			if m.Stops() && m.Sure && !m.Choosing && !m.Policy() {
				all = append(all, m)
			}
		}
	}
	return all
}

// mayBeUntracked reports whether connection tracking may not know to what a packet is the
// answer.
func (g *gateway) mayBeUntracked(wanted *netfilter.Survey, w way) bool {
	syn := netfilter.Packet{Family: plan.FamilyOf(w.to.Prefix.Addr()), In: w.by, To: w.to.Prefix, Port: w.to.Port, Flags: netfilter.SYN, State: netfilter.StateNew}
	_, after, _ := wanted.Pass("prerouting", syn)
	return after.State != netfilter.StateNew
}

// unmetLater tells of one rule, unless those whom it stops are stopped by their SYN, too.
func (e *exam) unmetLater(wanted *netfilter.Survey, w way, m netfilter.Meeting) {
	mirror := netfilter.Mirror{}
	if w.leg == openReply {
		if mirror = m.Mirror(plan.LoopLink); mirror.There || e.banned(wanted, w, m.Recipients()) {
			return
		}
	}
	remedy := mirror.Command + cures{e.gateway}.keep(m.Place)
	if mirror.Command == "" {
		remedy = fmt.Sprintf("stop new connections of those clients in FORWARD: they leave it by %s", plan.LoopLink)
	}
	e.add("forward-later", finding.Warning, m.Place.String(), fmt.Sprintf(
		"transit connections do not meet `%s`: of them, FORWARD sees the SYN alone", m.Rule), strings.TrimSpace(remedy))
}

// banned reports whether all of some clients are stopped on their way to the inspector.
func (g *gateway) banned(wanted *netfilter.Survey, w way, clients []netip.Prefix) bool {
	loop := g.intercepted(w.to, w.by)[0]
	through := func(client netip.Prefix) bool {
		for _, st := range loop.steps {
			p := st.Packet
			p.From = client
			if _, _, passes := wanted.Pass(st.hook, p); !passes {
				return false
			}
		}
		return true
	}
	return len(clients) > 0 && !slices.ContainsFunc(clients, through)
}
