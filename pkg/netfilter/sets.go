package netfilter

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// lookup reads a set. One that cannot be read, or whose keys are made of
// several fields, is a condition that we do not understand.
func (d *decoder) lookup(e *expr.Lookup) {
	set, err := d.conn.GetSetByName(d.table, e.SetName)
	if err != nil || set.Concatenation {
		d.registers[e.SourceRegister] = register{condition: d.joined(e.SourceRegister)}
		set = &nftables.Set{}
	}
	elements, err := d.conn.GetSetElements(&nftables.Set{Table: d.table, Name: e.SetName})
	if err != nil {
		d.registers[e.SourceRegister] = register{}
	}
	if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
		d.choose(e, set, elements)
		return
	}
	d.require(e.SourceRegister, e.Invert, spansOf(set, elements)...)
	if e.IsDestRegSet { // a map's value
		d.registers[e.DestRegister] = register{value: &write{unknown: true}}
	}
}

// joined is a condition about a set, whose keys are in registers from one on. If
// addresses are among them, it chooses among those.
func (d *decoder) joined(from uint32) condition {
	for at, r := range d.registers {
		switch {
		case at < from:
		case r.field == source4 || r.field == source6:
			return condition{field: sourceSet}
		case r.field == destination4 || r.field == destination6:
			return condition{field: destinationSet}
		}
	}
	return opaque
}

// choose makes an entry of each element of a verdict map.
func (d *decoder) choose(e *expr.Lookup, set *nftables.Set, elements []nftables.SetElement) {
	for _, s := range spansWithVerdicts(set, elements) {
		one := d.entry
		one.conditions = append(slices.Clone(one.conditions), d.condition(e.SourceRegister, false, []span{s.span}))
		one.verdict(s.verdict)
		d.choices = append(d.choices, one)
	}
	delete(d.registers, e.SourceRegister)
}

// verdictSpan is an element of a verdict map, or of a set.
type verdictSpan struct {
	span
	verdict *expr.Verdict
}

// verdictOf reads the value of a verdict map's element, which the library
// hands on as it came: the attributes NFTA_VERDICT_CODE and _CHAIN.
func verdictOf(e nftables.SetElement) *expr.Verdict {
	v := &expr.Verdict{Kind: expr.VerdictContinue}
	a, err := netlink.NewAttributeDecoder(e.Val)
	if err != nil {
		return v
	}
	a.ByteOrder = binary.BigEndian
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = expr.VerdictKind(int32(a.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = a.String()
		}
	}
	return v
}

func spansOf(set *nftables.Set, elements []nftables.SetElement) []span {
	var spans []span
	for _, s := range spansWithVerdicts(set, elements) {
		spans = append(spans, s.span)
	}
	return spans
}

// spansWithVerdicts reads a set's elements. One of intervals has an element at
// the begin of each and one, marked, behind its end; without the latter it
// reaches to the highest value.
func spansWithVerdicts(set *nftables.Set, elements []nftables.SetElement) []verdictSpan {
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	var spans []verdictSpan
	for i, e := range elements {
		switch {
		case e.IntervalEnd:
			continue
		case !set.Interval:
			spans = append(spans, verdictSpan{span{e.Key, e.Key}, verdictOf(e)})
		case i+1 < len(elements):
			spans = append(spans, verdictSpan{span{e.Key, before(elements[i+1].Key)}, verdictOf(e)})
		default:
			spans = append(spans, verdictSpan{span{e.Key, bytes.Repeat([]byte{0xff}, len(e.Key))}, verdictOf(e)})
		}
	}
	return spans
}

// before returns the value below v.
func before(v []byte) []byte {
	v = bytes.Clone(v)
	for i := len(v) - 1; i >= 0; i-- {
		v[i]--
		if v[i] != 0xff {
			break
		}
	}
	return v
}
