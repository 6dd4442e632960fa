package netfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// However many targets, interfaces and clients there are, a packet is followed once for all
// that no rule tells apart.
func TestOnePacketForAllOfAKind(t *testing.T) {
	rules := []entry{
		{action: drop, conditions: []condition{{field: inName, spans: exactly([]byte("wan"))}}},
		{action: accept, conditions: []condition{inPrefix(destination4, destination6, netip.MustParsePrefix("172.16.1.0/24"), false)}},
	}
	for i := range 200 {
		rules = append(rules, entry{action: accept, conditions: []condition{from(fmt.Sprintf("203.0.%d.0/24", i)), {field: port, spans: portSpan(26, 26)}}})
	}
	s := forwarding(rules)
	clients := s.Accepted(plan.IPv4)
	if len(clients) != mostSources || len(s.Accepted(plan.IPv6)) > 0 {
		t.Errorf("accepted %v", clients)
	}
	for n := range 512 {
		p := packets["SYN past"]
		p.To = Single(netip.AddrFrom4([4]byte{172, 16, byte(n % 2), byte(n / 2)}))
		p.In = fmt.Sprintf("ext%d", n)
		for _, client := range clients {
			p.From = client
			s.Pass("forward", p)
		}
	}
	if most := 2 * len(clients) * len(rules); s.effort.steps > most {
		t.Errorf("%d steps, more than %d", s.effort.steps, most)
	}
}

// A client whom no rule tells from another is not asked for.
func TestAcceptedOfAKind(t *testing.T) {
	s := forwarding([]entry{{action: accept, conditions: []condition{{field: source4, sorted: true, spans: []span{
		{[]byte{10, 0, 0, 1}, []byte{10, 0, 0, 1}}, {[]byte{10, 0, 0, 2}, []byte{10, 0, 0, 2}}, {[]byte{10, 0, 0, 9}, []byte{10, 0, 0, 9}},
	}}}}, {action: drop, conditions: []condition{from("10.0.0.8/30")}}})
	if got := fmt.Sprint(s.Accepted(plan.IPv4)); got != "[10.0.0.1/32 10.0.0.9/32]" {
		t.Errorf("accepted %s", got)
	}
}

// What a packet meets is what one meets that stands for it.
func TestShapeMeetsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"", AnyInterface, "ext0", "ext1", "dmz0", "dmz1"}
	some := []condition{
		from("10.0.0.0/8"), from("10.1.0.0/16"), inPrefix(destination4, destination6, netip.MustParsePrefix("10.2.0.0/15"), true),
		{field: inName, spans: exactly([]byte("ext"))}, {field: outName, spans: exactly(nameOctets("dmz1")), not: true},
		{field: port, spans: portSpan(20, 25)}, {field: sourcePort, spans: portSpan(1024, 65535)},
	}
	shared := 0
	for n := range 300 {
		s := randomRuleset(r)
		for i := range s.chains {
			for j := range s.chains[i].entries {
				e := &s.chains[i].entries[j]
				e.conditions = append(slices.Clone(e.conditions), some[r.IntN(len(some))])
			}
		}
		if r.IntN(3) == 0 {
			s.chains[0].devices = []string{"ext1"}
		}
		prefix := func() netip.Prefix {
			if r.IntN(4) == 0 {
				return netip.Prefix{}
			}
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), 0, byte(r.IntN(3))}), 8+8*r.IntN(4))
		}
		for range 40 {
			p := Packet{
				Family: plan.IPv4, In: names[r.IntN(len(names))], Out: names[r.IntN(len(names))], From: prefix(), To: prefix(),
				Port: uint16(r.IntN(3) * 13), SourcePort: uint16(r.IntN(3) * 700), Mark: uint32(r.IntN(4)), State: StateNew, Flags: SYN,
			}
			if s.Shape(p) != p {
				shared++
			}
			met, after, passes := s.Pass("forward", p)
			want := (&Survey{chains: s.chains}).pass(passage{"forward", p})
			if diff := cmp.Diff(inTurn(want.met), inTurn(met)); diff != "" || after != p.with(want.after) || passes != want.passes {
				t.Fatalf("ruleset %d, %+v, which is like %+v:\n%s\n(-alone +alike):\n%s", n, p, s.Shape(p), show(s), diff)
			}
		}
	}
	if shared < 5000 {
		t.Errorf("%d packets were like another", shared)
	}
}

// inTurn is what meetings say, in order.
func inTurn(met []Meeting) []string {
	var all []string
	for _, m := range met {
		all = append(all, told([]Meeting{m})...)
	}
	return all
}
