package netfilter

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// decoder reads the expressions of one rule: loads fill registers, and what
// compares a register makes a condition.
type decoder struct {
	sets      *sets
	table     *nftables.Table
	family    nftables.TableFamily // narrowed by a condition in tables of several
	registers map[uint32]register
	entry     entry
	choices   []entry // a verdict map makes one of each of its elements
}

// register is what was loaded into one.
type register struct {
	condition        // without spans
	value     *write // what becomes of a mark that is set to it
}

// rule returns the rule as entries, of which there are several when it holds
// a verdict map. names are those of its expressions.
func (d *decoder) rule(r *nftables.Rule, at Place, names []string) []entry {
	d.registers = map[uint32]register{}
	d.entry.handle = r.Handle
	for _, e := range r.Exprs {
		d.expression(e)
	}
	for _, name := range names {
		d.unseen(name)
	}
	if !slices.Contains(names, "byteorder") {
		d.usersInOrder()
	}
	if j, found := readJump(r); found {
		d.entry.ourJump = j.ours && at.Flavour == IPTablesNFT
	}
	if d.choices == nil {
		return []entry{d.entry}
	}
	return d.choices
}

// shown are the expressions that the library knows.
var shown = []string{
	"ct", "range", "meta", "cmp", "counter", "objref", "payload", "lookup", "immediate", "bitwise", "redir", "nat", "limit", "quota",
	"dynset", "log", "exthdr", "match", "target", "connlimit", "queue", "flow_offload", "reject", "masq", "hash", "cthelper", "synproxy",
	"ctexpect", "secmark", "cttimeout", "fib", "numgen", "notrack",
}

// unseen adds what an expression means that the library does not show. Any other is
// a condition, or loads what we do not know.
func (d *decoder) unseen(name string) {
	switch name {
	case "tproxy":
		d.entry.action = tproxy
	case "fwd":
		d.entry.action = forwardTo
	case "byteorder", "dup", "last":
	default:
		if !slices.Contains(shown, name) {
			d.entry.conditions = append(d.entry.conditions, opaque)
		}
	}
}

// usersInOrder brings numbers of users and groups, which a register holds as the machine
// does, into an order in which ranges can be compared. Where a rule asks for a range,
// they are in it.
func (d *decoder) usersInOrder() {
	for i, c := range d.entry.conditions {
		if c.field == user || c.field == group {
			d.entry.conditions[i].spans = d.sets.comparable(c.spans)
			d.entry.conditions[i].sorted = false
		}
	}
}

// comparable returns numbers of users or groups in an order in which ranges can be compared.
func (s *sets) comparable(spans []span) []span {
	if len(spans) == 0 {
		return nil
	}
	if ordered, known := s.users[&spans[0]]; known {
		return ordered
	}
	var ordered []span
	for _, s := range spans {
		if len(s.low) == 4 && len(s.high) == 4 {
			ordered = append(ordered, span{numberOctets(binary.NativeEndian.Uint32(s.low)), numberOctets(binary.NativeEndian.Uint32(s.high))})
		}
	}
	s.users[&spans[0]] = ordered
	return ordered
}

func (d *decoder) expression(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		d.meta(e)
	case *expr.Ct:
		d.ct(e)
	case *expr.Fib:
		d.registers[e.Register] = register{condition: condition{field: fibField(e)}}
	case *expr.Immediate:
		d.registers[e.Register] = register{value: constant(e.Data)}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			d.registers[e.DestRegister] = register{condition: condition{field: d.payloadField(e)}}
		}
	case *expr.Bitwise:
		d.bitwise(e)
	case *expr.Cmp:
		d.compare(e)
	case *expr.Range:
		d.require(e.Register, e.Op == expr.CmpOpNeq, span{e.FromData, e.ToData})
	case *expr.Lookup:
		d.lookup(e)
	case *expr.Dynset:
		d.entry.conditions = append(d.entry.conditions, d.joined(e.SrcRegKey))
	case *expr.Verdict:
		d.entry.verdict(e)
	case *expr.Match:
		d.match(e)
	case *expr.Target:
		d.target(e)
	case *expr.Counter, *expr.Log, *expr.Objref:
	default:
		d.act(e)
	}
}

