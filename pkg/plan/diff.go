package plan

import (
	"cmp"
	"slices"
)

// Op is what a Change does.
type Op uint8

const (
	Add Op = iota
	Replace
	Remove
)

// String returns the sign that begins a printed change: "+", "~" or "-".
func (o Op) String() string { return [...]string{"+", "~", "-"}[o] }

// Change is one step from what is to what is wanted.
type Change struct {
	Op   Op
	Item Item // what is added, removed or wanted
	Old  Item // for Replace: what is there now
}

// String prints a change as attach --dry-run does.
func (c Change) String() string { return c.Op.String() + " " + c.Item.String() }

// Undo returns the change that takes c back.
func (c Change) Undo() Change {
	switch c.Op {
	case Add:
		return Change{Op: Remove, Item: c.Item}
	case Remove:
		return Change{Op: Add, Item: c.Item}
	default:
		return Change{Op: Replace, Item: c.Old, Old: c.Item}
	}
}

// Diff returns the changes that lead from have to want. Additions and
// replacements come first, upwards by kind, so that everything that moving
// traffic relies on is ready before traffic is moved; then removals, downwards
// by kind, so that traffic is let go before what carried it disappears. Within
// bindings the more specific are added first and removed last: an address is
// never caught by a wider binding in between.
//
// A rule goes on with the program that was pinned when it was made, and nobody
// can see which one that is. So with new programs the rules that ask one are made
// anew: removed before all else, so that a crash leaves none that is stale.
func Diff(have, want []Item) []Change {
	was := index(have)
	is := index(want)
	var first, add, remove []Change
	if renewed(was, is) {
		for k, h := range was {
			if f, isRule := h.(Filter); isRule && f.AsksProgram() {
				first = append(first, Change{Op: Remove, Item: h})
				delete(was, k)
			}
		}
	}
	if mended(was, is) {
		for k, h := range was {
			if hangsOnLoop(h) {
				delete(was, k)
			}
		}
	}
	for k, w := range is {
		h, found := was[k]
		switch {
		case !found:
			add = append(add, Change{Op: Add, Item: w})
		case h != w:
			add = append(add, Change{Op: Replace, Item: w, Old: h})
		}
	}
	for k, h := range was {
		if _, found := is[k]; !found {
			remove = append(remove, Change{Op: Remove, Item: h})
		}
	}
	slices.SortFunc(add, func(a, b Change) int { return order(a.Item, b.Item) })
	for _, list := range [][]Change{first, remove} {
		slices.SortFunc(list, func(a, b Change) int { return order(b.Item, a.Item) })
	}
	return slices.Concat(first, add, remove)
}

// renewed reports whether the pinned programs are made or replaced.
func renewed(was, is map[identity]Item) bool {
	objects := identity{KindObjects, Objects{}.Key()}
	return is[objects] != nil && is[objects] != was[objects]
}

// mended reports whether our own link is made anew, or may be: what hangs on it may
// go with it, and is put back.
func mended(was, is map[identity]Item) bool {
	loop := identity{KindLink, Link{Name: LoopLink}.Key()}
	return is[loop] != nil && was[loop] != nil && is[loop] != was[loop]
}

// hangsOnLoop reports whether an item goes with our own link.
func hangsOnLoop(i Item) bool { return HangsOn(i) == LoopLink }

type identity struct {
	kind Kind
	key  string
}

func index(items []Item) map[identity]Item {
	m := make(map[identity]Item, len(items))
	for _, i := range items {
		m[identity{i.Kind(), i.Key()}] = i
	}
	return m
}

// order compares items by the order of activation.
func order(a, b Item) int {
	if c := cmp.Compare(a.Kind(), b.Kind()); c != 0 {
		return c
	}
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	return cmp.Compare(a.Key(), b.Key())
}

// rank orders items of one kind.
func rank(i Item) int {
	switch i := i.(type) {
	case Binding:
		return -i.Prefix.Bits()
	case Table:
		return 0 // before its base chains
	case BaseChain:
		return 1
	case Filter:
		switch {
		case i.AsksProgram():
			return 2 // removed first: while its pin is missing, iptables-legacy changes nothing in that table
		case i.IsJump():
			return 1 // the jump after the rules that it leads to
		}
	case Loop:
		return 1 // before SYNs are taken, for no ban is lifted in between
	case TC:
		switch {
		case i.Side == LoopSide:
			return 0 // it fetches back what the loop sends
		case i.Egress:
			return 3 // it stops what is not steered, so steering comes first
		case i.Side == ClientSide:
			return 2 // replies must find their way before the first SYN is taken
		}
	}
	return 0
}
