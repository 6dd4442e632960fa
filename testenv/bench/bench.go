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

// takeTurns starts every subject that takes part on a stage of its own, does something with each once
// per round, and ends them all. So they are measured within seconds of each other, and
// each is as old as the others.
func (o *options) takeTurns(ctx context.Context, w work, do func(s *stage, name string, round int) error) (err error) {
	stages := make(map[string]*stage)
	defer func() {
		for _, s := range stages {
			err = errors.Join(err, s.close())
		}
	}()
	for _, name := range o.inRound(w, 0) {
		s, err := o.newStage(ctx, w)
		if err != nil {
			return err
		}
		stages[name] = s
		if err := s.begin(ctx, subjects[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	err = o.eachRound(w, func(name string, round int) error { return do(stages[name], name, round) })
	for name, s := range stages {
		if err == nil {
			if err = s.end(); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return err
}

// takeTurnsAnew is takeTurns for what must be measured of a subject that has done
// nothing yet: each measurement has a stage of its own.
func (o *options) takeTurnsAnew(ctx context.Context, w work, do func(s *stage, name string, round int) error) error {
	return o.eachRound(w, func(name string, round int) error {
		return o.onStage(ctx, w, func(s *stage) error {
			if err := s.begin(ctx, subjects[name]); err != nil {
				return err
			}
			if err := do(s, name, round); err != nil {
				return err
			}
			return s.end()
		})
	})
}

// eachRound does something with every subject that takes part, once per round.
func (o *options) eachRound(w work, do func(name string, round int) error) error {
	for round := range w.rounds {
		for _, name := range o.inRound(w, round) {
			if err := do(name, round); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
		}
	}
	return nil
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
			m, err := s.measure(ctx)
			if err != nil {
				return err
			}
			section.add(subject, m)
			u := section.unit()
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %-10s %5.0f %s, %4.0f %s\n",
				name, round+1, w.rounds, subject, m.Rate*u.rate, u.rateName, m.Own*u.cost, u.costName)
			return nil
		})
		section.compare()
		r.Sections = append(r.Sections, section)
		return err
	}
}

// measure lets the load run through the subject.
func (s *stage) measure(ctx context.Context) (m Measurement, err error) {
	if err := s.warm(ctx); err != nil {
		return m, err
	}
	return s.watch(func() error { return s.carry(ctx, s.sessions) })
}

// watch tells what a run of all the section's sessions takes.
func (s *stage) watch(run func() error) (m Measurement, err error) {
	before, err := s.accounts.look()
	if err != nil {
		return m, err
	}
	if err := run(); err != nil {
		return m, err
	}
	after, err := s.accounts.look()
	if err != nil {
		return m, err
	}
	return newMeasurement(before, after, s.load.total(s.sessions)), nil
}

// keepUp runs load through a subject until interrupted.
func (s *stage) keepUp(ctx context.Context, start subject) error {
	if err := s.begin(ctx, start); err != nil {
		return err
	}
	fmt.Printf("process %d and its children; load on %s until interrupted\n", s.running.pid, s.running.target)
	if s.messages == 0 && !s.connect {
		if _, err := s.hold(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		if err := s.carry(ctx, s.sessions); err != nil {
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
