package netfilter

import "slices"

// No packet needs as many steps in a sound ruleset. Rulesets can be made in which a packet
// has more ways than can ever be followed.
const (
	// mostSteps is how many rules are looked at in one base chain, with all that it leads
	// to, for one packet.
	mostSteps = 1 << 18
	// mostStepsInAll is how many for all packets together.
	mostStepsInAll = 1 << 27
)

// effort is what following packets through a survey has cost.
type effort struct {
	steps    int
	unending []Place
}

// Unfollowed are the base chains through which some packet was not followed to the end,
// for that would have taken too long. What rules do behind that is not known.
func (s *Survey) Unfollowed() []Place {
	if s.effort == nil {
		return nil
	}
	return s.effort.unending
}

// strength is what a walk through a base chain has left.
type strength struct {
	effort *effort
	base   Place
	steps  int
	spent  bool // the walk was given up
}

func (s *Survey) strengthFor(c *chain) strength {
	return strength{effort: s.spending(), base: c.Place}
}

// spending is the effort of the survey, and of those that were made of it.
func (s *Survey) spending() *effort {
	if s.effort == nil {
		s.effort = &effort{}
	}
	return s.effort
}

// step reports whether the walk may look at one more rule. Once it may not, it is spent.
func (s *strength) step() bool {
	if s.spent {
		return false
	}
	if s.steps == mostSteps || s.effort.steps >= mostStepsInAll {
		s.spent = true
		if !slices.ContainsFunc(s.effort.unending, s.base.in) {
			s.effort.unending = append(s.effort.unending, s.base)
		}
		return false
	}
	s.steps++
	s.effort.steps++
	return true
}
