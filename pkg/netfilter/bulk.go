package netfilter

import (
	"fmt"
	"slices"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Together reports whether All makes or removes such an item: a rule in a chain of ours,
// which else takes two processes. One that asks a program is removed by its number.
func (*Hand) Together(op plan.Op, i plan.Item) bool {
	f, is := i.(plan.Filter)
	return is && !f.IsJump() && ours(f.Chain) == nil && op != plan.Replace && (op == plan.Add || !f.AsksProgram())
}

// All adds rules to chains of ours, or removes them, as Add and Remove do, by one process
// for each iptables command. Those of a table are changed all or none.
func (h *Hand) All(op plan.Op, items []plan.Item) error {
	all := map[tool][]tableChanges{}
	listed := map[plan.Chain]listing{}
	for _, i := range items {
		f := i.(plan.Filter)
		t := tool{f.Family, f.Legacy}
		chain := plan.Chain{Family: f.Family, Legacy: f.Legacy, Table: f.Table, Name: f.Chain}
		l, known := listed[chain]
		if !known {
			var err error
			if l, err = h.listFor(t, f); err != nil {
				return err
			}
			if op == plan.Add && !slices.Contains(l.chains, f.Chain) {
				return errNoChain(t, f)
			}
			listed[chain] = l
		}
		all[t] = appendLines(all[t], f.Table, lines(op, f, l.count(f.Chain, f.Spec)))
	}
	for t, changes := range all {
		if err := h.tools.restoreAll(t, changes); err != nil {
			return explain(t, changes[0].table, err, "")
		}
	}
	return nil
}

// lines are those by which a rule is made that is there so often, or removed.
func lines(op plan.Op, f plan.Filter, there int) []string {
	switch {
	case op == plan.Remove:
		return slices.Repeat([]string{fmt.Sprintf("-D %s %s", f.Chain, f.Spec)}, there)
	case there > 0:
		return nil
	case f.GoesOn():
		return []string{fmt.Sprintf("-I %s 1 %s", f.Chain, f.Spec)}
	}
	return []string{fmt.Sprintf("-A %s %s", f.Chain, f.Spec)}
}

// appendLines appends the lines of a table to those that are there for it.
func appendLines(all []tableChanges, table string, lines []string) []tableChanges {
	if len(lines) == 0 {
		return all
	}
	for n := range all {
		if all[n].table == table {
			all[n].lines = append(all[n].lines, lines...)
			return all
		}
	}
	return append(all, tableChanges{table, lines})
}
