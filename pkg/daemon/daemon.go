// Package daemon puts the inspector together and runs it until it is told to
// stop or another inspector takes over.
//
// Run makes every part from the parts above it, in one place: listeners,
// dialers, relay, heartbeat. The services' slots are filled last, when everything
// behind them is ready, and emptied first. The package installs nothing in
// the kernel that outlives the process: that is apply's.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/portreeve/portreeve/pkg/accept"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/pkg/notice"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/relay"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/steer"
	"github.com/portreeve/portreeve/pkg/zone"
)

// queueQuiet is how long a listener that gets no new connections any more
// waits for handshakes that it began: longer than the first retransmission of
// a SYN-ACK that was lost (one second, RFC 6298) and a round trip.
const queueQuiet = 3 * time.Second

// Options are what Run works with.
type Options struct {
	Config *config.Config
	Steer  *steer.Steer   // attached
	Sink   event.Sink     // records
	Log    *slog.Logger   // the daemon's own notices
	Keys   keyring.Source // reads certificates; nil: this process does

	// KeysGone, if not nil, is closed when Keys can no longer be used. The
	// inspector then ends with an error, so that whoever started it does so again.
	KeysGone <-chan struct{}

	// Lost, if not nil, tells how many records could not be written so far.
	Lost func() uint64

	// Attach, if not nil, is called when the slots are filled: what it leads to
	// the services finds them served. It reports whether it has left in place what
	// sessions of an older inspector rely on. The error is ErrReplaced where a newer
	// inspector was quicker: then nothing is led to this one.
	Attach func() (relied bool, err error)

	// Settle, if not nil, is called after Attach, once no older inspector needs
	// what that has left: before the inspector says that it is ready, where there
	// is no such thing or no such inspector, else later. It reports false where it
	// has to be called again, also after an error.
	Settle func() (done bool, err error)

	// Presence is the inspector's own, made before Attach was prepared; nil: Run
	// makes one. Run closes it.
	Presence *Presence
}

// inspector is the running daemon.
type inspector struct {
	Options
	kernel    *steer.Inspector
	services  []string
	listeners *accept.Listeners
	relay     *relay.Relay
	ring      *keyring.Ring // nil where no service shows a certificate
	networks  networks
	returns   *returns.Book // nil before it is made
	pulse     *pulse
	heart     beating // from takeOver on
	unsettled bool    // Settle is still to be called
	waiting   bool    // for older inspectors, which was told
	retry     nextTry // of Settle

	// crowd is Log for what strangers can bring about: anybody may connect, scrape
	// or fail, as often as he likes.
	crowd *slog.Logger
}

// Run serves until ctx ends or a newer inspector takes over, then drains: it
// leaves the slots, accepts what is queued, and waits for sessions until the
// drain timeout. It returns nil when it ended in order.
func Run(ctx context.Context, o Options) error {
	limit := notice.NewLimit(o.Log.Handler())
	defer limit.Flush()
	i := &inspector{Options: o, crowd: slog.New(limit)}
	if i.Keys == nil {
		i.Keys = keyring.Files{}
	}
	defer i.close()
	if i.Presence == nil {
		var err error
		if i.Presence, err = Appear(); err != nil {
			return err
		}
	}
	counters := i.count()
	if err := i.prepare(); err != nil {
		return err
	}
	keeping, stop := context.WithCancel(context.Background())
	defer stop()
	go i.keepRing(keeping)
	defer i.export(counters)()
	served := make(chan error, 1)
	go func() { served <- i.relay.Serve(i.listeners) }()
	switch err := i.takeOver(ctx); {
	case errors.Is(err, ErrReplaced):
		o.Log.Info("a newer inspector has taken over already, draining")
		i.drain()
		return nil
	case err != nil:
		return err
	}
	go i.keepForging(keeping)
	o.Log.Info("ready", "services", len(i.services), "instance", i.pulse.instance)
	daemon.SdNotify(false, daemon.SdNotifyReady)

	err := i.wait(ctx, served)
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	i.drain()
	return err
}

