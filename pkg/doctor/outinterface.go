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

// outInterfaces names rules of FORWARD that ask for the origin's interface: new
// connections of transit leave by the loop link, and do not meet them.
func (e *exam) outInterfaces(wanted *netfilter.Survey) {
	if !plan.Loops(e.c) {
		return
	}
	var unmet []netfilter.Unmet
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		for _, s := range e.c.Services {
			for _, t := range some(s.Intercept, f) {
				for _, by := range e.c.Interfaces.Client {
					unmet = append(unmet, e.unmetBy(wanted, t, by)...)
				}
			}
		}
	}
	for _, chain := range byChain(unmet) {
		e.twins(chain)
	}
}

// unmetBy are the rules that new connections to a target do not meet.
func (g *gateway) unmetBy(wanted *netfilter.Survey, t config.Target, by string) []netfilter.Unmet {
	goes := g.intercepted(t, by)[0].at("forward")
	var unmet []netfilter.Unmet
	for _, w := range g.uninspected(t, by) {
		if w.leg == openSYN {
			unmet = append(unmet, wanted.Unmet("forward", w.at("forward"), goes)...)
		}
	}
	return unmet
}

// byChain sorts rules by their chains, each rule once.
func byChain(all []netfilter.Unmet) [][]netfilter.Unmet {
	var chains [][]netfilter.Unmet
	for _, u := range all {
		i := slices.IndexFunc(chains, func(c []netfilter.Unmet) bool { return c[0].Place.String() == u.Place.String() })
		switch {
		case i < 0:
			chains = append(chains, []netfilter.Unmet{u})
		case !slices.ContainsFunc(chains[i], func(o netfilter.Unmet) bool { return o.Same(u.Rule) }):
			chains[i] = append(chains[i], u)
		}
	}
	return chains
}

// twins names the rules of a chain. The last one's twin is made first: it does not
// move the others.
func (e *exam) twins(chain []netfilter.Unmet) {
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
	if command := cure.outInterfaceOf(chain); command != "" {
		remedy = command
	} else if len(unwritten) > 0 {
		remedy = fmt.Sprintf("let %s be about %s, too", list(unwritten), plan.LoopLink)
	}
	e.add("forward-out-interface", finding.Warning, chain[0].Place.String(), fmt.Sprintf(
		"new transit connections do not meet %s%s: they leave FORWARD by %s, and come to the inspector from there", strings.Join(rules, ", "), rest, plan.LoopLink), remedy)
}
