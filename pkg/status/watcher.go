package status

import (
	"fmt"
	"time"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// Watcher is the process that keeps the kernel side as it was attached.
type Watcher struct {
	State    WatcherState `json:"state"`
	Age      float64      `json:"look_age_seconds,omitempty"`
	Repairs  uint64       `json:"repairs"` // things put back since the attach
	Last     []Note       `json:"last,omitempty"`
	Findings []Note       `json:"findings,omitempty"` // what it cannot put back
}

// WatcherState says whether somebody puts back what others take away.
type WatcherState string

const (
	Watching  WatcherState = "watching"
	Silent    WatcherState = "silent" // it has looked once, and does not any more
	Unwatched WatcherState = "absent" // none has looked since the attach
)

// Note is a sentence of the watcher's.
type Note struct {
	When time.Time `json:"when"`
	Text string    `json:"text"`
}

// watcher describes the watcher from what it has left.
func watcher(w steer.Watcher) Watcher {
	report := Watcher{State: Unwatched, Repairs: w.Repairs, Last: notes(w.Last), Findings: notes(w.Findings)}
	if w.Ever {
		report.State, report.Age = Watching, w.Age.Seconds()
	}
	if w.Silent() {
		report.State = Silent
	}
	return report
}

func notes(list []steer.Note) []Note {
	var all []Note
	for _, n := range list {
		all = append(all, Note(n))
	}
	return all
}

// String says in a few words how the watcher is.
func (w Watcher) String() string {
	var text string
	switch w.State {
	case Watching:
		text = fmt.Sprintf("watching: last look %.1f s ago", w.Age)
	case Silent:
		text = fmt.Sprintf("SILENT for %.1f s: nobody puts back what others take away; start one: portreeve watch, or start the inspector again", w.Age)
	default:
		return "none: nobody puts back what others take away; run starts one, and so does portreeve watch"
	}
	return fmt.Sprintf("%s; %d things put back since the attach", text, w.Repairs)
}

// displaced are the things that are there and do not do what they ought to.
func displaced(have []plan.Item) []string {
	var all []string
	for _, i := range have {
		switch i := i.(type) {
		case plan.Filter:
			if !i.Astray {
				continue
			}
		case plan.TC:
			if !i.Behind && !i.Unpinned {
				continue
			}
		case plan.Lookup:
			if !i.Unpinned {
				continue
			}
		case plan.Forward:
			if !i.Unpinned {
				continue
			}
		case plan.Link:
			if i.Fault == "" {
				continue
			}
		case plan.Objects:
			if i.Fault == "" {
				continue
			}
		default:
			continue
		}
		all = append(all, i.String())
	}
	return all
}
