package apply

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// kernel is a Hand that holds every kind of item in memory and can be told to
// fail.
type kernel struct {
	items  map[string]plan.Item
	fail   map[string]bool // by "+ item", as changes print
	steps  []string
	broken bool // an Add that fails leaves its item behind, half made
}

func newKernel(items ...plan.Item) *kernel {
	k := &kernel{items: map[string]plan.Item{}, fail: map[string]bool{}}
	for _, i := range items {
		k.items[i.Key()] = i
	}
	return k
}

func (k *kernel) Name() string        { return "kernel" }
func (k *kernel) Owns(plan.Kind) bool { return true }
func (k *kernel) Have() ([]plan.Item, error) {
	if k.fail["have"] {
		return nil, errors.New("no answer")
	}
	return slices.Collect(maps.Values(k.items)), nil
}

func (k *kernel) step(c plan.Change) error {
	k.steps = append(k.steps, c.String())
	if k.fail[c.String()] {
		return errors.New("refused")
	}
	return nil
}

func (k *kernel) Add(i plan.Item) error {
	err := k.step(plan.Change{Op: plan.Add, Item: i})
	if err == nil || k.broken {
		k.items[i.Key()] = i
	}
	return err
}

func (k *kernel) Replace(old, i plan.Item) error {
	if err := k.step(plan.Change{Op: plan.Replace, Item: i, Old: old}); err != nil {
		return err
	}
	k.items[i.Key()] = i
	return nil
}

func (k *kernel) Remove(i plan.Item) error {
	if err := k.step(plan.Change{Op: plan.Remove, Item: i}); err != nil {
		return err
	}
	delete(k.items, i.Key())
	return nil
}

func (k *kernel) state() []string {
	var s []string
	for _, i := range k.items {
		s = append(s, i.String())
	}
	slices.Sort(s)
	return s
}

var wanted = []plan.Item{
	plan.Objects{},
	plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: time.Second},
	plan.Service{Name: "mx"},
	plan.Route{Family: plan.IPv4, Table: 7},
	plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1, Table: 7, Priority: 3},
	plan.Binding{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Port: 25, Service: "mx", Transit: true},
	plan.Lookup{},
	plan.Qdisc{Interface: "ext0"},
	plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: true},
}

func runner(t *testing.T, k *kernel) *Runner {
	t.Helper()
	return reopen(t, k, filepath.Join(t.TempDir(), "journal"))
}

func reopen(t *testing.T, k *kernel, path string) *Runner {
	t.Helper()
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	return &Runner{Hands: []Hand{k}, Journal: j}
}

func run(t *testing.T, r *Runner, want []plan.Item) []plan.Change {
	t.Helper()
	changes, err := r.Run(want)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func TestSecondRunChangesNothing(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	if n := len(run(t, r, wanted)); n != len(wanted) {
		t.Errorf("first run made %d changes, want %d", n, len(wanted))
	}
	if changes := run(t, reopen(t, k, r.Journal.path), wanted); len(changes) != 0 {
		t.Errorf("second run changed %v", changes)
	}
}

func TestClearLeavesNothing(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	again := reopen(t, k, r.Journal.path)
	if _, err := again.Clear(); err != nil {
		t.Fatal(err)
	}
	if len(k.items) != 0 {
		t.Errorf("left behind: %v", k.state())
	}
	if files, _ := filepath.Glob(r.Journal.path + "*"); len(files) != 0 {
		t.Errorf("journal left behind: %v", files)
	}
}

func TestTrafficMovesLastAndIsLetGoFirst(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	last := k.steps[len(k.steps)-1]
	if !strings.HasPrefix(last, "+ link clsact") {
		t.Errorf("last step of attach is %q", last)
	}
	k.steps = nil
	if _, err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(k.steps[0], "- link clsact") {
		t.Errorf("first step of detach is %q", k.steps[0])
	}
}

// A step that fails, half made or not, leaves the kernel as it was found,
// whether that was empty or an earlier plan.
func TestFailureUndoes(t *testing.T) {
	for _, start := range [][]plan.Item{nil, wanted[:5]} {
		for _, broken := range []bool{false, true} {
			for n := range wanted {
				t.Run(fmt.Sprintf("from %d items, step %d, half made %v", len(start), n, broken), func(t *testing.T) {
					k := newKernel()
					r := runner(t, k)
					if start != nil {
						run(t, r, start)
					}
					if n < len(start) {
						t.Logf("%s is there already", wanted[n])
						return
					}
					before := k.state()
					k.broken = broken
					k.fail["+ "+wanted[n].String()] = true
					if _, err := r.Run(wanted); err == nil || !strings.Contains(err.Error(), wanted[n].String()) {
						t.Errorf("error %v does not name %s", err, wanted[n])
					}
					if diff := cmp.Diff(before, k.state()); diff != "" {
						t.Errorf("not as found:\n%s", diff)
					}
				})
			}
		}
	}
}

// crash stands for a kill -9: nothing after it runs.
type crash struct{}

// A runner that dies before, in or after any step leaves only things that a
// later Clear finds, and shared things of others are left alone.
func TestCrashAtEachStepThenClear(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		for n := range len(wanted) * 2 {
			t.Run(fmt.Sprintf("step %d, foreign qdisc %v", n, foreign), func(t *testing.T) {
				k := newKernel()
				if foreign {
					k.items[plan.Qdisc{Interface: "ext0"}.Key()] = plan.Qdisc{Interface: "ext0"}
				}
				before := k.state()
				r := runner(t, k)
				r.Hands = []Hand{&mortal{kernel: k, left: n}}
				die(func() { r.Run(wanted) })
				if _, err := reopen(t, k, r.Journal.path).Clear(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, k.state()); diff != "" {
					t.Errorf("left behind:\n%s", diff)
				}
			})
		}
	}
}

