package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/portreeve/portreeve/testenv"
)

// traffic is a kind of packets whose cost is counted apart.
type traffic struct {
	name string
	ours bool // portreeve carries it
	to   netip.AddrPort
}

// counting is the name under which a program that does nothing is listed: what
// the kernel measures of it is what the measuring costs.
const counting = "(nothing)"

// measurePackets counts what packets cost, where portreeve is among the
// subjects.
func measurePackets(ctx context.Context, o *options, w work, r *Results) error {
	if !slices.Contains(o.subjects, "portreeve") {
		return nil
	}
	return o.onStage(ctx, w, func(s *stage) (err error) {
		r.Packets, err = s.countPackets(ctx)
		return err
	})
}

// countPackets measures the run time of the BPF programs per packet. It has a
// phase of its own because the statistics slow the programs down.
func (s *stage) countPackets(ctx context.Context) ([]Packets, error) {
	err := s.begin(ctx, func(ctx context.Context, s *stage) (*serving, error) {
		return s.startInspector(ctx, s.env.Gateway4, bothWaysConfig)
	})
	if err != nil {
		return nil, err
	}
	return s.countKinds(ctx)
}

// countKinds sends each kind of traffic past the programs.
func (s *stage) countKinds(ctx context.Context) ([]Packets, error) {
	kinds := []traffic{
		{"forwarded, a port that nobody bound", false, netip.AddrPortFrom(s.env.Origin4, foreignPort)},
		{"to the gateway, a port that nobody bound", false, netip.AddrPortFrom(s.env.Gateway4, foreignPort)},
		{"addressed", true, netip.AddrPortFrom(s.env.Gateway4, smtpPort)},
		{"transit", true, netip.AddrPortFrom(s.env.Origin4, smtpPort)},
	}
	if err := s.sink(ctx, s.env.Origin, kinds[0].to); err != nil {
		return nil, err
	}
	if err := s.sink(ctx, s.env.Gateway, kinds[1].to); err != nil {
		return nil, err
	}
	empty, err := s.env.Gateway.AttachEmptyTCX("ext0")
	if err != nil { // a kernel before 6.6
		fmt.Fprintln(os.Stderr, "bench: what the measuring of packets costs stays unknown:", err)
	} else {
		defer empty.Close()
	}
	enabled, err := testenv.EnableRunStats()
	if err != nil {
		return nil, err
	}
	defer enabled.Close()
	var all []Packets
	for _, k := range kinds {
		counted, err := s.countKind(ctx, empty, k)
		if err != nil {
			return nil, fmt.Errorf("count packets %s: %w", k.name, err)
		}
		all = append(all, counted...)
	}
	return all, nil
}

// countKind lets the load run and returns what each program took meanwhile.
func (s *stage) countKind(ctx context.Context, empty *testenv.ForeignTCX, k traffic) ([]Packets, error) {
	if err := s.load.run(ctx, k.to, s.sessions/warming, s.parallel); err != nil {
		return nil, err
	}
	before, err := s.runStats(empty)
	if err != nil {
		return nil, err
	}
	if err := s.load.run(ctx, k.to, s.sessions, s.parallel); err != nil {
		return nil, err
	}
	after, err := s.runStats(empty)
	if err != nil {
		return nil, err
	}
	return tally(k, before, after, s.load.total(s.sessions)), nil
}

// tally tells what each program took for a kind of traffic. Programs that did
// not even run once a session are not on its way.
func tally(k traffic, before, after map[string]testenv.RunStats, sessions int) []Packets {
	var all []Packets
	var floor float64
	for _, program := range slices.Sorted(maps.Keys(after)) { // the empty one is the first
		ran := after[program].Sub(before[program])
		if ran.Runs < uint64(sessions) {
			continue
		}
		per := float64(ran.Time.Nanoseconds()) / float64(ran.Runs)
		if program == counting {
			floor = per
		}
		all = append(all, Packets{
			Traffic: k.name, Ours: k.ours, Program: program,
			Runs: ran.Runs, Nanoseconds: per, Net: per - floor,
		})
	}
	return all
}

// runStats reads the statistics of all programs, with the empty one where it
// could be attached.
func (s *stage) runStats(empty *testenv.ForeignTCX) (map[string]testenv.RunStats, error) {
	stats, err := s.env.PinnedRunStats()
	if err != nil {
		return nil, err
	}
	if empty != nil {
		stats[counting], err = empty.RunStats()
	}
	return stats, err
}
