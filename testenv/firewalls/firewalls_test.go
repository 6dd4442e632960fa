package firewalls

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

var (
	rulesetsFlag = flag.Int("rulesets", 10, "how many `rulesets` are tried")
	seedFlag     = flag.Uint64("seed", 18, "what they are drawn from; 0: the clock")
	onlyFlag     = flag.Int("ruleset", -1, "try this one of the seed alone")
	stagesFlag   = flag.Int("stages", 2, "how many are tried at once, each on a network of its own")
)

func TestMain(m *testing.M) { testenv.Main(m, &program) }

const (
	// short is how long a probe waits for each of its tries. Who is stopped costs that;
	// a SYN is repeated after a second only.
	short = 350 * time.Millisecond
	// long is for a second look, where the first one found something: a busy machine
	// stops nobody for so long.
	long = 900 * time.Millisecond
	// patience is how long a ruleset may take to be judged, twice.
	patience = 2 * time.Minute
	// enough is how many rulesets that cannot be tried end the test.
	enough = 4
	// listed is how many failures of a ruleset are.
	listed = 8
	// explained is how many of the rulesets that fail are made smaller, and explaining
	// how long one of them is.
	explained  = 4
	explaining = time.Minute
)

// TestFirewalls tries random rulesets of administrators: whose verdict changes when
// portreeve is attached?
func TestFirewalls(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	first, end := 0, *rulesetsFlag
	if *onlyFlag >= 0 {
		first, end = *onlyFlag, *onlyFlag+1
	}
	t.Logf("seed %d", seed)
	run := &run{t: t, seed: seed, end: end}
	run.next.Store(int64(first))
	var playing sync.WaitGroup
	for range min(*stagesFlag, end-first) {
		playing.Go(run.stage)
	}
	playing.Wait()
	t.Logf("%d rulesets, %s", end-first, run.tally.String())
}

// run is one run of the test.
type run struct {
	t      *testing.T
	seed   uint64
	end    int
	next   atomic.Int64
	failed atomic.Int64
	broken atomic.Int64 // rulesets that could not be tried
	tally  tally
}

// stage tries rulesets on a network of its own, and on another where that is spoilt.
func (u *run) stage() {
	for {
		s, err := newStage(u.t.Context())
		if err != nil {
			u.t.Error(err)
			return
		}
		done := u.perform(s)
		if err := s.close(); err != nil {
			u.t.Error(err)
		}
		if done || u.broken.Add(1) >= enough {
			return
		}
	}
}

// perform tries rulesets until there are no more, or until one cannot be tried: what
// is left on the gateway is not known then.
func (u *run) perform(s *stage) (done bool) {
	for {
		number := int(u.next.Add(1)) - 1
		if number >= u.end {
			return true
		}
		r := Draw(u.seed, number)
		if err := u.try(s, r); err != nil {
			u.t.Errorf("%s\n%s  cannot be tried: %v", r, r.Show(s.book), err)
			return false
		}
	}
}

// try judges a ruleset, and once more, with more patience, where it fails.
func (u *run) try(s *stage, r *Ruleset) error {
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	o, failures, err := s.judge(ctx, r, short)
	if err != nil || len(failures) == 0 {
		u.tally.add(r, o)
		return err
	}
	once := failures
	if o, failures, err = s.judge(ctx, r, long); err != nil {
		return err
	}
	u.tally.add(r, o)
	if len(failures) == 0 {
		u.t.Logf("%s: failed once, and not with more patience: %s", r, once[0])
		return nil
	}
	return u.report(s, r, o, failures)
}

// judge plays a ruleset and judges what came of it.
func (s *stage) judge(ctx context.Context, r *Ruleset, patience time.Duration) (*Outcome, []Failure, error) {
	o, err := s.play(ctx, r, patience)
	if err != nil {
		return nil, nil, err
	}
	failures, err := o.Judge(r, func(p Probe) ([]Rule, error) {
		return s.culprits(ctx, r, p, o.With[p].Through, patience)
	})
	return o, failures, err
}

// report shows a ruleset that failed, and the least of it that still does.
func (u *run) report(s *stage, r *Ruleset, o *Outcome, failures []Failure) (err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s", r, r.Show(s.book))
	for _, f := range failures[:min(len(failures), listed)] {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	if more := len(failures) - listed; more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	b.WriteString(shown(o.Findings))
	if u.failed.Add(1) <= explained {
		err = s.explain(u.t.Context(), &b, r, failures)
	}
	u.t.Error(b.String())
	return err
}

// shown lists the findings that warn.
func shown(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		if f.warns() {
			fmt.Fprintf(&b, "  doctor: %s\n", f)
		}
	}
	return b.String()
}

// distinct are failures of different causes, as far as can be told.
func distinct(failures []Failure) (some []Failure) {
	for _, f := range failures {
		if !slices.ContainsFunc(some, f.alike) {
			some = append(some, f)
		}
	}
	return some
}

// explain shows the least of a ruleset that fails in each of the ways in which it does.
func (s *stage) explain(ctx context.Context, b *strings.Builder, r *Ruleset, failures []Failure) error {
	until := time.Now().Add(explaining)
	for _, f := range distinct(failures) {
		less, f, findings, err := s.reduce(ctx, r, f, until)
		if err != nil {
			return err
		}
		if less != r {
			fmt.Fprintf(b, "less that fails so:\n%s  %s\n%s", less.Show(s.book), f, shown(findings))
		}
	}
	return nil
}

// reduce makes a ruleset smaller, step by step, for as long as it fails in the same way.
func (s *stage) reduce(ctx context.Context, r *Ruleset, failure Failure, until time.Time) (less *Ruleset, last Failure, findings []Finding, err error) {
	less, last = r, failure
	for n := 0; time.Now().Before(until); {
		smaller := less.Smaller(n)
		if smaller == nil {
			break
		}
		o, again, err := s.judge(ctx, smaller, short)
		if err != nil {
			return less, last, findings, err
		}
		if i := slices.IndexFunc(again, failure.alike); i >= 0 {
			less, last, findings = smaller, again[i], o.Findings
		} else {
			n++
		}
	}
	return less, last, findings, nil
}

// tally counts what probes met, so that a run that tests nothing shows.
type tally struct {
	sync.Mutex
	served, banned, policed, unrelated int
}

func (y *tally) add(r *Ruleset, o *Outcome) {
	if o == nil {
		return
	}
	y.Lock()
	defer y.Unlock()
	for p, v := range o.AsItIs {
		switch {
		case p.Way == Unrelated:
			y.unrelated++
		case v.Through == p.Times:
			y.served++
		case o.Relaxed[p].Through == p.Times:
			y.policed++
		default:
			y.banned++
		}
	}
}

func (y *tally) String() string {
	return fmt.Sprintf("who wanted to send mail and was let in: %d, banned: %d, stopped by a policy: %d; unrelated: %d", y.served, y.banned, y.policed, y.unrelated)
}
