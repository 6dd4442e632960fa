package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// harm is what a rule does to packets of ours.
type harm uint8

const (
	stops     harm = iota
	answers        // by SYNPROXY
	diverts        // to another destination
	rewrites       // the source
	takesMark      // of ours
	setsMark       // of ours, on packets that have none
)

// trouble is a rule that does harm to packets on one way.
type trouble struct {
	harm
	way
	hook string
	sure bool
	netfilter.Meeting
}

// same reports whether both are about one rule, and the same harm.
func (t trouble) same(o trouble) bool { return t.harm == o.harm && t.Rule.Same(o.Rule) }

// follow returns what happens to packets on their way.
func (g *gateway) follow(s *netfilter.Survey, w way) []trouble {
	if w.leg == originLater && !g.halfTracked(s, w) {
		return nil
	}
	var found []trouble
	untracked, writer := false, netfilter.Meeting{}
	var lost, doubt uint32
	for _, st := range w.steps {
		p := st.Packet
		p.Mark, p.Doubt = p.Mark&^lost, doubt
		tracked := p
		if untracked && p.State != 0 {
			p.State = netfilter.StateUntracked
		}
		met, after, passes := s.Pass(st.hook, p)
		if p != tracked {
			forAll(met, s.Meet(st.hook, tracked))
		}
		for _, m := range met {
			if m.Loses()&w.mark != 0 {
				writer = m
			}
			if t, is := g.harmOf(w, st.hook, m); is {
				found = append(found, t)
			}
		}
		routed := st.hook == "ingress" || st.hook == "prerouting"
		if !passes || routed && after.Mark&w.mark != w.mark {
			break
		}
		lost, doubt = p.Mark&^after.Mark, after.Doubt
		untracked = untracked || after.State == netfilter.StateUntracked
	}
	return blameWriter(found, writer, w.mark)
}

// forAll takes for no choice what stops clients only since their packets are not tracked:
// the rule was made for those whom an ACCEPT by state did not concern.
func forAll(met, tracked []netfilter.Meeting) {
	before := rulesOf(tracked)
	for i, m := range met {
		if m.Choosing && m.Stops() && !before[m.ID()] {
			met[i].Choosing = false
		}
	}
}

// rulesOf are the rules that are met.
func rulesOf(met []netfilter.Meeting) map[netfilter.RuleID]bool {
	rules := map[netfilter.RuleID]bool{}
	for _, m := range met {
		rules[m.ID()] = true
	}
	return rules
}

// blameWriter puts the rule that took a mark in the place of those that the packet
// would have passed with it.
func blameWriter(found []trouble, writer netfilter.Meeting, mark uint32) []trouble {
	for i, t := range found {
		if mark != 0 && t.Before&mark == 0 && (t.harm == stops || t.harm == rewrites) {
			t.harm, t.Meeting = takesMark, writer
			found[i] = t
		}
	}
	return found
}

// harmOf tells the harm that a rule does to packets on a way, if it does any. Whom
// the administrator bans is his affair.
func (g *gateway) harmOf(w way, hook string, m netfilter.Meeting) (trouble, bool) {
	t := trouble{way: w, hook: hook, sure: m.Sure && !m.Choosing, Meeting: m}
	plausible := !m.Choosing && (m.Sure || m.Fits || m.Specific)
	routed := hook == "ingress" || hook == "prerouting"
	switch {
	case m.Synproxy():
		t.harm = answers
		return t, plausible && (w.leg == addressedSYN || w.leg == loopSYN)
	case m.Stops():
		t.harm = stops
		return t, plausible
	case m.Diverts():
		t.harm = diverts
		return t, w.leg == addressedSYN || w.leg == loopSYN || w.leg == originSYN || m.TPROXY()
	case m.Rewrites():
		t.harm = rewrites
		return t, (w.leg == loopSYN || w.leg == originSYN && w.forged) && g.concernsClients(m.Rule)
	case m.Loses()&w.mark != 0:
		t.harm = takesMark
		return t, routed
	case m.Sets()&g.marks() != 0:
		t.harm = setsMark
		t.sure = false
		return t, routed
	}
	return t, false
}

// marks are all bits that portreeve uses.
func (g *gateway) marks() uint32 {
	k := g.c.Kernel
	all := k.ClientMark | k.OriginMark
	if plan.Loops(g.c) {
		all |= k.LoopMark
	}
	return all
}

// group is a rule with all the harm of one kind that it does.
type group struct {
	trouble           // the worst
	members []trouble // all
}

