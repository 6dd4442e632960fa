package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// measureAll lets the subjects take turns, and then counts packets.
func measureAll(ctx context.Context, o options) (*Results, error) {
	r := &Results{Started: time.Now().UTC()}
	err := o.onStage(ctx, func(s *stage) (err error) {
		r.Load = s.describe()
		r.Machine, err = s.machine(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for round := range o.rounds {
		if err := o.measureRound(ctx, r, round); err != nil {
			return nil, err
		}
	}
	r.compare()
	if o.packets == 0 || !slices.Contains(o.subjects, "portreeve") {
		return r, nil
	}
	err = o.onStage(ctx, func(s *stage) (err error) {
		r.Packets, err = s.countPackets(ctx)
		return err
	})
	return r, err
}

// measureRound measures every subject once.
func (o *options) measureRound(ctx context.Context, r *Results, round int) error {
	order := slices.Clone(o.subjects)
	if round%2 == 1 { // so that nobody always comes after the same one
		slices.Reverse(order)
	}
	for _, name := range order {
		err := o.onStage(ctx, func(s *stage) error {
			m, err := s.measure(ctx, subjects[name])
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
			r.add(name, m)
			fmt.Fprintf(os.Stderr, "round %d of %d: %-10s %5.0f sessions/s, %4.0f µs of CPU per session\n",
				round+1, o.rounds, name, m.Rate, m.Machine)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measure starts a subject, lets the load run through it, ends it, and makes
// sure that it did its work.
func (s *stage) measure(ctx context.Context, start subject) (Measurement, error) {
	running, err := start(ctx, s)
	if err != nil {
		return Measurement{}, err
	}
	m, err := s.measureServing(ctx, running)
	if err := errors.Join(err, running.stop()); err != nil {
		return m, err
	}
	return m, running.verify(m.Sessions)
}

func (s *stage) measureServing(ctx context.Context, running *serving) (m Measurement, err error) {
	if err := s.load.run(ctx, running.target, s.sessions/warming, s.parallel); err != nil {
		return m, err
	}
	before, err := look(running.pid)
	if err != nil {
		return m, err
	}
	if err := s.load.run(ctx, running.target, s.sessions, s.parallel); err != nil {
		return m, err
	}
	after, err := look(running.pid)
	if err != nil {
		return m, err
	}
	m = newMeasurement(before, after, s.load.total(s.sessions))
	if m.Own == 0 {
		err = fmt.Errorf("%d sessions took less CPU than the kernel's clock can tell: ask for more with -sessions", m.Sessions)
	}
	return m, err
}

// warming is the part of the sessions that run before those that count: caches,
// pools and neighbour tables are filled then.
const warming = 10

// keepUp runs load through a subject until interrupted.
func (s *stage) keepUp(ctx context.Context, start subject) (err error) {
	running, err := start(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.stop()) }()
	fmt.Printf("process %d and its children; load on %s until interrupted\n", running.pid, running.target)
	for ctx.Err() == nil {
		if err := s.load.run(ctx, running.target, s.sessions, s.parallel); err != nil {
			return err
		}
	}
	return nil
}

// describe says what the load is.
func (s *stage) describe() Load {
	return Load{
		Sessions: s.load.total(s.sessions), Parallel: s.load.total(s.parallel), Rounds: s.rounds,
		Octets: s.octets, Sources: s.load.sources,
	}
}

// machine says what the figures depend on.
func (s *stage) machine(ctx context.Context) (Machine, error) {
	m := Machine{Versions: make(map[string]string)}
	if err := m.read(); err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range s.subjects {
		words := versions[name]
		if words == nil {
			continue
		}
		said, err := words(ctx, s).CombinedOutput()
		if err != nil {
			return m, fmt.Errorf("ask the version of %s: %w: %s", name, err, said)
		}
		line, _, _ := strings.Cut(string(said), "\n")
		m.Versions[name] = strings.TrimSpace(line)
	}
	return m, nil
}
