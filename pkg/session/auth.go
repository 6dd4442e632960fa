package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
)

// Authentication, RFC 4954. The exchange is the origin's: its challenges and the
// client's responses pass, each understood as what it is. Responses are secrets:
// nothing here is ever noted, recorded or logged.

// maxRounds is the most challenges of one exchange; SCRAM has two, GSSAPI three.
const maxRounds = 16

var giveUp = []byte("*")

// auth handles AUTH.
func (x *session) auth() step {
	switch {
	case !x.offered.Has(smtp.ExtAuth):
		return x.refuse(wording.NotOffered)
	case x.authenticated:
		return x.refuse(wording.AuthTwice)
	case x.ledger.n > 0:
		return hold
	case x.tx.state != noMail:
		return x.refuse(wording.AuthInMail)
	case !x.mayUse(x.cmd.Arg):
		return x.refuse(wording.NoMechanism)
	}
	if e := x.sendAuth(); e != nil {
		return x.stop(e)
	}
	x.ledger.add(entry{verb: smtp.AUTH})
	return barrier
}

// mayUse reports whether the rules allow a mechanism.
func (x *session) mayUse(mechanism []byte) bool {
	if len(x.rules.Mechanisms) == 0 {
		return true
	}
	for _, m := range x.rules.Mechanisms {
		if smtp.EqualFold(mechanism, m) {
			return true
		}
	}
	return false
}

// concludeAuth: a challenge makes the client's next line a response, anything
// else ends the exchange.
func (x *session) concludeAuth(_ *entry, r smtp.WireReply) *ending {
	switch {
	case r.Code == 334:
		x.rounds++
		if x.rounds > maxRounds {
			return x.wrongReply(r, "authentication without end")
		}
		return x.pass(r)
	case r.Code == 235:
		x.authenticated = true
		x.rec.Authenticated = true
	case r.Code.Class() < 4:
		return x.wrongReply(r, "AUTH answered without 235")
	}
	x.rounds = 0
	return x.pass(r)
}

// response carries one of the client's responses to the origin.
func (x *session) response() *ending {
	line, n, e := x.awaitResponse()
	if e != nil {
		return e
	}
	if !smtp.IsResponse(line) { // the origin waits for a line, and gets the one that ends the exchange
		x.noteRefusal(event.ReasonAuthResponse)
		e = x.sendResponse(giveUp)
	} else {
		e = x.sendResponse(line)
	}
	clear(line) // a secret stays nowhere
	x.client.skip(n)
	if e != nil {
		return e
	}
	r, e := x.reply(x.o.Timeouts.Reply)
	switch {
	case e != nil:
		return e
	case r.Code == 421:
		return x.originClosing(r)
	}
	return x.concludeAuth(nil, r)
}

// awaitResponse waits for the client's next line.
func (x *session) awaitResponse() (line []byte, n int, e *ending) {
	until := x.now.Add(x.o.Timeouts.Command)
	for {
		line, n, f := smtp.CutLine(x.client.window(), x.rules.AuthLine)
		switch {
		case f == smtp.LongLine:
			return nil, 0, longAuth
		case f != smtp.NoFault:
			return nil, 0, brokenLine(f)
		case n > 0:
			return line, n, nil
		}
		if e := x.awaitCommand(until); e != nil {
			return nil, 0, e
		}
	}
}
