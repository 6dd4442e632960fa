package session

import (
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
)

// command is how a session treats a command.
type command struct {
	handle   func(*session) step                            // decides about it, once its grammar and place in the group are in order
	conclude func(*session, *entry, smtp.WireReply) *ending // lets the origin's reply take effect; nil: it is passed on
	between  func(*session) step                            // decides about it between chunks; nil: it is refused there
	traits   trait
}

// trait is a property of a command.
type trait uint8

const (
	asks    trait = 1 << iota // handle asks the policy itself, or nobody is to refuse it
	last                      // nothing may be sent behind it before its reply is read, RFC 2920 section 3.1
	trailed                   // what is behind it does not matter, or belongs to it
	idle                      // moves no mail. A few go with each message; a client that says nothing else holds a session for nothing
	inClear                   // is taken where all others need TLS, RFC 3207 section 4
	further                   // may be answered by 3yz
	alone                     // stands in a group of its own
)

// commands has a row for each verb that somebody may say; the others are refused for
// their grammar.
var commands [smtp.NumVerbs]command

func init() { // the functions of its rows use the table
	commands = [smtp.NumVerbs]command{
		smtp.HELO:     {(*session).hello, (*session).concludeHello, (*session).giveUpChunks, asks | last | idle | inClear},
		smtp.EHLO:     {(*session).hello, (*session).concludeHello, (*session).giveUpChunks, asks | last | idle | inClear},
		smtp.MAIL:     {(*session).mail, (*session).concludeMail, nil, asks},
		smtp.RCPT:     {(*session).rcpt, (*session).concludeRcpt, nil, asks},
		smtp.DATA:     {(*session).dataCommand, (*session).concludeData, nil, asks | further},
		smtp.BDAT:     {(*session).bdat, nil, nil, asks | trailed},
		smtp.RSET:     {(*session).forwardAlone, (*session).concludeRset, (*session).giveUpChunks, asks | idle},
		smtp.QUIT:     {(*session).forwardAlone, (*session).concludeQuit, (*session).quitChunks, asks | trailed | inClear},
		smtp.NOOP:     {(*session).noop, nil, (*session).noopBetween, last | idle | inClear},
		smtp.AUTH:     {(*session).auth, (*session).concludeAuth, nil, last | further | alone},
		smtp.STARTTLS: {(*session).startTLS, nil, nil, last | idle | inClear | alone},
		smtp.XCLIENT:  {(*session).xclientCommand, (*session).concludeXClient, nil, last | alone},
		smtp.XFORWARD: {(*session).xforwardCommand, (*session).concludeXForward, nil, alone},
		smtp.ETRN:     {(*session).etrn, nil, nil, last | idle},
		smtp.VRFY:     {(*session).vrfy, nil, nil, last | idle},
		smtp.EXPN:     {(*session).expn, nil, nil, last | idle},
		smtp.HELP:     {(*session).help, nil, nil, idle},
	}
}

// is reports whether a verb has a trait.
func is(v smtp.Verb, t trait) bool { return commands[v].traits&t != 0 }

// dispatch handles x.cmd.
func (x *session) dispatch() step {
	v := x.cmd.Verb
	if !is(v, asks) {
		if is(v, alone) && x.ledger.n > 0 {
			return hold // to be asked about once
		}
		if passes, s := x.judge(); !passes {
			return s
		}
	}
	if commands[v].handle == nil {
		return x.refuse(wording.NotOffered)
	}
	return commands[v].handle(x)
}

// amidChunks handles a command between chunks: the origin is inside content, so
// nothing may be forwarded.
func (x *session) amidChunks() step {
	if between := commands[x.cmd.Verb].between; between != nil {
		return between(x)
	}
	return x.recorded(x.refuse(wording.ChunksOpen))
}

func (x *session) giveUpChunks() step { return x.stop(afterChunks) }

func (x *session) quitChunks() step { return x.stop(localQuit) }

func (x *session) noopBetween() step { return x.local(wording.Ok) }

// forwardAlone forwards x.cmd as the last of its group.
func (x *session) forwardAlone() step {
	x.forward(entry{verb: x.cmd.Verb})
	return barrier
}

// noop handles NOOP.
func (x *session) noop() step {
	x.cmd.Arg = nil // nobody needs it
	return x.forward(entry{verb: smtp.NOOP})
}

// etrn handles ETRN.
func (x *session) etrn() step {
	if !x.offered.Has(smtp.ExtETRN) {
		return x.refuse(wording.NotOffered)
	}
	return x.forwardAlone()
}

// vrfy handles VRFY.
func (x *session) vrfy() step {
	if x.leavesToOrigin() {
		return x.forwardAlone()
	}
	return x.local(wording.NoVerify)
}

// expn handles EXPN.
func (x *session) expn() step {
	if x.leavesToOrigin() {
		return x.forwardAlone()
	}
	return x.refuse(wording.NoExpand)
}

// help handles HELP.
func (x *session) help() step {
	if x.leavesToOrigin() {
		return x.forwardAlone()
	}
	return x.local(wording.Help)
}

// leavesToOrigin reports whether the origin answers x.cmd. Nothing goes ahead of its TLS.
func (x *session) leavesToOrigin() bool { return x.rules.Forward.Has(x.cmd.Verb) && !x.shallSecure() }

// crowded reports whether the client has sent more behind x.cmd than RFC 2920
// section 3.1 allows it.
func (x *session) crowded() bool {
	if len(x.client.window()) == 0 || is(x.cmd.Verb, trailed) {
		return false
	}
	return is(x.cmd.Verb, last) || !x.offered.Has(smtp.ExtPipelining)
}

// needsTLS reports whether x.cmd must wait for TLS.
func (x *session) needsTLS() bool {
	return x.o.TLS.ClientMust && !x.tls.client && !is(x.cmd.Verb, inClear)
}

// idles counts commands that move no mail, those above the limit as errors. It reports
// whether these have become too many.
func (x *session) idles() bool {
	if x.rules.Idle == 0 || !is(x.cmd.Verb, idle) {
		return false
	}
	if x.idled++; x.idled <= x.rules.Idle {
		return false
	}
	x.rec.Errors++
	return x.rec.Errors > x.rules.Errors
}

// conclude lets the origin's reply take effect and queues it.
func (x *session) conclude(en *entry, r smtp.WireReply) *ending {
	if en.verb == smtp.QUIT {
		return x.concludeQuit(en, r)
	}
	if r.Code == 421 {
		if en.verb == smtp.RCPT {
			x.noteRecipientReply(en.rcpt, r)
		}
		return x.originClosing(r)
	}
	if r.Code.Class() == 3 && !is(en.verb, further) {
		return x.wrongReply(r, "intermediate reply to "+en.verb.String())
	}
	if conclude := commands[en.verb].conclude; conclude != nil {
		return conclude(x, en, r)
	}
	return x.pass(r)
}

// replyTime is how long the origin may take for its reply to a command.
func (x *session) replyTime(v smtp.Verb) time.Duration {
	if v == smtp.DATA {
		return x.o.Timeouts.Data
	}
	return x.o.Timeouts.Reply
}