// meta loads a field, or sets the mark.
func (d *decoder) meta(e *expr.Meta) {
	switch {
	case !e.SourceRegister:
		d.registers[e.Register] = register{condition{field: metaField(e.Key)}, nil}
	case e.Key == expr.MetaKeyMARK:
		d.entry.writes = &write{unknown: true}
		if value := d.registers[e.Register].value; value != nil {
			d.entry.writes = value
		}
	}
}

// ct loads what connection tracking says; of a packet that it does not know, most
// keys say nothing, and the rule ends there. A new connection's mark is 0.
func (d *decoder) ct(e *expr.Ct) {
	if e.SourceRegister {
		return
	}
	r := register{condition: condition{field: ctField(e)}}
	if e.Key == expr.CtKeyMARK {
		r.value = &write{}
	}
	if e.Key != expr.CtKeySTATE {
		d.entry.conditions = append(d.entry.conditions, isTracked())
	}
	d.registers[e.Register] = r
}

// constant is what a mark becomes that is set to a value.
func constant(data []byte) *write {
	if len(data) != 4 {
		return nil
	}
	return &write{turn: binary.NativeEndian.Uint32(data)}
}

// act reads the expressions that do something with the packet. Any other is
// a condition, or loads what we do not know.
func (d *decoder) act(e expr.Any) {
	switch e := e.(type) {
	case *expr.Reject:
		d.entry.action = reject
	case *expr.Masq:
		d.entry.action = masquerade
	case *expr.Redir:
		d.entry.action = redirect
	case *expr.NAT:
		d.entry.action = snat
		if e.Type == expr.NATTypeDestNAT {
			d.entry.action = dnat
		}
		if e.Family != 0 { // in tables of both it is for one
			d.entry.conditions = append(d.entry.conditions, condition{field: version, spans: exactly([]byte{byte(e.Family)})})
		}
	case *expr.SynProxy:
		d.entry.action = synproxy
	case *expr.Queue:
		d.entry.action = accept // by whoever listens
	case *expr.Notrack:
		d.entry.untracks = true
	default:
		d.entry.conditions = append(d.entry.conditions, opaque)
	}
}

func (e *entry) verdict(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept:
		e.action = accept
	case expr.VerdictDrop:
		e.action = drop
	case expr.VerdictReturn:
		e.action = leave
	case expr.VerdictJump:
		e.action, e.to = jumpTo, v.Chain
	case expr.VerdictGoto:
		e.action, e.to = goTo, v.Chain
	}
}

func metaField(k expr.MetaKey) field {
	switch k {
	case expr.MetaKeyIIFNAME:
		return inName
	case expr.MetaKeyOIFNAME:
		return outName
	case expr.MetaKeyIIF:
		return inIndex
	case expr.MetaKeyOIF:
		return outIndex
	case expr.MetaKeyNFPROTO:
		return version
	case expr.MetaKeyPROTOCOL:
		return etherType
	case expr.MetaKeyL4PROTO:
		return protocol
	case expr.MetaKeyMARK:
		return fwmark
	case expr.MetaKeySKUID:
		return user
	case expr.MetaKeySKGID:
		return group
	}
	return unknownField
}

// ctField names what is asked of connection tracking.
func ctField(e *expr.Ct) field {
	switch e.Key {
	case expr.CtKeySTATE:
		return ctState
	case expr.CtKeySTATUS:
		return ctStatus
	}
	return ctOther
}

// fibField names what is asked of routing: only of whose an address is we know the
// answer.
func fibField(e *expr.Fib) field {
	switch {
	case !e.ResultADDRTYPE || e.FlagOIF:
		return unknownField
	case e.FlagDADDR:
		return destinationType
	}
	return sourceType
}

