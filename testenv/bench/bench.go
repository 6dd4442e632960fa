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

// measureAll measures section after section.
func measureAll(ctx context.Context, o *options) (*Results, error) {
	r := &Results{Started: time.Now().UTC()}
	err := o.onStage(ctx, work{}, func(s *stage) (err error) {
		r.Machine, err = s.machine(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, s := range o.sections {
		if err := s.measure(ctx, o, o.work(s), r); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	r.judge()
	return r, nil
}

// inRound returns the subjects that take part, in the order of a round.
func (o *options) inRound(w work, round int) []string {
	order := slices.DeleteFunc(slices.Clone(o.subjects), func(name string) bool { return !takesPart(name, w) })
	if round%2 == 1 { // so that nobody always comes after the same one
		slices.Reverse(order)
	}
	return order
}

// throughput returns the measuring of a section that is all about sessions that
// follow each other as fast as they can.
func throughput(name string) func(context.Context, *options, work, *Results) error {
	return func(ctx context.Context, o *options, w work, r *Results) error {
		if len(o.inRound(w, 0)) == 0 {
			return nil
		}
		section := &Section{Name: name}
		err := o.takeTurns(ctx, w, func(s *stage, subject string, round int) error {
			section.Load = s.describe()
			m, err := s.measure(ctx, subjects[subject])
			if err != nil {
				return err
			}
			section.add(subject, m)
			u := section.unit()
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %-10s %5.0f %s, %4.0f %s\n",
				name, round+1, w.rounds, subject, m.Rate*u.rate, u.rateName, m.Machine*u.cost, u.costName)
			return nil
		})
		section.compare()
		r.Sections = append(r.Sections, section)
		return err
	}
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
	return m, running.verify(m.Sessions * s.messages)
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
	if s.messages == 0 && !s.connect {
		if _, err := s.hold(ctx, running); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
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
		Messages: s.messages, Octets: s.octets, Pipelined: s.pipelined, Secure: s.secure, Unseen: s.unseen, Sources: len(s.env.MoreClients),
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
