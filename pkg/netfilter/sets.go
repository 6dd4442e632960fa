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

// sets are those of a survey, as far as rules have asked for them. A set is read once:
// it may be large, and many rules may share it.
type sets struct {
	read  func(table *nftables.Table, name string) (readSet, error)
	known map[setName]elements
	users map[*span][]span // by their first, those of users and groups in order
}

// setName is what a set is known by.
type setName struct {
	family      nftables.TableFamily
	table, name string
}

// readSet is a set as it was read.
type readSet struct {
	elements []nftables.SetElement
	interval bool
	joined   bool // its keys are not one field's, as far as we know
}

// elements are what rules ask of a set.
type elements struct {
	verdicts []verdictSpan
	spans    []span
	sorted   bool
	joined   bool
	unknown  bool // they cannot be read
}

// setsBy begins to read sets.
func setsBy(conn *nftables.Conn) *sets {
	return &sets{
		read: func(table *nftables.Table, name string) (readSet, error) {
			set, err := conn.GetSetByName(table, name)
			if err != nil || set.Concatenation {
				set = &nftables.Set{Concatenation: true}
			}
			all, err := conn.GetSetElements(&nftables.Set{Table: table, Name: name})
			return readSet{elements: all, interval: set.Interval, joined: set.Concatenation}, err
		},
		known: map[setName]elements{},
		users: map[*span][]span{},
	}
}

// get returns a set's elements.
func (s *sets) get(table *nftables.Table, name string) elements {
	at := setName{table.Family, table.Name, name}
	if e, known := s.known[at]; known {
		return e
	}
	r, err := s.read(table, name)
	e := elements{joined: r.joined, unknown: err != nil, verdicts: spansWithVerdicts(r)}
	for _, v := range e.verdicts {
		e.spans = append(e.spans, v.span)
	}
	e.sorted = inOrder(e.spans)
	s.known[at] = e
	return e
}

// inOrder reports whether spans of values of one length are in order, and none reaches into
// another.
func inOrder(spans []span) bool {
	for i, s := range spans {
		if len(s.low) != len(s.high) || bytes.Compare(s.low, s.high) > 0 {
			return false
		}
		if i > 0 && (len(s.low) != len(spans[0].low) || bytes.Compare(spans[i-1].high, s.low) >= 0) {
			return false
		}
	}
	return true
}

// lookup asks a set. One that cannot be read, or whose keys are made of
// several fields, is a condition that we do not understand.
func (d *decoder) lookup(e *expr.Lookup) {
	set := d.sets.get(d.table, e.SetName)
	if set.joined {
		d.registers[e.SourceRegister] = register{condition: d.joined(e.SourceRegister)}
	}
	if set.unknown {
		d.registers[e.SourceRegister] = register{}
	}
	if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
		d.choose(e, set.verdicts)
		return
	}
	d.require(e.SourceRegister, e.Invert, set.spans...)
	c := &d.entry.conditions[len(d.entry.conditions)-1]
	c.sorted = set.sorted && c.field != inName && c.field != outName // numbers of those have become names
	if e.IsDestRegSet {                                              // a map's value
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
func (d *decoder) choose(e *expr.Lookup, elements []verdictSpan) {
	for _, s := range elements {
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

// spansWithVerdicts reads a set's elements. One of intervals has an element at
// the begin of each and one, marked, behind its end; without the latter it
// reaches to the highest value.
func spansWithVerdicts(set readSet) []verdictSpan {
	elements := set.elements
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	var spans []verdictSpan
	for i, e := range elements {
		switch {
		case e.IntervalEnd:
			continue
		case !set.interval:
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