func die(f func()) {
	defer func() {
		if r := recover(); r != nil && r != any(crash{}) {
			panic(r)
		}
	}()
	f()
}

// mortal crashes around its Adds: before the first, after it, before the
// second and so on.
type mortal struct {
	*kernel
	left int
}

func (m *mortal) Add(i plan.Item) error {
	m.tick()
	err := m.kernel.Add(i)
	m.tick()
	return err
}

func (m *mortal) tick() {
	if m.left == 0 {
		panic(crash{})
	}
	m.left--
}

func TestForeignSharedItemIsNeitherMadeNorRemoved(t *testing.T) {
	qdisc := plan.Qdisc{Interface: "ext0"}
	k := newKernel(qdisc)
	r := runner(t, k)
	run(t, r, wanted)
	if slices.Contains(k.steps, "+ "+qdisc.String()) {
		t.Error("made what was there")
	}
	if _, err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{qdisc.String()}, k.state()); diff != "" {
		t.Error(diff)
	}
}

func TestClearTriesEveryStep(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	rule := wanted[4]
	k.fail["- "+rule.String()] = true
	if _, err := r.Clear(); err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff([]string{rule.String()}, k.state()); diff != "" {
		t.Error(diff)
	}
	k.fail = nil
	if _, err := reopen(t, k, r.Journal.path).Clear(); err != nil || len(k.items) != 0 {
		t.Errorf("second try: %v, left %v", err, k.state())
	}
}

func TestRunReplacesInPlace(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	open := slices.Clone(wanted)
	open[2] = plan.Service{Name: "mx", Open: true}
	changes := run(t, r, open)
	if len(changes) != 1 || changes[0].String() != "~ service mx fail open" {
		t.Errorf("changes %v", changes)
	}
}

func TestRunNeedsEveryHandToAnswer(t *testing.T) {
	k := newKernel()
	k.fail["have"] = true
	if _, err := runner(t, k).Run(wanted); err == nil || len(k.steps) != 0 {
		t.Errorf("err %v after steps %v", err, k.steps)
	}
}

// Prepare leaves alone what is steered, and makes ready what will be.
func TestPrepareMovesNoTraffic(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	renamed := slices.Clone(wanted)
	renamed[2] = plan.Service{Name: "mail"}
	renamed[5] = plan.Binding{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Port: 25, Service: "mail", Transit: true}
	k.steps = nil
	if err := r.Prepare(renamed); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"+ service mail fail closed"}, k.steps); diff != "" {
		t.Errorf("steps of Prepare:\n%s", diff)
	}
	run(t, r, renamed)
	k.steps = nil
	if run(t, r, renamed); len(k.steps) != 0 {
		t.Errorf("run again: %v", k.steps)
	}
	if _, err := r.Clear(); err != nil || len(k.items) != 0 {
		t.Errorf("clear: %v, left %v", err, k.state())
	}
}

