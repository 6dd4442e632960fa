package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

var (
	operationsFlag   = flag.Int("operations", 20, "how many `operations` there are at most")
	withinFlag       = flag.Duration("within", 18*time.Second, "after this time no other operation is begun; 0: never")
	seedFlag         = flag.Uint64("seed", 9, "what they are drawn from; 0: the clock")
	environmentsFlag = flag.Int("environments", 2, "how many gateways there are at once")
	limitFlag        = flag.Duration("limit", 10*time.Second, "how long mail may stop where it is not meant to")
)

func TestMain(m *testing.M) { testenv.Main(m, &program) }

const (
	// enough is how many gateways may come to grief until no other is begun.
	enough = 12
	// listed is how many operations before a failure are shown.
	listed = 20
)

// TestChaos lets random operations happen to gateways that carry mail.
func TestChaos(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	r := &run{t: t, seed: seed, began: time.Now(), tally: map[string]int{}, slowest: map[string]time.Duration{}}
	r.left.Store(int64(*operationsFlag))
	var going sync.WaitGroup
	for range *environmentsFlag {
		going.Go(r.gateways)
	}
	going.Wait()
	r.sum()
}

// run is one run of the test.
type run struct {
	t      *testing.T
	began  time.Time
	seed   uint64
	left   atomic.Int64
	number atomic.Int64
	failed atomic.Int64

	mu      sync.Mutex
	tally   map[string]int
	slowest map[string]time.Duration // until mail flowed again, by operation
}

// gateways lets operations happen on a gateway, and on another after a failure: what
// state the first is in is not known then.
func (r *run) gateways() {
	for r.left.Load() > 0 && !r.over() && r.failed.Load() < enough {
		number := int(r.number.Add(1))
		s, err := newStage(r.t.Context(), r.seed, number)
		if err != nil {
			r.t.Errorf("gateway %d cannot be made: %v", number, err)
			return
		}
		err = r.happen(s)
		if err == nil && len(s.ledger.Failures()) == 0 {
			err = s.end()
		}
		r.report(s, number, err)
		if err := s.close(); err != nil {
			r.t.Errorf("gateway %d: %v", number, err)
		}
	}
}

// happen lets operations happen until there are no more, or something was broken.
func (r *run) happen(s *stage) error {
	for len(s.ledger.Failures()) == 0 && !r.over() && r.left.Add(-1) >= 0 {
		if err := r.one(s); err != nil {
			return err
		}
	}
	return nil
}

// over reports whether the time is.
func (r *run) over() bool { return *withinFlag > 0 && time.Since(r.began) > *withinFlag }

// one lets one operation happen, or two at once, and waits until mail flows again.
func (r *run) one(s *stage) error {
	since := time.Now()
	all, err := s.beginSome()
	if err != nil {
		return err
	}
	stops := slices.ContainsFunc(all, func(b begun) bool { return b.stops || b.lifts && s.strict }) // with the ban the way of neighbours is gone
	if missing, _ := s.ledger.Flows(since); !stops && len(missing) > 0 && time.Since(since) > *limitFlag {
		s.ledger.Fail("for %s no mail by %v during: %s", time.Since(since), missing, named(all))
	}
	held := time.Duration(s.rand.IntN(4000)) * time.Millisecond
	if !stops && s.chance(50) {
		r.await(s, all)
	} else {
		time.Sleep(held)
	}
	for _, b := range slices.Backward(all) {
		if b.end != nil {
			s.note("  the end of: %s", b.name)
			err = errors.Join(err, b.end())
		}
	}
	if err != nil {
		return err
	}
	took := r.await(s, all)
	s.settled()
	if slices.ContainsFunc(all, func(b begun) bool { return b.class == verbs || b.class == holders || b.class == processes }) {
		s.changed = time.Now()
	}
	s.shut()
	if s.chance(30) || slices.ContainsFunc(all, func(b begun) bool { return b.class == pinned || b.class == runDir }) {
		s.whole()
	}
	r.t.Logf("gateway %d: %s: mail after %s", s.number, named(all), took.Round(10*time.Millisecond))
	return nil
}

// named names operations.
func named(all []begun) string {
	var names []string
	for _, b := range all {
		names = append(names, b.name)
	}
	return strings.Join(names, " + ")
}

// beginSome begins an operation, and in one of five cases another beside it.
func (s *stage) beginSome() ([]begun, error) {
	o := s.choose(nil)
	var beside *operation
	if s.chance(20) && !o.opens {
		beside = s.choose(o)
	}
	s.crowded = beside != nil
	first, err := s.begin(o)
	if err != nil || beside == nil {
		return []begun{first}, err
	}
	time.Sleep(time.Duration(s.rand.IntN(500)) * time.Millisecond)
	second, err := s.begin(beside)
	return []begun{first, second}, err
}

// await waits until mail flows again by all ways.
func (r *run) await(s *stage, all []begun) time.Duration {
	took, missing := s.clients.await(s.ctx, *limitFlag)
	s.note("  mail after %s", took.Round(10*time.Millisecond))
	name := named(all)
	r.mu.Lock()
	r.slowest[name] = max(r.slowest[name], took)
	r.mu.Unlock()
	if len(missing) > 0 {
		s.ledger.Fail("for %s no mail by %v after: %s", *limitFlag, missing, name)
	}
	return took
}

