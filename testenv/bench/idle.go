package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// Idle is what sessions cost that are open and silent.
type Idle struct {
	Sessions int           `json:"sessions"`
	Rounds   int           `json:"rounds"`
	Secure   bool          `json:"tls,omitempty"` // on both sides of the subject
	Subjects []*IdleSeries `json:"subjects"`
}

// IdleSeries is all that was measured of one subject.
type IdleSeries struct {
	Name    string   `json:"name"`
	Rounds  []Memory `json:"rounds"`
	Median  Memory   `json:"median"`                  // of each figure by itself
	HAProxy Spread   `json:"times_haproxy,omitempty"` // resident memory per session, against that of the same round
}

// Memory is what is taken while sessions are idle, in octets.
type Memory struct {
	Resident float64 `json:"resident_per_session"` // of the subject's processes, beyond what they have without sessions
	All      float64 `json:"resident"`             // of the subject's processes, with all sessions
	Kernel   float64 `json:"kernel_per_session"`   // slabs of the whole machine: sockets of client and origin too
}

// rest is how long a proxy's sessions are left alone before anything is looked at:
// it may keep buffers for a moment, in case that there is more, and tidy up after
// many connections when no more come.
const rest = 5 * time.Second

// measureIdle opens sessions with every subject that has a process, and for the
// kernel's share with none. What comes of it is put into a field of the results.
func measureIdle(section string, field func(*Results) **Idle) func(ctx context.Context, o *options, w work, r *Results) error {
	return func(ctx context.Context, o *options, w work, r *Results) error {
		if len(o.inRound(w, 0)) == 0 {
			return nil
		}
		i := &Idle{Sessions: w.sessions, Rounds: w.rounds, Secure: w.secure}
		*field(r) = i
		err := o.takeTurnsAnew(ctx, w, func(s *stage, name string, round int) error {
			m, err := s.measureMemory(ctx)
			if err != nil {
				return err
			}
			i.add(name, m)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %-10s %5.1f KiB resident per session\n", section, round+1, w.rounds, name, m.Resident/1024)
			return nil
		})
		i.compare()
		return err
	}
}

// measureMemory opens sessions, looks, and ends them again.
func (s *stage) measureMemory(ctx context.Context) (m Memory, err error) {
	before, err := s.footprint()
	if err != nil {
		return m, err
	}
	client, err := s.hold(ctx)
	if err != nil {
		return m, err
	}
	after, err := s.footprint()
	if err != nil {
		return m, err
	}
	// An order for nothing ends the sessions, and fails unless all are there.
	if _, err := client.order(ctx, ends.Order{}); err != nil {
		return m, err
	}
	per := func(after, before int) float64 { return float64(after-before) / float64(s.sessions) }
	return Memory{
		Resident: per(after.resident, before.resident),
		All:      float64(after.resident),
		Kernel:   per(after.slabs, before.slabs),
	}, nil
}

// hold opens sessions and leaves them alone for a while.
func (s *stage) hold(ctx context.Context) (*client, error) {
	client, ok := s.load.(*client)
	if !ok {
		return nil, errors.New("only our own client can hold sessions")
	}
	_, err := client.order(ctx, ends.Order{To: s.running.target, Sessions: s.sessions, Parallel: s.parallel, Hold: true})
	if err != nil || s.running.pid == 0 {
		return client, err
	}
	select {
	case <-time.After(rest):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return client, nil
}

// footprint is memory in octets.
type footprint struct {
	resident int // of the subject's processes
	slabs    int // of the kernel: sockets, files, timers
}

// footprint looks at the subject's processes, and at the kernel.
func (s *stage) footprint() (f footprint, err error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return f, err
	}
	if f.slabs, err = kibibytes(text, "Slab:"); err != nil {
		return f, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	all, err := s.accounts.subject.Processes()
	if err != nil {
		return f, err
	}
	for _, p := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile, or has no memory any longer
		}
		n, err2 := kibibytes(text, "Rss:")
		if err := errors.Join(err, err2); err != nil {
			return f, fmt.Errorf("read the memory of process %d: %w", p, err)
		}
		f.resident += n
	}
	return f, nil
}

// kibibytes finds a line "key N kB" and returns N in octets.
func kibibytes(text []byte, key string) (int, error) {
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) == 3 && string(words[0]) == key {
			n, err := strconv.Atoi(string(words[1]))
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("there is no line %s", key)
}

func (i *Idle) find(name string) *IdleSeries {
	n := slices.IndexFunc(i.Subjects, func(s *IdleSeries) bool { return s.Name == name })
	if n < 0 {
		return nil
	}
	return i.Subjects[n]
}

func (i *Idle) add(name string, m Memory) {
	s := i.find(name)
	if s == nil {
		s = &IdleSeries{Name: name}
		i.Subjects = append(i.Subjects, s)
	}
	s.Rounds = append(s.Rounds, m)
}

// compare computes medians, and ratios to HAProxy.
func (i *Idle) compare() {
	base := i.find("haproxy")
	for _, s := range i.Subjects {
		s.Median = Memory{
			Resident: s.median(func(m Memory) float64 { return m.Resident }),
			All:      s.median(func(m Memory) float64 { return m.All }),
			Kernel:   s.median(func(m Memory) float64 { return m.Kernel }),
		}
		if base == nil || len(base.Rounds) != len(s.Rounds) {
			continue
		}
		var ratios []float64
		for n, m := range s.Rounds {
			ratios = append(ratios, m.Resident/base.Rounds[n].Resident)
		}
		s.HAProxy = spread(ratios)
	}
}

func (s *IdleSeries) median(of func(Memory) float64) float64 {
	var figures []float64
	for _, m := range s.Rounds {
		figures = append(figures, of(m))
	}
	return median(figures)
}
