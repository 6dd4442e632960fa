package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// dialPatience bounds all attempts to reach an origin together: a client waits
// five minutes for its greeting (RFC 5321 section 4.5.3.2.1) and shall rather
// read our reply.
const dialPatience = 4 * time.Minute

// call is one client connection from accept to close. It owns both legs.
type call struct {
	r       *Relay
	flow    flow.Flow
	start   time.Time
	client  *leg
	account account

	// Set by serve.
	service Service
	talk    policy.Conversation // nil before there is one
	must    bool                // no mail without TLS to this origin, whatever the service asks

	mu      sync.Mutex
	origin  *leg // nil before there is one
	path    forward.Path
	tried   []event.Unreached // origins before it
	severed bool              // the origin's leg, or both, were or are to be reset
}

// serve begins the life of an admitted call: up to the origin.
func (c *call) serve() {
	defer c.survive()
	if !c.announced() {
		return
	}
	service, ok := (*c.r.services.Load())[c.flow.Service]
	if !ok { // a replaced configuration overtook the connection
		c.refuse(wording.Broken)
		return
	}
	c.service = service
	if !c.admitted() {
		return
	}
	if err := c.reach(service.Dialer); err != nil {
		c.r.opts.Log.Warn("no origin", "flow", c.flow.ID, "service", c.flow.Service, "client", c.flow.Client, "error", err)
		c.refuse(refusalFor(err))
		return
	}
	c.must = c.demandsTLS()
	// Dialling takes more stack than a session needs while it waits, and a
	// goroutine keeps a stack of which it uses a quarter: one goroutine for both
	// would cost each idle session 4 KiB more.
	go c.converse()
}

// converse is the rest of an admitted call's life.
func (c *call) converse() {
	defer c.survive()
	c.carryOn(session.Begin(c.options(), c.client, c.origin))
}

// turnAway is the life of a call that is one too many. It is told in clear, also
// where clients begin with TLS: a handshake costs more than is to be spared.
func (c *call) turnAway(v *verdict.V) {
	defer c.survive()
	session.Refuse(c.options(), c.client, event.EndNoOrigin, v)
	c.client.Close() // at once: a client over the limit is not worth a wait
}

// reach dials the origin. It comes before the greeting: a client whose origin is
// down is told so by a greeting of 421, and turns to another MX by itself.
func (c *call) reach(d *forward.Dialer) error {
	ctx, cancel := context.WithTimeout(c.r.dialling, dialPatience)
	defer cancel()
	conn, path, err := d.Dial(ctx, c.flow)
	if err != nil {
		c.tried = tried(err, nil)
		return err
	}
	c.tried, path.Failed = tried(path.Failed, nil), nil
	c.take(conn, path)
	return nil
}

// again dials the same origin once more, see session.Redialer.
func (c *call) again() (session.Leg, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(c.r.dialling, dialPatience)
	defer cancel()
	conn, path, err := c.service.Dialer.DialAgain(ctx, c.flow, c.path)
	if err != nil {
		c.r.opts.Log.Warn("no second connection to the origin after TLS failed on the first", "flow", c.flow.ID, "service", c.flow.Service, "client", c.flow.Client, "error", err)
		return nil, netip.AddrPort{}, err
	}
	c.take(conn, path)
	return c.origin, c.forged(), nil
}

// take makes a connection to an origin the call's.
func (c *call) take(conn *net.TCPConn, path forward.Path) {
	c.account.unforged = path.Unforged
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origin, c.path = newLeg(conn), path
	if c.severed {
		c.origin.Abort()
	}
}

// forged returns the source address of the origin leg where it is the client's.
func (c *call) forged() netip.AddrPort {
	if c.path.Forged() {
		return c.path.Source
	}
	return netip.AddrPort{}
}

