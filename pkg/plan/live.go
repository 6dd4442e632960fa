package plan

import (
	"fmt"
	"slices"
)

// Served tells of each service that an inspector serves now in which families
// it does.
type Served map[string][]Family

// in reports whether a service is served in a family.
func (s Served) in(service string, f Family) bool { return slices.Contains(s[service], f) }

// Clash is a change under which an inspector that runs would not serve any
// more what it serves now.
type Clash struct {
	Change Change
	Why    string // the sentence behind the name of the thing
}

// Clashes returns those of the changes that stop mail while the inspector
// that runs goes on: it knows only the configuration that it began with. What
// it needs are the slots of its services, its marks and its limit, and the
// way home of what it sends to its origins. What is led to it, by which
// interfaces and rules, may change under it.
func Clashes(changes []Change, want []Item, served Served) []Clash {
	open := map[string]bool{}
	for _, i := range want {
		if s, is := i.(Service); is {
			open[s.Name] = s.Open
		}
	}
	var all []Clash
	for _, c := range changes {
		if why := clash(c, want, served, open); why != "" {
			all = append(all, Clash{c, why})
		}
	}
	return all
}

// clash says why a change stops mail; "" if it does not.
func clash(c Change, want []Item, served Served, open map[string]bool) string {
	switch i := c.Item.(type) {
	case Settings:
		if c.Op == Replace {
			return fmt.Sprintf("the inspector that runs works with %s", c.Old)
		}
	case Service:
		if c.Op == Remove && len(served[i.Name]) > 0 {
			return "the inspector that runs serves it, and it would be gone"
		}
	case Origin:
		if c.Op == Remove && !covered(i, want) {
			return "the inspector that runs may send to it, and its replies would not be claimed any more"
		}
	case Binding:
		return bindingClash(c, i, served, open)
	}
	return ""
}

// bindingClash judges an address that would lead to a service. Where nobody was
// steered before, a service that fails open changes nothing for its clients.
func bindingClash(c Change, b Binding, served Served, open map[string]bool) string {
	family := FamilyOf(b.Prefix.Addr())
	if c.Op == Remove || b.Service == "" || served.in(b.Service, family) {
		return ""
	}
	old, replaced := c.Old.(Binding)
	if open[b.Service] && !(replaced && served.in(old.Service, family)) {
		return ""
	}
	return fmt.Sprintf("the inspector that runs does not serve %s, so that its connections would meet fail: %s", b.Service, failWord(open[b.Service]))
}

func failWord(open bool) string {
	if open {
		return "open"
	}
	return "closed"
}

// covered reports whether the replies of an origin are still looked for.
func covered(o Origin, want []Item) bool {
	return slices.ContainsFunc(want, func(i Item) bool {
		w, is := i.(Origin)
		return is && w.Port == o.Port && w.Prefix.Bits() <= o.Prefix.Bits() && w.Prefix.Contains(o.Prefix.Addr())
	})
}

// Bear reports whether an inspector with settings of its own can work where
// these are in force: its marks are among them, and it beats often enough.
func (s Settings) Bear(own Settings) bool {
	return s.ClientMark&own.ClientMark == own.ClientMark && s.OriginMark&own.OriginMark == own.OriginMark &&
		s.Heartbeat >= own.Heartbeat
}

// with returns settings that both can work with. The programs set all bits of
// a mark, and know a socket by any of them.
func (s Settings) with(other Settings) Settings {
	return Settings{
		ClientMark: s.ClientMark | other.ClientMark,
		OriginMark: s.OriginMark | other.OriginMark,
		Heartbeat:  max(s.Heartbeat, other.Heartbeat),
	}
}

// Beside returns a plan for the time in which an inspector of the wanted plan
// takes over from one of the plan that is there: all that is wanted, and what
// sessions of the older one go on to rely on. The second result reports
// whether there is any such thing; the slots alone do not count, for the older
// one leaves them first. It is an error if marks change places: then no
// packet would tell whose it is.
func Beside(have, want []Item) ([]Item, bool, error) {
	both := slices.Clone(want)
	wanted := index(want)
	relied := false
	for _, h := range have {
		w, found := wanted[identity{h.Kind(), h.Key()}]
		if old, is := h.(Settings); is && found {
			union := old.with(w.(Settings))
			if union.ClientMark&union.OriginMark != 0 {
				return nil, false, fmt.Errorf("%s are in force, and %s are wanted: what is the client mark of one is the origin mark of the other, so that no inspector can take over from another; stop it, attach, and start one", old, w)
			}
			both[slices.Index(both, w)] = union
			relied = relied || union != w
		}
		if found {
			continue
		}
		if _, is := h.(Loop); is {
			continue // new connections alone take that way, and must not need what is not wanted
		}
		if b, is := h.(Binding); is {
			if h, is = left(b, want); !is {
				continue
			}
		}
		_, slot := h.(Service)
		relied = relied || !slot
		both = append(both, h)
	}
	return both, relied, nil
}

// left is what remains of a binding that is not wanted any more: where its
// packets pass through, those of connections that are open must be marked on,
// and new ones let alone.
func left(b Binding, want []Item) (Binding, bool) {
	under := slices.ContainsFunc(want, func(i Item) bool {
		w, is := i.(Binding)
		return is && w.Transit && w.Port == b.Port && w.Prefix.Bits() <= b.Prefix.Bits() && w.Prefix.Contains(b.Prefix.Addr())
	})
	return Binding{Prefix: b.Prefix, Port: b.Port}, b.Transit && !under
}
