package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
)

// kernel is a hand that holds items in memory.
type kernel struct {
	items map[string]plan.Item
	fail  map[string]bool // by key: cannot be made
}

func (*kernel) Name() string        { return "kernel" }
func (*kernel) Owns(plan.Kind) bool { return true }
func (k *kernel) Have() ([]plan.Item, error) {
	return slices.Collect(maps.Values(k.items)), nil
}

func (k *kernel) Add(i plan.Item) error {
	if k.fail[i.Key()] {
		return errors.New("refused")
	}
	k.items[i.Key()] = i
	return nil
}
func (k *kernel) Replace(_, i plan.Item) error { return k.Add(i) }
func (k *kernel) Remove(i plan.Item) error     { delete(k.items, i.Key()); return nil }

// pins are the pins of the kernel side.
type pins struct {
	lost     []string
	restored int
	held     bool
}

func (p *pins) Follow() error  { p.held = true; return nil }
func (p *pins) Close() error   { p.held = false; return nil }
func (p *pins) Lost() []string { return p.lost }
func (p *pins) Restore() ([]string, error) {
	lost := p.lost
	p.lost = nil
	p.restored++
	return lost, nil
}

// notes are what the watcher left.
type notes struct {
	looks    int
	findings []string
	repairs  []string
}

func (n *notes) Looked(findings []string) error { n.looks++; n.findings = findings; return nil }
func (n *notes) Repaired(texts ...string) error { n.repairs = append(n.repairs, texts...); return nil }

var (
	settings = plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Second}
	rule     = plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1, Table: 7, Priority: 3}
	jump     = plan.Filter{Family: plan.IPv4, Table: "nat", Chain: "POSTROUTING", Spec: plan.Jump("PORTREEVE-POSTROUTING"), Place: plan.First}
	role     = plan.Role{Interface: "ext0", Side: plan.ClientSide}
	table    = plan.Table{Family: plan.IPv4, Name: "nat"}
	wanted   = []plan.Item{plan.Objects{}, settings, table, rule, jump, role}
)

// bench is a watcher over a kernel side that was attached.
type bench struct {
	*testing.T
	*Watcher
	kernel *kernel
	pins   *pins
	notes  *notes
	log    *bytes.Buffer
	dir    string
	want   []plan.Item
	inWay  []string // findings of the plan
	locked bool
	turn   bool
	opened int // under the lock

	unmounted string
}

func attached(t *testing.T) *bench {
	b := &bench{
		T: t, kernel: &kernel{map[string]plan.Item{}, map[string]bool{}}, pins: &pins{}, notes: &notes{}, log: &bytes.Buffer{},
		dir: filepath.Join(t.TempDir(), "run"), want: wanted, turn: true,
	}
	b.attach()
	b.Watcher = New(Options{
		Open: b.open, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Plan: func(*config.Config) ([]plan.Item, []string, error) { return b.want, b.inWay, nil },
		Turn: func(bool) bool { return b.turn },
	})
	b.look()
	return b
}

func (b *bench) path() string { return filepath.Join(b.dir, "1") }

func (b *bench) attach() {
	b.Helper()
	b.must(os.MkdirAll(b.dir, 0o700))
	if _, err := b.runner().Run(b.want); err != nil {
		b.Fatal(err)
	}
	b.must(apply.NewMemory(b.path()).Keep(apply.Given{Name: "test.yaml", Data: config.Minimal}))
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) runner() *apply.Runner {
	b.Helper()
	j, err := apply.OpenJournal(b.path() + ".journal")
	b.must(err)
	return &apply.Runner{Hands: []apply.Hand{b.kernel}, Journal: j}
}

func (b *bench) open(change bool) (*Side, error) {
	if change && b.locked {
		return nil, apply.ErrLocked
	}
	if change {
		b.opened++
		os.MkdirAll(b.dir, 0o700) // as the lock does
	}
	return &Side{Runner: b.runner(), Memory: apply.NewMemory(b.path()), Pins: b.pins, Notes: b.notes, Close: func() error { return nil }, Unmounted: b.unmounted}, nil
}