// grouped joins troubles by the rule that makes them.
func grouped(all []trouble) []group {
	var groups []group
	for _, t := range all {
		i := slices.IndexFunc(groups, func(g group) bool { return g.same(t) })
		if i < 0 {
			groups = append(groups, group{trouble: t})
			i = len(groups) - 1
		}
		g := &groups[i]
		g.members = append(g.members, t)
		if t.severity() > g.severity() {
			g.trouble = t
		}
	}
	return groups
}

func (t trouble) severity() finding.Severity {
	if t.sure && t.leg != openSYN && t.leg != openReply {
		return finding.Error
	}
	return finding.Warning
}

// codes of harm, but for what stops packets: that has a code for each hook.
var harmCodes = map[harm]string{answers: "synproxy", takesMark: "mark-writer", setsMark: "mark-writer"}

// code names the harm that a group does.
func (g group) code() string {
	switch {
	case g.harm == stops && g.only(openSYN, openReply):
		return "fail-open-drops"
	case g.harm == stops:
		return g.hook + "-drops"
	case g.harm == diverts && g.leg.origin():
		return "divert-origin"
	case g.harm == diverts:
		return "divert-client"
	case g.harm == rewrites && g.leg.origin():
		return "masquerade-origin"
	case g.harm == rewrites:
		return "masquerade-loop"
	}
	return harmCodes[g.harm]
}

func (g group) only(legs ...leg) bool {
	return !slices.ContainsFunc(g.members, func(t trouble) bool { return !slices.Contains(legs, t.leg) })
}

// about is what the group explains.
func (g group) about() []string {
	var all []string
	for _, t := range g.members {
		kind := "target "
		if t.leg.origin() {
			kind = "origin "
		}
		all = append(all, kind+t.to.String())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// text says what the rule does: "its policy drops …".
func (g group) text() string {
	what := "its rule `" + g.Rule.String() + "` "
	if g.Policy() {
		what = "its policy "
	}
	does := g.verb() + "s "
	if !g.sure {
		does = "may " + g.verb() + " "
	}
	return what + does + g.object()
}

func (g group) verb() string {
	switch {
	case g.harm == stops && g.Action() == "fwd":
		return "redirect"
	case g.harm == stops:
		return g.Action()
	}
	return map[harm]string{answers: "answer", diverts: "send", rewrites: "give", takesMark: "take", setsMark: "set"}[g.harm]
}

// object is what comes behind the verb.
func (g group) object() string {
	switch g.harm {
	case answers:
		return g.packets() + " itself (SYNPROXY), so that they never come to the inspector"
	case diverts:
		return g.packets() + " elsewhere (" + g.Action() + ")"
	case rewrites:
		return g.packets() + " another source (" + g.Action() + "), so that what answers them is not for us"
	case takesMark:
		return fmt.Sprintf("the mark 0x%x off %s, so that they go astray", g.mark, g.packets())
	case setsMark:
		return fmt.Sprintf("the mark 0x%x, which is portreeve's, on %s", g.Sets(), g.packets())
	}
	return g.packets()
}

// packets names what suffers: "connections to 192.0.2.1:25 by ext0 and replies of
// origin 198.51.100.1:25".
func (g group) packets() string {
	var kinds []string
	named := map[string][]string{}
	by := map[string][]string{}
	for _, t := range g.members {
		kind := t.noun()
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		named[kind] = added(named[kind], t.to.String())
		by[kind] = added(by[kind], t.by)
	}
	var words []string
	for _, kind := range kinds {
		words = append(words, strings.NewReplacer("TO", list(named[kind]), "BY", list(by[kind])).Replace(kind))
	}
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return words[0]
}

func added(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// noun is what the packets of a leg are called. What comes by an interface that it
// does not matter for is called by its other end.
func (w way) noun() string {
	switch w.leg {
	case addressedSYN, addressedLater:
		return "connections to TO by BY"
	case addressedReply:
		return "replies of TO to clients"
	case loopSYN:
		return "new transit connections to TO by BY"
	case steeredSYN, steeredLater:
		return "packets of transit clients to TO by BY"
	case transitReply:
		return "replies of TO to transit clients"
	case originSYN:
		return "connections to origin TO"
	case originReply:
		return "replies of origin TO by BY"
	case originLater:
		return "all but the first packets to origin TO, whose replies connection tracking does not see"
	}
	return "connections to TO that pass while no inspector lives"
}
