package netfilter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A set is read once, and its elements are there once, whatever number of rules asks it.
func TestSetIsReadOnce(t *testing.T) {
	reads := map[string]int{}
	sets := setsBy(nil)
	sets.read = func(_ *nftables.Table, name string) (readSet, error) {
		reads[name]++
		all := readSet{interval: name == "users"}
		for i := range uint32(2000) {
			all.elements = append(all.elements, nftables.SetElement{Key: numberOctets(i << 8)})
		}
		return all, nil
	}
	first := map[string]*span{}
	for range 300 {
		for name, load := range map[string]expr.Any{
			"clients": &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, DestRegister: 1},
			"users":   &expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		} {
			d := decoder{sets: sets, table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "fw"}, family: nftables.TableFamilyIPv4}
			rule := &nftables.Rule{Exprs: []expr.Any{load, &expr.Lookup{SourceRegister: 1, SetName: name}}}
			c := d.rule(rule, Place{}, nil)[0].conditions[0]
			if n := &c.spans[0]; first[name] == nil {
				first[name] = n
			} else if first[name] != n || len(c.spans) != 2000 || c.sorted != (name == "clients") {
				t.Fatalf("%s: a rule has elements of its own, or not all: %d", name, len(c.spans))
			}
		}
	}
	if reads["clients"] != 1 || reads["users"] != 1 {
		t.Errorf("read %v times", reads)
	}
}

// Where elements are in order, a value is looked for, which says the same as if it was compared
// with each of them.
func TestSortedSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	octets := func() []byte { return binary.BigEndian.AppendUint32(nil, r.Uint32()>>(8*r.IntN(3))) }
	found := map[fit]int{}
	for range 20000 {
		var ends [][]byte
		short := r.IntN(2) // of a /24 three octets are compared
		for range 2 * r.IntN(20) {
			ends = append(ends, octets()[short:])
		}
		c := condition{field: source4, not: r.IntN(4) == 0}
		if r.IntN(3) == 0 {
			c.mask = ones(8+r.IntN(17), 32)
		}
		slices.SortFunc(ends, slices.Compare[[]byte])
		for two := range slices.Chunk(ends, 2) {
			if r.IntN(3) == 0 {
				two[1] = two[0]
			}
			c.spans = append(c.spans, span{two[0], two[1]})
		}
		p := Packet{Family: plan.IPv4, From: netip.PrefixFrom(netip.AddrFrom4([4]byte(octets())), 32-r.IntN(3)*r.IntN(16))}
		if len(c.spans) > 0 && r.IntN(2) == 0 {
			low := c.spans[r.IntN(len(c.spans))].low
			p.From = netip.PrefixFrom(netip.AddrFrom4([4]byte(append(slices.Clone(low), 0)[:4])), p.From.Bits())
		}
		want := c.fit(p)
		if c.sorted = inOrder(c.spans); !c.sorted {
			continue
		}
		found[want]++
		if got := c.fit(p); got != want {
			t.Fatalf("%+v\n%+v\ngot %d, want %d", c, p.From, got, want)
		}
	}
	if min(found[never], found[maybe], found[surely]) < 500 {
		t.Errorf("found %v", found)
	}
}