func (b *bench) look() time.Duration { return b.Look() }

// whole checks that the kernel holds what is wanted.
func (b *bench) whole() {
	b.Helper()
	text := func(items []plan.Item) (all []string) {
		for _, i := range items {
			all = append(all, i.String())
		}
		slices.Sort(all)
		return all
	}
	have, _ := b.kernel.Have()
	if diff := cmp.Diff(text(b.want), text(have)); diff != "" {
		b.Errorf("the kernel side (-want +have):\n%s", diff)
	}
}

// While all is as it was attached the watcher only looks.
func TestWatcherLooksWithoutTheLock(t *testing.T) {
	b := attached(t)
	if b.notes.looks != 1 || b.opened != 0 || !b.pins.held || b.log.Len() > 0 || b.notes.repairs != nil {
		t.Errorf("%+v, opened %d times under the lock, log %s", b.notes, b.opened, b.log)
	}
}

// What others took away, displaced or spoiled is as before, told and counted.
func TestWatcherPutsBack(t *testing.T) {
	b := attached(t)
	delete(b.kernel.items, rule.Key())
	astray := jump
	astray.Astray = true
	b.kernel.items[jump.Key()] = astray
	b.look()
	b.whole()
	if len(b.notes.repairs) != 2 || !strings.Contains(b.log.String(), rule.String()) {
		t.Errorf("repairs %v, log %s", b.notes.repairs, b.log)
	}
	if b.look(); len(b.notes.repairs) != 2 {
		t.Errorf("again: %v", b.notes.repairs)
	}
}

// One thing that cannot be put back keeps nothing else from it, and is a finding until
// it can.
func TestWatcherTellsWhatItCannot(t *testing.T) {
	b := attached(t)
	b.kernel.items = map[string]plan.Item{plan.Objects{}.Key(): plan.Objects{}}
	b.kernel.fail[rule.Key()] = true
	now := time.Now()
	b.now = func() time.Time { return now }
	b.look()
	now = now.Add(passing)
	if pause := b.look(); pause != every {
		t.Errorf("the next look is after %s", pause)
	}
	if len(b.notes.findings) != 1 || !strings.Contains(b.notes.findings[0], "cannot put back + "+rule.String()+": ") {
		t.Errorf("findings %q", b.notes.findings)
	}
	if b.kernel.items[jump.Key()] == nil {
		t.Error("the jump was not put back")
	}
	b.look()
	if n := strings.Count(b.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("told %d times:\n%s", n, b.log)
	}
	delete(b.kernel.fail, rule.Key())
	b.look()
	b.look()
	b.whole()
	if len(b.notes.findings) > 0 || !strings.Contains(b.log.String(), "is as it was attached") {
		t.Errorf("findings %q, log %s", b.notes.findings, b.log)
	}
}

// What fails while others change the same is tried again soon, and never told.
func TestWatcherTellsNothingThatPasses(t *testing.T) {
	b := attached(t)
	b.kernel.items = map[string]plan.Item{plan.Objects{}.Key(): plan.Objects{}}
	b.kernel.fail[rule.Key()] = true
	for range mostRepairs {
		if pause := b.look(); pause != again {
			t.Errorf("the next look is after %s", pause)
		}
	}
	delete(b.kernel.fail, rule.Key())
	b.look()
	b.whole()
	if len(b.notes.findings) > 0 || strings.Contains(b.log.String(), "level=ERROR") {
		t.Errorf("findings %q, log %s", b.notes.findings, b.log)
	}
}

// A group of changes is seen by one look, behind its end; one that has none is seen too.
func TestWatcherWaitsForTheEndOfChanges(t *testing.T) {
	const step = quiet / 2
	for _, c := range []struct{ group, want time.Duration }{
		{0, quiet},
		{6 * step, 6*step + quiet},
		{2 * longest, longest},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := New(Options{})
			var others sync.WaitGroup
			others.Go(func() {
				for heard := time.Duration(0); heard <= c.group; heard += step {
					w.Hear()
					time.Sleep(step)
				}
			})
			begin := time.Now()
			w.wait(t.Context(), time.Minute)
			if took := time.Since(begin); took != c.want {
				t.Errorf("changes for %s: looked after %s, want %s", c.group, took, c.want)
			}
			others.Wait()
		})
	}
}

