package netfilter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// lookNFT adds the chains of nftables, iptables-nft's among them. All are read
// as the kernel has them: iptables-nft shows rules made with nft as something
// else.
func (s *Survey) lookNFT() error {
	r, err := readRuleset()
	if err != nil {
		return err
	}
	err = unchanged(func(c *nftables.Conn) error {
		s.chains, s.flowtables = nil, nil
		for _, t := range r.tables {
			if err := s.addFlowtables(c, t); err != nil {
				return err
			}
		}
		for _, ch := range r.chains {
			if families := familiesOf(ch.Table.Family); families != nil {
				if err := s.addChain(c, ch, families); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err = noNFTables(err); err != nil {
		return fmt.Errorf("read nftables: %w", err)
	}
	return nil
}

// familiesOf returns whose IP packets pass tables of a family, nil for none.
func familiesOf(f nftables.TableFamily) []plan.Family {
	if f == nftables.TableFamilyINet {
		return []plan.Family{plan.IPv4, plan.IPv6}
	}
	if own := family(f); own != 0 {
		return []plan.Family{own}
	}
	return nil
}

func (s *Survey) addFlowtables(c *nftables.Conn, t *nftables.Table) error {
	if familiesOf(t.Family) == nil {
		return nil
	}
	all, err := c.ListFlowtables(t)
	for _, f := range all {
		s.flowtables = append(s.flowtables, Flowtable{
			Table: familyWord(t.Family) + " " + t.Name, Name: f.Name, Devices: f.Devices,
			Hardware: f.Flags&nftables.FlowtableFlagsHWOffload != 0,
		})
	}
	return err
}

// hooks are the words for the kernel's numbers.
var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookPrerouting:  "prerouting",
	*nftables.ChainHookInput:       "input",
	*nftables.ChainHookForward:     "forward",
	*nftables.ChainHookOutput:      "output",
	*nftables.ChainHookPostrouting: "postrouting",
}

func (s *Survey) addChain(c *nftables.Conn, ch *nftables.Chain, families []plan.Family) error {
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return err
	}
	one := chain{Place: placeOf(ch, families)}
	if ch.Hooknum != nil {
		one.hook = hooks[*ch.Hooknum]
		one.dropping = ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
	}
	for _, r := range rules {
		d := decoder{conn: c, table: ch.Table, family: ch.Table.Family}
		one.entries = append(one.entries, d.rule(r, one.Place)...)
	}
	s.chains = append(s.chains, one)
	return nil
}

// placeOf tells whose a chain is: iptables-nft's base chains have names in
// capitals, in tables of the families ip and ip6.
func placeOf(ch *nftables.Chain, families []plan.Family) Place {
	builtin := []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
	known := []string{"filter", "nat", "raw", "mangle", "security"}
	if len(families) == 1 && slices.Contains(known, ch.Table.Name) && (ch.Hooknum == nil || slices.Contains(builtin, ch.Name)) {
		return Place{IPTablesNFT, families, ch.Table.Name, ch.Name}
	}
	return Place{NFT, families, familyWord(ch.Table.Family) + " " + ch.Table.Name, ch.Name}
}

// decoder reads the expressions of one rule: loads fill registers, and what
// compares a register makes a condition.
type decoder struct {
	conn      *nftables.Conn
	table     *nftables.Table
	family    nftables.TableFamily // narrowed by a condition in tables of both
	registers map[uint32]condition // what was loaded, without spans
	entry     entry
	choices   []entry // a verdict map makes one of each of its elements
}

// rule returns the rule as entries, of which there are several when it holds
// a verdict map.
func (d *decoder) rule(r *nftables.Rule, at Place) []entry {
	d.registers = map[uint32]condition{}
	d.entry.text = fmt.Sprintf("rule with handle %d", r.Handle)
	for _, e := range r.Exprs {
		d.expression(e)
	}
	if j, found := readJump(r); found {
		d.entry.ourJump = j.ours && at.Flavour == IPTablesNFT
	}
	if d.choices == nil {
		return []entry{d.entry}
	}
	return d.choices
}

func (d *decoder) expression(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		if !e.SourceRegister {
			d.registers[e.Register] = condition{field: metaField(e.Key)}
		}
	case *expr.Ct:
		if !e.SourceRegister {
			d.registers[e.Register] = condition{field: ctField(e)}
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			d.registers[e.DestRegister] = condition{field: d.payloadField(e)}
		}
	case *expr.Bitwise:
		d.bitwise(e)
	case *expr.Cmp:
		d.compare(e)
	case *expr.Range:
		d.require(e.Register, e.Op == expr.CmpOpNeq, span{e.FromData, e.ToData})
	case *expr.Lookup:
		d.lookup(e)
	case *expr.Verdict:
		d.entry.verdict(e)
	case *expr.Match:
		d.match(e)
	case *expr.Counter, *expr.Log, *expr.Immediate, *expr.Objref, *expr.Notrack:
	default:
		d.act(e)
	}
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
	case *expr.Target:
		d.entry.action = targets[e.Name]
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
	case expr.MetaKeyL4PROTO:
		return protocol
	case expr.MetaKeyMARK:
		return fwmark
	}
	return unknownField
}

