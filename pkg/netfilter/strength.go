package netfilter

// Rulesets can be made in which a packet has more ways than can ever be followed: rules may
// count them in its mark.
const (
	// mostVisits is how often a packet can come to a chain in another way that matters, but
	// for what rules have done to it: by all jumps for sure or not, and so on. See visit.
	mostVisits = 32
	// someSteps are for what rules have done to it.
	someSteps = 1 << 14
	// mostStepsInAll is how many rules are looked at for all packets together.
	mostStepsInAll = 1 << 27
	// mostGivenUp is how many packets are given up in a base chain until no further one is
	// followed there.
	mostGivenUp = 32
)

// effort is what following packets through a survey has cost.
type effort struct {
	steps    int
	unending []Place
	givenUp  map[chainKey]int // how many packets
}

// Unfollowed are the base chains through which some packet was not followed to the end,
// for that would have taken too long. What rules do behind that is not known.
func (s *Survey) Unfollowed() []Place {
	if s.effort == nil {
		return nil
	}
	return s.effort.unending
}

// strength is what a walk through a base chain, with all that it leads to, has left.
type strength struct {
	effort *effort
	base   Place
	left   int
	spent  bool // the walk was given up
}

func (s *Survey) strengthFor(c *chain) strength {
	if s.rules == 0 {
		for _, c := range s.chains {
			s.rules += len(c.entries)
		}
	}
	w := strength{effort: s.spending(), base: c.Place, left: someSteps + mostVisits*s.rules}
	if w.effort.givenUp[w.base.key()] >= mostGivenUp {
		w.left = 0
	}
	return w
}

// spending is the effort of the survey, and of those that were made of it.
func (s *Survey) spending() *effort {
	if s.effort == nil {
		s.effort = &effort{givenUp: map[chainKey]int{}}
	}
	return s.effort
}

// step reports whether the walk may look at one more rule. Once it may not, it is spent.
func (s *strength) step() bool {
	if s.spent {
		return false
	}
	if s.left == 0 || s.effort.steps >= mostStepsInAll {
		s.spent = true
		s.effort.giveUp(s.base)
		return false
	}
	s.left--
	s.effort.steps++
	return true
}

func (e *effort) giveUp(base Place) {
	k := base.key()
	if e.givenUp[k] == 0 {
		e.unending = append(e.unending, base)
	}
	e.givenUp[k]++
}
