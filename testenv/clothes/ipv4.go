package clothes

import "encoding/binary"

// dress4 makes IPv4 packets of the segment.
func (t *Tailor) dress4(o *Outfit) {
	options := t.options4(o)
	pieces := t.cut(o, len(t.segment))
	if pieces == nil {
		t.packet4(o, options, t.segment, 0, false)
		return
	}
	_, bare := o.has(Bare)
	for _, p := range pieces {
		t.one = p.content(t.one[:0], t.segment, 0)
		fragment := uint16(p.start / 8)
		if p.more {
			fragment |= 0x2000
		}
		if bare && !p.first {
			t.packet4(o, nil, t.one, fragment, p.stranger)
			continue
		}
		t.packet4(o, options, t.one, fragment, p.stranger)
	}
}

// packet4 makes one IPv4 packet and frames it.
func (t *Tailor) packet4(o *Outfit, options, payload []byte, fragment uint16, stranger bool) {
	start := t.begin(o, 0x0800)
	header := 20 + len(options)
	t.arena = append(t.arena, make([]byte, 20)...)
	t.arena = append(append(t.arena, options...), payload...)
	h := t.arena[len(t.arena)-header-len(payload):]
	service, _ := o.has(Service)
	h[0], h[1] = 4<<4|byte(header/4), byte(service.N)
	binary.BigEndian.PutUint16(h[2:], uint16(header+len(payload)+o.number(Length, 0)))
	id := uint16(o.Serial)
	if stranger {
		id = ^id
	}
	binary.BigEndian.PutUint16(h[4:], id)
	if _, whole := o.has(Whole); whole {
		fragment |= 0x4000
	}
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = byte(o.number(TTL, 64)), 6
	source, destination := source4(o.Serial), t.Origin4.As4()
	if _, via := o.has(ViaGate); via {
		destination = t.Gateway4.As4()
	}
	copy(h[12:], source[:])
	copy(h[16:], destination[:])
	binary.BigEndian.PutUint16(h[10:], checksum(h[:header], 0))
	t.end(o, start)
}

// options4 makes the options of an IPv4 header, as many as there is room for.
func (t *Tailor) options4(o *Outfit) []byte {
	t.outer = t.outer[:0]
	for _, g := range o.Garments {
		var space [40]byte
		option := space[:0]
		switch g.Kind {
		case ViaGate:
			a := t.Origin4.As4()
			option = append(append(option, byte(g.N), 7, 4), a[:]...)
		case Option:
			option = t.option4(option, g)
		default:
			continue
		}
		if len(t.outer)+len(option) <= 40 {
			t.outer = append(t.outer, option...)
		}
	}
	for len(t.outer)%4 != 0 {
		t.outer = append(t.outer, optNop)
	}
	return t.outer
}

// option4 makes one option. Types that nobody knows get a length that is right.
func (t *Tailor) option4(b []byte, g Garment) []byte {
	kind := byte(g.N)
	switch g.N {
	case optEnd, optNop:
		return append(b, kind)
	case optRecord:
		return sized(append(b, kind, 0, 4), 3+4*(1+g.M%9))
	case optTimestamp:
		return sized(append(b, kind, 0, 5), 4+4*(1+g.M%4))
	case optSecurity:
		return sized(append(b, kind), 11)
	case optLoose, optStrict: // the way is used up
		a := t.Origin4.As4()
		return append(append(b, kind, 7, 8), a[:]...)
	case optCIPSO:
		return append(b, kind, 10, 0, 0, 0, 1, 1, 4, 0, 0)
	}
	return sized(append(b, kind), 4)
}

// sized gives an option its length.
func sized(b []byte, size int) []byte {
	b = append(b, make([]byte, size-len(b))...)
	b[1] = byte(size)
	return b
}