// What is in the way of the plan is told.
func TestWatcherTellsWhatIsInTheWay(t *testing.T) {
	b := attached(t)
	b.inWay = []string{"ext0 is missing"}
	b.look()
	if diff := cmp.Diff(b.inWay, b.notes.findings); diff != "" {
		t.Error(diff)
	}
}

// Others have the lock: they may be at the same thing.
func TestWatcherGivesWay(t *testing.T) {
	b := attached(t)
	delete(b.kernel.items, rule.Key())
	b.locked = true
	if pause := b.look(); pause != again {
		t.Errorf("the next look is after %s", pause)
	}
	if b.notes.repairs != nil || b.log.Len() > 0 {
		t.Errorf("%v, %s", b.notes.repairs, b.log)
	}
	b.locked = false
	b.look()
	b.whole()
}

// Another watcher works.
func TestWatcherWaitsForItsTurn(t *testing.T) {
	b := attached(t)
	b.turn = false
	delete(b.kernel.items, rule.Key())
	b.look()
	if b.notes.repairs != nil || !b.pins.held {
		t.Errorf("%v, pins held %t", b.notes.repairs, b.pins.held)
	}
}

// An inspector that takes over has more than what was attached; it stays.
func TestWatcherRemovesNothing(t *testing.T) {
	b := attached(t)
	union := plan.Settings{ClientMark: 5, OriginMark: 10, Heartbeat: 2 * time.Second}
	other := plan.Binding{Port: 25, Service: "other"}
	b.kernel.items[union.Key()] = union
	b.kernel.items[other.Key()] = other
	b.look()
	if b.kernel.items[other.Key()] == nil || b.kernel.items[union.Key()] != plan.Item(union) || b.notes.repairs != nil {
		t.Errorf("%v, %v", b.kernel.items, b.notes.repairs)
	}
	spoiled := settings
	spoiled.ClientMark = 4
	b.kernel.items[settings.Key()] = spoiled
	b.look()
	if b.kernel.items[settings.Key()] != plan.Item(settings) {
		t.Error("settings without the marks that are wanted stay")
	}
	gone := plan.Role{Interface: "gone/7", Side: plan.ClientSide}
	b.kernel.items[gone.Key()] = gone
	b.look()
	if b.kernel.items[gone.Key()] != nil {
		t.Error("the role of an interface that is gone stays")
	}
}

// After another attach that one is kept; after a detach, nothing; while a detach is under
// way, or was killed in the middle, nothing either.
func TestWatcherFollows(t *testing.T) {
	b := attached(t)
	b.want = slices.DeleteFunc(slices.Clone(wanted), func(i plan.Item) bool { return i == plan.Item(rule) })
	b.attach()
	b.look()
	b.whole()

	b.must(apply.NewMemory(b.path()).BeginDetach())
	delete(b.kernel.items, jump.Key())
	b.look()
	if b.notes.repairs != nil || b.pins.held {
		t.Errorf("during a detach: %v, pins held %t", b.notes.repairs, b.pins.held)
	}
	if _, err := b.runner().Clear(); err != nil {
		t.Fatal(err)
	}
	b.must(apply.NewMemory(b.path()).EndDetach())
	b.look()
	b.want = nil
	b.whole()
}

// A detach between two looks leaves what a wiped run directory does, but in the kernel.
func TestWatcherSeesADetachThatIsOver(t *testing.T) {
	b := attached(t)
	if _, err := b.runner().Clear(); err != nil {
		t.Fatal(err)
	}
	b.must(os.RemoveAll(b.dir))
	b.look()
	b.want = nil
	b.whole()
	if b.notes.repairs != nil || b.log.Len() > 0 {
		t.Errorf("%v, %s", b.notes.repairs, b.log)
	}
}

