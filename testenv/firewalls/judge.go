package firewalls

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Outcome is what became of a ruleset.
type Outcome struct {
	AsItIs   Verdicts // of the ruleset alone
	Relaxed  Verdicts // without what stops everybody
	With     Verdicts // with portreeve
	Findings []Finding
	Changed  string // what detach left otherwise than it was
}

// Finding is one of doctor's, as it prints them in JSON.
type Finding struct {
	Severity, Object, Text, Remedy string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s %s: %s; %s", f.Severity, f.Object, f.Text, f.Remedy)
}

// Kind is a promise that was broken.
type Kind string

// The kinds.
const (
	Lifted      Kind = "a ban was lifted"
	Stopped     Kind = "mail was stopped"
	Uncured     Kind = "a policy was not cured"
	Uninspected Kind = "mail was not inspected"
	Unsteady    Kind = "the ruleset itself stops more without policies"
	Disturbed   Kind = "an unrelated verdict changed"
	Leftover    Kind = "detach did not restore the gateway"
)

// Failure is one promise broken to one probe.
type Failure struct {
	Kind
	Probe
	Text string
}

func (f Failure) String() string { return fmt.Sprintf("%s: %s: %s", f.Kind, f.Probe, f.Text) }

// alike reports whether two failures are of one cause, as far as can be told: what is
// made smaller has to fail in the same way.
func (f Failure) alike(g Failure) bool { return f.Kind == g.Kind && f.Way == g.Way }

// Judge compares what probes met. Who is stopped without policies too is banned; by
// which rules is asked for where doctor may have named them.
func (o *Outcome) Judge(r *Ruleset, culprits func(Probe) ([]Rule, error)) (failures []Failure, err error) {
	for _, p := range o.probes() {
		kind := o.kind(r, p)
		if kind == "" {
			continue
		}
		named, err := o.named(r, p, kind, culprits)
		if err != nil {
			return nil, err
		}
		if !named {
			failures = append(failures, Failure{kind, p, fmt.Sprintf("as it is: %s; without policies: %s; with portreeve: %s", o.AsItIs[p], o.Relaxed[p], o.With[p])})
		}
	}
	if o.Changed != "" {
		failures = append(failures, Failure{Kind: Leftover, Text: "\n" + o.Changed})
	}
	return failures, nil
}

// probes in an order that is always the same.
func (o *Outcome) probes() []Probe {
	var all []Probe
	for p := range o.AsItIs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Probe) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// kind is the promise that was broken to a probe, "" for none.
func (o *Outcome) kind(r *Ruleset, p Probe) Kind {
	asItIs, relaxed, with := o.AsItIs[p], o.Relaxed[p], o.With[p]
	switch {
	case p.Way == Unrelated:
		if asItIs != with {
			return Disturbed
		}
	case relaxed.Through < asItIs.Through:
		return Unsteady
	case with.Through > relaxed.Through+p.grace():
		return Lifted
	case with.Through < relaxed.Through && o.banned(p):
		return ""
	case with.Through < asItIs.Through:
		return Stopped
	case with.Through < relaxed.Through && r.Flavour != NFT && !r.leadsAway(p):
		return Uncured
	case with.Through > 0 && !inspected(with.Heard, p.From):
		return Uninspected
	}
	return ""
}

// leadsAway reports whether a rule would lead transit elsewhere. With portreeve it is
// inspected, and meets the rules about the address that it was for.
func (r *Ruleset) leadsAway(p Probe) bool {
	return p.Way == Transit && len(r.only(func(one *Rule) bool { return one.diverts() && one.To == Origin })) > 0
}

// grace is how much more may get through: who is counted by the time gets more when he
// takes longer.
func (p Probe) grace() int {
	if p.Times > 1 {
		return 1
	}
	return 0
}

// banned reports whether the client of a transit connection is banned from the gateway
// itself, by a rule of INPUT. It is the administrator's, and may stop him here, too.
func (o *Outcome) banned(p Probe) bool {
	if p.Way != Transit {
		return false
	}
	for q, v := range o.Relaxed {
		if q.Way == Addressed && q.From == p.From && v.Through == 0 {
			return true
		}
	}
	return false
}

// offer is what every server of the tests offers and no inspector lets pass.
const offer = "XPROBE"

// saw is how a server greets: with the address that it sees.
func saw(name Host, client netip.Addr) string { return fmt.Sprintf("%s saw %s", name, client) }

// inspected reports whether words came from the origin, by the inspector, to whom the
// origin took for the client.
func inspected(words string, client netip.Addr) bool {
	return strings.Contains(words, saw(Origin, client)+" ") && !strings.Contains(words, offer)
}