// options describes the call to the session.
func (c *call) options() session.Options {
	service := c.service
	if service.Dialer == nil { // it is not served; none: a replaced configuration overtook the connection
		service = (*c.r.services.Load())[c.flow.Service]
	}
	return session.Options{
		Policy:    c.talk,
		Rules:     service.policy().Rules(),
		Flow:      c.flow,
		Origin:    c.path.Origin,
		Forged:    c.forged(),
		Unreached: c.tried,
		Timeouts:  c.r.opts.Timeouts,
		Sink:      &c.account,
		Draining:  c.r.draining.Load,
		Cut:       c.r.severing.Load,
		TLS:       c.tls(),
	}
}

// refuse tells the client that there is no origin for it, and closes.
func (c *call) refuse(v *verdict.V) {
	c.close(session.Refuse(c.options(), c.client, event.EndNoOrigin, v))
}

// close ends the call: both legs are closed as the session asks. The origin comes
// first, so that an aborted message does not wait for a client that lingers.
func (c *call) close(o session.Outcome) {
	switch {
	case c.origin == nil:
	case o.Origin == session.Abort:
		c.origin.Abort()
	case o.End == event.EndOpaque: // what it was sent last may still be on its way
		c.origin.Close()
	default:
		c.origin.release()
	}
	switch {
	case o.Client == session.Abort:
		c.client.Abort()
	case o.End == event.EndQuit, o.End == event.EndNoOrigin, o.End == event.EndClientGone, // the client waits for our last words
		c.origin == nil && (o.End == event.EndPolicy || o.End == event.EndDraining): // or for the first
		c.client.closeQuiet()
	default:
		c.client.closeBusy()
	}
	c.over()
}

// over lets go of a call whose legs are closed.
func (c *call) over() {
	defer c.r.live.remove(c)
	if c.talk == nil {
		return
	}
	defer func() {
		if fault := recover(); fault != nil { // the session is over anyway
			c.r.opts.Log.Error("fault in a policy that was told of a session's end, please report it", "flow", c.flow.ID, "service", c.flow.Service,
				"fault", fault, "stack", string(debug.Stack()))
		}
	}()
	c.talk.Close()
}

// survive keeps a fault in one session from ending all others, and ends the call
// in its place. Nobody knows how far the session had come, so both legs are reset:
// the origin never takes a message that was under way, and the client tries
// again.
func (c *call) survive() {
	fault := recover()
	if fault == nil {
		return
	}
	c.sever()
	c.r.opts.Log.Error("fault in a session, please report it", "flow", c.flow.ID, "service", c.flow.Service,
		"client", c.flow.Client, "fault", fault, "stack", string(debug.Stack()))
	c.recordFault(fault)
	c.over()
}

// recordFault makes the records that the session did not come to make.
func (c *call) recordFault(fault any) {
	defer func() { recover() }() // the fault may be in the sink
	if c.account.closed {
		return
	}
	if !c.account.opened {
		c.account.Opened(&c.flow)
	}
	o := c.options()
	c.account.Session(&event.Session{
		Flow: c.flow, Origin: o.Origin, Forged: o.Forged, Unreached: o.Unreached,
		Start: c.start, Duration: time.Since(c.start),
		End: event.EndFault, Detail: firstLine(fmt.Sprint(fault)),
	})
}

// firstLine leaves out what is for the log: the place of a fault.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// sever resets both legs, the origin's first, so that no end of data follows
// from what the session makes of the client's end. The session notices at its
// next read or write.
func (c *call) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.severed = true
	if c.origin != nil {
		c.origin.Abort()
	}
	c.client.Abort()
	c.r.resting.Wake(c.client.Conn)
}

// giveUp resets the origin's leg, and lets the session tell its client so.
func (c *call) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.severed = true
	if c.origin != nil {
		c.origin.Abort()
	}
	c.interrupt()
}

// interrupt wakes a session that waits for its client, so that it sees that the
// relay drains.
func (c *call) interrupt() {
	c.client.SetReadDeadline(time.Unix(1, 0))
	c.r.resting.Wake(c.client.Conn)
}

// describe returns the call as others see it.
func (c *call) describe() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Session{Flow: c.flow, Path: c.path, Start: c.start}
}