// ctField names what is asked of connection tracking.
func ctField(e *expr.Ct) field {
	if e.Key == expr.CtKeySTATE {
		return ctState
	}
	return unknownField
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
		{expr.PayloadBaseTransportHeader, 0, 2}:                       port,
	}
	f := d.family
	if e.Base == expr.PayloadBaseTransportHeader {
		f = 0
	}
	return fields[at{e.Base, f, e.Offset}]
}

// bitwise masks a register: a prefix that ends within an octet.
func (d *decoder) bitwise(e *expr.Bitwise) {
	c, loaded := d.registers[e.SourceRegister]
	if !loaded || c.mask != nil || !allZero(e.Xor) {
		c = opaque
	}
	c.mask = e.Mask
	d.registers[e.DestRegister] = c
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

func (d *decoder) compare(e *expr.Cmp) {
	least, most := make([]byte, len(e.Data)), bytes.Repeat([]byte{0xff}, len(e.Data))
	if d.registers[e.Register].field == version && e.Op == expr.CmpOpEq && len(e.Data) == 1 {
		d.family = nftables.TableFamily(e.Data[0]) // the following loads are of this family
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

// require adds the condition that a register is in one of the spans. The
// register is empty then: the library passes over loads that it does not
// know, and the next comparison must not take this one's value.
func (d *decoder) require(register uint32, not bool, spans ...span) {
	d.entry.conditions = append(d.entry.conditions, d.condition(register, not, spans))
	delete(d.registers, register)
}

func (d *decoder) condition(register uint32, not bool, spans []span) condition {
	c := d.registers[register]
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
			named = append(named, span{name(i.Name), name(i.Name)})
		}
	}
	return named
}

// lookup reads a set. One that cannot be read, or whose keys are made of
// several fields, is a condition that we do not understand.
func (d *decoder) lookup(e *expr.Lookup) {
	set, err := d.conn.GetSetByName(d.table, e.SetName)
	if err != nil || set.Concatenation {
		d.registers[e.SourceRegister] = opaque
		set = &nftables.Set{}
	}
	elements, err := d.conn.GetSetElements(&nftables.Set{Table: d.table, Name: e.SetName})
	if err != nil {
		d.registers[e.SourceRegister] = opaque
	}
	if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
		d.choose(e, set, elements)
		return
	}
	d.require(e.SourceRegister, e.Invert, spansOf(set, elements)...)
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

// match reads an iptables match inside nftables.
func (d *decoder) match(e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Comment:
	case *xt.Tcp:
		d.entry.conditions = append(d.entry.conditions, tcpCondition(info))
		if info.SrcPorts != [2]uint16{0, 65535} || info.FlagsMask != 0 || info.Option != 0 {
			d.entry.conditions = append(d.entry.conditions, opaque)
		}
	case *xt.ConntrackMtinfo3:
		d.entry.conditions = append(d.entry.conditions, conntrackCondition(info))
	default:
		d.entry.conditions = append(d.entry.conditions, opaque)
	}
}

// conntrackCondition reads the match if it asks for a state and for nothing else.
func conntrackCondition(m *xt.ConntrackMtinfo3) condition {
	const state = uint16(xt.ConntrackState)
	if m.MatchFlags != state {
		return opaque
	}
	return inState(uint32(m.StateMask), m.InvertFlags&state != 0)
}

func tcpCondition(t *xt.Tcp) condition {
	from, to := t.DstPorts[0], t.DstPorts[1]
	return condition{
		field: port, not: t.InvFlags&xt.TcpInvDestPorts != 0,
		spans: []span{{binary.BigEndian.AppendUint16(nil, from), binary.BigEndian.AppendUint16(nil, to)}},
	}
}
