package netfilter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Unmet is a rule that a packet would meet if it left by one interface, or bore one
// mark, and does not, for it leaves by another, or bears another.
type Unmet struct {
	Rule
	Way   []string // the chains that lead to it
	Mark  bool     // it is the mark
	Twin  string   // the same rule for the other interface, as its tool shows rules; empty: it cannot be written
	twin  string   // without what names its place
	inNFT bool     // it is written as nft shows rules
}

// Unmet returns the rules of a hook that a packet would meet, and does not, for it
// goes as another one, by another interface or with another mark. Rules that have a
// twin in the same chain are none, and neither are those that accept what no later rule
// stops.
func (s *Survey) Unmet(hook string, would, goes Packet) []Unmet {
	var found []Unmet
	for _, c := range s.hooked(hook, would) {
		w := unmetWalk{survey: s, would: would, goes: goes, strength: s.strengthFor(c), been: map[unmetVisit]bool{}}
		w.chain(c, surely, surely, nil)
		stopped := c.dropping && !w.accepted
		for _, u := range slices.Backward(w.found) {
			accepts := u.entry.action == accept
			if !u.met && (!accepts || stopped) {
				found = append(found, u.Unmet)
			}
			stopped = stopped || !accepts
		}
	}
	slices.Reverse(found)
	return found
}

// unmetWalk leads a packet through chains as it would leave and as it does.
type unmetWalk struct {
	survey      *Survey
	would, goes Packet
	found       []candidate
	accepted    bool // what follows is not met by the packet as it leaves
	strength
	been map[unmetVisit]bool // whether a rule was found there that does not accept
}

// unmetVisit is all that decides what is found in a chain.
type unmetVisit struct {
	chain       *chain
	would, goes fit
}

// candidate is an unmet rule, or one that is met and may stop the packet.
type candidate struct {
	Unmet
	met bool
}

// chain walks a chain to which jumps lead that concern the packet, as it would leave
// and as it does, so far. What is found there a second time is of no interest, but for
// whether anything stops the packet behind what was found between.
func (w *unmetWalk) chain(c *chain, would, goes fit, way []string) {
	if c.ours() || slices.Contains(way, c.Chain) {
		return
	}
	v := unmetVisit{c, would, goes}
	stops, been := w.been[v]
	if !been {
		n := len(w.found)
		w.through(c, would, goes, append(slices.Clone(way), c.Chain))
		w.been[v] = slices.ContainsFunc(w.found[n:], func(f candidate) bool { return f.entry.action != accept })
	} else if stops {
		w.found = append(w.found, candidate{Unmet{Rule: Rule{Place: c.Place, entry: entry{action: drop}}}, true})
	}
}

// through walks past a chain's rules. way ends with the chain.
func (w *unmetWalk) through(c *chain, would, goes fit, way []string) {
	for _, e := range c.entries {
		if w.accepted || !w.step() {
			return
		}
		m, met := min(would, e.match(w.would).fit), min(goes, e.match(w.goes).fit)
		if next, leads := w.survey.chain(c.Place, e.to); leads && met != never {
			w.chain(next, m, met, way)
			continue
		}
		switch {
		case met == surely && e.action == accept:
			w.accepted = true
		case met != never && e.action.stops():
			w.found = append(w.found, candidate{Unmet{Rule: Rule{Place: c.Place, entry: e}}, true})
		case met == never && m != never && (e.action != goOn || e.writes != nil):
			for _, u := range w.twins(c, e, way) {
				w.found = append(w.found, candidate{u, false})
			}
		}
		if m == surely && (e.action.final() || e.action == leave) {
			would = never // what follows it does not meet
		}
	}
}

// twins is an unmet rule with its twin's text, unless that is there.
func (w *unmetWalk) twins(c *chain, e entry, way []string) []Unmet {
	s := w.survey
	u := Unmet{Rule: Rule{Place: c.Place, entry: e, survey: s}, Way: way}
	spec, line := func(spec string) string { return twinSpec(spec, w.would.Out, w.goes.Out) }, func(line string) string { return twinLine(line, w.goes.Out) }
	switch bits := w.goes.Mark &^ w.would.Mark; {
	case e.asks(outName):
	case e.comparesWholeMark():
		u.Mark = true
		spec, line = func(spec string) string { return maskedSpec(spec, bits) }, func(line string) string { return maskedLine(line, bits) }
	default:
		return nil
	}
	text, found := u.spec()
	if found {
		u.twin = spec(text)
	} else if text, found = u.line(); found && typable(text) {
		u.twin, u.inNFT = line(withoutCounts(text)), true
	}
	if u.twin == "" {
		return []Unmet{u}
	}
	if slices.Contains(s.shown(c), u.twin) {
		return nil
	}
	u.Twin = u.twin
	if !u.inNFT {
		u.Twin = u.iptables("-A", u.twin)
	}
	return []Unmet{u}
}

