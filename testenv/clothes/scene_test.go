package clothes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// scene is what was sent while gateway and inspector were in one state.
type scene struct {
	name        string
	first, last uint32 // serials
	sent        int
	took        time.Duration
	answers     map[uint32]Verdict // of the origin, by serial: the worst
	counts      [Verdicts]int      // SYNs by that
	client      Counted            // what left the gateway for the client
	handmade    map[uint32]*Handmade
	probes      map[uint32]bool // sent to find what matters about another
	deaf        uint32          // answers that nobody read in time
	silent      bool            // nobody but the origin could have answered
	explained   string          // what the leaks have in common
}

func (s *stage) scene() *scene { return s.scenes[len(s.scenes)-1] }

// begin begins a scene.
func (s *stage) begin(name string) *scene {
	s.t.Helper()
	_, err := s.counter.Count() // of the scene before
	s.must(err)
	c := &scene{
		name: name, first: s.serial + 1, last: s.serial,
		answers: make(map[uint32]Verdict), handmade: make(map[uint32]*Handmade), probes: make(map[uint32]bool),
	}
	s.scenes = append(s.scenes, c)
	return c
}

// play sends all that is handmade, and so many SYNs dressed at random.
func (s *stage) play(name string, packets int) *scene {
	s.t.Helper()
	c := s.begin(name)
	begun := time.Now()
	s.sendHandmade(c)
	for *serialFlag == 0 && c.sent < packets {
		s.random(packets - c.sent)
		s.flush()
	}
	c.took = time.Since(begun)
	var err error
	c.client, err = s.counter.Count()
	s.must(err)
	c.deaf, err = s.judge.Deaf()
	s.must(err)
	return c
}

// sendHandmade sends what is handmade and fits the link, or the one SYN that was
// asked for.
func (s *stage) sendHandmade(c *scene) {
	list := TheHandmade
	if *serialFlag != 0 {
		list = []Handmade{{Name: "as before", Outfit: s.closet.Draw(uint32(*serialFlag), nil)}}
	}
	for i := range list {
		h := &list[i]
		if h.Fits(s.Wearable) {
			o := h.Outfit
			o.Serial = s.next()
			c.handmade[o.Serial] = h
			s.wear(o)
		}
	}
	s.flush()
}

// random dresses a batch of no more SYNs than that.
func (s *stage) random(most int) {
	for n := 0; n < most && s.tailor.Len() < batchFrames; n++ {
		o := s.closet.Draw(s.next(), s.space)
		s.space = o.Garments
		s.wear(o)
	}
}

// wear adds an outfit to the batch.
func (s *stage) wear(o Outfit) {
	s.tailor.Dress(&o)
	s.scene().sent++
}

// next returns a serial.
func (s *stage) next() uint32 {
	s.serial++
	if s.serial >= MaxSerial {
		s.t.Fatalf("there are %d sources only", uint32(MaxSerial))
	}
	s.scene().last = s.serial
	return s.serial
}

// note notes an answer of the origin.
func (s *stage) note(a Answer) {
	i, found := slices.BinarySearchFunc(s.scenes, a.Serial, func(c *scene, serial uint32) int {
		switch {
		case c.last < serial:
			return -1
		case c.first > serial:
			return 1
		}
		return 0
	})
	if !found {
		s.t.Errorf("an answer to a SYN that nobody sent: %d, %s", a.Serial, a.Verdict)
		return
	}
	s.scenes[i].note(a)
}

func (c *scene) note(a Answer) {
	before, known := c.answers[a.Serial]
	if known && before <= a.Verdict {
		return
	}
	c.answers[a.Serial] = a.Verdict
	if c.probes[a.Serial] {
		return
	}
	c.counts[a.Verdict]++
	if known {
		c.counts[before]--
	}
}

// leaks are the serials that the origin answered, the worst and earliest first. An
// error about what shows no SYN is none: whoever wants it need not send one.
func (c *scene) leaks() []uint32 {
	list := slices.Collect(func(yield func(uint32) bool) {
		for serial, verdict := range c.answers {
			if verdict < Unreadable && !c.probes[serial] && !yield(serial) {
				return
			}
		}
	})
	slices.SortFunc(list, func(a, b uint32) int {
		if d := int(c.answers[a]) - int(c.answers[b]); d != 0 {
			return d
		}
		return int(a) - int(b)
	})
	return list
}

// outfit is what a serial wore.
func (s *stage) outfit(c *scene, serial uint32) Outfit {
	if h, is := c.handmade[serial]; is {
		o := h.Outfit
		o.Serial = serial
		return o
	}
	return s.closet.Draw(serial, nil)
}

// awaitLate hears what the origin says when it gives fragments up.
func (s *stage) awaitLate() {
	s.t.Helper()
	s.hear(0, 1500*time.Millisecond)
}

// line says what became of a scene's SYNs.
func (c *scene) line() string {
	var words []string
	for v := range Silence {
		if c.counts[v] > 0 {
			words = append(words, fmt.Sprintf("%d %s", c.counts[v], v))
		}
	}
	if len(words) == 0 {
		words = append(words, "none")
	}
	if c.deaf > 0 {
		words = append(words, fmt.Sprintf("and %d times more", c.deaf))
	}
	rate := float64(c.sent) / c.took.Seconds() / 1000
	return fmt.Sprintf("%-42s %7d SYNs, answered by the origin: %s; left for the client: %d SYN-ACK, %d RST, %d ICMP; %.0f,000 SYNs/s",
		c.name, c.sent, strings.Join(words, ", "), c.client[SYNACK], c.client[RST], c.client[ICMP], rate)
}

// score is how often a garment was worn, and how often its wearer was answered with
// SYN-ACK.
type score struct{ worn, answered int }

// scores counts the garments of a scene.
func (s *stage) scores(c *scene) map[string]*score {
	all := make(map[string]*score)
	var space []Garment
	for serial := c.first; serial <= c.last; serial++ {
		if _, is := c.handmade[serial]; is || c.probes[serial] {
			continue
		}
		o := s.closet.Draw(serial, space)
		space = o.Garments
		answered := 0
		if v, is := c.answers[serial]; is && v == SYNACK {
			answered = 1
		}
		seen := make(map[string]bool, len(o.Garments))
		for _, g := range o.Garments {
			name := g.Name()
			if seen[name] {
				continue
			}
			seen[name] = true
			one, is := all[name]
			if !is {
				one = &score{}
				all[name] = one
			}
			one.worn++
			one.answered += answered
		}
	}
	return all
}

// table prints scores.
func table(all map[string]*score) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "\n  %-40s worn by %7d, answered %7d", name, all[name].worn, all[name].answered)
	}
	return b.String()
}
