package netfilter

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// match reads an iptables match inside nftables.
func (d *decoder) match(e *expr.Match) {
	d.entry.conditions = append(d.entry.conditions, matchConditions(e)...)
}

func matchConditions(e *expr.Match) []condition {
	switch info := e.Info.(type) {
	case *xt.Comment:
		return nil
	case *xt.Tcp:
		return tcpConditions(info)
	case *xt.ConntrackMtinfo3:
		return conntrackConditions(info.MatchFlags, info.InvertFlags, info.StateMask)
	case *xt.AddrTypeV1:
		return addressTypes(info)
	case *xt.Unknown:
		if read, known := matches[e.Name]; known {
			return read(*info)
		}
	}
	return []condition{opaque}
}

// matches read what the library does not. Each returns a condition that we do not
// understand for what is not as it should be.
var matches = map[string]func([]byte) []condition{
	"multiport": multiport,
	"owner":     owner,
	"mark":      markMatch,
	"set":       setMatch,
	"recent":    bySource, // rarely by destination
	"hashlimit": bySource,
	"connlimit": bySource,
	"geoip":     bySource,
	"iprange":   rangeMatch,
	"state":     stateMatch,
}

// bySource is a match that counts or knows addresses of senders.
func bySource([]byte) []condition { return []condition{{field: sourceSet}} }

// rangeMatch reads the flags of struct xt_iprange_mtinfo, behind four addresses.
func rangeMatch(info []byte) []condition {
	const source, flags = 1, 4 * 16
	if len(info) > flags && info[flags]&source != 0 {
		return []condition{{field: sourceSet}}
	}
	return []condition{{field: destinationSet}}
}

// setMatch reads whether a set of addresses is asked about the source.
func setMatch(info []byte) []condition {
	const firstIsSource = 1 << 1
	if len(info) < 4 { // index, dimensions, flags
		return []condition{opaque}
	}
	if info[3]&firstIsSource != 0 {
		return []condition{{field: sourceSet}}
	}
	return []condition{{field: destinationSet}}
}

func tcpConditions(t *xt.Tcp) []condition {
	var all []condition
	if t.SrcPorts != [2]uint16{0, 65535} {
		all = append(all, condition{field: sourcePort, not: t.InvFlags&xt.TcpInvSrcPorts != 0, spans: portSpan(t.SrcPorts[0], t.SrcPorts[1])})
	}
	if t.DstPorts != [2]uint16{0, 65535} {
		all = append(all, condition{field: port, not: t.InvFlags&xt.TcpInvDestPorts != 0, spans: portSpan(t.DstPorts[0], t.DstPorts[1])})
	}
	if t.FlagsMask != 0 {
		all = append(all, flagged(t.FlagsCmp, t.FlagsMask, t.InvFlags&xt.TcpInvFlags != 0))
	}
	if t.Option != 0 {
		all = append(all, opaque)
	}
	return all
}

func portSpan(from, to uint16) []span {
	return []span{{binary.BigEndian.AppendUint16(nil, from), binary.BigEndian.AppendUint16(nil, to)}}
}

// conntrackConditions reads the match. About a packet that is not tracked, it asks for
// the state alone, if it does.
func conntrackConditions(asked, inverted, states uint16) []condition {
	const state = uint16(xt.ConntrackState)
	var all []condition
	if asked&state != 0 {
		all = append(all, inState(stateBits(states), inverted&state != 0))
	}
	if asked&^(state|uint16(xt.ConntrackStateAlias)) != 0 {
		all = append(all, condition{field: ctOther})
	}
	return all
}

// stateBits are those of nftables: the match has its own for what is not tracked,
// and some for translated connections, which these are not.
func stateBits(states uint16) uint32 {
	const untracked = 1 << 8
	bits := uint32(states & 0x0f)
	if states&untracked != 0 {
		bits |= uint32(StateUntracked)
	}
	return bits
}

// stateMatch reads the old match of that name.
func stateMatch(info []byte) []condition {
	if len(info) < 4 {
		return []condition{opaque}
	}
	const untracked = 1 << 6 // in this one
	states := binary.NativeEndian.Uint32(info)
	bits := states & 0x0f
	if states&untracked != 0 {
		bits |= uint32(StateUntracked)
	}
	return []condition{inState(bits, false)}
}

