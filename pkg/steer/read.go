package steer

import (
	"fmt"
	"time"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Counter is how often a reason was met since the attach, over all CPUs.
type Counter struct {
	Reason Reason
	Count  uint64
}

// Alive is the state of the inspector as the programs see it.
type Alive struct {
	Instance uint64        // of the last heartbeat; 0: there has been none
	Age      time.Duration // of the last heartbeat
	Limit    time.Duration // beyond which the inspector counts as hung; 0: never
	Services []ServiceAlive
}

// Hung reports whether new connections meet the fail policy because of the
// heartbeat.
func (a Alive) Hung() bool {
	return a.Limit > 0 && (a.Instance == 0 || a.Age > a.Limit)
}

// Serving reports whether an inspector serves some service.
func (a Alive) Serving() bool { return !a.Hung() && len(a.Served()) > 0 }

// Served returns the services that have listeners, whether or not a heart
// beats behind them.
func (a Alive) Served() plan.Served {
	served := plan.Served{}
	for _, s := range a.Services {
		if s.IPv4 {
			served[s.Name] = append(served[s.Name], plan.IPv4)
		}
		if s.IPv6 {
			served[s.Name] = append(served[s.Name], plan.IPv6)
		}
	}
	return served
}

// ServiceAlive says which listeners of a service are in the kernel.
type ServiceAlive struct {
	Name       string
	Open       bool // fail policy
	IPv4, IPv6 bool // which listeners are there
}

// RunTime is what a program has cost while the kernel's BPF statistics were
// on (ebpf.EnableStats, or sysctl kernel.bpf_stats_enabled).
type RunTime struct {
	Program string
	Runs    uint64
	Time    time.Duration
}

// reading calls f with the pinned objects of this network namespace.
func (s *Steer) reading(f func(*pinSet) error) error {
	return s.readingIf((*pinSet).complete, f)
}

// readingIf calls f with the pinned objects of this network namespace, if they are fit
// for it.
func (s *Steer) readingIf(fit, f func(*pinSet) error) error {
	set, err := openSet(s.dir())
	if err != nil {
		return explain(err)
	}
	defer set.Close()
	if err := fit(set); err != nil {
		return err
	}
	return explain(f(set))
}

// Counters returns the count of every reason, in the order of the list. The
// error is ErrNotAttached where nothing counts.
func (s *Steer) Counters() (counters []Counter, err error) {
	err = s.reading(func(set *pinSet) error {
		counters, err = set.counters()
		return err
	})
	return counters, err
}

func (s *pinSet) counters() ([]Counter, error) {
	counters := make([]Counter, 0, numReasons)
	for _, r := range Reasons() {
		var perCPU []uint64
		if err := s.maps[bpfMapStats].Lookup(uint32(r), &perCPU); err != nil {
			return nil, fmt.Errorf("read the counter of %s: %w", r, err)
		}
		c := Counter{Reason: r}
		for _, n := range perCPU {
			c.Count += n
		}
		counters = append(counters, c)
	}
	return counters, nil
}

// Alive returns the state of the inspector as the programs see it.
func (s *Steer) Alive() (alive Alive, err error) {
	has := func(set *pinSet) error {
		return set.has(bpfMapSettings, bpfMapHeartbeat, bpfMapServices, bpfMapListeners)
	}
	err = s.readingIf(has, func(set *pinSet) error {
		settings, err := set.settings()
		if err != nil {
			return err
		}
		alive.Limit = time.Duration(settings.HeartbeatNs)
		clock, err := ourClock()
		if err != nil {
			return err
		}
		if alive.Instance, alive.Age, err = set.owner(clock); err != nil {
			return err
		}
		alive.Services, err = set.servicesAlive()
		return err
	})
	return alive, err
}

func (s *pinSet) servicesAlive() ([]ServiceAlive, error) {
	index, err := s.index()
	if err != nil {
		return nil, err
	}
	var list []ServiceAlive
	for _, i := range index.list() {
		id := index.byName[i.Name]
		v4, err := slotCookie(s.maps[bpfMapListeners], slot4(id))
		if err != nil {
			return nil, err
		}
		v6, err := slotCookie(s.maps[bpfMapListeners], slot6(id))
		if err != nil {
			return nil, err
		}
		list = append(list, ServiceAlive{Name: i.Name, Open: i.Open, IPv4: v4 != 0, IPv6: v6 != 0})
	}
	return list, nil
}

// Since returns when the objects were created, to the second.
func (s *Steer) Since() (since time.Time, err error) {
	err = s.reading(func(set *pinSet) error {
		v, err := set.settings()
		since = time.Unix(int64(v.Since), 0)
		return err
	})
	return since, err
}

// Stats returns what each program has cost; zeros while the kernel's BPF
// statistics are off.
func (s *Steer) Stats() (times []RunTime, err error) {
	err = s.reading(func(set *pinSet) error {
		for _, name := range programNames() {
			p := set.programs[name]
			if p == nil {
				continue
			}
			st, err := p.Stats()
			if err != nil {
				return fmt.Errorf("read the statistics of program %s: %w", name, err)
			}
			times = append(times, RunTime{Program: name, Runs: st.RunCount, Time: st.Runtime})
		}
		return nil
	})
	return times, err
}
