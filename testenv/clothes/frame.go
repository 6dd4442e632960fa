package clothes

import "encoding/binary"

// begin begins a frame of an outfit, with its link header, and returns its start.
func (t *Tailor) begin(o *Outfit, kind uint16) (start int) {
	start = len(t.arena)
	if !t.Ethernet {
		return start
	}
	t.arena = append(append(t.arena, t.destination(o)...), t.OurMAC[:]...)
	for _, g := range o.Garments {
		if g.Kind == Tag {
			t.arena = binary.BigEndian.AppendUint16(t.arena, uint16(g.N))
			t.arena = binary.BigEndian.AppendUint16(t.arena, uint16(g.M))
		}
	}
	switch o.number(Frame, 0) {
	case frameSNAP:
		t.arena = append(t.arena, 0, 0, 0xaa, 0xaa, 3, 0, 0, 0) // the length is filled in at the end
	case framePPPoE:
		protocol := uint16(0x21)
		if o.V6 {
			protocol = 0x57
		}
		t.arena = append(t.arena, 0x88, 0x64, 0x11, 0, 0, 1, 0, 0)
		kind = protocol
	case frameMPLS:
		t.arena = append(t.arena, 0x88, 0x47, 0, 1, 1, 64)
		return start
	case frameOther:
		kind ^= 0x0800 ^ 0x86dd
	}
	t.arena = binary.BigEndian.AppendUint16(t.arena, kind)
	return start
}

// destination is the link-level address that the frame goes to.
func (t *Tailor) destination(o *Outfit) []byte {
	switch o.number(Cast, 0) {
	case 1:
		return []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case 2:
		if o.V6 {
			return []byte{0x33, 0x33, 0, 0, 0, 1}
		}
		return []byte{1, 0, 0x5e, 0, 0, 1}
	}
	return t.GatewayMAC[:]
}

// end ends the frame that began at start.
func (t *Tailor) end(o *Outfit, start int) {
	if n := o.number(Trail, 0); n > 0 {
		t.arena = append(t.arena, make([]byte, n)...)
	}
	t.measure(o, start)
	t.frames = append(t.frames, span{start, len(t.arena)})
}

// measure fills in the lengths that link-level forms have.
func (t *Tailor) measure(o *Outfit, start int) {
	if !t.Ethernet {
		return
	}
	at := start + 12
	for _, g := range o.Garments {
		if g.Kind == Tag {
			at += 4
		}
	}
	switch o.number(Frame, 0) {
	case frameSNAP:
		binary.BigEndian.PutUint16(t.arena[at:], uint16(len(t.arena)-at-2))
	case framePPPoE:
		binary.BigEndian.PutUint16(t.arena[at+6:], uint16(len(t.arena)-at-8))
	}
}