func addressTypes(a *xt.AddrTypeV1) []condition {
	const notSource, notDestination, rest = 1, 2, ^xt.AddrTypeFlags(3)
	var all []condition
	if a.Source != 0 {
		all = append(all, ofTypes(sourceType, a.Source, a.Flags&notSource != 0))
	}
	if a.Dest != 0 {
		all = append(all, ofTypes(destinationType, a.Dest, a.Flags&notDestination != 0))
	}
	if a.Flags&rest != 0 { // on one interface only
		all = append(all, opaque)
	}
	return all
}

// ofTypes asks for an address of one of several types, given as bits.
func ofTypes(f field, types uint16, not bool) condition {
	c := condition{field: f, not: not}
	for n := range 16 {
		if types&(1<<n) != 0 {
			c.spans = append(c.spans, exactly(native(uint32(n)))...)
		}
	}
	return c
}

// multiport reads struct xt_multiport_v1: what, how many, 15 ports, of which a range
// takes two.
func multiport(info []byte) []condition {
	const source, either, most, size = 0, 2, 15, 2 + 2*15 + 15 + 1
	if len(info) < size || info[0] == either || info[1] > most {
		return []condition{opaque}
	}
	c := condition{field: port, not: info[size-1] != 0}
	if info[0] == source {
		c.field = sourcePort
	}
	at := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2+2*i:]) }
	for i := 0; i < int(info[1]); i++ {
		from, to := at(i), at(i)
		if ranged := info[2+2*most+i] != 0; ranged && i+1 < most {
			i++
			to = at(i)
		}
		c.spans = append(c.spans, portSpan(from, to)...)
	}
	return []condition{c}
}

// owner reads struct xt_owner_match_info: ranges of users and groups, what is asked,
// what is inverted.
func owner(info []byte) []condition {
	const users, groups, size = 1, 2, 18
	if len(info) < size {
		return []condition{opaque}
	}
	at := func(i int) []byte { return info[4*i : 4*i+4] } // as a register holds it
	var all []condition
	if info[16]&users != 0 {
		all = append(all, condition{field: user, not: info[17]&users != 0, spans: []span{{at(0), at(1)}}})
	}
	if info[16]&groups != 0 {
		all = append(all, condition{field: group, not: info[17]&groups != 0, spans: []span{{at(2), at(3)}}})
	}
	if info[16]&^(users|groups) != 0 {
		all = append(all, opaque)
	}
	return all
}

// markMatch reads struct xt_mark_mtinfo1.
func markMatch(info []byte) []condition {
	if len(info) < 9 {
		return []condition{opaque}
	}
	mark, mask := binary.NativeEndian.Uint32(info), binary.NativeEndian.Uint32(info[4:])
	return []condition{marked(mark, mask, info[8] != 0)}
}

// target reads an iptables target inside nftables.
func (d *decoder) target(e *expr.Target) {
	d.entry.action = targets[e.Name]
	info, unread := e.Info.(*xt.Unknown)
	if !unread {
		return
	}
	switch e.Name {
	case "MARK":
		d.entry.writes = markTarget(*info)
	case "CONNMARK":
		if w := connmarkTarget(*info, e.Rev); w != nil {
			d.entry.writes = w
			d.entry.conditions = append(slices.Clone(d.entry.conditions), isTracked())
		}
	case "CT":
		const notrack = 1
		d.entry.untracks = len(*info) >= 2 && binary.NativeEndian.Uint16(*info)&notrack != 0
	}
}

// markTarget reads struct xt_mark_tginfo2.
func markTarget(info []byte) *write {
	if len(info) < 8 {
		return &write{unknown: true}
	}
	return &write{stay: ^binary.NativeEndian.Uint32(info[4:]), turn: binary.NativeEndian.Uint32(info)}
}

// connmarkTarget reads struct xt_connmark_tginfo1 or 2: only restoring writes the
// packet's mark. A new connection's is 0.
func connmarkTarget(info []byte, revision uint32) *write {
	const restore = 2
	mode := 12
	if revision >= 2 {
		mode += 2 // behind how far marks are shifted
	}
	if len(info) <= mode || info[mode] != restore {
		return nil
	}
	return &write{stay: ^binary.NativeEndian.Uint32(info[8:])}
}

// numberOctets is a number in an order in which ranges can be compared.
func numberOctets(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
