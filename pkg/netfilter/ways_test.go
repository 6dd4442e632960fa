package netfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// forwarding is a survey of chains in which the first is hooked in at forward.
func forwarding(chains ...[]entry) *Survey {
	s := &Survey{}
	for i, entries := range chains {
		c := chain{Place: Place{Flavour: NFT, Families: []plan.Family{plan.IPv4}, Table: "ip fw", Chain: fmt.Sprintf("c%d", i)}, entries: entries}
		for n := range entries {
			c.entries[n].number = n + 1
		}
		if i == 0 {
			c.hook = "forward"
		}
		s.chains = append(s.chains, c)
	}
	return s
}

// to is a jump to a chain.
func to(n int, conditions ...condition) entry {
	return entry{action: jumpTo, to: fmt.Sprintf("c%d", n), conditions: conditions}
}

// from asks for a network of senders.
func from(prefix string) condition {
	return inPrefix(source4, source6, netip.MustParsePrefix(prefix), false)
}

// Eight jumps a chain, forty chains deep, are more ways than can be gone.
func TestManyWays(t *testing.T) {
	const deep, wide = 40, 8
	past := packets["SYN past"]
	for name, conditions := range map[string][]condition{"some": {from("203.0.113.0/24")}, "all": nil} {
		var chains [][]entry
		for i := range deep {
			chains = append(chains, slices.Repeat([]entry{to(i+1, conditions...)}, wide))
		}
		chains = append(chains, []entry{
			{action: drop, conditions: []condition{from("203.0.113.7/32")}},
			{action: drop, conditions: []condition{{field: outName, spans: exactly(nameOctets("dmz1"))}}},
		})
		s := forwarding(chains...)
		if met := s.Meet("forward", past); len(met) != 1 || len(met[0].Way) != deep+1 {
			t.Errorf("%s: met %v", name, met)
		}
		would := past
		would.Out = "dmz1"
		if unmet := s.Unmet("forward", would, past); len(unmet) != 1 {
			t.Errorf("%s: unmet %v", name, unmet)
		}
		if entered, want := len(s.Entered("forward", past)), 1+deep*(1-len(conditions)); entered != want {
			t.Errorf("%s: entered %d chains, want %d", name, entered, want)
		}
		if rules := deep*wide + 2; s.effort.steps > 4*rules || len(s.Unfollowed()) > 0 {
			t.Errorf("%s: %d steps for %d rules, and %v was not followed", name, s.effort.steps, rules, s.Unfollowed())
		}
	}
}

// Where a packet is another one on each of its ways, for rules count them in its mark, it is
// not followed to the end, and that is told. Other chains are.
func TestEndlessWays(t *testing.T) {
	const deep = 31
	var chains [][]entry
	for i := range deep {
		chains = append(chains, []entry{to(i + 1), {writes: &write{stay: ^uint32(0), turn: 1 << i}}, to(i + 1)})
	}
	chains = append(chains, []entry{{action: drop, conditions: []condition{from("203.0.113.7/32")}}})
	s := forwarding(chains...)
	other := chain{Place: s.chains[0].Place, hook: "forward", priority: 1, entries: []entry{{number: 1, action: drop, conditions: []condition{from("203.0.113.8/32")}}}}
	other.Chain = "other"
	s.chains = append(s.chains, other)
	p := packets["SYN past"]
	for p.User = range uint32(3 * mostGivenUp) {
		met := s.Meet("forward", p)
		if n := len(met); n == 0 || met[n-1].Chain != "other" || (n < 2) != (p.User >= mostGivenUp) {
			t.Fatalf("packet %d met %d rules, the last in %v", p.User, n, met[n-1].Place)
		}
	}
	if s.effort.steps > 2*mostGivenUp*someSteps {
		t.Errorf("%d steps", s.effort.steps)
	}
	s.effort.steps = mostStepsInAll
	if met := s.With(nil).Meet("forward", packets["SYN past"]); len(met) > 0 {
		t.Errorf("met %v, though nothing was left", met)
	}
	want := "[nft table ip fw chain c0 nft table ip fw chain other]"
	if got := fmt.Sprint(s.Unfollowed()); got != want {
		t.Errorf("not followed: %s, want %s", got, want)
	}
}