// comparesWholeMark reports whether a bit that somebody else sets makes a difference,
// though nobody has asked for it. Who asks for some bits knows of them.
func (e entry) comparesWholeMark() bool {
	return slices.ContainsFunc(e.conditions, func(c condition) bool {
		return c.field == fwmark && !slices.ContainsFunc(c.mask, func(b byte) bool { return b != 0xff })
	})
}

// shown are the rules of a chain as twins are written.
func (s *Survey) shown(c *chain) []string {
	if texts, known := s.texts[c]; known {
		return texts
	}
	var texts []string
	for _, e := range c.entries {
		r := Rule{Place: c.Place, entry: e, survey: s}
		text, found := r.spec()
		if !found {
			text, _ = r.line()
			text = withoutCounts(text)
		}
		texts = append(texts, text)
	}
	if s.texts == nil {
		s.texts = map[*chain][]string{}
	}
	s.texts[c] = texts
	return texts
}

// twinSpec writes a rule of iptables for another interface.
func twinSpec(spec, out, instead string) string {
	args := strings.Split(spec, " ")
	for i := range len(args) - 1 {
		if args[i] == "-o" && !(i > 0 && args[i-1] == "!") {
			args[i+1] = instead
			return strings.Join(args, " ")
		}
	}
	return ""
}

var outWord = regexp.MustCompile(`\boif(name)? ("[^"]*"|\{[^}]*\})`)

// twinLine writes a rule of nftables for another interface. What a named set or a
// verdict map decides has no such twin.
func twinLine(line, instead string) string {
	if !outWord.MatchString(line) || strings.Contains(line, "vmap") {
		return ""
	}
	return outWord.ReplaceAllString(line, `oifname "`+instead+`"`)
}

// maskedSpec writes a rule of iptables that compares a whole mark so that it leaves some
// bits out.
func maskedSpec(spec string, bits uint32) string {
	args := strings.Split(spec, " ")
	for i := range len(args) - 1 {
		if args[i] == "--mark" {
			args[i+1] = fmt.Sprintf("%s/0x%x", args[i+1], ^bits)
			return strings.Join(args, " ")
		}
	}
	return ""
}

var markWord = regexp.MustCompile(`\bmeta mark (== |!= )?(0x[0-9a-f]+)`)

// maskedLine does the same for nftables. What a set or a map decides has no such twin.
func maskedLine(line string, bits uint32) string {
	m := markWord.FindStringSubmatchIndex(line)
	if m == nil {
		return ""
	}
	not := "=="
	if m[2] >= 0 {
		not = strings.TrimSpace(line[m[2]:m[3]])
	}
	return fmt.Sprintf("%smeta mark & 0x%08x %s %s%s", line[:m[0]], ^bits, not, line[m[4]:m[5]], line[m[1]:])
}

// Follow is the command that puts the twin right behind its rule.
func (u Unmet) Follow() string {
	switch {
	case u.twin == "":
		return ""
	case u.inNFT:
		return u.nft("add", u.Chain, "handle", u.entry.handle, u.twin)
	}
	return u.iptables("-I", u.entry.number+1, u.twin)
}

// Entered are the chains that a packet is sure to come to at a hook, in order, each once.
func (s *Survey) Entered(hook string, p Packet) []string {
	var entered []*chain
	for _, c := range s.hooked(hook, p) {
		entered = s.enteredFrom(c, p, entered)
	}
	var names []string
	for _, c := range entered {
		names = append(names, c.Chain)
	}
	return names
}

// enteredFrom adds a chain to those that a packet has come to, and all that it leads to.
func (s *Survey) enteredFrom(c *chain, p Packet, entered []*chain) []*chain {
	if slices.Contains(entered, c) {
		return entered
	}
	entered = append(entered, c)
	for _, e := range c.entries {
		if e.match(p).fit != surely {
			continue
		}
		if next, leads := s.chain(c.Place, e.to); leads {
			entered = s.enteredFrom(next, p, entered)
		}
		if e.action.final() || e.action == leave || e.action == goTo {
			break
		}
	}
	return entered
}