// payloadField names what lies at an offset of the IP or TCP header. A load
// may end before the field does: that of a /24 takes three octets.
func (d *decoder) payloadField(e *expr.Payload) field {
	type at struct {
		base   expr.PayloadBase
		family nftables.TableFamily
		offset uint32
	}
	fields := map[at]field{
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv4, 9}:  protocol,
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv4, 12}: source4,
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv4, 16}: destination4,
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv6, 6}:  protocol,
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv6, 8}:  source6,
		{expr.PayloadBaseNetworkHeader, nftables.TableFamilyIPv6, 24}: destination6,
		{expr.PayloadBaseTransportHeader, 0, 0}:                       sourcePort,
		{expr.PayloadBaseTransportHeader, 0, 2}:                       port,
		{expr.PayloadBaseTransportHeader, 0, 13}:                      tcpFlags,
		{expr.PayloadBaseLLHeader, 0, 12}:                             etherType,
	}
	f := d.family
	if e.Base != expr.PayloadBaseNetworkHeader {
		f = 0
	}
	return fields[at{e.Base, f, e.Offset}]
}

// bitwise masks a register: a prefix that ends within an octet, or a mark that is
// changed.
func (d *decoder) bitwise(e *expr.Bitwise) {
	r, loaded := d.registers[e.SourceRegister]
	r.value = nil
	if r.field == fwmark && r.mask == nil && len(e.Mask) == 4 && len(e.Xor) == 4 {
		r.value = &write{stay: binary.NativeEndian.Uint32(e.Mask), turn: binary.NativeEndian.Uint32(e.Xor)}
	}
	if !loaded || r.mask != nil || !allZero(e.Xor) {
		r.condition = opaque
	}
	r.mask = e.Mask
	d.registers[e.DestRegister] = r
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

func (d *decoder) compare(e *expr.Cmp) {
	least, most := make([]byte, len(e.Data)), bytes.Repeat([]byte{0xff}, len(e.Data))
	if e.Op == expr.CmpOpEq {
		d.narrow(d.registers[e.Register].field, e.Data)
	}
	switch e.Op {
	case expr.CmpOpEq, expr.CmpOpNeq:
		d.require(e.Register, e.Op == expr.CmpOpNeq, span{e.Data, e.Data})
	case expr.CmpOpGte, expr.CmpOpLt:
		again := d.registers[e.Register]
		d.require(e.Register, e.Op == expr.CmpOpLt, span{e.Data, most})
		d.registers[e.Register] = again // the upper end follows
	case expr.CmpOpLte, expr.CmpOpGt:
		d.require(e.Register, e.Op == expr.CmpOpGt, span{least, e.Data})
	}
}

// narrow takes the following loads for those of a family that the rule asks for.
func (d *decoder) narrow(f field, data []byte) {
	switch {
	case f == version && len(data) == 1:
		d.family = nftables.TableFamily(data[0])
	case f == etherType && bytes.Equal(data, []byte{0x08, 0x00}):
		d.family = nftables.TableFamilyIPv4
	case f == etherType && bytes.Equal(data, []byte{0x86, 0xdd}):
		d.family = nftables.TableFamilyIPv6
	}
}

// require adds the condition that a register is in one of the spans. The
// register is empty then: the library passes over loads that it does not
// know, and the next comparison must not take this one's value.
func (d *decoder) require(register uint32, not bool, spans ...span) {
	d.entry.conditions = append(d.entry.conditions, d.condition(register, not, spans))
	delete(d.registers, register)
}

func (d *decoder) condition(register uint32, not bool, spans []span) condition {
	c := d.registers[register].condition
	c.not, c.spans = not, spans
	switch c.field {
	case inIndex:
		c.field, c.spans = inName, byName(spans)
	case outIndex:
		c.field, c.spans = outName, byName(spans)
	}
	return c
}

// byName turns interface numbers, which are in the machine's order, into
// names. The kernel makes no ranges of them.
func byName(spans []span) []span {
	var named []span
	for _, s := range spans {
		if len(s.low) != 4 {
			continue
		}
		if i, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(s.low))); err == nil {
			named = append(named, span{nameOctets(i.Name), nameOctets(i.Name)})
		}
	}
	return named
}