// named reports whether doctor named what is to blame. Who is let in must be named
// with the rules that he escapes. What stops others is known by its chain alone.
func (o *Outcome) named(r *Ruleset, p Probe, kind Kind, culprits func(Probe) ([]Rule, error)) (bool, error) {
	switch kind {
	case Lifted:
		if !o.blames(r, anyRule) {
			return false, nil // looking for culprits takes time
		}
		return o.blamesAll(p, culprits)
	case Stopped, Uncured:
		return o.blames(r, func(one *Rule) bool { return stops(r.Flavour, one) }), nil
	case Uninspected:
		return o.blames(r, (*Rule).diverts), nil
	}
	return false, nil
}

// stops reports whether a rule may stop what it let pass without portreeve: what
// iptables cannot overrule, what takes away or looks at what portreeve writes, and what
// let pass by the interface.
func stops(flavour Flavour, one *Rule) bool {
	return flavour == NFT || one.Apart || one.diverts() || one.Do == MarkAll || one.Do == Restore ||
		one.Mark && one.Whole || one.Do == Accept && one.Hook == Forward && one.Out == "dmz0"
}

// diverts reports whether a rule leads mail elsewhere.
func (one *Rule) diverts() bool {
	return one.Port == 25 && (one.Do == Redirect || one.Do == ToMore)
}

// blames reports whether a finding names the chain of one of the rules that may be to
// blame, or one that is closed.
func (o *Outcome) blames(r *Ruleset, may func(*Rule) bool) bool {
	suspects := r.only(may)
	for h, closed := range r.Closed {
		if closed && may(&Rule{Hook: h}) {
			suspects = append(suspects, Rule{Hook: h})
		}
	}
	for _, f := range o.Findings {
		if slices.ContainsFunc(suspects, func(one Rule) bool { return f.namesChain(r.Flavour, &one) }) {
			return true
		}
	}
	return false
}

// blamesAll reports whether the findings name each of the rules that stop a probe
// without portreeve.
func (o *Outcome) blamesAll(p Probe, culprits func(Probe) ([]Rule, error)) (bool, error) {
	guilty, err := culprits(p)
	for i := range guilty {
		if !slices.ContainsFunc(o.Findings, func(f Finding) bool { return f.names(&guilty[i], p.From) }) {
			return false, err
		}
	}
	return len(guilty) > 0, err
}

// warns reports whether the finding is one that an operator must not overlook.
func (f Finding) warns() bool { return f.Severity == "warning" || f.Severity == "error" }

// says reports whether the finding has all the words, as whole words.
func (f Finding) says(words ...string) bool {
	text := f.Object + " " + f.Text
	for _, w := range words {
		if !regexp.MustCompile(`(^|[^\w.:-])` + regexp.QuoteMeta(w) + `($|[^\w.:-]|[.:](\s|$))`).MatchString(text) {
			return false
		}
	}
	return true
}

// namesChain reports whether the finding names the chain of a rule, as one of whichever
// flavour.
func (f Finding) namesChain(flavour Flavour, one *Rule) bool {
	if !f.warns() {
		return false
	}
	switch {
	case one.Apart:
		return f.says(apartChain(one.Hook))
	case flavour == NFT:
		return f.says(nftChains[one.Hook][0]) || f.says("fw-"+nftChains[one.Hook][0])
	}
	for _, chain := range []string{one.Hook.chain(), fail2ban(one.Hook), "fw-" + strings.ToLower(one.Hook.chain()), logDropName(one.Hook)} {
		if f.says(chain) && (one.Hook.table() == "filter" || f.says(one.Hook.table())) {
			return true
		}
	}
	return false
}

// names reports whether the finding names a rule: its chain, and what tells it from
// others.
func (f Finding) names(one *Rule, client netip.Addr) bool {
	return f.warns() && slices.ContainsFunc([]Flavour{IPTablesNFT, NFT}, func(fl Flavour) bool { return f.namesChain(fl, one) }) && f.saysRule(one, client)
}

// saysRule reports whether the finding has what the rule asks for.
func (f Finding) saysRule(one *Rule, client netip.Addr) bool {
	family := Family(4)
	if client.Is6() {
		family = 6
	}
	if (one.Out != "") != (f.says("-o", one.Out) || f.says("oifname", `"`+one.Out+`"`)) {
		return false // it is another one
	}
	switch {
	case len(one.Clients) == 0:
		return true
	case one.Set:
		return f.says(setName(one.Clients, family)) || f.says("@"+setName(one.Clients, family))
	case one.Except:
		return true
	}
	return f.says(client.String()) || f.says(client.String()+"/32") || f.says(client.String()+"/128")
}
