package clothes

import (
	"fmt"
	"slices"
	"strings"
)

// explainMost bounds how many new leaks of a scene are looked into.
const explainMost = 8

// leak is a SYN that was answered, without all that it could do without.
type leak struct {
	Outfit
	verdict Verdict
	scene   string
}

// explain looks for what the leaks of a scene have in common: of some it takes off
// what can be missing without the origin falling silent. What was found in a scene
// before is only counted.
func (s *stage) explain(c *scene) {
	s.t.Helper()
	var b strings.Builder
	before := make(map[string]int)
	rest, fresh := 0, 0
	for _, serial := range c.leaks() {
		o, verdict := s.outfit(c, serial), c.answers[serial]
		if _, is := c.handmade[serial]; is {
			continue
		}
		if i := slices.IndexFunc(s.leaks, func(l *leak) bool { return l.verdict == verdict && l.within(&o) }); i >= 0 {
			before[s.leaks[i].String()]++
			continue
		}
		if fresh == explainMost {
			rest++
			continue
		}
		fresh++
		if verdict != Reassembly { // which comes too late for that
			o = s.undress(c, o, verdict)
		}
		l := &leak{Outfit: o, verdict: verdict, scene: c.name}
		s.leaks = append(s.leaks, l)
		before[l.String()]++
		s.show(&b, l, serial)
	}
	for _, l := range s.leaks {
		if n := before[l.String()]; n > 0 {
			fmt.Fprintf(&b, "\n    %6d %s", n, l)
		}
	}
	if rest > 0 {
		fmt.Fprintf(&b, "\n    %6d others", rest)
	}
	c.explained = b.String()
}

func (l *leak) String() string { return fmt.Sprintf("%s to %s", l.verdict, &l.Outfit) }

// within says whether an outfit has all that the leak wears, in whatever variant.
func (l *leak) within(o *Outfit) bool {
	if l.V6 != o.V6 {
		return false
	}
	left := make(map[string]int)
	for _, g := range o.Garments {
		left[g.class()]++
	}
	for _, g := range l.Garments {
		if left[g.class()]--; left[g.class()] < 0 {
			return false
		}
	}
	return true
}

// class is what garments have in common that leaks are told apart by.
func (g Garment) class() string {
	name := g.Name()
	switch {
	case unwelcome(name):
		return name
	case g.Kind == Header:
		return "header"
	case g.Kind == Option:
		return "option"
	case g.Kind == Tag:
		return "tag"
	}
	return kindNames[g.Kind]
}

// undress takes off garment by garment for as long as the verdict stays.
func (s *stage) undress(c *scene, o Outfit, verdict Verdict) Outfit {
	for n := len(o.Garments) - 1; n >= 0; n-- {
		without := o.Without(n)
		if s.probe(c, &without) == verdict {
			o = without
		}
	}
	return o
}

// probe sends a SYN and returns what the origin makes of it.
func (s *stage) probe(c *scene, o *Outfit) Verdict {
	o.Serial = s.next()
	c.probes[o.Serial] = true
	s.tailor.Dress(o)
	s.flush()
	if v, answered := c.answers[o.Serial]; answered {
		return v
	}
	return Silence
}

// show prints a leak with its frames, and how the SYN that it was made from is sent
// again.
func (s *stage) show(b *strings.Builder, l *leak, serial uint32) {
	fmt.Fprintf(b, "\n    %s: -links %s -seed %d -serial %d", l, s.name, s.seed, serial)
	s.tailor.Clear()
	s.tailor.Dress(&l.Outfit)
	for n := range s.tailor.Len() {
		fmt.Fprintf(b, "\n      %x", s.tailor.Frame(n))
	}
	s.tailor.Clear()
}

// leakedHandmade names those that were answered.
func (c *scene) leakedHandmade() string {
	var names []string
	for serial, h := range c.handmade {
		if v, answered := c.answers[serial]; answered && v < Unreadable {
			names = append(names, h.Name+" ("+v.String()+")")
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "\n    handmade: " + strings.Join(names, ", ")
}

// unwelcome says whether a stock Linux never answers a SYN with that. It stays in
// the closet: no more than that is known, of the kernels that were tried.
func unwelcome(name string) bool {
	for _, part := range []string{
		"FIN", "with a VID", "0x9100", "HIP", "mobility", "shim6", "authentication", // AH without its module
		"PPPoE", "SNAP", "MPLS", "EtherType", "broadcast", "multicast",
		"TTL 1", "wrong", "another identification", "fragment missing",
		"source route", "by way of", "CIPSO", "segments left", "type 2", "type 3", "type 4", ", discard", ", report",
	} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