// While one inspector takes over from another, what moves is where connections
// go; what the older one relies on goes when Run is asked for.
func TestMoveKeepsWhatTheOlderInspectorReliesOn(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	other := slices.Clone(wanted)
	other[1] = plan.Settings{ClientMark: 4, OriginMark: 2, Heartbeat: time.Minute}
	other[2] = plan.Service{Name: "mail"}
	other[4] = plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 4, Table: 7, Priority: 3}
	other[5] = plan.Binding{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Port: 25, Service: "mail", Transit: true}
	for _, step := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"Prepare", func() error { return r.Prepare(other) }, []string{
			"~ settings client mark 0x5, origin mark 0x2, heartbeat 1m0s",
			"+ service mail fail closed",
			"+ rule IPv4 pref 3 iif ext0 fwmark 0x4/0x4 lookup 7",
		}},
		{"Move", func() error {
			relied, err := r.Move(other)
			if !relied {
				t.Error("nothing is said to be relied on")
			}
			return err
		}, []string{
			"~ binding 192.0.2.1/32 port 25 to nobody",
			"+ binding 192.0.2.2/32 port 25 to mail transit",
		}},
		{"Run", func() error { _, err := r.Run(other); return err }, []string{
			"~ settings client mark 0x4, origin mark 0x2, heartbeat 1m0s",
			"- binding 192.0.2.1/32 port 25 to nobody",
			"- rule IPv4 pref 3 iif ext0 fwmark 0x1/0x1 lookup 7",
			"- service mx fail closed",
		}},
	} {
		k.steps = nil
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, k.steps); diff != "" {
			t.Errorf("steps of %s:\n%s", step.name, diff)
		}
	}
	if relied, err := r.Move(other); relied || err != nil {
		t.Errorf("moved already: %v, %v", relied, err)
	}
}

func TestVetoKeepsEverything(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	refusal := errors.New("refused")
	var asked []plan.Change
	r.Veto = func(c []plan.Change) error { asked = c; return refusal }
	if _, err := r.Run(wanted); !errors.Is(err, refusal) || len(k.items) != 0 || len(asked) != len(wanted) {
		t.Errorf("%v, asked about %v, left %v", err, asked, k.state())
	}
}

func TestHaltUndoesWhatWasDone(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	signal, asked := errors.New("a signal"), 0
	r.Halt = func() error {
		if asked++; asked > 2 {
			return signal
		}
		return nil
	}
	if _, err := r.Run(wanted); !errors.Is(err, signal) || len(k.items) != 0 || len(k.steps) != 4 {
		t.Errorf("%v, after %v, left %v", err, k.steps, k.state())
	}
}

// A rule that has to be made anew, because other programs are pinned, is.
func TestPrepareMakesRulesAnew(t *testing.T) {
	asks := plan.Filter{Family: plan.IPv4, Table: "filter", Chain: "PORTREEVE-FORWARD", Spec: "-m bpf --object-pinned /a/b -j DROP"}
	k := newKernel(plan.Objects{Fault: "old"}, asks)
	if err := runner(t, k).Prepare([]plan.Item{plan.Objects{}, asks}); err != nil {
		t.Fatal(err)
	}
	want := []string{"- " + asks.String(), "~ bpf maps and programs", "+ " + asks.String()}
	if diff := cmp.Diff(want, k.steps); diff != "" {
		t.Errorf("steps of Prepare:\n%s", diff)
	}
}

func TestPrepareUndoesAFailure(t *testing.T) {
	k := newKernel()
	k.fail["+ "+wanted[4].String()] = true
	if err := runner(t, k).Prepare(wanted); err == nil || len(k.items) != 0 {
		t.Errorf("err %v, left %v", err, k.state())
	}
}

func TestHaveTellsWhatWasLost(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	delete(k.items, wanted[3].Key())
	_, lost, err := r.Have()
	if err != nil || len(lost) != 1 || lost[0] != wanted[3] {
		t.Errorf("lost %v, err %v", lost, err)
	}
}

