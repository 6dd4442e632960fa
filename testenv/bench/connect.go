package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// Connect is how long connect(2) takes a client of transit connections: until the
// kernel that stands in for the origin has answered.
type Connect struct {
	Connections int              `json:"connections"` // of each way in each round
	Rounds      int              `json:"rounds"`
	Sources     int              `json:"sources"` // client addresses
	Ways        []*ConnectSeries `json:"ways"`
}

// ConnectSeries is what was measured of one way through the gateway.
type ConnectSeries struct {
	Name    string    `json:"name"`
	Tracked bool      `json:"tracked"` // the gateway has a rule that asks for a connection's state
	P10     float64   `json:"p10_us"`  // of all rounds together, in microseconds
	Median  float64   `json:"median_us"`
	P90     float64   `json:"p90_us"`
	Rounds  []float64 `json:"rounds_us"` // median of each
	Direct  *Spread   `json:"beyond_direct_us,omitempty"`
	Skip    *Spread   `json:"beyond_skip_us,omitempty"`
	Others  float64   `json:"others"` // greatest part of the CPU that other programs used

	took []float64
}

// way is how connections to the origin's own address get there.
type way struct {
	name, subject string
	start         subject
	met           map[string]bool // reasons that portreeve counts for each connection, or for none
}

// The names of ways that others are compared with.
const (
	directWay = "direct"
	skipWay   = "portreeve, forward_rules: skip"
)

var ways = []way{
	{directWay, "direct", startDirect, nil},
	{"portreeve", "portreeve", startPortreeve, map[string]bool{"client-syn": true, "loop-fetched": true}},
	{skipWay, "portreeve", startSkipping, map[string]bool{"client-syn": true, "loop-fetched": false}},
}

// trackingRule makes the gateway track connections, as nearly every firewall does.
var trackingRule = []string{"-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"}

// startSkipping starts a portreeve whose transit connections do not meet FORWARD.
func startSkipping(ctx context.Context, s *stage) (*serving, error) {
	return s.startInspector(ctx, s.env.Origin4, skipConfig)
}

// measureConnect connects by every way whose subject is asked for, without and
// with a firewall that tracks.
func measureConnect(ctx context.Context, o *options, w work, r *Results) error {
	if len(o.waysInRound(0)) == 0 {
		return nil
	}
	r.Connect = &Connect{Connections: w.sessions, Rounds: w.rounds}
	for round := range w.rounds {
		for _, tracked := range []bool{false, true} {
			for _, way := range o.waysInRound(round) {
				err := o.onStage(ctx, w, func(s *stage) error {
					r.Connect.Sources = len(s.env.MoreClients)
					return s.measureWay(ctx, way, r.Connect.find(way.name, tracked), round)
				})
				if err != nil {
					return fmt.Errorf("round %d, %s: %w", round+1, way.name, err)
				}
			}
		}
	}
	r.Connect.conclude()
	return nil
}

// waysInRound returns the ways in the order of a round.
func (o *options) waysInRound(round int) []way {
	order := slices.DeleteFunc(slices.Clone(ways), func(w way) bool { return !slices.Contains(o.subjects, w.subject) })
	if round%2 == 1 { // so that nobody always comes after the same one
		slices.Reverse(order)
	}
	return order
}

// measureWay connects through the gateway, and makes sure that this was the way.
func (s *stage) measureWay(ctx context.Context, w way, series *ConnectSeries, round int) (err error) {
	if series.Tracked {
		if _, err := s.env.Gateway.Run(ctx, "iptables", trackingRule...); err != nil {
			return err
		}
	}
	if err := s.begin(ctx, w.start); err != nil {
		return err
	}
	took, others, err := s.connects(ctx)
	if err != nil {
		return err
	}
	series.add(took, others)
	fmt.Fprintf(os.Stderr, "connect, round %d of %d: %-50s %5.1f µs\n", round+1, s.rounds, series, series.Rounds[round])
	return s.verifyWay(ctx, w)
}

// connects lets the client connect, and returns how long each connection took.
func (s *stage) connects(ctx context.Context) (took []time.Duration, others float64, err error) {
	report, m, err := s.timed(ctx, ends.Order{})
	return report.Connects, m.others(), err
}

