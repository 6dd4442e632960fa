package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/doctor"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newAttach(e *env) *cobra.Command {
	var how manner
	c := &cobra.Command{
		Use:   "attach -c FILE",
		Short: "install the kernel side",
		Long: `Attach makes the kernel hold what the configuration asks for: BPF programs and maps,
policy rules, a local route, netfilter chains and, last, the links that move
traffic. It prints what it changed, one thing a line: + added, ~ changed,
- removed. A second attach changes nothing. When a step fails, or a signal ends it, what
was done before is undone.

While it is attached, new connections to addresses under intercept reach an origin through
the inspector only, as fail says, or by an interface under interfaces.origin or
interfaces.bypass. What comes by another interface, or was sent there by DNAT, is stopped;
attach names it before.

Until an inspector runs, new connections meet the fail policy of their service. One
that runs goes on with the configuration that it began with; where it could not, mail
would stop, so attach refuses and changes nothing. portreeve run --attach lets another
inspector take over without a gap.`,
		Example: "  portreeve attach -c /etc/portreeve.yaml --dry-run\n  portreeve attach -c /etc/portreeve.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return attach(c.Context(), e, how) },
	}
	e.needConfig(c)
	c.Flags().BoolVar(&how.dryRun, "dry-run", false, "print what would change, and change nothing")
	c.Flags().BoolVar(&how.letMailStop, "let-mail-stop", false, "change also what the inspector that runs cannot do without")
	return c
}

// manner is how a configuration is installed.
type manner struct {
	dryRun      bool
	letMailStop bool // whatever the inspector that runs needs
}

func attach(ctx context.Context, e *env, how manner) error {
	if err := endAtOnce(ctx); err != nil {
		return err
	}
	given, err := e.read()
	if err != nil {
		return err
	}
	c, err := given.Config()
	if err != nil {
		return err
	}
	if err := privileged("attach"); err != nil {
		return err
	}
	if err := e.forewarn(ctx, c); err != nil {
		return err
	}
	if !how.dryRun {
		ctx = heedSignals(ctx)
	}
	changes, err := e.install(ctx, c, given, how)
	if how.dryRun && changes != nil || err == nil { // a dry run tells both what it would do and why it would not
		err = errors.Join(err, e.printChanges(changes, "nothing to change"))
	}
	return err
}

// prepare makes the kernel ready for an inspector of this configuration
// without changing what is steered now.
func (e *env) prepare(ctx context.Context, c *config.Config) error {
	return e.withPlan(ctx, c, true, func(side *kernelSide, want []plan.Item, _ finding.List) error {
		if err := side.runner.Prepare(want); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		return nil
	})
}

// move leads connections to an inspector of this configuration that has taken its
// slots, and reports whether it has left what an older one's sessions rely on. Where a newer
// one was quicker it does nothing: connections would be led to one that is about to end.
func (e *env) move(c *config.Config, given apply.Given, inspector *daemon.Presence) (relied bool, err error) {
	given.Inspector = inspector.Number()
	err = e.withPlan(context.Background(), c, true, func(side *kernelSide, want []plan.Item, _ finding.List) (err error) {
		if attached, known, err := side.memory.Given(); err == nil && known {
			outrun, err := inspector.Outrun(attached.Inspector)
			switch {
			case err != nil:
				return err
			case outrun:
				return daemon.ErrReplaced
			}
		}
		if relied, err = side.runner.Move(want); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		e.remember(side, given)
		return nil
	})
	return relied, err
}

// errOverruled says that somebody has attached another configuration since.
var errOverruled = errors.New("what is attached was changed by somebody else meanwhile, so nothing is removed of what an older inspector needed; the next portreeve attach does it")

// errUnknown says that nobody knows what is attached and who has made what, for a while: the
// watcher writes that again where it was removed.
var errUnknown = errors.New("it is not known what is attached")

// settle removes what an older inspector has needed, unless a newer one is about
// to take over: what that has made ready is in no plan of ours. Nor is what an
// attach has changed since. What others have taken away meanwhile of what is ours is no
// such change, and comes back with it.
func (e *env) settle(c *config.Config, given apply.Given, heirs func() (bool, error)) (done bool, err error) {
	err = e.withPlan(context.Background(), c, true, func(side *kernelSide, want []plan.Item, _ finding.List) error {
		there, err := heirs() // while we have the lock, nobody makes anything ready
		if there || err != nil {
			return err
		}
		attached, known, unread := side.memory.Given()
		if unread == nil && !known && len(side.runner.Journal.Items()) == 0 {
			return errUnknown // to write a journal alone would keep the watcher from writing all that was in it
		}
		side.runner.Veto = func(changes []plan.Change) error {
			switch {
			case known && attached.Same(given), !slices.ContainsFunc(changes, func(c plan.Change) bool { return c.Op == plan.Add }):
				return nil
			case known || unread != nil:
				return errOverruled
			}
			return errUnknown
		}
		_, err = side.runner.Run(want)
		done = err == nil || errors.Is(err, errOverruled)
		if err == nil && !known {
			e.remember(side, given)
		}
		return err
	})
	if errors.Is(err, apply.ErrLocked) || errors.Is(err, errUnknown) {
		return false, nil
	}
	return done, err
}