func TestJournalKeepsEveryType(t *testing.T) {
	r := runner(t, newKernel())
	items := append(slices.Clone(wanted),
		plan.Origin{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 25},
		plan.Table{Family: plan.IPv6, Name: "raw"},
		plan.BaseChain{Family: plan.IPv4, Table: "raw", Name: "OUTPUT"},
		plan.Chain{Family: plan.IPv4, Table: "nat", Name: "PORTREEVE-POST", Legacy: true},
		plan.Filter{Family: plan.IPv6, Table: "nat", Chain: "POSTROUTING", Spec: "-j PORTREEVE-POST", Place: plan.First},
		plan.Role{Interface: "ext0", Side: plan.ClientSide},
	)
	for _, i := range items {
		if err := r.Journal.Intend(i); err != nil {
			t.Fatal(err)
		}
	}
	back, err := OpenJournal(r.Journal.path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(items, back.Items()) {
		t.Errorf("read %v\nwrote %v", back.Items(), items)
	}
}

// A line that was cut off anywhere takes no other line with it.
func TestJournalGoesOnBehindACutLine(t *testing.T) {
	whole := encoded(t, wanted[0])
	for size := range whole {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		r := reopen(t, newKernel(), path)
		if err := r.Journal.Intend(wanted[1]); err != nil {
			t.Fatal(err)
		}
		if back := reopen(t, newKernel(), path).Journal; !back.Holds(wanted[1]) {
			t.Errorf("lost behind the first %d octets of a line", size)
		}
	}
}

func encoded(t *testing.T, i plan.Item) []byte {
	t.Helper()
	line, err := encode(time.Unix(0, 0).UTC(), i, false)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// full makes every write to the journal fail, as on a full disk.
func full(t *testing.T, j *Journal) {
	t.Helper()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	j.close()
	j.file = file
}

// What is removed is removed, and the journal with it, though nothing can be
// written about it.
func TestClearOnAFullDisk(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	full(t, r.Journal)
	changes, err := r.Clear()
	if err != nil || len(changes) != len(wanted) || len(k.items) != 0 {
		t.Errorf("%v after %d changes, left %v", err, len(changes), k.state())
	}
	if files, _ := filepath.Glob(r.Journal.path + "*"); len(files) != 0 {
		t.Errorf("journal left behind: %v", files)
	}
}

// One reason is told once, and what could not be removed is still known.
func TestClearOnAFullDiskThatFails(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	run(t, r, wanted)
	full(t, r.Journal)
	k.fail["- "+wanted[4].String()] = true
	_, err := r.Clear()
	if err == nil || strings.Count(err.Error(), "write journal") != 1 || !strings.Contains(err.Error(), wanted[4].String()) {
		t.Errorf("error is %v", err)
	}
	if !reopen(t, k, r.Journal.path).Journal.Holds(wanted[4]) {
		t.Error("the journal has forgotten what is still there")
	}
}

// A disk that fills up in the middle of an attach leaves nothing.
func TestUndoOnAFullDisk(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	r.Observe = func(c plan.Change) {
		if c.Item == wanted[5] {
			full(t, r.Journal)
		}
	}
	_, err := r.Run(wanted)
	if err == nil || strings.Count(err.Error(), "write journal") != 1 {
		t.Errorf("error is %v", err)
	}
	if files, _ := filepath.Glob(r.Journal.path + "*"); len(files) != 0 || len(k.items) != 0 {
		t.Errorf("left behind: %v and %v", files, k.state())
	}
}

// An attach whose journal can be written, but not shortened, is a success; one
// whose journal would be wrong is not.
func TestSettleWithoutRoomForASecondFile(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	if err := os.Mkdir(r.Journal.path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Journal.path+".new", "in the way"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, r, wanted)
	back := reopen(t, k, r.Journal.path)
	if !slices.Equal(wanted, back.Journal.Items()) {
		t.Errorf("journal lists %v", back.Journal.Items())
	}
	delete(k.items, wanted[7].Key()) // somebody removes it, and nobody wants it any more
	if _, err := back.Run(wanted[:7]); err == nil {
		t.Error("no error, though the journal lists what is gone")
	}
}

// Where the journal cannot be written what others share is not put back, and all else is.
func TestMendWithoutAJournal(t *testing.T) {
	k := newKernel()
	r := reopen(t, k, filepath.Join(t.TempDir(), "missing", "journal"))
	rule := plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1, Table: 7, Priority: 3}
	if err := mend(r, plan.Change{Op: plan.Add, Item: rule}); err != nil {
		t.Error(err)
	}
	table := plan.Table{Family: plan.IPv4, Name: "raw"}
	if err := mend(r, plan.Change{Op: plan.Add, Item: table}); err == nil {
		t.Error("a table was put back of which nobody will know who has made it")
	}
	have, err := k.Have()
	if err != nil || len(have) != 1 || have[0] != plan.Item(rule) {
		t.Errorf("there are %v, %v", have, err)
	}
}

func mend(r *Runner, c plan.Change) (err error) {
	r.Mend([]plan.Change{c}, func(_ plan.Change, failed error) { err = failed })
	return err
}

// bulk is a kernel that makes filters together.
type bulk struct {
	*kernel
	fails bool // after half of them
}

func (*bulk) Together(_ plan.Op, i plan.Item) bool { return i.Kind() == plan.KindFilter }

func (b *bulk) All(op plan.Op, items []plan.Item) error {
	b.steps = append(b.steps, fmt.Sprintf("%d %s together", len(items), op))
	for n, i := range items {
		if b.fails && n == len(items)/2 {
			return errors.New("refused")
		}
		if op == plan.Remove {
			delete(b.items, i.Key())
		} else {
			b.items[i.Key()] = i
		}
	}
	return nil
}

var filters = []plan.Item{
	plan.Chain{Family: plan.IPv4, Table: "raw", Name: "PORTREEVE-PREROUTING"},
	plan.Filter{Family: plan.IPv4, Table: "raw", Chain: "PORTREEVE-PREROUTING", Spec: "-j ACCEPT"},
	plan.Filter{Family: plan.IPv4, Table: "raw", Chain: "PORTREEVE-PREROUTING", Spec: "-j DROP"},
	plan.Filter{Family: plan.IPv4, Table: "raw", Chain: "PORTREEVE-PREROUTING", Spec: "-j RETURN"},
}

// Of many rules each is a process less where they are made together. The journal knows
// of each before.
func TestRulesAreMadeTogether(t *testing.T) {
	k := newKernel()
	r := runner(t, k)
	r.Hands = []Hand{&bulk{kernel: k}}
	if _, err := r.Run(filters); err != nil {
		t.Fatal(err)
	}
	if len(r.Journal.Items()) != len(filters) || len(k.items) != len(filters) {
		t.Errorf("the journal has %v, the kernel %v", r.Journal.Items(), k.state())
	}
	if _, err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	want := []string{"+ " + filters[0].String(), "3 + together", "3 - together", "- " + filters[0].String()}
	if diff := cmp.Diff(want, k.steps); diff != "" || len(k.items) > 0 {
		t.Errorf("steps (-want +got):\n%s\nleft: %v", diff, k.state())
	}
}

// Where they cannot be, each is tried by itself, and the one that fails is named; what a
// half of them has left is taken back.
func TestRulesThatCannotBeMadeTogether(t *testing.T) {
	for _, refused := range []string{"", "+ " + filters[2].String()} {
		k := newKernel()
		k.fail[refused] = true
		r := runner(t, k)
		r.Hands = []Hand{&bulk{kernel: k, fails: true}}
		_, err := r.Run(filters)
		if refused == "" && (err != nil || len(k.items) != len(filters)) {
			t.Errorf("%v, the kernel has %v", err, k.state())
		}
		if refused != "" && (err == nil || !strings.Contains(err.Error(), filters[2].String()) || len(k.items) > 0) {
			t.Errorf("%v, the kernel has %v", err, k.state())
		}
		var failed []string
		r.Mend(plan.Diff(nil, filters), func(c plan.Change, err error) {
			if err != nil {
				failed = append(failed, c.String())
			}
		})
		if refused != "" && (len(failed) != 1 || failed[0] != refused) || refused == "" && failed != nil {
			t.Errorf("mended but for %v", failed)
		}
	}
}
