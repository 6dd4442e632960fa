package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// mostTwins is how many rules are told in one go.
const mostTwins = 20

// unmet names rules that new connections of transit do not meet on their way: those of
// FORWARD that ask for the origin's interface, for they leave by the loop link, and those
// that compare a whole mark, for they bear a bit of ours.
func (e *exam) unmet(wanted *netfilter.Survey) {
	if !plan.Loops(e.c) {
		return
	}
	var out, marked []netfilter.Unmet
	judged := kinds{}
	for t, by := range e.transits() {
		out = append(out, e.unmetBy(wanted, t, by, judged)...)
		marked = append(marked, e.unmetMarked(wanted, t, by, judged)...)
	}
	for _, chain := range byChain(out) {
		e.twins(chain, "forward-out-interface", "they leave FORWARD by "+plan.LoopLink+", and come to the inspector from there")
	}
	for _, chain := range byChain(marked) {
		e.twins(chain, "forward-mark", fmt.Sprintf("until they come back from %s they bear the mark 0x%x, too", plan.LoopLink, e.c.Kernel.LoopMark))
	}
}

// unmetBy are the rules that new connections to a target do not meet for the interface.
func (g *gateway) unmetBy(wanted *netfilter.Survey, t config.Target, by string, judged kinds) []netfilter.Unmet {
	goes := g.intercepted(t, by)[0].at("forward")
	var unmet []netfilter.Unmet
	for _, w := range g.uninspected(t, by) {
		if w.leg == openSYN && judged.isNew(g.kind(wanted, w)) {
			unmet = append(unmet, wanted.Unmet("forward", w.at("forward"), goes)...)
		}
	}
	return slices.DeleteFunc(unmet, func(u netfilter.Unmet) bool { return u.Mark })
}

// unmetMarked are the rules that they do not meet for their mark, whatever the rest of it
// is.
func (g *gateway) unmetMarked(wanted *netfilter.Survey, t config.Target, by string, judged kinds) []netfilter.Unmet {
	loop := g.intercepted(t, by)[0]
	if !judged.isNew(g.kind(wanted, loop)) {
		return nil
	}
	var unmet []netfilter.Unmet
	for _, st := range loop.steps {
		goes := st.Packet
		goes.Doubt = ^goes.Mark
		would := goes
		would.Mark = 0
		unmet = append(unmet, wanted.Unmet(st.hook, would, goes)...)
	}
	return slices.DeleteFunc(unmet, func(u netfilter.Unmet) bool { return !u.Mark })
}

// byChain sorts rules by their chains, each rule once.
func byChain(all []netfilter.Unmet) [][]netfilter.Unmet {
	var chains [][]netfilter.Unmet
	at, seen := map[string]int{}, map[netfilter.RuleID]bool{}
	for _, u := range all {
		if seen[u.ID()] {
			continue
		}
		seen[u.ID()] = true
		place := u.Place.String()
		i, known := at[place]
		if !known {
			i = len(chains)
			at[place] = i
			chains = append(chains, nil)
		}
		chains[i] = append(chains[i], u)
	}
	return chains
}

// twins names the rules of a chain. The last one's twin is made first: it does not
// move the others.
func (e *exam) twins(chain []netfilter.Unmet, code, why string) {
	rest := ""
	if n := len(chain) - mostTwins; n > 0 {
		rest = fmt.Sprintf(" (%d more are told when these are done)", n)
		chain = chain[:mostTwins]
	}
	var rules, commands, unwritten []string
	for _, u := range slices.Backward(chain) {
		if c := u.Follow(); c != "" {
			commands = append(commands, c)
		} else {
			unwritten = append(unwritten, "`"+u.Rule.String()+"`")
		}
	}
	for _, u := range chain {
		rules = append(rules, "`"+u.Rule.String()+"`")
	}
	cure := cures{e.gateway}
	remedy := strings.Join(commands, " && ") + cure.keep(chain[0].Place)
	if command := cure.outInterfaceOf(chain); command != "" && !chain[0].Mark {
		remedy = command
	} else if len(unwritten) > 0 && chain[0].Mark {
		remedy = fmt.Sprintf("let %s leave out the bits 0x%x of the mark", list(unwritten), e.c.Kernel.LoopMark)
	} else if len(unwritten) > 0 {
		remedy = fmt.Sprintf("let %s be about %s, too", list(unwritten), plan.LoopLink)
	}
	e.add(code, finding.Warning, chain[0].Place.String(), fmt.Sprintf(
		"new transit connections do not meet %s%s: %s", strings.Join(rules, ", "), rest, why), remedy)
}
