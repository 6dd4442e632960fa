package netfilter

import (
	"cmp"
	"slices"
)

// Meeting is a rule, or a policy, that a packet meets and that does something to it.
type Meeting struct {
	Rule
	action action
	// Sure means that nothing we do not know decides whether it concerns the packet.
	Sure bool
	// Choosing means that the administrator chooses among strangers here: a ban, or
	// those whom he lets in.
	Choosing bool
	// Specific means that the rule speaks of the packet's port, address or sender.
	Specific bool
	// Fits means that the rule does concern the packet, if the packet gets there.
	Fits bool
	// Before is the packet's mark when it comes to the rule.
	Before uint32
	// Way are the chains that lead to the rule, from the base chain on.
	Way []string
}

// Stops reports whether the packet gets no further.
func (m Meeting) Stops() bool { return m.action.stops() }

// Synproxy reports whether connections are taken by SYNPROXY.
func (m Meeting) Synproxy() bool { return m.action == synproxy }

// Diverts reports whether the packet is sent elsewhere than it is addressed to.
func (m Meeting) Diverts() bool {
	return m.action == dnat || m.action == redirect || m.action == tproxy
}

// TPROXY reports whether the packet is handed to another proxy.
func (m Meeting) TPROXY() bool { return m.action == tproxy }

// Rewrites reports whether the packet gets another source.
func (m Meeting) Rewrites() bool { return m.action == snat || m.action == masquerade }

// Action is what the rule does, in a word of rules.
func (m Meeting) Action() string { return m.action.String() }

// Sets returns the bits that the packet's mark has behind the rule, and had not before.
func (m Meeting) Sets() uint32 {
	if w := m.entry.writes; w != nil {
		mark, doubt := w.on(m.Before, 0)
		return mark &^ m.Before &^ doubt
	}
	return 0
}

// Loses returns the bits of the packet's mark that are gone behind the rule, or may
// be.
func (m Meeting) Loses() uint32 {
	if w := m.entry.writes; w != nil {
		mark, doubt := w.on(m.Before, 0)
		return m.Before & (^mark | doubt)
	}
	return 0
}

// Meet returns what a packet meets in the base chains of a hook.
func (s *Survey) Meet(hook string, p Packet) []Meeting {
	met, _, _ := s.Pass(hook, p)
	return met
}

// Pass returns what a packet meets in the base chains of a hook, how it is behind
// them, and whether it is sure to get there. A rule that several chains lead to is met
// once, where nothing about that differs.
func (s *Survey) Pass(hook string, p Packet) ([]Meeting, Packet, bool) {
	at := passage{hook, s.Shape(p)}
	became, known := s.shapes.recall(at)
	if !known {
		became = s.pass(at)
		s.shapes.remember(at, became)
	}
	return slices.Clone(became.met), p.with(became.after), became.passes
}

// pass follows a packet through the base chains of a hook.
func (s *Survey) pass(at passage) passed {
	w := &walk{survey: s, packet: at.Packet}
	for _, c := range s.hooked(at.hook, at.Packet) {
		if c.nat && w.packet.State != StateNew {
			continue
		}
		w.strength, w.been = s.strengthFor(c), nil
		r, end := w.chain(c, match{fit: surely}, reach{sure: true}, nil)
		if w.spent {
			continue
		}
		if end == goOn && c.dropping {
			w.see(c, entry{action: drop}, match{fit: surely}, r, nil)
			w.stopped = w.stopped || r.sure && !r.chosen
		}
		if w.stopped {
			break
		}
	}
	return passed{w.met, w.packet.changing(), !w.stopped}
}

// hooked returns the base chains that a packet passes at a hook, in order.
func (s *Survey) hooked(hook string, p Packet) []*chain {
	var found []*chain
	for i, c := range s.chains {
		if c.hook == hook && c.concerns(p) && c.watches(p) {
			found = append(found, &s.chains[i])
		}
	}
	slices.SortStableFunc(found, func(a, b *chain) int { return cmp.Compare(a.priority, b.priority) })
	return found
}

// watches reports whether the chain is for the packet's interface, where it is
// for some.
func (c chain) watches(p Packet) bool {
	return c.devices == nil || slices.Contains(c.devices, p.In) || slices.Contains(c.devices, p.Out)
}

// walk is a packet on its way through the chains of a hook.
type walk struct {
	survey  *Survey
	packet  Packet
	met     []Meeting
	stopped bool
	strength
	been map[visit]outcome // in the base chain that it is in
}

// visit is all that decides what becomes of a packet in a chain.
type visit struct {
	chain *chain
	by    match
	here  reach
	packetState
}

