package session

import (
	"bytes"
	"strconv"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// greet passes the origin's greeting on. A client that has spoken before it is
// not let in: it does not wait for replies, so it may be a machine that was
// told what to say.
func (x *session) greet() *ending {
	r, e := x.reply(x.o.Timeouts.Greet)
	if e != nil {
		return e
	}
	x.noteGreeting(r)
	switch class := r.Code.Class(); {
	case class == 4 || class == 5:
		return &ending{end: event.EndOriginRefused, verdict: verdict.Silent(event.ReasonOriginRefused), last: r.AppendTo(nil)}
	case r.Code != 220:
		return x.wrongReply(r, "greeting with code "+strconv.Itoa(int(r.Code)))
	case len(x.origin.window()) > 0:
		return x.surprise()
	}
	if n, _ := x.client.leg.Pending(); n > 0 && x.rules.EarlyTalkers == protocol.RefuseEarly {
		return x.tooEarly()
	}
	return x.pass(r)
}

// tooEarly ends the session of a client that has spoken before its greeting. One that
// speaks SMTP may be a mail server that remembers that this origin lets it (Exim's
// PIPE_CONNECT, from before we stood here): it shall come again, and wait then. All
// else is sent away for good, so that nobody is used to speak for somebody else.
func (x *session) tooEarly() *ending {
	switch e := x.await(&x.client, smallSize, x.now.Add(patience)); { // something is there
	case e.isGone():
		return e
	case e != nil:
		return strayTalker
	}
	said := x.client.window()
	e := earlyTalker
	if !smtp.Greets(said) {
		noise := *strayTalker
		noise.detail = smtp.ForeignProtocol(said)
		e = &noise
	}
	x.slip(said, e.verdict)
	return e
}

// hello forwards HELO and EHLO, which stand alone: what the origin offers
// decides how everything after it is read.
func (x *session) hello() step {
	if x.ledger.n > 0 {
		return hold
	}
	if passes, s := x.judge(); !passes {
		return s
	}
	x.noteHello()
	if x.shallSecure() {
		switch answered, e := x.secureFirst(); {
		case e != nil:
			return x.stop(e)
		case answered:
			return proceed
		}
	}
	x.forward(entry{verb: x.cmd.Verb})
	return barrier
}

// concludeHello: a refused greeting changes nothing (RFC 5321 section 4.1.4), an
// accepted one starts afresh.
func (x *session) concludeHello(en *entry, r smtp.WireReply) *ending {
	v := en.verb
	r = x.saidBefore(v, r)
	if !r.Code.Positive() {
		return x.pass(r)
	}
	if r.Code != 250 { // the only one there is, and the one of the lines that we offer
		return x.wrongReply(r, v.String()+" answered with code "+strconv.Itoa(int(r.Code)))
	}
	x.endTransaction(event.Abandoned, event.Cause{Reason: event.ReasonHello})
	x.unclaim()
	x.hailed = true
	x.forget()
	x.rec.Extended = v == smtp.EHLO
	if v == smtp.HELO {
		x.greeted = nil
		return x.pass(r)
	}
	return x.offer(r)
}

// offer passes the reply to EHLO on, with the extensions that both the origin
// offers and we carry. Its first line is the origin's, word for word.
func (x *session) offer(r smtp.WireReply) *ending {
	text, list, _ := r.Next()
	if e := x.reserve(len(text) + 6 + maxKeywords); e != nil {
		return e
	}
	x.theirs = keywordsOf(list)
	if r.Unsure { // as the next ones may be: no group rests on them
		x.theirs = x.theirs.Without(smtp.ExtPipelining)
	}
	may := x.mayOffer()
	auth := false // its lines are read
	last := len(x.out.b)
	x.out.b = smtp.AppendReplyLine(x.out.grow(), r.Code, text, false)
	for text, rest, ok := list.Next(); ok; text, rest, ok = rest.Next() {
		k, good := smtp.ParseKeyword(text)
		if good && k.Known && k.Ext == smtp.ExtStartTLS && (x.mayStart() || x.tls.client) {
			continue // ours comes below, or has come
		}
		if good && k.Known && k.Ext == smtp.ExtAuth && may.Has(k.Ext) {
			if auth {
				continue // its mechanisms are in the line of the first
			}
			auth, k.Args = true, mechanismsOf(text, rest)
		}
		if !good || !k.Known || !may.Has(k.Ext) || x.offered.Has(k.Ext) {
			x.noteRemoved(text)
			continue
		}
		line := x.appendKeyword(append(x.out.b, "250-"...), k)
		if line == nil || len(line) > pageSize {
			x.noteRemoved(text)
			continue
		}
		if made := line[len(x.out.b)+4 : len(line)-2]; !bytes.EqualFold(made, text) {
			x.noteRewritten(text, r.Code)
		}
		last, x.out.b = len(x.out.b), line
		x.offered = x.offered.With(k.Ext)
	}
	if x.mayStart() {
		last, x.out.b = len(x.out.b), append(x.out.b, "250-STARTTLS\r\n"...)
		x.offered = x.offered.With(smtp.ExtStartTLS)
	}
	x.out.b[last+3] = ' '
	x.endRemoved()
	x.rec.Offered = x.offered
	x.greeted = nil
	if x.mayGreetAgain() {
		x.expectAgain(r)
	}
	return nil
}

// maxKeywords is the most octets that the lines of all extensions take, each
// being offered once: AUTH has most of them, see maxMechanisms.
const maxKeywords = 1024 + maxMechanisms

// keywordsOf returns the extensions in a list of EHLO keywords.
func keywordsOf(list smtp.WireReply) (s smtp.Extensions) {
	for text, rest, ok := list.Next(); ok; text, rest, ok = rest.Next() {
		if k, good := smtp.ParseKeyword(text); good && k.Known {
			s = s.With(k.Ext)
		}
	}
	return s
}

// mayOffer returns what the origin offers and we carry. SMTPUTF8 and BINARYMIME
// are nothing without 8BITMIME (RFC 6531 section 3.1), and BINARYMIME nothing
// without CHUNKING (RFC 3030 section 3).
func (x *session) mayOffer() smtp.Extensions {
	s := x.theirs & x.rules.Keywords & carried
	if !s.Has(smtp.Ext8BitMIME) {
		s = s.Without(smtp.ExtSMTPUTF8).Without(smtp.ExtBinaryMIME)
	}
	if !s.Has(smtp.ExtChunking) {
		s = s.Without(smtp.ExtBinaryMIME)
	}
	if !x.rules.AuthInClear && !x.tls.private() {
		s = s.Without(smtp.ExtAuth)
	}
	if !x.tls.private() || !x.tls.authentic { // RFC 8689 section 4.2.1: what we promise must hold up to the origin
		s = s.Without(smtp.ExtRequireTLS)
	}
	return s | x.theirs&x.trusted()
}

// carried are the extensions that this package can speak on both sides; what the rules
// allow beyond them is never offered.
var carried = smtp.SetOf(protocol.Carried...)
