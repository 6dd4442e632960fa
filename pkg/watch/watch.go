// Package watch keeps the kernel side as it was attached. Others flush the packet
// filter, delete rules and links, put their programs before ours, make interfaces
// anew; within seconds it is as before.
//
// A Watcher compares, whenever the kernel tells of a change and every few seconds, what
// is there with the plan of the configuration that was attached last. It puts back what
// is ours, each thing by itself, and tells what it may not touch. It removes nothing but
// what belongs to interfaces that are gone; it takes the lock only when there is
// something to do, and gives way to whoever holds it. It knows nothing of sessions,
// and reads nothing that strangers send. The watch verb calls it.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
)

const (
	// every is the time between two looks while nothing is heard: not all changes
	// are told, those of iptables-legacy and of TCX programs are not.
	every = 3 * time.Second
	// quiet is how long nothing is heard before a look: changes come in groups, and what
	// is put back in the middle of one is flushed again. longest bounds that.
	quiet   = 200 * time.Millisecond
	longest = 2 * time.Second
	// again is the time to the next look while somebody else has the lock, or after
	// something failed.
	again = 500 * time.Millisecond
	// passing is how long something fails before it is told.
	passing = 5 * time.Second
)

// Side is the kernel side, opened for one look or repair.
type Side struct {
	Runner *apply.Runner
	Memory apply.Memory
	Pins   Pins  // what is pinned, held since the last look
	Notes  Notes // for whoever asks how it stands
	Close  func() error

	// Unmounted says that there is no BPF file system for pins that others see; "": there is.
	Unmounted string
}

// Pins are the objects of the kernel side, held open. See steer.Kept.
type Pins interface {
	Follow() error
	Lost() []string
	Restore() ([]string, error)
	Close() error
}

// Notes is where the watcher leaves what it did. See steer.Notes.
type Notes interface {
	Looked(findings []string) error
	Repaired(texts ...string) error
}

// Options are what a Watcher works with.
type Options struct {
	// Open opens the kernel side; with change under the lock, and the error is
	// apply.ErrLocked where somebody else has it.
	Open func(change bool) (*Side, error)
	// Plan returns what a configuration asks for on this machine as it is now, and what
	// is in the way of it. Items of interfaces that are missing are not among it.
	Plan func(*config.Config) (want []plan.Item, findings []string, err error)
	// Turn reports whether this watcher is the one that works, of several that
	// there may be. It is called with false where there is nothing to keep.
	Turn func(attached bool) bool
	Log  *slog.Logger
	// Alive, if not nil, is called at least once in some seconds while the watcher gets
	// on.
	Alive func()
}

// Watcher keeps the kernel side of one network namespace.
type Watcher struct {
	Options
	heard chan struct{}

	given    *apply.Given // what was attached, as read last; nil: nothing is
	made     []plan.Item  // what the journal held then
	findings []string     // that were told
	failing  time.Time    // since when each look has failed; zero: the last has not
	effort   effort
	now      func() time.Time
}

// New returns a watcher, which does nothing before Run or Follow.
func New(o Options) *Watcher {
	return &Watcher{Options: o, heard: make(chan struct{}, 1), now: time.Now}
}

// Follow finds out what is to be kept, and holds its pins, for a watcher that stands by: it
// changes nothing and takes no turn, and Run knows afterwards what was lost before it.
func (w *Watcher) Follow() (err error) {
	side, err := w.Open(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.Close()) }()
	if err := w.recall(side, &view{}); err != nil || w.given == nil {
		return errors.Join(err, side.Pins.Close())
	}
	return side.Pins.Follow()
}

// Hear tells that something may have changed. It never blocks, and is safe for
// concurrent use.
func (w *Watcher) Hear() {
	select {
	case w.heard <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends, and then looks once more: the next watcher does not know
// what this one does, such as what was in a run directory that was wiped a moment ago.
func (w *Watcher) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if w.Alive != nil {
			w.Alive()
		}
		w.wait(ctx, w.Look())
	}
	w.Look()
}

// wait waits for the next look.
func (w *Watcher) wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case <-w.heard:
	}
	end := time.After(longest)
	for {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-time.After(quiet):
			return
		case <-w.heard:
		}
	}
}