// whole sees that within the limit nothing of what was attached is missing, nor what is
// known of it.
func (s *stage) whole() {
	limit := time.Now().Add(*limitFlag)
	for {
		journals, _ := filepath.Glob(s.env.RunDir + "/*.journal") // the patterns are good
		memories, _ := filepath.Glob(s.env.RunDir + "/*.config")
		var missing string
		for _, f := range s.manager.attached() {
			said, err := s.verb("attach", "-c", s.mustWrite(f), "--dry-run")
			if len(journals) > 0 && len(memories) > 0 && !lacks(said, err) {
				return
			}
			missing += fmt.Sprintf("%v\n%s", err, said)
		}
		if time.Now().After(limit) {
			s.ledger.Fail("for %s something that was attached is missing (files: %v): %s", *limitFlag, append(journals, memories...), missing)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// lacks reports whether a dry run of attach would put something back. Settings may be
// those of two files, and what an older inspector has needed may have been left: then
// attach is not allowed to take it away.
func lacks(said string, err error) bool {
	changes := 0
	for line := range strings.Lines(said) {
		op, what, _ := strings.Cut(line, " ")
		switch {
		case op == "+" || op == "~" && !strings.HasPrefix(what, "settings "):
			return true
		case op == "-" || op == "~":
			changes++
		}
	}
	return err != nil && changes == 0
}

// end takes portreeve away, and sees that the gateway is as it was in the beginning.
func (s *stage) end() error {
	s.note("the end")
	if err := s.endBeside(); err != nil {
		return err
	}
	for name := range s.remade { // as it was, or everything would be different
		before := s.device[name]
		if err := errors.Join(s.does("ip link del "+name), s.remake(name, &before)); err != nil {
			return err
		}
	}
	s.clients.close()
	if err := s.manager.stop(stopPatience); err != nil {
		s.ledger.Fail("%v", err)
	}
	s.ledger.Pass(true)
	if err := s.detach(); err != nil {
		s.ledger.Fail("%v", err)
	}
	s.leaves(5 * time.Second)
	return errors.Join(s.ghosts(), s.same())
}

// ghosts sees that no process is left.
func (s *stage) ghosts() error {
	all, err := s.processes()
	for limit := time.Now().Add(*limitFlag); len(all) > 0 && err == nil && time.Now().Before(limit); all, err = s.processes() {
		time.Sleep(100 * time.Millisecond)
	}
	if len(all) > 0 {
		s.ledger.Fail("processes are left: %v", all)
	}
	return err
}

// same compares the gateway with what it was in the beginning. The order of tables and
// routes is not that of the administrator: he has made some anew.
func (s *stage) same() error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	after, err := s.env.Snapshot(ctx)
	if err != nil {
		return err
	}
	diff := strings.Split(s.before.Diff(after), "\n")
	var left []string
	for n, line := range diff {
		if strings.Contains(line, "the same lines in another order") || n+1 < len(diff) && strings.Contains(diff[n+1], "the same lines in another order") {
			continue
		}
		left = append(left, line)
	}
	if text := strings.Join(left, "\n"); strings.TrimSpace(text) != "" {
		s.ledger.Fail("the gateway is not as it was:\n%s", text)
	}
	rules, err := s.listRules()
	if rules != s.rules {
		s.ledger.Fail("the administrator's rules were:\n%s\nand are:\n%s", s.rules, rules)
	}
	return err
}

// report says what was broken on a gateway, and what happened before.
func (r *run) report(s *stage, number int, err error) {
	r.mu.Lock()
	for what, count := range s.ledger.Tally() {
		r.tally[what] += count
	}
	r.mu.Unlock()
	failures := s.ledger.Failures()
	if len(failures) == 0 && err == nil {
		r.t.Logf("gateway %d: %d lines, the last: %s", number, len(s.noted), s.noted[len(s.noted)-1])
		return
	}
	r.failed.Add(1)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, gateway %d:\n", r.seed, number)
	if err != nil {
		fmt.Fprintf(&b, "cannot go on: %v\n", err)
	}
	for _, f := range failures[:min(len(failures), 8)] {
		fmt.Fprintf(&b, "BROKEN: %s\n", f)
	}
	fmt.Fprintf(&b, "%d failures; what happened before:\n  %s\n%s", len(failures), strings.Join(s.noted[max(0, len(s.noted)-3*listed):], "\n  "), s.show())
	r.t.Error(b.String())
}

// sum says what was tried, so that a run that tests nothing shows.
func (r *run) sum() {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(r.tally)) {
		fmt.Fprintf(&b, "%s: %d; ", what, r.tally[what])
	}
	names := slices.SortedFunc(maps.Keys(r.slowest), func(a, b string) int { return int(r.slowest[b] - r.slowest[a]) })
	for _, n := range names[:min(len(names), 25)] {
		fmt.Fprintf(&b, "\n%8s until mail flowed after %s", r.slowest[n].Round(10*time.Millisecond), n)
	}
	r.t.Log(b.String())
}