// install makes the kernel hold what a configuration asks for, or tells what
// it would change.
func (e *env) install(ctx context.Context, c *config.Config, given apply.Given, how manner) (changes []plan.Change, err error) {
	err = e.withPlan(ctx, c, !how.dryRun, func(side *kernelSide, want []plan.Item, _ finding.List) (err error) {
		veto := func(changes []plan.Change) error {
			if how.letMailStop {
				return nil
			}
			return e.mayChange(side, changes, want, given)
		}
		if how.dryRun {
			if changes, err = side.runner.Changes(want); err != nil {
				return err
			}
			return veto(changes)
		}
		side.runner.Veto = veto
		changes, err = side.runner.Run(want)
		if err == nil {
			e.remember(side, given)
		} else if !errors.As(err, new(finding.List)) {
			err = fmt.Errorf("attach: %w", err)
		}
		return err
	})
	return changes, err
}

// remember writes what the kernel side was made of. No mail depends on it, so that a
// run directory that is full undoes nothing.
func (e *env) remember(side *kernelSide, given apply.Given) {
	if err := side.memory.Keep(given); err != nil {
		fmt.Fprintf(e.stderr, "portreeve: warning: %v; it is attached, but nobody will put back what others remove of it\n", err)
	}
}

// mostClashes is how many things are named that the inspector that runs needs.
const mostClashes = 8

// mayChange refuses changes under which the inspector that runs could not go on,
// and says of others that it goes on with what it has.
func (e *env) mayChange(side *kernelSide, changes []plan.Change, want []plan.Item, given apply.Given) error {
	alive, err := side.steer.Alive()
	switch {
	case errors.Is(err, steer.ErrDamaged):
		return e.mayMend(side, given)
	case err != nil || !alive.Serving():
		return nil // nobody is served who could lose it; what cannot be read is Run's to tell
	}
	takeOver := fmt.Sprintf("portreeve run -c %s --attach", e.file.value)
	clashes := plan.Clashes(changes, want, alive.Served())
	if outlived(side, given) {
		clashes = slices.DeleteFunc(clashes, func(c plan.Clash) bool {
			_, leads := c.Change.Item.(plan.Binding)
			return !leads
		})
	}
	if len(clashes) == 0 {
		if len(changes) > 0 {
			fmt.Fprintf(e.stderr, "portreeve: an inspector runs, and goes on with the configuration that it began with; to let one of this file take over: %s\n", takeOver)
		}
		return nil
	}
	var list finding.List
	for n, c := range clashes {
		if n == mostClashes {
			list.Add(finding.Error, "", fmt.Sprintf("and %d more", len(clashes)-n), "")
			break
		}
		list.Add(finding.Error, c.Change.Item.String(), c.Why, "")
	}
	list.Add(finding.Error, "attach", "nothing was changed, for mail would stop under the inspector that runs",
		fmt.Sprintf("to let an inspector of this file take over without a gap: %s; to change it all the same: portreeve attach -c %s --let-mail-stop", takeOver, e.file.value))
	return list
}

// mayMend refuses another configuration than the one that is attached where it cannot be
// told whether the inspector that runs could go on.
func (e *env) mayMend(side *kernelSide, given apply.Given) error {
	attached, known, err := side.memory.Given()
	if err != nil || !known || attached.Same(given) {
		return nil // there is nothing to compare with, or nothing changes
	}
	if n, err := daemon.Present(); err != nil || n == 0 {
		return nil
	}
	var list finding.List
	list.Add(finding.Error, "attach", "nothing was changed, for pins are gone, an inspector runs, and it cannot be told whether mail would stop under it",
		fmt.Sprintf("attach the file that is attached now, and then this one; to change it all the same: portreeve attach -c %s --let-mail-stop", e.file.value))
	return list
}

// outlived reports whether what is there beyond a configuration was left for an older
// inspector that has ended: this very configuration is attached, and one inspector runs.
func outlived(side *kernelSide, given apply.Given) bool {
	attached, known, err := side.memory.Given()
	if err != nil || !known || !attached.Same(given) {
		return false
	}
	n, err := daemon.Present()
	return err == nil && n == 1
}

// withPlan opens the kernel side and calls f with the plan for it, and what there is
// to warn of.
func (e *env) withPlan(ctx context.Context, c *config.Config, change bool, f func(*kernelSide, []plan.Item, finding.List) error) (err error) {
	side, err := openKernel(ctx, c.Kernel, change)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	if err := steer.Elsewhere(c.Kernel.BPFFS); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := side.useSteer(c.Kernel.BPFFS); err != nil {
		return err
	}
	want, warnings, err := wanted(c)
	if err != nil {
		return err
	}
	if err := clsactPrivileged("attach", want); err != nil {
		return err
	}
	return f(side, want, warnings)
}

// forewarn prints warnings and, before it happens, what will not reach the origins
// any more. A packet filter that cannot be read, which may be switched off for
// portreeve, keeps nothing from being attached. It takes no lock: a look at many rules takes
// its time, in which a watcher may have something to put back.
func (e *env) forewarn(ctx context.Context, c *config.Config) error {
	return e.withPlan(ctx, c, false, func(_ *kernelSide, _ []plan.Item, warnings finding.List) error {
		e.warn(warnings)
		links, err := route.Links()
		if err != nil {
			return err
		}
		firewall, err := netfilter.Look(ctx)
		if err != nil {
			firewall = nil
			e.warn(finding.List{{Severity: finding.Warning, Object: "packet filter", Text: "it cannot be read, so that rules are not named which send connections to origins past the inspector: " + err.Error()}})
		}
		e.warn(doctor.Stopped(c, links, firewall))
		return nil
	})
}

// printChanges prints changes one a line, or the words for none.
func (e *env) printChanges(changes []plan.Change, none string) error {
	if len(changes) == 0 {
		return e.printf("%s\n", none)
	}
	for _, c := range changes {
		if err := e.printf("%s\n", c); err != nil {
			return err
		}
	}
	return nil
}