// Look looks once, mends what it can, and returns how long to wait for the next look.
func (w *Watcher) Look() time.Duration {
	failed, err := w.lookAndMend()
	switch {
	case err == nil && !failed:
		w.failing = time.Time{}
	case errors.Is(err, apply.ErrLocked):
		return again // whoever has it may be doing the same
	case w.passes() && !errors.Is(err, errUnknown):
		return again
	case err != nil:
		w.tell([]string{err.Error()})
	}
	return every
}

func (w *Watcher) lookAndMend() (failed bool, err error) {
	wanting, err := w.look()
	if err != nil || !wanting {
		return false, err
	}
	return w.repair()
}

// passes reports whether what has failed may work in a moment: others may be at the same,
// such as a reload. It is told if it stays.
func (w *Watcher) passes() bool {
	if w.failing.IsZero() {
		w.failing = w.now()
	}
	return w.now().Sub(w.failing) < passing
}

// look reports whether something is to be mended. It changes nothing.
func (w *Watcher) look() (wanting bool, err error) {
	err = w.with(false, func(side *Side, v *view) error {
		if wanting = v.wanting(); wanting {
			return nil
		}
		w.tell(v.findings)
		return side.Notes.Looked(v.findings)
	})
	return wanting && err == nil, err
}

// repair looks again, under the lock, and mends. It reports whether something failed.
func (w *Watcher) repair() (failed bool, err error) {
	err = w.with(true, func(side *Side, v *view) error {
		done, failures := w.mend(side, v)
		for _, text := range done {
			w.Log.Warn("put back", "what", text)
		}
		err := errors.Join(side.Pins.Follow(), side.Notes.Repaired(done...))
		failed = len(failures) > 0
		if failed && w.passes() {
			return err
		}
		findings := append(v.findings, failures...)
		w.tell(findings)
		return errors.Join(err, side.Notes.Looked(findings))
	})
	return failed, err
}

// with opens the kernel side, and calls do with what it sees there; where nothing is to
// be kept it does not.
func (w *Watcher) with(change bool, do func(*Side, *view) error) (err error) {
	side, err := w.Open(change)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.Close()) }()
	v, err := w.view(side)
	if err != nil || v == nil {
		return err
	}
	return do(side, v)
}

// view is what one look has found.
type view struct {
	forgotten bool          // the files of the run directory are gone
	unsure    bool          // with them what was attached, which may be another configuration than is known here
	lost      []string      // pins
	changes   []plan.Change // that lead to what is wanted, and are ours to make
	findings  []string      // what is not
}

func (v *view) wanting() bool { return v.forgotten || len(v.lost) > 0 || len(v.changes) > 0 }

// view compares; nil where nothing is to be kept.
func (w *Watcher) view(side *Side) (*view, error) {
	v := &view{lost: side.Pins.Lost()}
	if err := w.recall(side, v); err != nil || w.given == nil {
		return nil, errors.Join(err, w.rest(side))
	}
	if !w.Turn(true) {
		return nil, side.Pins.Follow() // for its turn may come when they are lost
	}
	c, err := w.given.Config()
	if err != nil {
		return nil, fmt.Errorf("the configuration that was attached: %w", err)
	}
	want, findings, err := w.Plan(c)
	if err != nil {
		return nil, err
	}
	v.findings = findings
	if len(v.lost) > 0 {
		return v, nil // what hangs on the pins is looked at when they are back
	}
	// Before anything is mended, which takes seconds: a watcher that has just taken its
	// place holds nothing yet, and what nobody holds is lost with its pin.
	if err := side.Pins.Follow(); err != nil {
		v.findings = append(v.findings, err.Error())
	}
	changes, err := side.Runner.Changes(want)
	if err != nil {
		return nil, err
	}
	if v.unsure && w.overruled(changes) {
		return nil, errUnknown
	}
	v.judge(changes, side.Unmounted)
	return v, nil
}

// recall finds out what is to be kept. An attach or a detach has said so in the run
// directory; where all that is there is gone, nobody has: what was attached still is.
func (w *Watcher) recall(side *Side, v *view) error {
	detaching, err := side.Memory.Detaching()
	if err != nil {
		return err
	}
	given, kept, err := side.Memory.Given()
	switch {
	case err != nil:
		return err
	case detaching:
		w.given = nil
	case kept:
		w.given = &given
		w.remember(side.Runner.Journal.Items(), v)
	case w.given == nil:
	case len(side.Runner.Journal.Items()) > 0 && !w.knows(side.Runner.Journal.Items()):
		w.given = nil
		return errUnknown // an attach could not write what it was given
	case !isThere(side.Runner):
		w.given = nil // detached
	default:
		v.forgotten, v.unsure = true, true
	}
	return nil
}

