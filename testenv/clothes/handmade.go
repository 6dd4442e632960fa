package clothes

// Handmade is an outfit that somebody once tried, with what a stock Linux makes of
// it when nothing is in the way.
type Handmade struct {
	Name     string
	Answered bool
	Outfit
}

// dressed puts an outfit together.
func dressed(v6 bool, garments ...Garment) Outfit { return Outfit{V6: v6, Garments: garments} }

// extensions are so many headers of destination options, 8 octets each.
func extensions(n int) (list []Garment) {
	for range n {
		list = append(list, Garment{Header, extDestination, 0})
	}
	return list
}

// tags are priority tags.
func tags(kind, n int) (list []Garment) {
	for range n {
		list = append(list, Garment{Tag, kind, 0})
	}
	return list
}

// TheHandmade are sent first in each round. They are the ways around that were
// found by thinking, and those that Linux closes by itself.
var TheHandmade = []Handmade{
	{"plain4", true, dressed(false)},
	{"plain6", true, dressed(true)},
	// Linux wants all headers in the first fragment (RFC 8200 section 4.5).
	{"frag6", false, dressed(true, Garment{Cut, 1, 0})},
	{"frag6r", false, dressed(true, Garment{Cut, 1, 0}, Garment{Order, 1, 0})},
	// It does not look whether a chain of headers is cut.
	{"frag6b", true, dressed(true, append(extensions(2), Garment{Cut, 1, 0})...)},
	{"frag6br", true, dressed(true, append(extensions(2), Garment{Cut, 1, 0}, Garment{Order, 1, 0})...)},
	{"frag6atomic", true, dressed(true, Garment{Header, extFragment, 0})},
	{"ext9", true, dressed(true, extensions(9)...)},
	{"ext12", true, dressed(true, extensions(12)...)},
	{"frag4", true, dressed(false, Garment{Data, 40, 0}, Garment{Cut, 3, 0})},
	{"frag4tiny", true, dressed(false, Garment{Cut, 1, 0})},
	{"frag4tinyr", true, dressed(false, Garment{Cut, 1, 0}, Garment{Order, 1, 0})},
	{"frag4over", false, dressed(false, Garment{Data, 40, 0}, Garment{Cut, 2, 0}, Garment{Longer, 0, 1})},
	{"frag4over2", false, dressed(false, Garment{Data, 40, 0}, Garment{Cut, 2, 0}, Garment{Cut, 4, 0}, Garment{Longer, 1, 1}, Garment{Order, 1, 0})},
	{"frag4twin", true, dressed(false, Garment{Data, 40, 0}, Garment{Cut, 3, 0}, Garment{Twin, 0, 1})},
	{"vlan24", true, dressed(false, tags(tpid8021Q, 2)...)},
	{"vlan26", true, dressed(true, tags(tpid8021Q, 2)...)},
	{"vlan34", true, dressed(false, tags(tpid8021Q, 3)...)},
	{"vlan24ad", true, dressed(false, tags(tpid8021ad, 2)...)},
	{"opt4", true, dressed(false, Garment{Option, optRecord, 2}, Garment{Option, optNop, 0})},
	{"synfin", false, dressed(false, Garment{Flags, flagFIN, 0})},
}

// Fits says whether the outfit can be worn on a link.
func (o *Outfit) Fits(w Wearable) bool {
	if o.V6 && !w.V6 || !o.V6 && !w.V4 {
		return false
	}
	for _, g := range o.Garments {
		if g.Kind >= Tag && !w.Ethernet {
			return false
		}
	}
	return true
}