// timed lets our own client hold the section's sessions in the way of an order, and
// returns what it and the accounts tell.
func (s *stage) timed(ctx context.Context, o ends.Order) (r ends.Report, m Measurement, err error) {
	client, ok := s.load.(*client)
	if !ok {
		return r, m, errors.New("only our own client can tell times")
	}
	if err := s.warm(ctx); err != nil {
		return r, m, err
	}
	o.To, o.Sessions, o.Parallel = s.running.target, s.sessions, s.parallel
	m, err = s.watch(func() (err error) {
		r, err = client.order(ctx, o)
		return err
	})
	s.sent += s.sessions
	return r, m, err
}

// verifyWay reports connections that took another way than the one that was to be
// measured.
func (s *stage) verifyWay(ctx context.Context, w way) error {
	if w.met == nil {
		return nil
	}
	said, err := s.portreeve(ctx, "status", "--json").Output()
	if err != nil {
		return fmt.Errorf("portreeve status: %w", err)
	}
	counted, err := counters(said)
	if err != nil {
		return err
	}
	for reason, met := range w.met {
		if n := counted[reason]; met && n < uint64(s.sessions) || !met && n > 0 {
			return fmt.Errorf("%d connections were counted as %s, of %d", n, reason, s.sessions)
		}
	}
	return nil
}

// counters reads what portreeve status says that the kernel's side has counted.
func counters(said []byte) (map[string]uint64, error) {
	var status struct {
		Counters []struct {
			Reason string
			Count  uint64
		}
	}
	if err := json.Unmarshal(said, &status); err != nil {
		return nil, fmt.Errorf("read what portreeve status says: %w", err)
	}
	counted := make(map[string]uint64)
	for _, c := range status.Counters {
		counted[c.Reason] = c.Count
	}
	return counted, nil
}

// find returns the series of a way, new when it is the first time.
func (c *Connect) find(name string, tracked bool) *ConnectSeries {
	if s := c.series(name, tracked); s != nil {
		return s
	}
	s := &ConnectSeries{Name: name, Tracked: tracked}
	c.Ways = append(c.Ways, s)
	return s
}

// series returns the series of a way, nil where it was not measured.
func (c *Connect) series(name string, tracked bool) *ConnectSeries {
	n := slices.IndexFunc(c.Ways, func(s *ConnectSeries) bool { return s.Name == name && s.Tracked == tracked })
	if n < 0 {
		return nil
	}
	return c.Ways[n]
}

// add takes in the times of one round.
func (s *ConnectSeries) add(took []time.Duration, others float64) {
	figures := make([]float64, len(took))
	for n, t := range took {
		figures[n] = float64(t.Nanoseconds()) / 1000
	}
	s.took = append(s.took, figures...)
	s.Rounds = append(s.Rounds, median(figures))
	s.Others = max(s.Others, others)
}

// String names the way.
func (s *ConnectSeries) String() string { return s.Name + tracking(s.Tracked) }

// tracking is what is added to a name where the gateway tracks connections.
func tracking(tracked bool) string {
	if tracked {
		return ", tracked"
	}
	return ""
}

// conclude computes what is told of the times.
func (c *Connect) conclude() {
	for _, s := range c.Ways {
		slices.Sort(s.took)
		s.P10, s.Median, s.P90 = quantile(s.took, 10), median(s.took), quantile(s.took, 90)
		s.Direct = s.beyond(c.series(directWay, s.Tracked))
		s.Skip = s.beyond(c.series(skipWay, s.Tracked))
	}
}

// beyond tells how much longer it took than by another way, each round by itself:
// what disturbs the machine for minutes disturbs both.
func (s *ConnectSeries) beyond(base *ConnectSeries) *Spread {
	if base == nil || base == s {
		return nil
	}
	more := make([]float64, len(s.Rounds))
	for n, m := range s.Rounds {
		more[n] = m - base.Rounds[n]
	}
	sp := spread(more)
	return &sp
}

// quantile returns the figure that so many of 100 do not exceed.
func quantile(sorted []float64, percent int) float64 {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}
