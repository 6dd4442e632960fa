package clothes

import (
	"math/rand/v2"
	"slices"
)

// piece is a fragment to be: octets start to end of what is fragmented.
type piece struct {
	start, end int
	more       bool // others follow
	first      bool // the one that was first before anything was moved
	unlike     bool // with other content
	stranger   bool // with another identification
	missing    bool
}

// cut divides size octets as the outfit asks; nothing is cut without a garment that
// says so, or where it would have to be behind the end.
func (t *Tailor) cut(o *Outfit, size int) []piece {
	t.pieces = t.pieces[:0]
	var marks [32]int
	ends := marks[:0]
	for _, g := range o.Garments {
		if g.Kind == Cut && g.N*8 < size && len(ends) < cap(ends)-1 {
			ends = append(ends, g.N*8)
		}
	}
	if len(ends) == 0 {
		return nil
	}
	slices.Sort(ends)
	ends = append(slices.Compact(ends), size)
	start := 0
	for i, end := range ends {
		t.pieces = append(t.pieces, piece{start: start, end: end, more: i < len(ends)-1, first: i == 0})
		start = end
	}
	t.spoil(o, size)
	t.order(o)
	return t.pieces
}

// spoil does what honest stacks do not do.
func (t *Tailor) spoil(o *Outfit, size int) {
	for _, g := range o.Garments {
		if g.Kind != Longer && g.Kind != Missing && g.Kind != Stranger && g.Kind != Twin {
			continue
		}
		n := g.N % len(t.pieces)
		p := &t.pieces[n]
		switch g.Kind {
		case Longer:
			if p.more {
				p.end = min(p.end+g.M*8, size&^7)
			}
		case Missing:
			p.missing = true
		case Stranger:
			t.pieces[len(t.pieces)-1].stranger = true
		case Twin:
			twin := *p
			twin.unlike = g.M == 1
			t.pieces = slices.Insert(t.pieces, n+1, twin)
		}
	}
	t.pieces = slices.DeleteFunc(t.pieces, func(p piece) bool { return p.missing })
}

// order changes the order of the pieces.
func (t *Tailor) order(o *Outfit) {
	g, _ := o.has(Order)
	switch p := t.pieces; {
	case g.N == 1:
		slices.Reverse(p)
	case g.N == 2 && len(p) > 1:
		first := p[0]
		copy(p, p[1:])
		p[len(p)-1] = first
	case g.N > 2:
		r := rand.New(rand.NewPCG(uint64(g.M), 0))
		r.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	}
}

// content copies a piece of what is fragmented to the end of to. segment is where
// the TCP header begins in it. Other content keeps the SYN, its ports and its
// checksum where the piece has the words for that: the window grows by what the
// urgent pointer shrinks. Who takes either piece has a SYN.
func (p piece) content(to, whole []byte, segment int) []byte {
	from := len(to)
	to = append(to, whole[p.start:p.end]...)
	if !p.unlike {
		return to
	}
	b := to[from:]
	window, urgent := segment+14-p.start, segment+18-p.start
	switch {
	case window >= 0 && urgent+2 <= len(b):
		b[window+1]++                       // 64240 has room
		b[urgent], b[urgent+1] = 0xff, 0xfe // one less than 0, in ones' complement
	case p.start >= segment+20:
		b[len(b)-1] ^= 0x20
	}
	return to
}
