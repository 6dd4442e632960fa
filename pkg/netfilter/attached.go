package netfilter

import (
	"slices"

	"github.com/portreeve/portreeve/pkg/plan"
)

// With returns the packet filter as it is when our chains are as wanted: those among
// the items are there, each jump to one is in its place, and no others of ours are.
func (s *Survey) With(items []plan.Item) *Survey {
	w := &Survey{flowtables: s.flowtables, printer: s.printer, effort: s.spending()}
	for _, c := range s.chains {
		if c.ours() {
			continue
		}
		c.entries = slices.DeleteFunc(slices.Clone(c.entries), func(e entry) bool { return e.ourJump })
		w.chains = append(w.chains, c)
	}
	for _, i := range items {
		switch i := i.(type) {
		case plan.Chain:
			w.chains = append(w.chains, chain{Place: placed(i.Family, i.Legacy, i.Table, i.Name)})
		case plan.Filter:
			w.add(i)
		}
	}
	return w
}

// placed is a chain of iptables.
func placed(f plan.Family, legacy bool, table, name string) Place {
	p := Place{Flavour: IPTablesNFT, Families: []plan.Family{f}, Table: table, Chain: name}
	if legacy {
		p.Flavour = IPTablesLegacy
	}
	return p
}

// add puts a rule of ours where it is wanted.
func (s *Survey) add(f plan.Filter) {
	r := rule{chain: f.Chain, spec: f.Spec}
	at := placed(f.Family, f.Legacy, f.Table, f.Chain)
	c, found := s.chain(at, f.Chain)
	if !found {
		s.chains = append(s.chains, baseChain(at))
		c = &s.chains[len(s.chains)-1]
	}
	n := len(c.entries)
	if f.IsJump() {
		n = s.base(c).spot(targetOf(f))
	}
	c.entries = slices.Insert(c.entries, n, r.entry())
}

// base is a base chain, as far as the place of our jumps depends on it.
func (s *Survey) base(c *chain) base {
	b, _ := chainsBy(func(name string) ([]line, error) { // nothing is read any more that could fail
		var lines []line
		if next, found := s.chain(c.Place, name); found {
			for _, e := range next.entries {
				lines = append(lines, e.line())
			}
		}
		return lines, nil
	}).base(c.Chain)
	return b
}

func (e entry) line() line {
	if e.ourJump {
		return line{jump: e.to}
	}
	ends := e.action == accept || e.action == drop || e.action == reject || e.action == leave
	does := e.writes != nil || e.untracks
	return line{bare: len(e.conditions) == 0 && !does && (ends || e.action == goOn || e.to != ""), to: e.to}
}
