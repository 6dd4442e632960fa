// Package relay is a connection's life: accepted, admitted or refused, joined to
// an origin before the client is greeted, handed to a session, and closed.
//
// It owns both connections of a flow from accept and forward to their close,
// and is the only one that closes them. It reads the PROXY header where there
// must be one, and never reads or writes SMTP: what is said, also when there is no
// origin, the session says. What the session leaves to it after a STARTTLS that was
// passed through it carries without looking. The daemon calls it.
package relay

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portreeve/portreeve/pkg/accept"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/stream"
	"github.com/portreeve/portreeve/pkg/wording"
	"github.com/portreeve/portreeve/pkg/zone"
)

// Service is what a flow's service needs to be served.
type Service struct {
	Dialer *forward.Dialer
	Policy policy.Policy // nil: rules that carry ordinary mail
	TLS    *TLS          // nil: STARTTLS is taken out
}

// Options say how a Relay works.
type Options struct {
	Services map[string]Service // by name
	Zones    *zone.Table        // where clients are, and what for they are trusted; nil: in none
	Timeouts session.Timeouts
	Proxy    time.Duration // the PROXY header of a client that must send one; default 5 s
	Sessions int           // at once; a client beyond them is refused; 0: no limit
	Pipes    int           // of splice(2) in use at once, two descriptors each; stretches beyond them are copied; 0: no limit
	Sink     event.Sink    // records; nil: none
	Log      *slog.Logger  // why an origin was not reached, and faults of our own; nil: nowhere
}

// Relay serves connections.
type Relay struct {
	opts     Options
	services atomic.Pointer[map[string]Service]
	zones    atomic.Pointer[zone.Table]
	draining atomic.Bool
	severing atomic.Bool
	live     registry
	resting  stream.Watch // sessions whose clients are silent
	pipes    pipes
	tidy     tidy

	dialling context.Context // ends when sessions are cut
	cut      context.CancelFunc
}

// New returns a Relay that waits for Serve.
func New(o Options) *Relay {
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Proxy <= 0 {
		o.Proxy = headerPatience
	}
	r := &Relay{opts: o, live: registry{limit: o.Sessions}}
	if o.Pipes > 0 {
		r.pipes = make(pipes, o.Pipes)
	}
	r.dialling, r.cut = context.WithCancel(context.Background())
	r.Replace(o.Services, o.Zones)
	return r
}

// Replace makes connections accepted from now on be served by other services,
// with other zones or, with nil, none. The map is the Relay's from here on.
func (r *Relay) Replace(services map[string]Service, zones *zone.Table) {
	if zones == nil {
		zones = new(zone.Table)
	}
	r.zones.Store(zones)
	r.services.Store(&services)
}

// Serve accepts and serves connections until the listeners are closed or
// drained; its error is net.ErrClosed then. Sessions go on after that, until
// they end or Drain cuts them.
func (r *Relay) Serve(listeners *accept.Listeners) error {
	var loops sync.WaitGroup
	for _, l := range listeners.All() {
		loops.Go(func() { r.loop(l) })
	}
	loops.Wait()
	return net.ErrClosed
}

// loop serves what one listener accepts. A client over the limit, or for whom there is
// no descriptor, is refused right here: a flood of them makes no goroutines, and the
// next one waits in the kernel's queue.
func (r *Relay) loop(l *accept.Listener) {
	for {
		conn, f, err := l.Accept()
		if conn == nil {
			return
		}
		switch c := r.adopt(conn, f); {
		case err != nil: // accept.ErrExhausted
			r.opts.Log.Warn("no descriptor left, a client is sent away", "client", f.Client, "remedy", "raise the limit of open files (LimitNOFILE, fs.file-max)")
			c.turnAway(wording.Spent)
		case r.live.add(c):
			go c.serve()
		default:
			c.turnAway(wording.Full)
		}
	}
}

// adopt takes a connection over from accept: whatever happens to it, the call
// closes it.
func (r *Relay) adopt(conn *net.TCPConn, f flow.Flow) *call {
	f.Zone = r.zones.Load().Find(f.Client.Addr())
	return &call{r: r, flow: f, start: time.Now(), client: newLeg(conn), account: account{Sink: r.opts.Sink}}
}

// Session is a session that is under way.
type Session struct {
	Flow  flow.Flow
	Path  forward.Path // zero while the origin is being dialled
	Start time.Time
}

// Sessions returns the sessions that are under way, oldest first.
func (r *Relay) Sessions() []Session { return r.live.snapshot() }
