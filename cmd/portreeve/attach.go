package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/doctor"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newAttach(e *env) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "attach -c FILE",
		Short: "install the kernel side",
		Long: `Attach makes the kernel hold what the configuration asks for: BPF programs and maps,
policy rules, a local route, netfilter chains and, last, the links that move
traffic. It prints what it changed, one thing a line: + added, ~ changed,
- removed. A second attach changes nothing. When a step fails, those before it are
undone.

Until an inspector runs, new connections meet the fail policy of their service.`,
		Example: "  portreeve attach -c /etc/portreeve.yaml --dry-run\n  portreeve attach -c /etc/portreeve.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return attach(e, dryRun) },
	}
	e.needConfig(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would change, and change nothing")
	return c
}

func attach(e *env, dryRun bool) error {
	c, err := e.load()
	if err != nil {
		return err
	}
	if err := privileged("attach"); err != nil {
		return err
	}
	changes, err := e.install(c, dryRun)
	if err != nil {
		return err
	}
	return e.printChanges(changes, "nothing to change")
}

// prepare makes the kernel ready for an inspector of this configuration
// without changing what is steered now.
func (e *env) prepare(c *config.Config) error {
	return e.withPlan(c, true, func(side *kernelSide, want []plan.Item) error {
		if err := side.runner.Prepare(want); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		return nil
	})
}

// install makes the kernel hold what a configuration asks for, or tells what
// it would change.
func (e *env) install(c *config.Config, dryRun bool) (changes []plan.Change, err error) {
	err = e.withPlan(c, !dryRun, func(side *kernelSide, want []plan.Item) (err error) {
		if dryRun {
			changes, err = side.runner.Changes(want)
			return err
		}
		if changes, err = side.runner.Run(want); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		return nil
	})
	return changes, err
}

// withPlan opens the kernel side and calls f with the plan for it.
func (e *env) withPlan(c *config.Config, change bool, f func(*kernelSide, []plan.Item) error) (err error) {
	side, err := openKernel(c.Kernel, change)
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
	want, err := e.wanted(c)
	if err != nil {
		return err
	}
	if err := clsactPrivileged("attach", want); err != nil {
		return err
	}
	if err := e.sayStopped(c); err != nil {
		return err
	}
	return f(side, want)
}

// sayStopped says, before it happens, what will not reach the origins any more.
func (e *env) sayStopped(c *config.Config) error {
	links, err := route.Links()
	if err != nil {
		return err
	}
	firewall, err := netfilter.Look()
	if err != nil {
		return err
	}
	e.warn(doctor.Stopped(c, links, firewall))
	return nil
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
