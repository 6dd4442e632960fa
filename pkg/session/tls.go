package session

import (
	"net/netip"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// TLS, RFC 3207. The switch is a barrier in both directions: what was sent
// behind STARTTLS, or behind the 220 to it, is plain text that would be read as
// if it had come inside TLS (CVE-2011-0411 and its family), so it ends the
// session. The side's buffer is emptied, and what the client said in clear is
// forgotten.

// TLS is what a session does about it. The zero value takes STARTTLS out of the
// reply to EHLO, and refuses it.
type TLS struct {
	Mode   string // the configuration's word for all this, for the record
	Client When
	Origin When

	// A side that must have TLS. A client without it may only greet, start it and
	// leave; without it on the origin's side no message goes there.
	ClientMust, OriginMust bool

	// Who makes the handshakes, where there are any.
	ClientSide, OriginSide Starter

	// Again, if not nil, is who makes another origin leg after a handshake with the
	// origin has failed. The session goes on there in clear.
	Again Redialer

	// Tunnel, if not nil, is what carries the session after an origin's 220 to
	// STARTTLS. No side then has TLS of ours.
	Tunnel Tunnel
}

// Redialer makes another leg to the same origin, in place of one that was
// aborted. It returns the source address that this one bears, if it is forged.
type Redialer func() (origin Leg, forged netip.AddrPort, err error)

// When says when a side gets TLS.
type When uint8

const (
	Never    When = iota
	Mirror        // client: offered exactly when the origin offers it; origin: when the client starts it
	Always        // client: offered; origin: started where it is offered
	Implicit      // from the first octet on
)

// Starter makes the handshakes of one side. It is used by many sessions at once.
type Starter interface {
	// Start makes the handshake over leg, from which nothing was read ahead, until
	// by. It returns the leg inside TLS; or, with a record whose Failure says why,
	// none, and leg is then of no more use than to be closed.
	Start(leg Leg, by time.Time) (Leg, event.TLS)
}

// Tunnel carries octets between the two legs without looking at them. It returns
// when both peers have ended, with an error when one of them broke off, when
// neither has sent anything for idle, or at the time until, unless that is zero.
type Tunnel func(idle time.Duration, until time.Time) event.Opaque

// closer is what a leg inside TLS may be: CloseNotify tells the peer that
// nothing more comes, so that it can tell an end from an interruption.
type closer interface{ CloseNotify() error }

var (
	clientAhead = &ending{end: event.EndEarlyTalker, verdict: wording.BehindTLS, detail: "octets behind STARTTLS"}
	originPlain = &ending{end: event.EndOriginTLS, verdict: wording.OriginPlain}
	originTLS   = &ending{end: event.EndOriginTLS, verdict: wording.OriginTLS, origin: Abort}
)

// armour is how far TLS has come.
type armour struct {
	client, origin bool // the leg has TLS
	authentic      bool // the origin is known to be the one that was meant
	asked          bool // the origin was asked, in clear
	renewed        bool // the origin's leg is the second
	due            bool // STARTTLS was said and not yet answered
}

// private reports whether nobody on either way can read what is said.
func (a *armour) private() bool { return a.client && a.origin }

// begin makes the handshakes that come before the first word. The client's is
// first: it can then be told what became of the other.
func (x *session) begin() *ending {
	if x.o.TLS.Client == Implicit {
		if e := x.startClient(); e != nil {
			return e
		}
	}
	if x.o.TLS.Origin != Implicit || x.origin.leg == nil {
		return nil
	}
	x.startOrigin()
	if x.dropped != nil {
		return x.dropped
	}
	return nil
}

// mayStart reports whether the client may be offered STARTTLS.
func (x *session) mayStart() bool {
	switch {
	case x.tls.client || x.o.TLS.Client == Implicit:
		return false
	case x.o.TLS.Tunnel != nil:
		return x.theirs.Has(smtp.ExtStartTLS)
	case x.o.TLS.Client == Mirror:
		return x.theirs.Has(smtp.ExtStartTLS) || x.tls.origin
	}
	return x.o.TLS.Client == Always
}

// refuseClear refuses a command without TLS: for good, unless it is the origin's
// doing that the client cannot start it.
func (x *session) refuseClear() step {
	unoffered := x.hailed && x.rec.Extended && !x.offered.Has(smtp.ExtStartTLS)
	failed := x.rec.OriginTLS != nil && !x.rec.OriginTLS.Active()
	r := wording.NeedsTLS
	if unoffered || failed {
		r = wording.NeedsTLSLater
	}
	return x.recorded(x.refuse(r))
}

// startTLS handles STARTTLS. It stands alone; what comes of it is made by
// switchLegs.
func (x *session) startTLS() step {
	switch {
	case !x.offered.Has(smtp.ExtStartTLS):
		return x.refuse(wording.NotOffered)
	case x.ledger.n > 0:
		return hold
	case x.authenticated:
		return x.refuse(wording.TLSAfterAuth)
	case x.tx.state != noMail:
		return x.refuse(wording.TLSInMail)
	}
	x.tls.due = true
	return barrier
}

// endAhead ends the session of a client that sends behind STARTTLS.
func (x *session) endAhead() *ending {
	x.rec.ClientTLS = &event.TLS{Failure: event.FailureInjected}
	return clientAhead
}

// hasSent reports whether the peer has sent something that was not used yet.
func (s *side) hasSent() bool {
	if len(s.window()) > 0 {
		return true
	}
	n, _ := s.leg.Pending() // an error is met by who reads next
	return n > 0
}

// switchLegs answers STARTTLS. The origin's leg comes first: if it gets no TLS,
// the client's must not have it either, or mail would leave it in the belief of
// being protected.
func (x *session) switchLegs() *ending {
	x.tls.due = false
	if x.client.hasSent() {
		return x.endAhead()
	}
	if x.o.TLS.Tunnel != nil {
		return x.passThrough()
	}
	if x.o.TLS.Origin == Mirror && !x.tls.origin {
		if e := x.secureOrigin(); e != nil {
			return e
		}
		if !x.tls.origin {
			x.noteStart(*x.rec.OriginTLS)
			return x.tell(wording.TLSNotNow)
		}
	}
	if x.client.hasSent() { // making the origin's TLS took its time
		return x.endAhead()
	}
	if e := x.tell(wording.StartTLS); e != nil {
		return e
	}
	if e := x.flush(); e != nil {
		return e
	}
	if e := x.startClient(); e != nil {
		return e
	}
	x.rec.Used = x.rec.Used.With(smtp.ExtStartTLS)
	return nil
}

// noteStart records why the client was refused TLS.
func (x *session) noteStart(origin event.TLS) {
	x.rec.ClientTLS = &event.TLS{Failure: event.FailureRefused, Detail: "origin: " + origin.Failure.String()}
}

// startClient makes the client's handshake.
func (x *session) startClient() *ending {
	t := x.handshake(&x.client, x.o.TLS.ClientSide)
	x.rec.ClientTLS = &t
	if !t.Active() {
		return &ending{end: event.EndClientTLS, verdict: verdict.Silent(event.ReasonClientTLS), detail: t.Failure.String()}
	}
	x.tls.client = true
	x.afresh()
	return nil
}

// afresh takes back all that the client said in clear, and what it was told,
// RFC 3207 section 4.2.
func (x *session) afresh() {
	x.forget()
	x.hailed = false
	x.env.Hello = nil
	x.rec.Extended = false
	x.unnoteRemoved()
}

// handshake replaces a side's leg by the one inside TLS. The side's buffer is
// empty, as the callers have seen to.
func (x *session) handshake(s *side, with Starter) event.TLS {
	s.free()
	by := time.Now().Add(x.o.Timeouts.Handshake)
	if s == &x.client && !x.limit.IsZero() && x.limit.Before(by) {
		by = x.limit
	}
	leg, t := with.Start(s.leg, by)
	x.now = time.Now()
	if t.Active() {
		s.init(leg)
		s.readBy, s.writeBy = time.Time{}, time.Time{} // the handshake had deadlines of its own
	}
	return t
}

// passThrough carries STARTTLS to the origin and, if it agrees, all that
// follows, unseen.
func (x *session) passThrough() *ending {
	r, e := x.askStartTLS()
	switch {
	case e != nil:
		return e
	case r.Code != 220:
		return x.pass(r)
	case x.client.hasSent():
		return x.endAhead()
	}
	if e := x.pass(r); e != nil {
		return e
	}
	if e := x.flush(); e != nil {
		return e
	}
	x.rec.Used = x.rec.Used.With(smtp.ExtStartTLS)
	x.rec.OriginTLS = nil // it may have refused before
	return x.tunnel()
}

// tunnel is the rest of a session that nobody looks at.
func (x *session) tunnel() *ending {
	x.client.free()
	x.origin.free()
	x.park()
	o := x.o.TLS.Tunnel(x.o.Timeouts.End, x.limit)
	x.now = time.Now()
	x.rec.Opaque = &o
	if o.Detail != "" {
		return &ending{end: event.EndOpaque, verdict: verdict.Silent(event.ReasonOpaque), detail: o.Detail, client: Abort, origin: Abort}
	}
	return &ending{end: event.EndOpaque, verdict: verdict.Silent(event.ReasonOpaque)}
}

// farewell tells the peers that have TLS that nothing more comes.
func (x *session) farewell(client, origin Close) {
	if c, ok := x.client.leg.(closer); ok && client == Graceful {
		c.CloseNotify() // best effort: the connection is closed in any case
	}
	if c, ok := x.origin.leg.(closer); ok && origin == Graceful {
		c.CloseNotify() // the same
	}
}