// packetState is what rules change of a packet.
type packetState struct {
	mark, doubt uint32
	state       State
}

func (p Packet) changing() packetState { return packetState{p.Mark, p.Doubt, p.State} }

func (p Packet) with(s packetState) Packet {
	p.Mark, p.Doubt, p.State = s.mark, s.doubt, s.state
	return p
}

// outcome is what became of it.
type outcome struct {
	behind reach
	end    action
	packetState
}

// reach says how sure it is that the packet comes to a rule.
type reach struct {
	sure   bool // no rule before it, of which we do not know, has taken it
	chosen bool // strangers were chosen before it whom it does not concern
}

// without lowers a reach behind a rule that may have taken the packet. A rule that
// lets some strangers go, whatever they want, says nothing about the others.
func (r reach) without(m match) reach {
	switch {
	case m.strange && m.specific:
		r.chosen = true
	case !m.strange:
		r.sure = false
	}
	return r
}

// and joins what two parts of a way say.
func (r reach) and(o reach) reach { return reach{r.sure && o.sure, r.chosen || o.chosen} }

// chain leads the packet through a chain to which a jump leads. It returns how sure
// it is that the packet goes on behind it, and the action by which it is sure not to,
// once it is in there. Chains on the way are not entered again. What became of the packet
// in a chain is remembered: the ways through chains that lead to each other multiply.
func (w *walk) chain(c *chain, by match, here reach, way []string) (reach, action) {
	if slices.Contains(way, c.Chain) {
		return reach{sure: true}, goOn
	}
	v := visit{c, by, here, w.packet.changing()}
	if o, been := w.been[v]; been {
		w.packet = w.packet.with(o.packetState)
		return o.behind, o.end
	}
	behind, end := w.through(c, by, here, append(slices.Clone(way), c.Chain))
	if !w.spent {
		if w.been == nil {
			w.been = map[visit]outcome{}
		}
		w.been[v] = outcome{behind, end, w.packet.changing()}
	}
	return behind, end
}

// through leads the packet past a chain's rules. way ends with the chain.
func (w *walk) through(c *chain, by match, here reach, way []string) (behind reach, end action) {
	behind = reach{sure: true}
	for _, e := range c.entries {
		if !w.step() {
			return behind, goOn
		}
		own := e.match(w.packet)
		m := by.and(own)
		if m.fit == never {
			continue
		}
		w.see(c, e, m, here, way)
		taken, end := w.follow(c, e, m, here, way)
		behind, here = behind.and(taken), here.and(taken)
		leaves := e.action == leave || e.action == goTo
		switch {
		case end != goOn && own.fit == surely:
			return behind, end
		case end != goOn && !end.stops():
			behind, here = behind.without(m), here.without(m)
		case leaves && own.fit == surely:
			return behind, goOn
		case leaves:
			here = here.without(m)
		}
	}
	return behind, goOn
}

// follow does what a rule says. It returns what chains behind it say of how sure the
// packet comes to the next rule, and the action that ends its way if the rule does
// concern it.
func (w *walk) follow(c *chain, e entry, m match, here reach, way []string) (reach, action) {
	if target, found := w.survey.chain(c.Place, e.to); found {
		return w.chain(target, m, here, way)
	}
	w.change(e, m, here)
	if !e.action.final() {
		return reach{sure: true}, goOn
	}
	w.stopped = w.stopped || e.action.stops() && m.fit == surely && here.sure && !here.chosen
	return reach{sure: true}, e.action
}

// change does to the packet what a rule does.
func (w *walk) change(e entry, m match, here reach) {
	sure := m.fit == surely && here.sure && !here.chosen
	if e.untracks && sure {
		w.packet.State = StateUntracked
	}
	if e.writes == nil {
		return
	}
	mark, doubt := e.writes.on(w.packet.Mark, w.packet.Doubt)
	if sure {
		w.packet.Mark, w.packet.Doubt = mark, doubt
		return
	}
	w.packet.Doubt |= doubt | mark ^ w.packet.Mark
}

// see notes a rule that does something to the packet. Ours are none.
func (w *walk) see(c *chain, e entry, m match, here reach, way []string) {
	if e.action == accept || e.action == goOn && e.writes == nil || e.to != "" || e.action == leave || c.ours() {
		return
	}
	w.met = append(w.met, Meeting{
		Rule: Rule{Place: c.Place, entry: e, survey: w.survey}, action: e.action, Way: way,
		Sure: m.fit == surely && here.sure, Choosing: m.strange || here.chosen, Specific: m.specific,
		Fits: m.fit == surely, Before: w.packet.Mark,
	})
}
