package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newDetach(e *env) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "detach",
		Short: "remove all that attach installed",
		Long: `Detach removes from the kernel all that attach installed in this network namespace,
also what a crash left half done, and nothing else. It needs no configuration, unless
that moves the BPF file system or the run directory: then name it with -c, or the two
directories by their flags. Where one thing cannot be removed the others are removed
all the same.

Connections that the inspector carries come to their end; new ones are no longer
steered.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return detach(c.Context(), e, dryRun) },
	}
	e.mayConfig(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	return c
}

func detach(ctx context.Context, e *env, dryRun bool) (err error) {
	if err := privileged("detach"); err != nil {
		return err
	}
	c, err := e.settings()
	if err != nil {
		return err
	}
	side, err := openKernel(ctx, c.Kernel, !dryRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	if err := steer.Elsewhere(c.Kernel.BPFFS); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if err := clsactPrivileged("detach", side.runner.Journal.Items()); err != nil {
		return err
	}
	if err := side.useSteer(c.Kernel.BPFFS); errors.Is(err, steer.ErrNoBPFFS) {
		fmt.Fprintf(e.stderr, "portreeve: warning: %v; nothing of ours is attached there\n", err)
	} else if err != nil {
		return err
	}
	changes, failed := e.remove(side, dryRun)
	return errors.Join(e.printChanges(changes, "nothing to remove"), failed)
}

// remove removes all, and first the reason for anybody to put it back.
func (e *env) remove(side *kernelSide, dryRun bool) ([]plan.Change, error) {
	if dryRun {
		return side.runner.Changes(nil)
	}
	if err := side.memory.BeginDetach(); err != nil {
		fmt.Fprintf(e.stderr, "portreeve: warning: %v; a process that keeps the kernel side may put back what is removed\n", err)
	}
	changes, err := side.runner.Clear()
	if err == nil {
		err = side.memory.EndDetach()
		os.Remove(side.state + watchEnding) // a watcher that works sees that it is gone
	}
	if err != nil {
		err = fmt.Errorf("detach: %w", err)
	}
	return changes, err
}
