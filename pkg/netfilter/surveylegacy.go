package netfilter

import (
	"errors"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// lookLegacy adds the chains of iptables-legacy. Without its command they
// cannot be read, and nobody here can have made them.
func (s *Survey) lookLegacy() error {
	var t tools
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		names, err := legacyTables(f)
		if err != nil {
			return err
		}
		for _, name := range names {
			l, err := t.list(tool{f, true}, name, "")
			if errors.Is(err, ErrMissing) {
				break
			}
			if err != nil {
				return err
			}
			s.chains = append(s.chains, l.survey(f, name)...)
		}
	}
	return nil
}

// priorities are those of iptables' base chains; nat's differ by hook.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

// priority is where a base chain of iptables stands among those of its hook.
func priority(table, hook string) int {
	if table != "nat" {
		return priorities[table]
	}
	if hook == "prerouting" || hook == "output" {
		return -100
	}
	return 100
}

// baseChain is an empty base chain of iptables.
func baseChain(at Place) chain {
	hook := strings.ToLower(at.Chain)
	return chain{Place: at, hook: hook, priority: priority(at.Table, hook), nat: at.Table == "nat"}
}

// survey turns a listing into chains.
func (l listing) survey(f plan.Family, table string) []chain {
	var all []chain
	at := map[string]int{}
	place := func(name string) Place {
		return Place{Flavour: IPTablesLegacy, Families: []plan.Family{f}, Table: table, Chain: name}
	}
	for name, policy := range l.policies {
		at[name] = len(all)
		base := baseChain(place(name))
		base.dropping = policy == "DROP"
		all = append(all, base)
	}
	for _, name := range l.chains {
		at[name] = len(all)
		all = append(all, chain{Place: place(name)})
	}
	for _, r := range l.rules {
		if i, known := at[r.chain]; known {
			e := r.entry()
			e.number = len(all[i].entries) + 1
			all[i].entries = append(all[i].entries, e)
		}
	}
	return all
}