// Where the run directory was wiped its files come back, with who made what.
func TestWatcherOutlivesTheRunDirectory(t *testing.T) {
	b := attached(t)
	b.must(os.RemoveAll(b.dir))
	delete(b.kernel.items, rule.Key())
	b.look()
	b.look()
	b.whole()
	if !b.runner().Journal.Holds(table) {
		t.Error("it is not known any more who made the table")
	}
	if _, kept, err := apply.NewMemory(b.path()).Given(); !kept || err != nil {
		t.Errorf("what was attached is not remembered: %v", err)
	}
}

// What was removed since the last look does not come back into the journal, where it would
// count as lost.
func TestWatcherWritesWhatIsThere(t *testing.T) {
	b := attached(t)
	older := plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1, Table: 8, Priority: 3}
	b.want = append(slices.Clone(wanted), older)
	b.attach()
	b.look()
	b.want = wanted
	b.attach()
	b.must(os.RemoveAll(b.dir))
	delete(b.kernel.items, rule.Key())
	b.look()
	b.look()
	b.whole()
	if _, lost, err := b.runner().Have(); len(lost) > 0 || err != nil {
		t.Errorf("lost: %v, %v", lost, err)
	}
	if !b.runner().Journal.Holds(table) || !b.runner().Journal.Holds(rule) {
		t.Errorf("the journal has %v", b.runner().Journal.Items())
	}
}

// Nor is another configuration undone, of which the run directory has lost every word
// before the watcher has seen it.
func TestWatcherDoesNotWorkAgainstWhatItHasNotSeen(t *testing.T) {
	for _, there := range []plan.Item{
		plan.Binding{Port: 25, Service: "other"},
		plan.Service{Name: "other"},
		plan.Settings{ClientMark: 5, OriginMark: 10, Heartbeat: time.Second},
	} {
		b := attached(t)
		b.must(os.RemoveAll(b.dir))
		b.kernel.items[there.Key()] = there
		delete(b.kernel.items, rule.Key())
		b.look()
		if b.kernel.items[there.Key()] != there || b.kernel.items[rule.Key()] != nil || !strings.Contains(b.log.String(), "run portreeve attach again") {
			t.Errorf("%s: log %s", there, b.log)
		}
		if _, kept, _ := apply.NewMemory(b.path()).Given(); kept {
			t.Errorf("%s: the configuration before counts again", there)
		}
	}
}

// A watcher that stands by knows and holds what the one that works does: that may be
// killed when the run directory was just wiped.
func TestWatcherFollowsAnother(t *testing.T) {
	b := attached(t)
	b.Watcher = New(b.Options)
	b.pins.held, b.turn = false, false
	b.must(b.Follow())
	if !b.pins.held || b.opened > 0 || b.notes.looks != 1 {
		t.Errorf("pins held %t, opened %d times under the lock, looked %d times", b.pins.held, b.opened, b.notes.looks)
	}
	b.must(os.RemoveAll(b.dir))
	delete(b.kernel.items, rule.Key())
	b.must(b.Follow()) // before anybody has put it back
	b.turn = true
	b.look()
	b.look()
	b.whole()
	if _, kept, err := apply.NewMemory(b.path()).Given(); !kept || err != nil {
		t.Errorf("what was attached is not remembered: %v", err)
	}
	b.must(apply.NewMemory(b.path()).BeginDetach())
	b.must(b.Follow())
	if b.pins.held {
		t.Error("the pins are held during a detach")
	}
}

// They come back, too, where the watcher ends before its next look.
func TestWatcherLooksALastTime(t *testing.T) {
	b := attached(t)
	b.must(os.RemoveAll(b.dir))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Watcher.Run(ctx)
	if !b.runner().Journal.Holds(table) {
		t.Error("it is not known any more who made the table")
	}
}

// So does the journal where it alone was removed.
func TestWatcherOutlivesTheJournal(t *testing.T) {
	b := attached(t)
	b.must(os.Remove(b.path() + ".journal"))
	b.look()
	if !b.runner().Journal.Holds(table) {
		t.Error("it is not known any more who made the table")
	}
}