// prepare makes every part; nothing reaches them yet.
func (i *inspector) prepare() error {
	var err error
	if i.kernel, err = i.Steer.Inspector(); err != nil {
		return err
	}
	for _, s := range i.Config.Services {
		i.services = append(i.services, s.Name)
	}
	if err := i.fits(); err != nil {
		return err // the inspector that runs, if any, goes on
	}
	local, err := route.LocalAddrs()
	if err != nil {
		return err
	}
	own := set(local)
	c := i.Config
	i.listeners, err = accept.Listen(accept.Options{
		Mark:    c.Kernel.ClientMark,
		Table:   accept.NewTable(plan.Bindings(c, local)),
		Local:   own.has,
		Unknown: i.kernel.Binding,
		Trouble: func(err error) { i.crowd.Warn("cannot accept", "error", err) },
	})
	if err != nil {
		return err
	}
	if err := i.openRing(); err != nil {
		return err
	}
	if err := i.openForging(); err != nil {
		return err
	}
	services, err := i.serve(own)
	if err != nil {
		return err
	}
	sessions, pipes, err := i.fit() // last, when all is open that stays so
	if err != nil {
		return err
	}
	i.relay = relay.New(relay.Options{
		Services: services,
		Zones:    zones(c.Zones),
		Proxy:    c.Timeouts.Proxy,
		Timeouts: timeouts(c.Timeouts),
		Sessions: sessions,
		Pipes:    pipes,
		Sink:     i.Sink,
		Log:      i.crowd,
	})
	return nil
}

// fits returns an error where the kernel side is not that of the configuration.
// One that is attached by this inspector has, for a while, the settings of an
// older one too.
func (i *inspector) fits() error {
	if i.Attach != nil {
		return i.kernel.Knows(i.services)
	}
	return i.kernel.Fits(plan.SettingsOf(i.Config), i.services)
}

// serve returns what the relay has to know of each service.
func (i *inspector) serve(own addresses) (map[string]relay.Service, error) {
	c := i.Config
	services := make(map[string]relay.Service, len(c.Services))
	for _, s := range c.Services {
		d := &forward.Dialer{
			Origins: s.Origins,
			Forge:   s.Forge,
			Mark:    c.Kernel.OriginMark,
			Timeout: c.Timeouts.Connect,
			Local:   own.has,
		}
		if s.Forge.Address == config.ForgeNever && len(s.Origins) > 0 {
			d.Local = nil // a mail server on the gateway itself, which config has seen not to be a loop
		}
		i.forge(d)
		t, err := i.tlsOf(s.TLS)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		services[s.Name] = relay.Service{Dialer: d, Policy: policy.New(s.SMTP), TLS: t}
	}
	return services, nil
}

// takeOver fills the slots, and makes an older inspector give way. It claims
// the heartbeat last: until then the older one stays in the slots that are its
// alone, and serves what attach has not yet led to us. Where nobody keeps the
// heartbeat alive it is begun first, or clients would be judged by a hung one.
func (i *inspector) takeOver(ctx context.Context) error {
	var err error
	if i.pulse, err = newPulse(i.kernel, i.Config.Kernel.Heartbeat); err != nil {
		return err
	}
	if !i.pulse.succeeds {
		if err := i.pulse.beat(); err != nil {
			return err
		}
	}
	if err := i.kernel.Register(i.services, i.listeners.IPv4(), i.listeners.IPv6()); err != nil {
		return err
	}
	relied := false
	if i.Attach != nil {
		relied, err = i.Attach()
		switch {
		case errors.Is(err, ErrReplaced):
			return err
		case err != nil:
			i.drain()
			return err
		}
	}
	if err := i.pulse.beat(); err != nil {
		return err
	}
	if err := i.kernel.Hold(); err != nil {
		return err
	}
	i.live(ctx, i.watch().look, relied)
	return nil
}

// beating is a heart at work.
type beating struct {
	ended <-chan error // why it does not beat any more
	stop  func()       // returns when it has ended
}

// live lets the heart beat from now on, and settles meanwhile: on a busy machine that
// may take longer than an inspector may be silent.
func (i *inspector) live(ctx context.Context, look func() error, relied bool) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var task sync.WaitGroup
	task.Go(func() { ended <- i.pulse.run(ctx, look) })
	i.heart = beating{ended, func() { cancel(); task.Wait() }}
	i.unsettled = i.Settle != nil
	i.settle(relied)
}

// settle removes what older inspectors have needed, if none of them does any
// more. What cannot be removed does not stop mail.
func (i *inspector) settle(relied bool) {
	if !i.unsettled {
		return
	}
	if relied && i.waits() || !i.retry.due() {
		return
	}
	done, err := i.Settle()
	switch {
	case err != nil && done:
		i.Log.Warn("what an older inspector needed could not be removed, and the next one that is started by run --attach does it", "error", err)
	case err != nil && !i.retry.told:
		i.Log.Warn("what an older inspector needed could not be removed, which is tried again", "error", err)
		i.retry.told = true
	}
	i.unsettled = !done
	i.retry.later()
}

// nextTry is when something is tried again that does not work now: after a second, and then
// after longer and longer.
type nextTry struct {
	at    time.Time
	pause time.Duration
	told  bool
}

// longestPause is between two tries at most.
const longestPause = 30 * time.Second

func (r *nextTry) due() bool { return !time.Now().Before(r.at) }

