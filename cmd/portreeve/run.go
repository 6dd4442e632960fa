package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/record"
	"github.com/portreeve/portreeve/pkg/steer"
)

func newRun(e *env) *cobra.Command {
	var how runManner
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

A watcher, which is another process, keeps what was attached as it was, see portreeve
watch; it ends with the inspector.

Where services show certificates, a second process reads and holds the private keys and
ends with the inspector, which runs itself again so that it cannot read them (Landlock).`,
		Example: "  portreeve run -c /etc/portreeve.yaml --attach",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return inspect(c.Context(), e, how)
		},
	}
	e.needConfig(c)
	c.Flags().BoolVar(&how.attach, "attach", false, "install the kernel side, and take over from an inspector that runs")
	c.Flags().BoolVar(&how.noWatch, "no-watch", false, "start no watcher; one may run by itself: portreeve watch")
	return c
}

// runManner is what run does besides being the inspector.
type runManner struct {
	attach  bool
	noWatch bool
}

// inspect is run twice: the second time in the confines that the first has made.
func inspect(ctx context.Context, e *env, how runManner) error {
	h, err := begin()
	if err != nil {
		return err
	}
	if h == nil {
		return e.confine(ctx, how)
	}
	return e.serve(ctx, h)
}

// serve is the inspector in its confines.
func (e *env) serve(ctx context.Context, h *handover) (err error) {
	c, err := h.config(e)
	if err != nil {
		return err
	}
	if err := h.confined(c); err != nil {
		return err
	}
	o := daemon.Options{Config: c, Log: notices(e.stderr)}
	keys, err := h.keys()
	if err != nil {
		return err
	}
	if keys != nil {
		defer keys.Close()
		o.Keys, o.KeysGone = keys, keys.Gone()
	}
	if h.Attacher != 0 {
		o.Presence = h.presence()
		attacher := h.attacher()
		defer attacher.close()
		o.Attach, o.Settle = attacher.move, attacher.settle
	}
	if o.Steer, err = steer.New(c.Kernel.BPFFS); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Steer.Close()) }()
	signal.Ignore(syscall.SIGCHLD) // what it has started before ends when it likes
	signal.Ignore(syscall.SIGPIPE) // a reader of the records that dies must not end sessions
	sink := records(c.Log, e.stdout, o.Log)
	defer func() { err = errors.Join(err, sink.Close()) }()
	o.Sink, o.Lost = sink, sink.Lost
	if !c.Log.SilentVisitors {
		o.Sink = record.WithoutSilent(sink)
	}
	ctx, stop := untilHangup(ctx)
	defer stop()
	return daemon.Run(ctx, o)
}

// errHangup is why an inspector stops at SIGHUP. Who sends it may expect more.
var errHangup = errors.New("SIGHUP, which is an order to stop: a configuration is read at the start only, so start a new inspector, which takes over")

// untilHangup returns a context that ends at SIGHUP, too. Whoever is in the middle of
// a message then gets to end it, as at SIGTERM. Further ones change nothing. Where
// SIGHUP was ignored before (nohup) it stays so.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		select {
		case <-hangup:
			cancel(errHangup)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(hangup)
		cancel(nil)
	}
}
