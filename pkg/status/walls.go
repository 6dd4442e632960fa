package status

import (
	"fmt"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// Wall is one of the places that keep new connections from passing a transit
// service: "client" steers or drops at the client side's ingress, "origin" at
// the origin side's egress and "forward" in FORWARD stop what it missed.
type Wall struct {
	Name    string   `json:"name"`
	At      []string `json:"at"` // the links and rules that it is made of
	Dropped uint64   `json:"dropped"`
}

// walls lists those that stand, and counts the leaks that one of the last two
// stopped: new connections that reached it unsteered, which is the alarm.
func walls(have []plan.Item, counters []steer.Counter) (all []Wall, leaks uint64) {
	at := map[string][]string{}
	for _, i := range have {
		if name := wallOf(i); name != "" {
			at[name] = append(at[name], i.String())
		}
	}
	for _, name := range []string{"client", "origin", "forward"} {
		if at[name] == nil {
			continue
		}
		w := Wall{Name: name, At: at[name]}
		for _, c := range counters {
			if c.Reason.Wall() == name {
				w.Dropped += c.Count
			}
		}
		all = append(all, w)
	}
	for _, c := range counters {
		if w := c.Reason.Wall(); w != "" && w != "client" {
			leaks += c.Count
		}
	}
	return all, leaks
}

// wallOf names the wall that an item is part of; "" for none.
func wallOf(i plan.Item) string {
	switch i := i.(type) {
	case plan.TC:
		switch {
		case i.Egress && i.Side == plan.OriginSide:
			return "origin"
		case i.Side == plan.ClientSide:
			return "client"
		}
	case plan.Forward:
		return "forward"
	case plan.Filter:
		if i.Chain == plan.OwnChain("FORWARD") {
			return "forward"
		}
	}
	return ""
}

// String says in a few words what the wall is.
func (w Wall) String() string {
	return fmt.Sprintf("%d dropped; %s", w.Dropped, strings.Join(w.At, ", "))
}
