package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/status"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newStatus(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "show what is attached, alive, counted and left over",
		Long: `Status reads the kernel and says whether the kernel side is attached and since when,
whether an inspector lives, what each service does, how often each verdict had which
reason, what the walls have stopped, whether a watcher keeps the kernel side and what it
has put back, what was lost since the attach (somebody removed it) or displaced (somebody
put something before it), and what is left over from a crash. It needs neither a configuration nor an
inspector; given a configuration, it says where the metrics are.

Walls keep new connections from reaching origins uninspected. A leak is one that got past
the client side and that another wall has stopped: routing, packet filter or programs of
this machine work against portreeve, and doctor says which.

The exit code is 0 also when nothing is attached or leaks were stopped, and when nobody
serves (doctor's is 1 then). It is 1 when something is lost, displaced or left over.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return showStatus(c.Context(), e, asJSON) },
	}
	e.mayConfig(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func showStatus(ctx context.Context, e *env, asJSON bool) error {
	if err := endAtOnce(ctx); err != nil {
		return err
	}
	report, err := e.readStatus(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = e.printJSON(report)
	} else {
		err = report.WriteText(e.stdout)
	}
	if err == nil && len(report.Lost)+len(report.Displaced)+len(report.Leftovers) > 0 {
		err = errFound
	}
	return err
}

// readStatus reads the state of this network namespace.
func (e *env) readStatus(ctx context.Context) (_ status.Report, err error) {
	if err := privileged("status"); err != nil {
		return status.Report{}, err
	}
	c, err := e.settings()
	if err != nil {
		return status.Report{}, err
	}
	side, err := openKernel(ctx, c.Kernel, false)
	if err != nil {
		return status.Report{}, err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	if err := steer.Elsewhere(c.Kernel.BPFFS); err != nil {
		return status.Report{}, fmt.Errorf("status: %w", err)
	}
	if err := side.useSteer(c.Kernel.BPFFS); err != nil && !errors.Is(err, steer.ErrNoBPFFS) {
		return status.Report{}, err
	}
	report, err := status.Read(side.runner, side.steer)
	if c.Metrics.Listen.IsValid() {
		report.Metrics = fmt.Sprintf("http://%s/metrics", c.Metrics.Listen)
	}
	return report, err
}

func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot write to standard output: %w", err)
	}
	return nil
}