// A packet meets the same in chains that others lead to as in copies of them, one for each
// jump: what is remembered of a chain is what would be found there again.
func TestWaysAsCopies(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	would, goes := packets["SYN past"], packets["SYN past"]
	would.Out = "dmz1"
	for n := range 500 {
		s := randomRuleset(r)
		wide := copied(s)
		for _, p := range []Packet{goes, packets["marked, begun"]} {
			met, after, passes := s.Pass("forward", p)
			metWide, afterWide, passesWide := wide.Pass("forward", p)
			if diff := cmp.Diff(told(metWide), told(met)); diff != "" || after != afterWide || passes != passesWide {
				t.Fatalf("ruleset %d:\n%s\n(-copies +chains):\n%s\nbehind %+v, %t, want %+v, %t", n, show(s), diff, after, passes, afterWide, passesWide)
			}
		}
		unmet := func(s *Survey) []string {
			var all []string
			for _, u := range s.Unmet("forward", would, goes) {
				all = append(all, original(u.Place)+fmt.Sprint(u.entry.number))
			}
			return set(all)
		}
		if diff := cmp.Diff(unmet(wide), unmet(s)); diff != "" {
			t.Fatalf("ruleset %d:\n%s\nunmet (-copies +chains):\n%s", n, show(s), diff)
		}
	}
}

// randomRuleset is one of a few chains, each of which leads to later ones.
func randomRuleset(r *rand.Rand) *Survey {
	const deep = 5
	conditions := []condition{
		from("203.0.113.0/24"), marked(1, 1, false), marked(0, 3, true), opaque, inState(uint32(StateNew), false),
		{field: port, spans: portSpan(25, 25)}, {field: port, spans: portSpan(26, 26)},
		{field: outName, spans: exactly(nameOctets("dmz1"))},
	}
	actions := []action{goOn, goOn, accept, drop, leave, jumpTo, jumpTo, jumpTo, jumpTo, goTo}
	var chains [][]entry
	for i := range deep {
		var entries []entry
		for range 1 + r.IntN(5) {
			e := entry{action: actions[r.IntN(len(actions))]}
			for range r.IntN(3) {
				e.conditions = append(e.conditions, conditions[r.IntN(len(conditions))])
			}
			switch {
			case (e.action == jumpTo || e.action == goTo) && i == deep-1:
				e.action = drop
			case e.action == jumpTo || e.action == goTo:
				e.to = fmt.Sprintf("c%d", i+1+r.IntN(deep-1-i))
			case e.action == goOn && r.IntN(2) == 0:
				e.writes = &write{stay: ^uint32(r.IntN(4)), turn: uint32(r.IntN(4)), unknown: r.IntN(4) == 0}
			case e.action == goOn:
				e.untracks = r.IntN(3) == 0
			}
			entries = append(entries, e)
		}
		chains = append(chains, entries)
	}
	s := forwarding(chains...)
	s.chains[0].dropping = r.IntN(2) == 0
	return s
}

// copied is the same ruleset in which each jump leads to a chain of its own.
func copied(s *Survey) *Survey {
	wide := &Survey{}
	var add func(c chain)
	add = func(c chain) {
		at := len(wide.chains)
		c.entries = slices.Clone(c.entries)
		wide.chains = append(wide.chains, c)
		for i, e := range c.entries {
			if next, leads := s.chain(c.Place, e.to); leads {
				one := *next
				one.Chain = fmt.Sprintf("%s#%d", next.Chain, len(wide.chains))
				c.entries[i].to = one.Chain
				add(one)
			}
		}
		wide.chains[at].entries = c.entries
	}
	add(s.chains[0])
	return wide
}

// original is the chain that one is a copy of.
func original(p Place) string {
	name, _, _ := strings.Cut(p.Chain, "#")
	return name + " "
}

// told is what meetings say, each once.
func told(met []Meeting) []string {
	var all []string
	for _, m := range met {
		all = append(all, fmt.Sprintf("%s%d %s sure=%t choosing=%t specific=%t fits=%t before=%x", original(m.Place), m.entry.number, m.action, m.Sure, m.Choosing, m.Specific, m.Fits, m.Before))
	}
	return set(all)
}

func set(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func show(s *Survey) string {
	var b strings.Builder
	for _, c := range s.chains {
		for _, e := range c.entries {
			fmt.Fprintf(&b, "%s: %s %s %+v %+v %t\n", c.Chain, e.action, e.to, e.conditions, e.writes, e.untracks)
		}
	}
	return b.String()
}
