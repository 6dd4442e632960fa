package watch

import (
	"fmt"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// judge divides the changes that lead to what is wanted into those that are ours to
// make and those that are only told. unmounted is why there can be no pins that others see,
// "" where there can.
func (v *view) judge(changes []plan.Change, unmounted string) {
	pinless := false
	for _, c := range changes {
		_, objects := c.Item.(plan.Objects)
		old, _ := c.Old.(plan.Objects)
		switch {
		case old.Other:
			v.changes, v.findings = nil, append(v.findings, "another release of portreeve has attached the kernel side: start a watcher of that release")
			return
		case objects && c.Op == plan.Add:
			pinless = true
		case mends(c):
			v.changes = append(v.changes, c)
		}
	}
	switch {
	case pinless && unmounted == "":
		v.findings = append(v.findings, "the pins of the kernel side are lost; stop the inspector, run portreeve attach, and start it again")
	case unmounted != "":
		v.findings = append(v.findings, unmounted)
	}
	v.changes = slices.DeleteFunc(v.changes, func(c plan.Change) bool {
		return pinless && !standsAlone(c.Item) || unmounted != "" && asksPin(c.Item)
	})
}

// asksPin reports whether an item is made of a pin that everybody can see.
func asksPin(i plan.Item) bool {
	f, is := i.(plan.Filter)
	return is && f.AsksProgram()
}

// standsAlone reports whether an item can be put back where there are no pins. An inspector
// goes on without those, but not without its rules and routes.
func standsAlone(i plan.Item) bool {
	switch i := i.(type) {
	case plan.Rule, plan.Route, plan.Link, plan.Table, plan.BaseChain, plan.Chain:
		return true
	case plan.Filter:
		return !asksPin(i)
	}
	return false
}

// mends reports whether a change puts back what is ours. What is there and not wanted
// is left: an inspector that takes over needs more than either configuration for a
// while. Removed is only what belonged to an interface that is gone.
func mends(c plan.Change) bool {
	if c.Op == plan.Remove {
		_, gone := steer.Gone(plan.HangsOn(c.Item))
		return gone
	}
	if have, is := c.Old.(plan.Settings); is {
		return !have.Bear(c.Item.(plan.Settings))
	}
	return true
}

// effort keeps a watcher from fighting: what is taken away again and again, something
// on this machine means to take away.
type effort struct {
	made map[string][]time.Time // by what was put back
}

// A thing is put back so often in such a time.
const (
	mostRepairs = 10
	repairTime  = time.Minute
)

// spare says why a change is not made now; "" where it is.
func (e *effort) spare(c plan.Change, now time.Time) string {
	key := c.Item.Key()
	recent := slices.DeleteFunc(e.made[key], func(t time.Time) bool { return now.Sub(t) >= repairTime })
	if len(recent) == 0 {
		delete(e.made, key)
		return ""
	}
	e.made[key] = recent
	if len(recent) < mostRepairs {
		return ""
	}
	return fmt.Sprintf("%s was put back %d times within a minute: something on this machine takes it away, and has to be told not to", c.Item, len(recent))
}

// count takes down a change that was made.
func (e *effort) count(c plan.Change, now time.Time) {
	if e.made == nil {
		e.made = map[string][]time.Time{}
	}
	e.made[c.Item.Key()] = append(e.made[c.Item.Key()], now)
}