var errUnknown = errors.New("it is not known which configuration is attached, so nothing can be put back; run portreeve attach again")

// knows reports whether the journal is as it was when what was attached was read last.
func (w *Watcher) knows(made []plan.Item) bool {
	return len(made) == len(w.made) && !slices.ContainsFunc(made, func(i plan.Item) bool { return !slices.Contains(w.made, i) })
}

// overruled reports whether the kernel side leads connections where nothing that is known
// here does: another configuration was attached, by which an inspector works, and the run
// directory was wiped before it was seen here. To put back the one before would stop mail.
func (w *Watcher) overruled(changes []plan.Change) bool {
	return slices.ContainsFunc(changes, func(c plan.Change) bool {
		there := c.Old
		if c.Op == plan.Remove {
			there = c.Item
		}
		switch there.(type) {
		case plan.Binding, plan.Service, plan.Settings:
			return !slices.Contains(w.made, there)
		}
		return false
	})
}

// remember holds what the journal has. Of what is attached it is never empty: then
// somebody has removed it.
func (w *Watcher) remember(made []plan.Item, v *view) {
	if v.forgotten = len(made) == 0 && len(w.made) > 0; !v.forgotten {
		w.made = made
	}
}

// isThere reports whether the kernel holds anything of ours. What cannot be read may be.
func isThere(r *apply.Runner) bool {
	changes, err := r.Changes(nil)
	return err != nil || len(changes) > 0
}

// rest lets go what belongs to a kernel side that is not there any more.
func (w *Watcher) rest(side *Side) error {
	w.Turn(false)
	w.made, w.effort = nil, effort{}
	w.tell(nil)
	return side.Pins.Close()
}

// mend does what is to be done, and returns what was done and what could not be.
func (w *Watcher) mend(side *Side, v *view) (done, failed []string) {
	if v.forgotten {
		done, failed = report(done, failed, "the files of the run directory", w.write(side, v))
	}
	if len(v.lost) > 0 {
		restored, err := side.Pins.Restore()
		if len(restored) > 0 || err != nil {
			done, failed = report(done, failed, fmt.Sprintf("%d pins of the kernel side", len(restored)), err)
		}
		w.Hear() // for what hangs on them
	}
	var changes []plan.Change
	for _, c := range v.changes {
		if text := w.effort.spare(c, w.now()); text != "" {
			failed = append(failed, text)
			continue
		}
		changes = append(changes, c)
	}
	side.Runner.Mend(changes, func(c plan.Change, err error) {
		if err == nil {
			w.effort.count(c, w.now())
		}
		done, failed = report(done, failed, c.String(), err)
	})
	return done, failed
}

// write writes the files of the run directory again. With them the lock may have gone that
// an attach held: what that has written meanwhile counts. The journal is that of the last
// look, and what it held may have been removed since, as when an inspector has taken over.
func (w *Watcher) write(side *Side, v *view) error {
	if v.unsure {
		if _, kept, err := side.Memory.Given(); kept || err != nil {
			return err
		}
		if err := side.Memory.Keep(*w.given); err != nil {
			return err
		}
	}
	made := w.made
	if len(v.lost) == 0 { // else what hangs on the pins cannot be seen
		var err error
		if made, err = side.Runner.Present(made); err != nil {
			return err
		}
	}
	return side.Runner.Journal.Settle(made)
}

func report(done, failed []string, what string, err error) (did, didNot []string) {
	if err != nil {
		return done, append(failed, fmt.Sprintf("cannot put back %s: %v", what, err))
	}
	return append(done, what), failed
}

// tell logs findings that are new, and that the last of them is gone.
func (w *Watcher) tell(findings []string) {
	for _, text := range findings {
		if !slices.Contains(w.findings, text) {
			w.Log.Error("the kernel side is not as it was attached", "finding", text)
		}
	}
	if len(w.findings) > 0 && len(findings) == 0 && w.given != nil {
		w.Log.Info("the kernel side is as it was attached")
	}
	w.findings = findings
}
