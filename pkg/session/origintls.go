package session

// The origin's leg: how it gets TLS, ahead of the client's greeting or of its handshake,
// and what becomes of the session where it gets none.

import (
	"strconv"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// secureFirst gets TLS for the origin's leg before a greeting is forwarded that
// must not be, or shall not be, in clear. It greets the origin itself to learn
// whether it offers STARTTLS. A refusal says nothing about that, but for a client
// that knows no EHLO either: it is passed on, and answers the client's greeting.
func (x *session) secureFirst() (answered bool, e *ending) {
	x.held = true // x.cmd refers to the client's buffer, which is not to be given back
	defer func() { x.held = false }()
	r, offers, e := x.askOrigin()
	switch {
	case e != nil:
		return false, e
	case r.Code != 250 && x.cmd.Verb == smtp.EHLO:
		return true, x.pass(r)
	}
	x.tls.asked = true
	if !offers.Has(smtp.ExtStartTLS) {
		x.rec.OriginTLS = &event.TLS{Failure: event.FailureNotOffered}
	} else if e := x.secureOrigin(); e != nil {
		return false, e
	}
	switch {
	case x.dropped != nil:
		return false, x.dropped
	case !x.tls.origin && (x.o.TLS.OriginMust || x.o.TLS.Origin == Mirror):
		return false, originPlain
	}
	return false, nil
}

// shallSecure reports whether the origin's leg shall have TLS before the client's
// greeting goes there. What a client says inside TLS never goes on in clear,
// unless the configuration says that this is meant.
func (x *session) shallSecure() bool {
	t := &x.o.TLS
	switch {
	case x.tls.origin || t.Tunnel != nil || t.OriginSide == nil:
		return false
	case t.OriginMust, t.Origin == Mirror && x.tls.client:
		return true
	}
	return t.Origin == Always && !x.tls.asked
}

// askOrigin greets the origin in the client's name and returns its reply, and what
// that offers.
func (x *session) askOrigin() (r smtp.WireReply, offers smtp.Extensions, e *ending) {
	x.fwd.b = append(append(append(x.fwd.grow(), "EHLO "...), x.caller...), '\r', '\n')
	r, e = x.exchange(250)
	if e != nil || r.Code != 250 {
		return r, 0, e
	}
	x.expectAgain(r)
	_, list, _ := r.Next()
	return r, keywordsOf(list), nil
}

// secureOrigin says STARTTLS to the origin and makes the handshake. An ending
// comes of a broken protocol. Else x.tls.origin tells the outcome: after a
// refusal the leg goes on in clear, after a failed handshake another one does, or
// it is dropped.
func (x *session) secureOrigin() *ending {
	if r, e := x.askStartTLS(); e != nil || r.Code != 220 {
		return e
	}
	x.startOrigin()
	if x.dropped != nil && x.mayRenew() {
		x.renew()
	}
	return nil
}

// askStartTLS says STARTTLS to the origin and returns its reply: 220, or a refusal
// that is noted.
func (x *session) askStartTLS() (r smtp.WireReply, e *ending) {
	x.fwd.b = append(x.fwd.grow(), "STARTTLS\r\n"...)
	r, e = x.exchange(220)
	switch {
	case e != nil:
		return r, e
	case r.Code != 220:
		x.rec.OriginTLS = refusedTLS(r)
	case r.Damaged: // what follows is not for guessing
		return r, x.wrongReply(r, "malformed reply to STARTTLS")
	case x.origin.hasSent(): // a server waits for the client's first octet
		return r, x.originAhead()
	}
	return r, nil
}

// mayRenew reports whether the session may go on in clear, on another leg, after a
// handshake with the origin has failed. Were client and origin by themselves, it
// would be the client's to decide so; a client that has TLS already has decided.
// What it has claimed (XCLIENT, XFORWARD) the new leg would not know. And nobody needs
// one who may not go on in clear, is gone, or is about to be sent away.
func (x *session) mayRenew() bool {
	t := &x.o.TLS
	if t.Again == nil || t.OriginMust || t.ClientMust || x.tls.client || x.tls.renewed || x.claims != nil {
		return false
	}
	_, gone := x.client.leg.Pending()
	return gone == nil && !x.o.Draining()
}

// renew takes another leg to the origin. If that cannot be had, or the origin is
// not as it was, the first one stays dropped.
func (x *session) renew() {
	x.tls.renewed = true
	leg, forged, err := x.o.TLS.Again()
	x.now = time.Now()
	if err != nil {
		return
	}
	why, offence := x.dropped, x.rec.Offence
	x.origin.free()
	x.origin.init(leg)
	x.origin.readBy, x.origin.writeBy = time.Time{}, time.Time{}
	x.o.Forged, x.rec.Forged = forged, forged
	x.dropped, x.greeted = nil, nil
	if !x.greetAgain() {
		x.rec.Offence = offence // the session ends for what was before
		x.drop(why)
	}
}

// greetAgain brings a new leg to where the client believes it to be.
func (x *session) greetAgain() bool {
	r, e := x.reply(x.o.Timeouts.Greet)
	if e != nil || r.Code != 220 || len(x.origin.window()) > 0 {
		return false
	}
	if !x.hailed {
		return true // its greeting comes next
	}
	_, offers, e := x.askOrigin()
	return e == nil && offers&x.theirs == x.theirs
}

// refusedTLS notes an origin's refusal, by the first line of its reply.
func refusedTLS(r smtp.WireReply) *event.TLS {
	text, _, _ := r.Next()
	return &event.TLS{Failure: event.FailureRefused, Detail: strconv.Itoa(int(r.Code)) + " " + string(text[:min(len(text), maxNote)])}
}

// originAhead ends the session of an origin that sends behind its 220.
func (x *session) originAhead() *ending {
	x.rec.OriginTLS = &event.TLS{Failure: event.FailureInjected}
	return brokenReply("octets behind the 220 to STARTTLS")
}

// exchange sends a command of ours and returns the reply: a refusal, or the only
// code that agrees.
func (x *session) exchange(agrees smtp.Code) (r smtp.WireReply, e *ending) {
	if e = x.send(); e != nil {
		return r, e
	}
	if r, e = x.reply(x.o.Timeouts.Reply); e != nil {
		return r, e
	}
	switch class := r.Code.Class(); {
	case r.Code == 421:
		return r, x.originClosing(r)
	case class < 4 && r.Code != agrees:
		return r, x.wrongReply(r, "code "+strconv.Itoa(int(r.Code))+" in place of "+strconv.Itoa(int(agrees))+" or a refusal")
	}
	return r, nil
}

// startOrigin makes the origin's handshake. Without it the leg is lost.
func (x *session) startOrigin() {
	t := x.handshake(&x.origin, x.o.TLS.OriginSide)
	x.rec.OriginTLS = &t
	if !t.Active() {
		x.drop(originTLS)
		return
	}
	x.tls.origin, x.tls.authentic = true, t.Peer.Authentic()
	x.theirs, x.greeted = 0, nil
}
