package session

import (
	"io"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// judge asks the policy about x.cmd. It reports whether x.cmd may pass, else what
// follows; x.told is then what it is refused with, nil where it is not refused: the
// session ends, or the policy takes its time. The group ends before such a command, and
// it is handled anew when nothing is outstanding.
func (x *session) judge() (passes bool, s step) {
	x.told = nil
	w := x.asked
	var v *verdict.V
	if w == nil {
		a := x.o.Policy.Command(x.envelope(), &x.cmd)
		v, w = sound(a.Verdict), a.Wait
	}
	if w != nil {
		if x.asked = w; x.ledger.n > 0 {
			return false, hold
		}
		var e *ending
		if v, e = x.awaitAnswer(w); e != nil {
			return false, x.stop(e)
		}
	}
	switch {
	case v == nil:
		return true, proceed
	case v.Ends():
		x.told = v
		return false, x.stop(policyEnding(v))
	case x.overflows(v.Reason):
		return false, x.excuse(v)
	}
	return false, x.refuse(v)
}

// envelope returns what is known so far.
func (x *session) envelope() *policy.Envelope {
	x.env.Recipients, x.env.Messages, x.env.Size = x.tx.recipients, x.rec.Messages, x.msg.Size
	return &x.env
}

// sound returns a verdict that can be carried out. One that refuses nothing, or says
// nothing, is a fault of the policy: no mail passes by it, and none is accepted by it.
func sound(v *verdict.V) *verdict.V {
	if v == nil || v.Code.Class() == 4 || v.Code.Class() == 5 {
		return v
	}
	return wording.Broken
}

// awaitAnswer waits until a policy has made up its mind, or something else ends the wait.
// The client has read all that it is owed by then. What it says meanwhile waits.
func (x *session) awaitAnswer(w *policy.Wait) (*verdict.V, *ending) {
	if e := x.flush(); e != nil {
		return nil, e
	}
	defer func(held bool) { x.held = held }(x.held)
	x.held = true // x.cmd is needed, and what it refers to
	x.origin.shrink()
	var e *ending
	v := w.Await(func() bool {
		x.now = time.Now()
		e = x.disturbed()
		return e != nil
	})
	x.now = time.Now()
	return sound(v), e
}

// disturbed says why nobody waits for an answer any longer; nil: nothing has happened. A
// cut has reset the origin leg. A client that has sent more before it closed may still
// read what it is told.
func (x *session) disturbed() *ending {
	switch {
	case x.tx.state == noMail && x.o.Draining():
		return draining
	case !x.limit.IsZero() && !x.now.Before(x.limit):
		return overtime
	}
	_, err := x.client.leg.Pending()
	if more := !x.inContent() && len(x.client.window()) > 0; err != nil && (err != io.EOF || !more) {
		return x.arrived(&x.client, err)
	}
	if x.dropped != nil {
		return nil
	}
	switch n, err := x.origin.leg.Pending(); {
	case x.inContent() && (n > 0 || err != nil):
		return originTalks
	case err != nil:
		return x.arrived(&x.origin, err)
	case n > 0:
		return x.surprise()
	}
	return nil
}

// inContent reports whether the origin waits for the rest of a message.
func (x *session) inContent() bool { return x.tx.state == inContent || x.tx.state == inChunks }

// concluded asks the policy about a message that is complete. nil: it may be committed.
func (x *session) concluded() *failure {
	if x.tap.to != nil && x.tap.headers { // it has nothing else
		if f := x.askHeaders(); f != nil {
			return f
		}
	}
	return x.ruling(x.o.Policy.End(x.envelope()))
}

// ruling carries out what the policy says to content. nil: the message goes on.
func (x *session) ruling(a policy.Answer) *failure {
	v := sound(a.Verdict)
	if a.Wait != nil {
		var e *ending
		switch v, e = x.awaitAnswer(a.Wait); {
		case e == originTalks:
			return x.interrupted(e)
		case e != nil:
			return &failure{verdict: e.verdict, outcome: lostOutcome(e.end), then: e, at: atOnce}
		}
	}
	if v == nil {
		return nil
	}
	return judged(v)
}

// overflows reports whether a recipient is one too many of a message, and not yet
// one of very many. The client could not know, and is to send the message to the
// others (RFC 5321 section 4.5.3.1.10): as errors they would end its session
// before, again and again.
func (x *session) overflows(why event.Reason) bool {
	return why == event.ReasonRecipients && x.msg.Refused < x.rules.Recipients
}

// stopped is the ending by which x.cmd was given up while the policy thought.
func (x *session) stopped() *ending { return x.ledger.entries[x.ledger.n-1].end }

// lastWords returns the origin's last words of an ending.
func (x *session) lastWords(e *ending) smtp.WireReply {
	said, _, _ := smtp.CutReply(e.last, x.rules.Replies)
	return said
}
