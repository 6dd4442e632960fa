package main

import (
	"context"
	"fmt"
	"strings"
)

// work is how much is done in one measurement of a section, and how often.
type work struct {
	rounds    int
	sessions  int // at least
	parallel  int // of them at once, at least
	messages  int // in each session
	octets    int // of each message
	pipelined bool
	ours      bool // client and origin are ours instead of Postfix's
	secure    bool // TLS from the first octet on, anew on both sides of the subject
	counted   bool // portreeve serves metrics, which tell what it allocates
	unseen    bool // STARTTLS, and TLS between client and origin that the subject carries without a look inside
	connect   bool // nothing is said: connections to the origin's own address that end as soon as they are there
}

// section is one part of the results.
type section struct {
	name    string
	full    work
	short   work
	measure func(ctx context.Context, o *options, w work, r *Results) error
}

// tenMegabytes is a large message: at this size nothing but the content counts.
const tenMegabytes = 10_000_000

// allSections returns the sections in the order in which they are measured.
func allSections() []section {
	return []section{
		{
			name:    "sessions",
			full:    work{rounds: 6, sessions: 12000, parallel: 32, messages: 1, octets: 4096},
			short:   work{rounds: 2, sessions: 3200, parallel: 32, messages: 1, octets: 4096},
			measure: throughput("sessions"),
		},
		{
			name:    "pipelined",
			full:    work{rounds: 4, sessions: 4000, parallel: 32, messages: 5, octets: 4096, pipelined: true, ours: true},
			short:   work{rounds: 1, sessions: 1200, parallel: 32, messages: 5, octets: 4096, pipelined: true, ours: true},
			measure: throughput("pipelined"),
		},
		{
			name:    "large",
			full:    work{rounds: 5, sessions: 200, parallel: 8, messages: 1, octets: tenMegabytes, ours: true},
			short:   work{rounds: 1, sessions: 80, parallel: 8, messages: 1, octets: tenMegabytes, ours: true},
			measure: throughput("large"),
		},
		{
			name:    "tls",
			full:    work{rounds: 5, sessions: 4000, parallel: 32, messages: 1, octets: 4096, ours: true, secure: true},
			short:   work{rounds: 1, sessions: 1200, parallel: 32, messages: 1, octets: 4096, ours: true, secure: true},
			measure: throughput("tls"),
		},
		{
			name:    "unseen",
			full:    work{rounds: 5, sessions: 4000, parallel: 32, messages: 1, octets: 4096, ours: true, unseen: true},
			short:   work{rounds: 1, sessions: 1200, parallel: 32, messages: 1, octets: 4096, ours: true, unseen: true},
			measure: throughput("unseen"),
		},
		{
			name:    "idle",
			full:    work{rounds: 2, sessions: 5000, parallel: 64, ours: true},
			short:   work{rounds: 1, sessions: 5000, parallel: 64, ours: true},
			measure: measureIdle("idle", func(r *Results) **Idle { return &r.Idle }),
		},
		{
			name:    "tls-idle",
			full:    work{rounds: 1, sessions: 3000, parallel: 32, ours: true, secure: true},
			short:   work{rounds: 1, sessions: 1000, parallel: 32, ours: true, secure: true},
			measure: measureIdle("tls-idle", func(r *Results) **Idle { return &r.TLSIdle }),
		},
		{
			name:    "latency",
			full:    work{rounds: 4, sessions: 2000, parallel: 1, messages: 1, octets: 4096, ours: true},
			short:   work{rounds: 1, sessions: 500, parallel: 1, messages: 1, octets: 4096, ours: true},
			measure: measureLatency("latency", func(r *Results) **Latency { return &r.Latency }),
		},
		{
			name:    "crowd",
			full:    work{rounds: 4, sessions: 4000, parallel: 500, messages: 1, octets: 4096, ours: true},
			short:   work{rounds: 1, sessions: 1000, parallel: 500, messages: 1, octets: 4096, ours: true},
			measure: measureLatency("crowd", func(r *Results) **Latency { return &r.Crowd }),
		},
		{
			name:    "connect",
			full:    work{rounds: 8, sessions: 3000, parallel: 1, ours: true, connect: true},
			short:   work{rounds: 1, sessions: 1000, parallel: 1, ours: true, connect: true},
			measure: measureConnect,
		},
		{
			name:    "counts",
			full:    work{rounds: 1, sessions: 3000, parallel: 1, messages: 1, octets: 4096, ours: true, counted: true},
			short:   work{rounds: 1, sessions: 1500, parallel: 1, messages: 1, octets: 4096, ours: true, counted: true},
			measure: measureCounts,
		},
		{
			name:    "packets",
			full:    work{rounds: 1, sessions: 4000, parallel: 32, messages: 1, octets: 4096},
			short:   work{rounds: 1, sessions: 1600, parallel: 32, messages: 1, octets: 4096},
			measure: measurePackets,
		},
	}
}

// sectionNames lists the names of all sections, in order.
func sectionNames() string {
	var names []string
	for _, s := range allSections() {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// choose returns the sections with names that are separated by commas.
func choose(names string) ([]section, error) {
	var chosen []section
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, s := range allSections() {
			if s.name == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-sections: there is no section %q, only %s", name, sectionNames())
		}
	}
	return chosen, nil
}

// work returns what is to be done for a section: its own measure, with what the
// command line says instead.
func (o *options) work(s section) work {
	w := s.full
	if o.quick {
		w = s.short
	}
	for _, own := range []struct{ of, instead *int }{
		{&w.rounds, &o.instead.rounds}, {&w.sessions, &o.instead.sessions}, {&w.parallel, &o.instead.parallel}, {&w.octets, &o.instead.octets},
	} {
		if *own.instead > 0 && *own.of > 0 { // idle sessions have no octets
			*own.of = *own.instead
		}
	}
	return w
}
