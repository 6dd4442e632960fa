package clothes

import "math/rand/v2"

// Wearable says what can be worn on a link.
type Wearable struct {
	V4, V6   bool // the families that it carries
	Ethernet bool // frames have a link header
	Shared   bool // the origin is on it too: what is for all does not need the gateway
}

// Closet draws outfits at random. The same seed and serial give the same outfit.
type Closet struct {
	Wearable
	seed   uint64
	source *rand.PCG
	r      *rand.Rand
	o      Outfit
}

// NewCloset opens the closet of a seed.
func NewCloset(w Wearable, seed uint64) *Closet {
	source := rand.NewPCG(seed, 0)
	return &Closet{Wearable: w, seed: seed, source: source, r: rand.New(source)}
}

// Draw dresses a SYN. The garments are appended to those given, for their space.
func (c *Closet) Draw(serial uint32, space []Garment) Outfit {
	c.source.Seed(c.seed, uint64(serial))
	c.o = Outfit{Serial: serial, V6: c.V6 && (!c.V4 || c.chance(60)), Garments: space[:0]}
	c.tcp()
	if c.o.V6 {
		c.ipv6()
	} else {
		c.ipv4()
	}
	if c.chance(45) {
		c.fragments()
	}
	if c.Ethernet {
		c.link()
	}
	return c.o
}

// chance is true in so many of a hundred cases.
func (c *Closet) chance(percent int) bool { return c.r.IntN(100) < percent }

// rare is true in so many of a thousand cases: for what Linux hardly ever takes,
// or all outfits would be refused for one such garment.
func (c *Closet) rare(mille int) bool { return c.r.IntN(1000) < mille }

func (c *Closet) put(k Kind, n, m int) {
	c.o.Garments = append(c.o.Garments, Garment{k, n, m})
}

// tcp draws what is within the segment.
func (c *Closet) tcp() {
	if c.chance(25) {
		flags := []int{flagECE | flagCWR, flagPSH, flagURG, flagPSH | flagURG, flagECE, flagCWR}[c.r.IntN(6)]
		if c.rare(30) {
			flags |= flagFIN
		}
		reserved := 0
		if c.chance(20) {
			reserved = 1 + c.r.IntN(15)
		}
		c.put(Flags, flags, reserved)
	}
	if c.chance(50) {
		c.put(Options, c.r.IntN(tcpOptionSets), 0)
	}
	switch {
	case c.chance(25):
		c.put(Data, 1+c.r.IntN(64), 0)
	case c.chance(10):
		c.put(Data, 65+c.r.IntN(900), 0)
	}
	if c.rare(4) {
		c.put(BadSum, 0, 0)
	}
}

// common draws what both families have.
func (c *Closet) common() {
	if c.chance(10) {
		c.put(TTL, []int{2, 3, 64, 255}[c.r.IntN(4)], 0)
	}
	if c.rare(4) {
		c.put(TTL, 1, 0)
	}
	if c.chance(10) {
		c.put(Service, c.r.IntN(256), c.r.IntN(1<<20))
	}
	if c.rare(4) {
		c.put(Length, []int{-40, -8, -1, 1, 8, 1000}[c.r.IntN(6)], 0)
	}
}

func (c *Closet) ipv4() {
	c.common()
	if c.chance(20) {
		c.put(Whole, 0, 0)
	}
	if c.chance(40) {
		for range 1 + c.r.IntN(4) {
			c.put(Option, []int{optNop, optNop, optRecord, optTimestamp, optAlert, optSecurity, optStream, optUnknown}[c.r.IntN(8)], c.r.IntN(256))
		}
	}
	switch {
	case c.rare(4):
		c.put(ViaGate, []int{optLoose, optStrict}[c.r.IntN(2)], 0)
	case c.rare(8):
		c.put(Option, []int{optLoose, optStrict, optCIPSO, optEnd, c.r.IntN(256)}[c.r.IntN(5)], c.r.IntN(256))
	}
}

func (c *Closet) ipv6() {
	c.common()
	if !c.chance(60) {
		return
	}
	if c.chance(30) { // where Linux takes it: first
		c.put(Header, extHop, c.optionsVariant())
	}
	count := c.r.IntN(4)
	if c.chance(30) {
		count = c.r.IntN(13)
	}
	for range count {
		c.header()
	}
}

