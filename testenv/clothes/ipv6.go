package clothes

import "encoding/binary"

// dress6 makes IPv6 packets of the segment.
func (t *Tailor) dress6(o *Outfit) {
	outside := len(o.Garments)
	if _, is := o.has(Cut); is {
		outside = o.number(Outside, 0)
	}
	next := byte(6)
	t.chain = t.headers(t.chain[:0], o, outside, len(o.Garments), &next)
	segment := len(t.chain)
	t.chain = append(t.chain, t.segment...)
	pieces := t.cut(o, len(t.chain))
	if pieces == nil {
		t.packet6(o, outside, next, t.chain)
		return
	}
	for _, p := range pieces {
		inside := next
		if g, lies := o.has(Next); lies && !p.first {
			inside = byte(g.N)
		}
		t.one = appendFragment(t.one[:0], inside, p.start, p.more, identification(o, p.stranger))
		t.one = p.content(t.one, t.chain, segment)
		t.again6(o, outside, t.one)
	}
}

func identification(o *Outfit, stranger bool) uint32 {
	if stranger {
		return ^o.Serial
	}
	return o.Serial
}

// again6 fragments a fragment, where the outfit asks for it.
func (t *Tailor) again6(o *Outfit, outside int, fragment []byte) {
	at := 8 * o.number(Again, 0)
	if at == 0 || at >= len(fragment) {
		t.packet6(o, outside, extFragment, fragment)
		return
	}
	// Fragments of one packet may not share the number of those of another.
	number := o.Serial ^ uint32(len(t.frames)+1)<<24
	for _, p := range []piece{{start: 0, end: at, more: true}, {start: at, end: len(fragment)}} {
		b := appendFragment(nil, extFragment, p.start, p.more, number)
		t.packet6(o, outside, extFragment, append(b, fragment[p.start:p.end]...))
	}
}

func appendFragment(b []byte, next byte, at int, more bool, id uint32) []byte {
	field := uint16(at)
	if more {
		field |= 1
	}
	b = append(b, next, 0)
	b = binary.BigEndian.AppendUint16(b, field)
	return binary.BigEndian.AppendUint32(b, id)
}

// packet6 makes one IPv6 packet, with those headers that stand before fragment
// headers, and frames it.
func (t *Tailor) packet6(o *Outfit, outside int, next byte, payload []byte) {
	t.outer = t.headers(t.outer[:0], o, 0, outside, &next)
	start := t.begin(o, 0x86dd)
	size := len(t.outer) + len(payload)
	t.arena = append(t.arena, make([]byte, 40)...)
	t.arena = append(append(t.arena, t.outer...), payload...)
	h := t.arena[len(t.arena)-40-size:]
	service, _ := o.has(Service)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(service.N)<<20|uint32(service.M))
	binary.BigEndian.PutUint16(h[4:], uint16(size+o.number(Length, 0)))
	h[6], h[7] = next, byte(o.number(TTL, 64))
	source, destination := source6(o.Serial), t.Origin6.As16()
	copy(h[8:], source[:])
	copy(h[24:], destination[:])
	t.end(o, start)
}

// headers appends the extension headers from the one of a number to that before
// another, of those that the outfit has. next is what follows them, and becomes the
// protocol of the first.
func (t *Tailor) headers(b []byte, o *Outfit, from, to int, next *byte) []byte {
	var worn [64]Garment
	list := worn[:0]
	n := 0
	for _, g := range o.Garments {
		if g.Kind != Header {
			continue
		}
		if n >= from && n < to && len(list) < cap(list) {
			list = append(list, g)
		}
		n++
	}
	for i, g := range list {
		follows := *next
		if i+1 < len(list) {
			follows = byte(list[i+1].N)
		}
		b = t.header(b, o, g, follows)
	}
	if len(list) > 0 {
		*next = byte(list[0].N)
	}
	return b
}

// header appends one extension header.
func (t *Tailor) header(b []byte, o *Outfit, g Garment, next byte) []byte {
	switch g.N {
	case extFragment:
		return appendFragment(b, next, 0, false, o.Serial)
	case extRouting:
		kind, left := routing(g.M)
		a := t.Origin6.As16()
		return append(append(b, next, 2, kind, left, 0, 0, 0, 0), a[:]...)
	case extAuth:
		return append(b, next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0)
	case extHop, extDestination:
		return appendOptions(b, g, next)
	}
	return append(b, next, 0, 0, 0, 0, 0, 0, 0)
}

// appendOptions appends a header of options. Linux takes no more than seven octets
// of padding in a row, so that the rest of a large one is an option of a type that
// is skipped by who does not know it (RFC 4727).
func appendOptions(b []byte, g Garment, next byte) []byte {
	units, fill := optionsHeader(g.M)
	b = append(b, next, byte(units-1))
	end := len(b) + units*8 - 2
	switch fill {
	case fillAlert:
		b = append(b, 5, 2, 0, 0)
	case fillLimit:
		b = append(b, 4, 1, 4)
	case fillMany:
		for end-len(b) >= 8 {
			b = append(b, 0x1e, 1, 0)
		}
	case fillDiscard:
		b = append(b, 0x5e, 1, 0)
	case fillReport:
		b = append(b, 0x9e, 1, 0)
	}
	for end-len(b) > 7 {
		b = appendOption(b, 0x1e, min(end-len(b), 257))
	}
	switch end - len(b) {
	case 0:
		return b
	case 1:
		return append(b, 0)
	}
	return appendOption(b, 1, end-len(b))
}

// appendOption appends an option of zeros with a size altogether.
func appendOption(b []byte, kind byte, size int) []byte {
	b = append(b, kind, byte(size-2))
	return append(b, zeros[:size-2]...)
}

var zeros [256]byte
