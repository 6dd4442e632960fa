package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// Latency is how long sessions and their replies take, of one client at a time or of
// many at once.
type Latency struct {
	Sessions int              `json:"sessions"` // of each subject in each round
	Parallel int              `json:"parallel"`
	Rounds   int              `json:"rounds"`
	Octets   int              `json:"octets"`
	Subjects []*LatencySeries `json:"subjects"`
}

// LatencySeries is what was measured of one subject, in all rounds together.
type LatencySeries struct {
	Name   string      `json:"name"`
	Whole  Quantiles   `json:"session"`
	Added  float64     `json:"added_us"` // median of the session, beyond that of plain routing
	Steps  []Quantiles `json:"steps"`
	Others float64     `json:"others"` // greatest part of the CPU that other programs used

	times []ends.Times
}

// Quantiles are of one part of the session, in microseconds.
type Quantiles struct {
	Name   string  `json:"name"`
	Median float64 `json:"median_us"`
	P99    float64 `json:"p99_us"` // that 99 of 100 do not exceed
}

// measureLatency times sessions. What comes of it is put into a field of the results.
func measureLatency(name string, field func(*Results) **Latency) func(context.Context, *options, work, *Results) error {
	return func(ctx context.Context, o *options, w work, r *Results) error {
		if len(o.inRound(w, 0)) == 0 {
			return nil
		}
		l := &Latency{Sessions: w.sessions, Parallel: w.parallel, Rounds: w.rounds, Octets: w.octets}
		*field(r) = l
		err := o.takeTurns(ctx, w, func(s *stage, subject string, round int) error {
			report, m, err := s.timed(ctx, ends.Order{Timed: true})
			if err != nil {
				return err
			}
			series := l.find(subject)
			series.times = append(series.times, report.Times...)
			series.Others = max(series.Others, m.others())
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %-10s %5.0f µs\n", name, round+1, w.rounds, subject,
				quantiles("", report.Times, ends.Times.Whole).Median)
			return nil
		})
		l.conclude()
		return err
	}
}

// find returns the series of a subject, new when it is the first time.
func (l *Latency) find(name string) *LatencySeries {
	for _, s := range l.Subjects {
		if s.Name == name {
			return s
		}
	}
	s := &LatencySeries{Name: name}
	l.Subjects = append(l.Subjects, s)
	return s
}

// conclude computes what is told of the times.
func (l *Latency) conclude() {
	var direct *LatencySeries
	for _, s := range l.Subjects {
		s.Whole = quantiles("session", s.times, ends.Times.Whole)
		for n := range ends.Steps {
			s.Steps = append(s.Steps, quantiles(ends.Step(n).String(), s.times, func(t ends.Times) time.Duration { return t[n] }))
		}
		if s.Name == "direct" {
			direct = s
		}
	}
	for _, s := range l.Subjects {
		if direct != nil {
			s.Added = s.Whole.Median - direct.Whole.Median
		}
	}
}

// quantiles tells about one part of all sessions.
func quantiles(name string, all []ends.Times, part func(ends.Times) time.Duration) Quantiles {
	if len(all) == 0 {
		return Quantiles{Name: name}
	}
	figures := make([]float64, len(all))
	for i, t := range all {
		figures[i] = float64(part(t).Nanoseconds()) / 1000
	}
	slices.Sort(figures)
	return Quantiles{Name: name, Median: median(figures), P99: quantile(figures, 99)}
}