// header draws an extension header, mostly one that Linux walks past.
func (c *Closet) header() {
	if c.rare(12) {
		c.oddHeader()
		return
	}
	switch c.r.IntN(10) {
	case 0, 1:
		c.put(Header, extFragment, 0)
	case 2, 3:
		// Types whose last segment Linux walks past: not 3 and 4, which it knows.
		c.put(Header, extRouting, []int{0, 4}[c.r.IntN(2)])
	default:
		c.put(Header, extDestination, c.optionsVariant())
	}
}

func (c *Closet) oddHeader() {
	kind := []int{extHop, extAuth, extMobility, extHIP, extShim, extRouting, extDestination}[c.r.IntN(7)]
	variant := 0
	switch kind {
	case extRouting:
		variant = c.r.IntN(5) | c.r.IntN(3)<<8
	case extDestination, extHop:
		variant = c.r.IntN(32) | []int{fillMany, fillDiscard, fillReport}[c.r.IntN(3)]<<8
	}
	c.put(Header, kind, variant)
}

func (c *Closet) optionsVariant() int {
	units := c.r.IntN(3)
	if c.rare(20) {
		units = c.r.IntN(16)
	}
	fill := fillPad
	if c.chance(20) {
		fill = []int{fillAlert, fillLimit}[c.r.IntN(2)]
	}
	return units | fill<<8
}

// fragments draws where the packet is cut and what becomes of the pieces.
func (c *Closet) fragments() {
	if c.o.V6 {
		c.put(Outside, c.r.IntN(4), 0)
		c.fit()
	}
	cuts := 1
	if c.chance(30) {
		cuts = 1 + c.r.IntN(6)
	}
	for range cuts {
		at := 1 + c.r.IntN(4)
		if c.chance(40) {
			at = 1 + c.r.IntN(24)
		}
		c.put(Cut, at, 0)
	}
	if c.chance(50) {
		c.put(Order, 1+c.r.IntN(3), c.r.IntN(1<<16))
	} else {
		c.put(Order, 0, 0)
	}
	c.mischief()
}

// fit moves hop-by-hop options out of what is fragmented: behind a fragment header
// Linux does not take them.
func (c *Closet) fit() {
	if g, ok := c.o.has(Header); ok && g.N == extHop {
		last := &c.o.Garments[len(c.o.Garments)-1]
		last.N = max(last.N, 1)
	}
}

// mischief draws what honest stacks do not do to fragments.
func (c *Closet) mischief() {
	if c.chance(10) {
		c.put(Twin, c.r.IntN(4), c.r.IntN(2))
	}
	if c.chance(4) {
		c.put(Longer, c.r.IntN(4), 1+c.r.IntN(3))
	}
	if c.rare(4) {
		c.put(Missing, c.r.IntN(4), 0)
	}
	if c.rare(4) {
		c.put(Stranger, 0, 0)
	}
	if !c.o.V6 {
		if c.chance(10) {
			c.put(Bare, 0, 0)
		}
		return
	}
	if c.chance(10) {
		c.put(Next, []int{6, extDestination, 59, 17}[c.r.IntN(4)], 0)
	}
	if c.chance(10) {
		c.put(Again, 1+c.r.IntN(3), 0)
	}
}

// link draws what is around the packet on Ethernet.
func (c *Closet) link() {
	if c.chance(35) {
		for range 1 + c.r.IntN(4) {
			c.put(Tag, []int{tpid8021Q, tpid8021ad}[c.r.IntN(2)], c.r.IntN(16)<<12)
		}
	}
	if c.rare(6) {
		c.put(Tag, []int{tpid8021Q, tpid8021ad, tpidQinQ}[c.r.IntN(3)], c.r.IntN(1<<16))
	}
	if c.chance(10) {
		c.put(Trail, 1+c.r.IntN(48), 0)
	}
	if c.rare(3) {
		c.put(Frame, 1+c.r.IntN(frameOther), 0)
	}
	if !c.Shared && c.rare(2) {
		c.put(Cast, 1+c.r.IntN(2), 0)
	}
}
