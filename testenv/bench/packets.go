package main

import (
	"context"
	"errors"
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

// reference is the name under which a program that only counts packets is
// listed: less than it nobody can cost.
const reference = "reference (counts packets)"

// countPackets measures the run time of the BPF programs per packet. It has a
// phase of its own because the statistics slow the programs down.
func (s *stage) countPackets(ctx context.Context) ([]Packets, error) {
	running, err := s.startInspector(ctx, bothWaysConfig)
	if err != nil {
		return nil, err
	}
	all, err := s.countKinds(ctx)
	return all, errors.Join(err, running.stop())
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
	foreign, err := s.env.Gateway.AttachForeignTCX("ext0")
	if err != nil { // a kernel before 6.6
		fmt.Fprintln(os.Stderr, "bench: packets are counted without a reference:", err)
	} else {
		defer foreign.Close()
	}
	counting, err := testenv.EnableRunStats()
	if err != nil {
		return nil, err
	}
	defer counting.Close()
	var all []Packets
	for _, k := range kinds {
		counted, err := s.countKind(ctx, foreign, k)
		if err != nil {
			return nil, fmt.Errorf("count packets %s: %w", k.name, err)
		}
		all = append(all, counted...)
	}
	return all, nil
}

// countKind lets the load run and returns what each program took meanwhile.
func (s *stage) countKind(ctx context.Context, foreign *testenv.ForeignTCX, k traffic) ([]Packets, error) {
	if err := s.load.run(ctx, k.to, s.packets/warming, s.parallel); err != nil {
		return nil, err
	}
	before, err := s.runStats(foreign)
	if err != nil {
		return nil, err
	}
	if err := s.load.run(ctx, k.to, s.packets, s.parallel); err != nil {
		return nil, err
	}
	after, err := s.runStats(foreign)
	if err != nil {
		return nil, err
	}
	var all []Packets
	for _, program := range slices.Sorted(maps.Keys(after)) {
		ran := after[program].Sub(before[program])
		if ran.Runs < uint64(s.packets) { // not on the way of this kind
			continue
		}
		all = append(all, Packets{
			Traffic: k.name, Ours: k.ours, Program: program,
			Runs: ran.Runs, Nanoseconds: float64(ran.Time.Nanoseconds()) / float64(ran.Runs),
		})
	}
	return all, nil
}

// runStats reads the statistics of all programs, with the reference where there
// is one.
func (s *stage) runStats(foreign *testenv.ForeignTCX) (map[string]testenv.RunStats, error) {
	stats, err := s.env.PinnedRunStats()
	if err != nil {
		return nil, err
	}
	if foreign != nil {
		stats[reference], err = foreign.RunStats()
	}
	return stats, err
}