func (r *nextTry) later() {
	r.pause = min(max(2*r.pause, eldersPoll), longestPause)
	r.at = time.Now().Add(r.pause - eldersPoll/2) // who polls may be a little early
}

// waits reports whether an older inspector has not ended yet, or may not have, and
// tells so once.
func (i *inspector) waits() bool {
	elders, err := i.Presence.Elders()
	switch {
	case i.waiting:
	case err != nil:
		i.Log.Warn("it is not known whether an older inspector still has sessions: what they may rely on is left", "error", err)
	case elders:
		i.Log.Info("an older inspector still has sessions: what they rely on is removed when it has ended")
	}
	i.waiting = elders || err != nil
	return i.waiting
}

// eldersPoll is how often an inspector looks whether the older ones have ended
// for which something was left in place.
const eldersPoll = time.Second

// wait blocks until there is a reason to stop. Being replaced or told to stop
// is no error.
func (i *inspector) wait(ctx context.Context, served <-chan error) error {
	defer i.heart.stop() // it takes no slots while they are left
	poll := time.NewTicker(eldersPoll)
	defer poll.Stop()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("accept connections: %w", err)
		case <-i.KeysGone:
			return errors.New("the process that holds the private keys has ended, and without it there is no TLS; start the inspector again")
		case err := <-i.heart.ended:
			return i.stopped(ctx, err)
		case <-poll.C:
			i.settle(true)
			if !i.unsettled {
				poll.Stop()
			}
		}
	}
}

// stopped says why the heart has stopped; nil where that was in order.
func (i *inspector) stopped(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrReplaced):
		i.Log.Info("a newer inspector has taken over, draining")
		return nil
	case ctx.Err() != nil:
		i.Log.Info("told to stop, draining", "by", context.Cause(ctx))
		return nil
	case errors.Is(err, steer.ErrNotAttached):
		return errors.New("the kernel side was detached while the inspector ran; start it again after portreeve attach")
	case errors.As(err, new(unserved)):
		i.Log.Error("nobody is served, draining", "error", err)
		return err
	}
	return fmt.Errorf("heartbeat: %w", err)
}

// watch is what the inspector sees of its place in the kernel.
func (i *inspector) watch() *watch {
	return &watch{
		place:    seats{i.kernel, i.listeners},
		own:      plan.SettingsOf(i.Config),
		services: i.services,
		grace:    i.Config.Timeouts.Drain,
		log:      i.Log,
		replaced: i.pulse.replaced,
		removed:  map[string]bool{},
		taken:    map[string]time.Time{},
	}
}

// drain ends the inspector without losing a connection: no new ones come
// once the slots are left, those that are queued are accepted, and sessions end
// by themselves until the drain timeout.
func (i *inspector) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), i.Config.Timeouts.Drain)
	defer cancel()
	if err := i.kernel.Unregister(i.services); err != nil {
		i.Log.Warn("cannot leave the services' slots", "error", err)
	}
	if err := i.listeners.Drain(ctx, queueQuiet); err != nil {
		i.Log.Warn("connections may be lost", "error", err)
	}
	if cut := i.relay.Drain(ctx); cut > 0 {
		i.Log.Warn("sessions cut at the drain timeout", "sessions", cut)
	}
	i.Log.Info("ended")
}

func (i *inspector) close() {
	if i.listeners != nil {
		i.listeners.Close()
	}
	if i.returns != nil {
		i.returns.Close()
	}
	if i.kernel != nil {
		i.kernel.Close()
	}
	if i.Presence != nil {
		i.Presence.Close()
	}
}

// zones returns the table of what the configuration says of clients.
func zones(list []config.Zone) *zone.Table {
	var all []zone.Network
	for _, z := range list {
		for _, n := range z.Networks {
			all = append(all, zone.Network{Prefix: n, Zone: zone.Zone{Name: z.Name, Trust: z.Trust}})
		}
	}
	return zone.NewTable(all)
}

// timeouts are those of the configuration that a session minds.
func timeouts(t config.Timeouts) session.Timeouts {
	return session.Timeouts{
		Greet: t.Greet, Command: t.Command, Reply: t.Reply,
		Data: t.Data, Block: t.Block, End: t.End, Handshake: t.Handshake,
	}
}

// addresses are the gateway's own when the inspector started. An address that
// it gets later cannot be the origin of a service (plan.Judge), and one inside
// an intercepted prefix is kept out by the next attach.
type addresses map[netip.Addr]bool

func set(list []netip.Addr) addresses {
	own := make(addresses, len(list))
	for _, a := range list {
		own[a] = true
	}
	return own
}

func (a addresses) has(addr netip.Addr) bool { return a[addr] }