// A watcher that has just begun holds the pins before it mends anything: meanwhile they
// may get lost.
func TestWatcherHoldsPinsFirst(t *testing.T) {
	b := attached(t)
	b.Watcher = New(b.Options)
	b.pins.held = false
	delete(b.kernel.items, rule.Key())
	b.locked = true
	b.look()
	if !b.pins.held {
		t.Error("they are not held")
	}
}

// An attach that could not write what it was given is not undone by what was before.
func TestWatcherDoesNotWorkAgainstAnAttach(t *testing.T) {
	b := attached(t)
	b.want = slices.DeleteFunc(slices.Clone(wanted), func(i plan.Item) bool { return i == plan.Item(rule) })
	b.attach()
	b.must(os.Remove(b.path() + ".config"))
	b.look()
	if b.kernel.items[rule.Key()] != nil || !strings.Contains(b.log.String(), "run portreeve attach again") {
		t.Errorf("log %s", b.log)
	}
}

// Where nothing was attached since, its file was removed, and comes back.
func TestWatcherOutlivesTheConfiguration(t *testing.T) {
	b := attached(t)
	b.must(os.Remove(b.path() + ".config"))
	delete(b.kernel.items, rule.Key())
	b.look()
	b.look()
	b.whole()
	if _, kept, err := apply.NewMemory(b.path()).Given(); !kept || err != nil {
		t.Errorf("what was attached is not remembered: %v", err)
	}
}

// Pins come first: what hangs on them cannot be read without.
func TestWatcherRestoresPins(t *testing.T) {
	b := attached(t)
	b.pins.lost = []string{"services", "bindings"}
	b.kernel.items = map[string]plan.Item{}
	b.look()
	if b.pins.restored != 1 || len(b.kernel.items) > 0 {
		t.Errorf("restored %d times, then there are %v", b.pins.restored, b.kernel.items)
	}
	select {
	case <-b.heard:
	default:
		t.Error("no look follows")
	}
	b.kernel.items[plan.Objects{}.Key()] = plan.Objects{}
	b.look()
	b.whole()
}

// What it cannot mend without stopping mail it tells: the programs of another release, and
// lost pins that it does not hold. Beside those it puts back what needs none.
func TestWatcherTouchesNothingOfAnother(t *testing.T) {
	for want, c := range map[string]struct {
		objects plan.Objects
		put     []plan.Item
	}{
		"the pins of the kernel side are lost": {put: []plan.Item{table, rule, jump}},
		"another release":                      {objects: plan.Objects{Fault: "programs of another build", Other: true}},
	} {
		b := attached(t)
		b.kernel.items = map[string]plan.Item{}
		left := c.put
		if c.objects.Other {
			b.kernel.items[c.objects.Key()] = c.objects
			left = []plan.Item{c.objects}
		}
		b.look()
		b.want = left
		b.whole()
		if len(b.notes.findings) != 1 || !strings.Contains(b.notes.findings[0], want) {
			t.Errorf("%s: %q", want, b.notes.findings)
		}
	}
}

// The same where the BPF file system is unmounted, which is told.
func TestWatcherWorksWithoutPins(t *testing.T) {
	b := attached(t)
	b.kernel.items = map[string]plan.Item{}
	b.unmounted = "no BPF file system"
	b.look()
	b.want = []plan.Item{table, rule, jump}
	b.whole()
	if diff := cmp.Diff([]string{b.unmounted}, b.notes.findings); diff != "" {
		t.Error(diff)
	}
}

// It does not fight for ever with whoever takes the same thing away.
func TestWatcherGivesUpForAWhile(t *testing.T) {
	b := attached(t)
	now := time.Now()
	b.now = func() time.Time { return now }
	for range mostRepairs + 3 {
		delete(b.kernel.items, rule.Key())
		b.look()
	}
	now = now.Add(passing)
	b.look()
	if len(b.notes.repairs) != mostRepairs || len(b.notes.findings) != 1 || !strings.Contains(b.notes.findings[0], fmt.Sprintf("put back %d times within a minute", mostRepairs)) {
		t.Errorf("%d repairs, findings %q", len(b.notes.repairs), b.notes.findings)
	}
	now = now.Add(repairTime)
	b.look()
	b.whole()
}
