package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
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

// install makes the kernel hold what a configuration asks for, or tells what
// it would change.
func (e *env) install(c *config.Config, dryRun bool) (_ []plan.Change, err error) {
	side, err := openKernel(c.Kernel, !dryRun)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	if err := side.useSteer(c.Kernel.BPFFS); err != nil {
		return nil, err
	}
	want, err := e.wanted(c)
	if err != nil {
		return nil, err
	}
	if dryRun {
		return side.runner.Changes(want)
	}
	changes, err := side.runner.Run(want)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return changes, nil
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
