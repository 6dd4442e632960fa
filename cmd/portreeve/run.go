package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/daemon"
)

func newRun(e *env) *cobra.Command {
	var withAttach bool
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "run the inspector in the foreground",
		Long: `Run is the inspector. It takes the slots of its services in the kernel side, which must
be attached (or give --attach), and serves until SIGTERM or SIGINT, or until a newer
inspector takes over; then it accepts what is queued, lets sessions end until the drain
timeout, and exits. One record for each message and session goes to standard output,
notices go to standard error.

With --attach it installs the kernel side as attach does. Where an inspector of another
configuration runs, that is how this one takes over without a gap: it is made ready
first, connections are led to it then, and what sessions of the older one rely on is
removed when that has ended.

An inspector whose slots were emptied takes them again. One to which the kernel side
leads nobody any more, since its services or its settings are not those that are
attached, waits for the drain timeout that they come back, and then ends with an error.

Where services show certificates, a second process reads and holds the private keys and
ends with the inspector, which runs itself again so that it cannot read them (Landlock).`,
		Example: "  portreeve run -c /etc/portreeve.yaml --attach",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return inspect(c.Context(), e, withAttach)
		},
	}
	e.needConfig(c)
	c.Flags().BoolVar(&withAttach, "attach", false, "install the kernel side, and take over from an inspector that runs")
	return c
}

func inspect(ctx context.Context, e *env, withAttach bool) (err error) {
	c, err := e.load()
	if err != nil {
		return err
	}
	if err := privileged("run"); err != nil {
		return err
	}
	o := daemon.Options{Config: c, Log: notices(e.stderr)}
	keys, err := e.reachKeys(c, o.Log)
	if err != nil {
		return err
	}
	if keys != nil {
		defer keys.Close()
		o.Keys, o.KeysGone = keys, keys.Gone()
	}
	if withAttach {
		if err := privileged("attach"); err != nil {
			return err
		}
		if o.Presence, err = daemon.Appear(); err != nil {
			return err
		}
		defer o.Presence.Close()
		if err := e.prepare(c); err != nil {
			return err
		}
		o.Attach = func() (bool, error) { return e.move(c) }
		o.Settle = func() (bool, error) { return e.settle(c, o.Presence.Heirs) }
	}
	side, err := openKernel(c.Kernel, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.close()) }()
	if err := side.useSteer(c.Kernel.BPFFS); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a reader of the records that dies must not end sessions
	sink := records(c.Log, e.stdout, o.Log)
	defer func() { err = errors.Join(err, sink.Close()) }()
	o.Steer, o.Sink, o.Lost = side.steer, sink, sink.Lost
	return daemon.Run(ctx, o)
}
