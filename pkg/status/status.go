// Package status says what is: whether the kernel side is attached and since
// when, whether an inspector lives, what was counted, and what differs from what
// was attached.
//
// It reads the kernel, and the journal for what ought to be there; it needs
// neither a configuration nor a living inspector, and changes nothing. The JSON
// form of a Report is stable: keys are added, never renamed.
package status

import (
	"errors"
	"time"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// Report is the state of one network namespace.
type Report struct {
	Attached  bool      `json:"attached"`
	Since     time.Time `json:"since,omitzero"`
	Datapath  string    `json:"datapath,omitempty"` // "tcx", "clsact" or "lookup" (sk_lookup alone)
	Inspector Inspector `json:"inspector"`
	Watcher   Watcher   `json:"watcher"`
	Metrics   string    `json:"metrics,omitempty"` // where they are asked for, by the configuration; the caller fills it in
	Services  []Service `json:"services,omitempty"`
	Walls     []Wall    `json:"walls,omitempty"`
	Leaks     uint64    `json:"leaks"`               // new connections that were not steered, and that a wall stopped
	Counters  []Counter `json:"counters,omitempty"`  // those that are not zero
	Lost      []string  `json:"lost,omitempty"`      // attached, and gone since
	Displaced []string  `json:"displaced,omitempty"` // attached, and overruled since: not in its place, or faulty
	Leftovers []string  `json:"leftovers,omitempty"` // ours, and not part of what is attached
}

// Inspector is the inspector as the kernel sees it.
type Inspector struct {
	State    State   `json:"state"`
	Instance uint64  `json:"instance,omitempty"`
	Age      float64 `json:"heartbeat_age_seconds"`
	Limit    float64 `json:"heartbeat_limit_seconds"`
}

// State is what the kernel does about new connections.
type State string

const (
	Alive  State = "alive"  // they go to the inspector
	Absent State = "absent" // nobody serves, no listener is registered: the services' fail policy
	Hung   State = "hung"   // the heartbeat is too old: the services' fail policy
)

// Service is a service's slot.
type Service struct {
	Name      string   `json:"name"`
	Fail      string   `json:"fail"` // "closed" or "open"
	IPv4      bool     `json:"ipv4"` // a listener is registered
	IPv6      bool     `json:"ipv6"`
	Addressed []string `json:"addressed,omitempty"`
	Transit   []string `json:"transit,omitempty"`
}

// Counter is how often a verdict had a reason.
type Counter struct {
	Reason  string `json:"reason"`
	Count   uint64 `json:"count"`
	Meaning string `json:"meaning"`
}

// Read asks the kernel. s may be nil where there is no BPF file system.
func Read(r *apply.Runner, s *steer.Steer) (Report, error) {
	have, lost, err := r.Have()
	if err != nil {
		return Report{}, err
	}
	report := Report{Since: r.Journal.Since(), Lost: words(lost), Displaced: displaced(have)}
	for _, i := range have {
		if !r.Journal.Holds(i) {
			report.Leftovers = append(report.Leftovers, i.String())
		}
	}
	report.Datapath = datapath(have)
	report.Attached = report.Datapath != ""
	report.Inspector.State, report.Watcher.State = Absent, Unwatched
	if s == nil {
		return report, nil
	}
	return report, report.live(s, have)
}

// live adds what the running kernel side knows.
func (r *Report) live(s *steer.Steer, have []plan.Item) error {
	alive, err := s.Alive()
	if errors.Is(err, steer.ErrNotAttached) {
		return nil
	}
	if err != nil {
		return err
	}
	r.Inspector = inspector(alive)
	r.Services = services(alive, have)
	watched, err := s.Watcher()
	if err != nil {
		return err
	}
	r.Watcher = watcher(watched)
	if r.Since.IsZero() { // the journal is lost, the kernel remembers
		if r.Since, err = s.Since(); err != nil {
			return err
		}
	}
	counters, err := s.Counters()
	r.Walls, r.Leaks = walls(have, counters)
	for _, c := range counters {
		if c.Count > 0 {
			r.Counters = append(r.Counters, Counter{c.Reason.String(), c.Count, c.Reason.Meaning()})
		}
	}
	return err
}

func inspector(a steer.Alive) Inspector {
	i := Inspector{Instance: a.Instance, Limit: a.Limit.Seconds(), State: Absent}
	if a.Instance != 0 {
		i.Age = a.Age.Seconds()
	}
	for _, s := range a.Services {
		if s.IPv4 || s.IPv6 {
			i.State = Alive
		}
	}
	if i.State == Alive && a.Hung() {
		i.State = Hung
	}
	return i
}

func services(a steer.Alive, have []plan.Item) []Service {
	list := make([]Service, 0, len(a.Services))
	index := map[string]int{}
	for n, s := range a.Services {
		index[s.Name] = n
		fail := "closed"
		if s.Open {
			fail = "open"
		}
		list = append(list, Service{Name: s.Name, Fail: fail, IPv4: s.IPv4, IPv6: s.IPv6})
	}
	for _, i := range have {
		b, is := i.(plan.Binding)
		n, known := index[b.Service]
		if !is || !known {
			continue
		}
		if b.Addressed {
			list[n].Addressed = append(list[n].Addressed, b.Target())
		}
		if b.Transit {
			list[n].Transit = append(list[n].Transit, b.Target())
		}
	}
	return list
}

// datapath tells by what packets are steered; "" when by nothing.
func datapath(have []plan.Item) string {
	path := ""
	for _, i := range have {
		switch i := i.(type) {
		case plan.Lookup:
			if path == "" {
				path = "lookup"
			}
		case plan.TC:
			if i.Clsact {
				return "clsact"
			}
			path = "tcx"
		}
	}
	return path
}

func words(items []plan.Item) []string {
	var all []string
	for _, i := range items {
		all = append(all, i.String())
	}
	return all
}
