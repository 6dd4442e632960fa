package firewalls

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestDrawIsRepeatable(t *testing.T) {
	for n := range 50 {
		if a, b := Draw(9, n), Draw(9, n); !reflect.DeepEqual(a, b) || a.Show(book) != b.Show(book) {
			t.Fatalf("ruleset %d:\n%s\n%s", n, a.Show(book), b.Show(book))
		}
	}
	if reflect.DeepEqual(Draw(9, 1).Rules, Draw(10, 1).Rules) {
		t.Error("another seed draws the same")
	}
}

// The 500 of the complete form have everything, in each flavour.
func TestDrawHasEverything(t *testing.T) {
	seen := make(map[Flavour]map[any]int)
	for n := range 500 {
		r := Draw(9, n)
		if seen[r.Flavour] == nil {
			seen[r.Flavour] = make(map[any]int)
		}
		count := seen[r.Flavour]
		count[r.Mode]++
		if len(r.Rules) < least || len(r.Rules) > most+2 {
			t.Errorf("ruleset %d has %d rules", n, len(r.Rules))
		}
		for _, one := range r.Rules {
			count[one.Hook]++
			count[one.Class]++
			count[one.Do]++
			count[one.Rate]++
			count["set"] += number(one.Set)
			count["out"] += number(one.Out != "")
			count["in"] += number(one.In != "")
			count["user"] += number(one.User != 0)
			count["mark"] += number(one.Mark)
			count["whole mark"] += number(one.Mark && one.Whole)
			count["toward"] += number(one.Toward)
			count["except"] += number(one.Except)
			count["apart"] += number(one.Apart)
			count[one.States]++
		}
		for h, closed := range r.Closed {
			count["closed "+string(h)] += number(closed)
		}
	}
	for flavour, count := range seen {
		for _, what := range everything {
			if count[what] == 0 {
				t.Errorf("%s: nothing has %q", flavour, what)
			}
		}
	}
}

func TestSmallerEndsWithNothing(t *testing.T) {
	for n := range 50 {
		r, steps := Draw(9, n), 0
		for next := r.Smaller(0); next != nil; next = next.Smaller(0) {
			r = next
			steps++
		}
		if len(r.Rules) > 0 || r.Exact || r.Open || r.Show(book) != "" {
			t.Errorf("ruleset %d after %d steps:\n%s", n, steps, r.Show(book))
		}
	}
}

var everything = []any{
	Whole, Inserted, Appended, Ban, Trailing, Limit, Over, Connlimit,
	RawPrerouting, RawOutput, ManglePrerouting, MangleForward, NATPrerouting, NATPostrouting, Input, Forward, Output,
	Accept, Drop, Reject, RejectTCP, Log, LogDrop, NoTrack, Masquerade, MarkBits, MarkAll, RestoreLow, ToOther,
	"set", "out", "in", "user", "mark", "whole mark", "toward", "except", "apart",
	"NEW", "INVALID", "ESTABLISHED,RELATED", "closed filter INPUT", "closed filter FORWARD", "closed filter OUTPUT",
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

// book has addresses for tests that need no network.
var book = Book{
	4: {clients("192.0.2.100"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")},
	6: {clients("2001:db8::100"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2")},
}

func clients(first string) (all []netip.Addr) {
	for a := netip.MustParseAddr(first); len(all) < Cast; a = a.Next() {
		all = append(all, a)
	}
	return all
}
