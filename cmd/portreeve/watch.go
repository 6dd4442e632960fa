package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
	"github.com/portreeve/portreeve/pkg/watch"
)

const watchVerb = "watch"

// What a watcher finds open, if its flags say so.
const (
	lifeline = 3 // a pipe that ends with the inspector for which it watches
	beats    = 4 // a pipe into which the watcher that works writes while it gets on
)

func newWatch(e *env) *cobra.Command {
	var role watchRole
	c := &cobra.Command{
		Use:   watchVerb,
		Short: "keep the kernel side as it was attached",
		Long: `Watch puts back what others take away of what attach installed: it hears what the kernel
tells of rules, routes, links, addresses and the packet filter, and looks every few seconds.
It puts back chains and the jumps to them in their place, policy rules, routes, the link by
which connections go through FORWARD, programs that were detached or preceded by others,
pins that were removed, and what hangs on an interface that was made anew or has changed
its address. It touches nothing that portreeve did not make. Each thing that it puts back
is a line on standard error, counted, and shown by portreeve status, as is what it cannot
put back.

It waits where nothing is attached, follows each attach, and ends its work with a detach. A
run starts one, which ends with it, unless it is told --no-watch; several do not get into
each other's way: one works and the others wait. Each has a second process, which takes
over when the first is killed or gets stuck.

Exit code 0 after SIGTERM or SIGINT.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return e.watch(c.Context(), role) },
	}
	e.mayConfig(c)
	c.Flags().BoolVar(&role.bound, "bound", false, "end with the inspector that has started it")
	c.Flags().IntVar(&role.standby, "standby", 0, "wait until this process, the watcher that has started it, ends")
	for _, internal := range []string{"bound", "standby"} {
		if err := c.Flags().MarkHidden(internal); err != nil {
			panic(err) // the flag was made a line above
		}
	}
	return c
}

// watchRole is what a watcher was started as.
type watchRole struct {
	bound   bool // by an inspector
	standby int  // the process of the watcher that has started it; 0: it is the first
}

func (e *env) watch(ctx context.Context, role watchRole) error {
	call("portreeve-watch")
	if err := privileged(watchVerb); err != nil {
		return err
	}
	c, err := e.settings()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	signal.Ignore(unix.SIGHUP)
	w := &watcher{kernel: c.Kernel, filters: netfilter.New().Until(ctx), log: notices(e.stderr)}
	if role.bound {
		w.lifeline = os.NewFile(lifeline, "lifeline")
		unix.CloseOnExec(lifeline)
		ctx = boundTo(ctx, w.lifeline)
	}
	defer w.close()
	look := watch.New(watch.Options{Open: w.open, Plan: w.plan, Turn: w.takeTurn, Log: w.log, Alive: func() { w.progress.Store(time.Now().Unix()) }})
	if role.standby != 0 && !succeed(ctx, role.standby, look.Follow, w.log) {
		return nil
	}
	return w.run(ctx, look)
}

// boundTo returns a context that ends with a pipe.
func boundTo(ctx context.Context, pipe *os.File) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		io.Copy(io.Discard, pipe)
		cancel()
	}()
	return ctx
}

// beatEvery is how often a watcher that gets on says so to the one that stands by,
// beatLimit how long that waits for it, and beatGrace how long it then waits once more:
// it may have been stopped itself, alone or with the whole machine.
const (
	beatEvery = time.Second
	beatLimit = 3 * time.Second
	beatGrace = 2 * time.Second
	// lookLimit is how long one look may take before the watcher counts as stuck: it
	// waits for the lock of iptables at the most.
	lookLimit = time.Minute
)

// followEvery is how often a watcher that stands by makes sure that it knows and holds
// what there is: the one that works may be killed when a file was just removed, or a pin,
// and then nobody else does.
const followEvery = 2 * time.Second

// succeed waits until the watcher before this one has ended, and ends it where it does
// not get on any more. Meanwhile it follows what that one keeps. It reports false when this
// one shall end, too.
func succeed(ctx context.Context, elder int, follow func() error, log *slog.Logger) bool {
	unix.SetNonblock(beats, true) // or there are no deadlines
	pipe := os.NewFile(beats, "beats")
	process, err := unix.PidfdOpen(elder, 0)
	if err != nil || os.Getppid() != elder { // it has ended, and its number may be another's
		process = -1
	}
	defer pipe.Close()
	context.AfterFunc(ctx, func() { pipe.Close() })
	var followed time.Time
	for ctx.Err() == nil {
		if time.Since(followed) >= followEvery {
			if err := follow(); err != nil {
				log.Debug("the watcher that stands by does not know what there is", "error", err)
			}
			followed = time.Now()
		}
		err := awaitBeat(pipe)
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded):
			log.Warn("the watcher does not get on, another takes its place")
			unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
			return true
		case err != nil:
			log.Warn("the watcher has ended, another takes its place")
			return true
		}
	}
	return false
}

// awaitBeat waits for a beat. The error is os.ErrDeadlineExceeded where none comes.
func awaitBeat(pipe *os.File) (err error) {
	word := make([]byte, 16)
	for _, patience := range []time.Duration{beatLimit, beatGrace} {
		pipe.SetReadDeadline(time.Now().Add(patience))
		if _, err = pipe.Read(word); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return err
}

// watcher is the watcher's hold on the kernel side.
type watcher struct {
	kernel   config.Kernel
	filters  *netfilter.Hand  // kept, for it knows what has not changed
	pins     *steer.Kept      // nil before the BPF file system was seen
	private  *steer.PrivateFS // nil: that one is followed, which everybody sees
	lifeline *os.File         // nil: it ends with nobody else
	known    plan.Facts       // that do not change
	asked    *config.Kernel   // what known was asked for; nil: it was not
	turn     *apply.Lock      // nil: another watcher works, or there is nothing to do
	log      *slog.Logger
	progress atomic.Int64 // Unix time of the last look
}

func (w *watcher) run(ctx context.Context, look *watch.Watcher) error {
	for _, listen := range []func(context.Context, func()) error{route.Changes, netfilter.Changes} {
		if err := listen(ctx, look.Hear); err != nil {
			w.log.Warn("changes are seen every few seconds only", "error", err)
		}
	}
	w.progress.Store(time.Now().Unix())
	standby := make(chan struct{})
	go func() { w.keepStandby(ctx); close(standby) }()
	look.Run(ctx)
	<-standby
	return nil
}

// open opens the kernel side for one look or repair.
func (w *watcher) open(change bool) (*watch.Side, error) {
	side, err := openKernelWith(context.Background(), w.filters, w.kernel, change, noWait)
	if err != nil {
		return nil, err
	}
	opened := &watch.Side{Runner: side.runner, Memory: side.memory, Close: side.close, Pins: noPins{}, Notes: noPins{}}
	bpffs := w.kernel.BPFFS
	err = w.show(bpffs)
	if errors.Is(err, steer.ErrNoBPFFS) {
		opened.Unmounted = err.Error()
		if bpffs, err = w.hide(); err != nil {
			return opened, nil // what needs no pins is kept
		}
	}
	if err == nil {
		err = side.useSteer(bpffs)
	}
	if err != nil {
		return nil, errors.Join(err, side.close())
	}
	opened.Pins, opened.Notes = w.pins, notes{steer.NewNotes(side.steer)}
	return opened, nil
}

// show follows the pins that everybody sees.
func (w *watcher) show(bpffs string) error {
	hand, err := steer.New(bpffs)
	if err != nil {
		return err
	}
	if w.pins == nil {
		w.pins = steer.NewKept(hand)
	}
	w.pins.Use(hand)
	return w.unhide() // what was pinned there is kept
}

func (w *watcher) unhide() (err error) {
	if w.private != nil {
		err = w.private.Close()
		w.private = nil
	}
	return err
}

// hide pins what is kept in a BPF file system that nobody else sees, for there is none, and
// returns its path: by it programs can be attached to an interface that is made anew.
func (w *watcher) hide() (path string, err error) {
	if w.pins == nil {
		return "", steer.ErrNotAttached
	}
	if w.private != nil {
		return w.private.Path(), nil
	}
	private, err := steer.NewPrivateFS()
	if err != nil {
		return "", err
	}
	hand, err := steer.New(private.Path())
	if err != nil {
		return "", errors.Join(err, private.Close())
	}
	w.private = private
	w.pins.Use(hand)
	if _, err := w.pins.Restore(); err != nil {
		return "", errors.Join(err, w.unhide())
	}
	return private.Path(), nil
}

// notes are those of the kernel side, where it is attached.
type notes struct{ steer.Notes }

func (n notes) Looked(findings []string) error { return unlessDetached(n.Notes.Looked(findings)) }
func (n notes) Repaired(texts ...string) error { return unlessDetached(n.Notes.Repaired(texts...)) }

func unlessDetached(err error) error {
	if errors.Is(err, steer.ErrNotAttached) {
		return nil
	}
	return err
}

// noPins are those where no BPF file system is mounted: none.
type noPins struct{}

func (noPins) Follow() error              { return nil }
func (noPins) Lost() []string             { return nil }
func (noPins) Restore() ([]string, error) { return nil, nil }
func (noPins) Close() error               { return nil }
func (noPins) Looked([]string) error      { return nil }
func (noPins) Repaired(...string) error   { return nil }

// plan returns what a configuration asks for now, but for what hangs on interfaces that
// are missing.
func (w *watcher) plan(c *config.Config) ([]plan.Item, []string, error) {
	if w.asked == nil || *w.asked != c.Kernel {
		known, err := features(c)
		if err != nil {
			return nil, nil, err
		}
		w.known, w.asked = known, &c.Kernel
	}
	f := w.known
	if err := refresh(&f); err != nil {
		return nil, nil, err
	}
	var findings []string
	for _, judged := range plan.Judge(c, f) {
		if judged.Severity == finding.Error {
			findings = append(findings, judged.String())
		}
	}
	want := slices.DeleteFunc(plan.Build(c, f), func(i plan.Item) bool {
		name := plan.HangsOn(i)
		return name != "" && name != plan.LoopLink && !slices.Contains(f.Interfaces, name)
	})
	return want, findings, nil
}

// takeTurn is how several watchers agree on one.
func (w *watcher) takeTurn(attached bool) bool {
	if w.turn != nil && (!attached || !w.turn.Held()) {
		w.turn.Release()
		w.turn = nil
	}
	if !attached || w.turn != nil {
		return w.turn != nil
	}
	state, err := statePath(w.kernel.RunDir)
	if err != nil {
		return true
	}
	w.turn, err = apply.Acquire(context.Background(), state+watchEnding, noWait)
	if err != nil && !errors.Is(err, apply.ErrLocked) {
		w.log.Warn("it is not known whether another watcher works", "error", err)
		return true
	}
	return err == nil
}

// watchEnding is that of the file which the watcher has locked that works.
const watchEnding = ".watch"

func (w *watcher) close() {
	if w.turn != nil {
		w.turn.Release()
	}
	if w.pins != nil {
		w.pins.Close()
	}
	w.unhide()
}

// keepStandby sees to it that a second watcher stands by until ctx ends.
func (w *watcher) keepStandby(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.standBy(ctx); err != nil {
			w.log.Warn("no second watcher stands by", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(beatEvery):
		}
	}
}

// standBy runs a second watcher until one of the two ends.
func (w *watcher) standBy(ctx context.Context) error {
	heard, said, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.CommandContext(ctx, itself, watchVerb, "--standby", strconv.Itoa(os.Getpid()), "--run-dir", w.kernel.RunDir, "--bpffs", w.kernel.BPFFS)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = beatLimit
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{w.lifeline, heard}
	if w.lifeline != nil {
		cmd.Args = append(cmd.Args, "--bound")
	}
	err = cmd.Start()
	heard.Close()
	if err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-beat.C:
			if time.Since(time.Unix(w.progress.Load(), 0)) < lookLimit {
				said.Write([]byte{'.'}) // one that does not read it has ended
			}
		}
	}
}

// startWatcher starts a watcher that ends with the inspector.
func startWatcher(h *handover, kernel config.Kernel, log *slog.Logger) error {
	if err := privileged(watchVerb); err != nil {
		log.Warn("nobody keeps the kernel side as it was attached", "error", err)
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the watcher: %w", err)
	}
	defer theirs.Close()
	cmd := exec.Command(itself, watchVerb, "--bound", "--run-dir", kernel.RunDir, "--bpffs", kernel.BPFFS)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return fmt.Errorf("start the watcher: %w", err)
	}
	h.Watched = h.hands(ours)
	return nil
}
