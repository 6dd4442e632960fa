package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/portreeve/portreeve/testenv"
)

// Counts are what a session takes that can be counted, so that the machine need not be
// at rest. All are of the subject's processes but packets, which are those that the
// gateway receives and sends, on both sides.
type Counts struct {
	Subject         string  `json:"subject"`
	SystemCalls     float64 `json:"system_calls"`
	ContextSwitches float64 `json:"context_switches"`
	Packets         float64 `json:"packets"`
	Allocations     float64 `json:"allocations,omitempty"` // of the inspector's heap; of portreeve alone
}

// countsAt is where a portreeve whose allocations are counted serves its metrics.
var countsAt = netip.MustParseAddrPort("127.0.0.1:9125")

// measureCounts counts what every subject takes, one session at a time.
func measureCounts(ctx context.Context, o *options, w work, r *Results) error {
	return o.takeTurnsAnew(ctx, w, func(s *stage, name string, _ int) error {
		c, err := s.count(ctx, name)
		if err == nil {
			fmt.Fprintf(os.Stderr, "counts: %-10s %5.1f system calls a session\n", name, c.SystemCalls)
			r.Counts = append(r.Counts, c)
		}
		return err
	})
}

// count lets the load run and counts.
func (s *stage) count(ctx context.Context, name string) (c Counts, err error) {
	if err := s.warm(ctx); err != nil {
		return c, err
	}
	calls, err := s.accounts.subject.Tally(testenv.SystemCalls)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, calls.Close()) }()
	switches, err := s.accounts.subject.Tally(testenv.ContextSwitches)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, switches.Close()) }()

	asking, err := s.allocationsOfAsking(ctx)
	if err != nil {
		return c, err
	}
	before, err := s.tell(ctx, calls, switches)
	if err != nil {
		return c, err
	}
	if err := s.carry(ctx, s.sessions); err != nil {
		return c, err
	}
	after, err := s.tell(ctx, calls, switches)
	if err != nil {
		return c, err
	}
	per := func(n uint64) float64 { return float64(n) / float64(s.load.total(s.sessions)) }
	return Counts{
		Subject:         name,
		SystemCalls:     per(after.calls - before.calls),
		ContextSwitches: per(after.switches - before.switches),
		Packets:         per(after.packets - before.packets),
		Allocations:     per(after.allocations - min(after.allocations, before.allocations+asking)),
	}, nil
}

// told is what was counted at a moment.
type told struct{ calls, switches, packets, allocations uint64 }

func (s *stage) tell(ctx context.Context, calls, switches *testenv.Tally) (n told, err error) {
	if n.calls, err = calls.Total(); err != nil {
		return n, err
	}
	if n.switches, err = switches.Total(); err != nil {
		return n, err
	}
	if n.packets, err = s.packets(); err != nil {
		return n, err
	}
	n.allocations, err = s.allocations(ctx)
	return n, err
}

// packets returns how many packets the gateway has received and sent.
func (s *stage) packets() (sum uint64, err error) {
	err = s.env.Gateway.Enter(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			sum, err = countPackets(string(text))
		}
		return err
	})
	return sum, err
}

// countPackets adds up /proc/net/dev, without the loopback device.
func countPackets(text string) (sum uint64, err error) {
	for line := range strings.Lines(text) {
		device, figures, ok := strings.Cut(line, ":")
		words := strings.Fields(figures)
		if !ok || strings.TrimSpace(device) == "lo" {
			continue
		}
		if len(words) < 10 {
			return 0, fmt.Errorf("read /proc/net/dev: unexpected line %q", line)
		}
		for _, i := range []int{1, 9} { // packets received, packets sent
			n, err := strconv.ParseUint(words[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read /proc/net/dev: %w", err)
			}
			sum += n
		}
	}
	return sum, nil
}

// allocationsOfAsking returns how much memory is allocated for an answer to allocations
// itself.
func (s *stage) allocationsOfAsking(ctx context.Context) (uint64, error) {
	var least uint64
	last, err := s.allocations(ctx)
	for n := range 5 {
		if err != nil {
			break
		}
		var next uint64
		next, err = s.allocations(ctx)
		if n == 0 || next-last < least {
			least = next - last
		}
		last = next
	}
	return least, err
}

// allocations returns how many objects the inspector has allocated so far; 0 where there
// are no metrics.
func (s *stage) allocations(ctx context.Context) (uint64, error) {
	if !s.metered {
		return 0, nil
	}
	conn, err := s.env.Gateway.Dial(ctx, netip.AddrPort{}, countsAt)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "go_memstats_mallocs_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return uint64(n), err
		}
	}
	return 0, errors.New("read metrics: no go_memstats_mallocs_total")
}
