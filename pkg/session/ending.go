package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/inspect"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// ending is why and how a session ends. Functions return one to end the
// session, and nil to go on.
type ending struct {
	end    event.End
	why    event.Reason // of the reply, and of what becomes of an open message
	detail string
	reply  *smtp.Reply // our last words to the client
	last   []byte      // or the origin's, ready to be sent
	client Close
	origin Close
}

// refusal is a reply of ours that refuses something, with its reason.
type refusal struct {
	reply *smtp.Reply
	why   event.Reason
}

// deny makes a refusal; the class of its enhanced code is that of its code.
func deny(why event.Reason, c smtp.Code, subject, detail uint8, text string) refusal {
	return refusal{code(c, uint8(c.Class()), subject, detail, text), why}
}

func code(c smtp.Code, class, subject, detail uint8, text string) *smtp.Reply {
	return &smtp.Reply{Code: c, Enhanced: smtp.Enhanced{Class: class, Subject: subject, Detail: detail}, Text: text}
}

// Trouble of our own or of the origin is never permanent for the client.
var (
	clientGone    = &ending{end: event.EndClientGone, why: event.ReasonClientGone, client: Abort}
	clientEnded   = &ending{end: event.EndClientGone, why: event.ReasonClientGone} // replies to it may be on their way: a reset would take them back
	clientDeaf    = &ending{end: event.EndClientTimeout, why: event.ReasonClientTimeout, detail: "the client does not read", client: Abort}
	clientTimeout = &ending{end: event.EndClientTimeout, why: event.ReasonClientTimeout, reply: code(421, 4, 4, 2, "Idle for too long, closing the connection")}
	overtime      = &ending{end: event.EndClientTimeout, why: event.ReasonSessionTime, detail: "the session is too long", reply: code(421, 4, 4, 2, "The session has lasted too long, closing the connection")}
	tooSlow       = &ending{end: event.EndClientTimeout, why: event.ReasonSlowContent, detail: "the content comes too slowly", reply: code(421, 4, 4, 2, "The message comes too slowly, closing the connection")}
	draining      = &ending{end: event.EndDraining, why: event.ReasonDraining, reply: code(421, 4, 3, 2, "Service is restarting, please try again")}

	severed       = &ending{end: event.EndCut, why: event.ReasonDraining, reply: draining.reply, origin: Abort}

	originGone    = &ending{end: event.EndOriginGone, why: event.ReasonOriginGone, reply: lostReply, origin: Abort}
	originTimeout = &ending{end: event.EndOriginTimeout, why: event.ReasonOriginTimeout, reply: code(421, 4, 4, 2, "The mail server does not answer, please try again"), origin: Abort}

	quit         = &ending{end: event.EndQuit, why: event.ReasonQuit}
	localQuit    = &ending{end: event.EndQuit, why: event.ReasonQuit, reply: code(221, 2, 0, 0, "Bye")}
	earlyTalker  = &ending{end: event.EndEarlyTalker, why: event.ReasonEarlyTalker, reply: code(421, 4, 5, 0, "Protocol synchronization error: wait for the reply"), origin: Abort}
	strayTalker  = &ending{end: event.EndEarlyTalker, why: event.ReasonEarlyTalker, reply: code(554, 5, 5, 0, "Protocol synchronization error: wait for the reply"), origin: Abort}
	foreign      = &ending{end: event.EndForeign, why: event.ReasonForeign, reply: code(421, 4, 7, 0, "This is an SMTP service")}
	tooMany      = &ending{end: event.EndErrors, why: event.ReasonErrors, reply: code(421, 4, 7, 0, "Too many errors, closing the connection")}
	unframed     = &ending{end: event.EndClientSyntax, why: event.ReasonNotOffered, detail: "BDAT", reply: code(502, 5, 5, 1, "BDAT is not offered here, closing the connection")}
	afterContent = &ending{end: event.EndContent, why: event.ReasonAfterRefusal, reply: code(421, 4, 3, 0, "Closing the connection after a refused message"), origin: Abort}
)

var lostReply = code(421, 4, 4, 2, "Connection to the mail server was lost, please try again")

// unlessCut returns how a session ends that has lost a peer: if we have cut it, that is
// why.
func (x *session) unlessCut(e *ending) *ending {
	if x.o.Cut() {
		return severed
	}
	return e
}

// brokenLine ends a session whose client broke the rules of lines: where the
// next command starts is no longer agreed.
func brokenLine(f smtp.Fault) *ending {
	r := lineReply
	if f == smtp.LongLine {
		r = longReply
	}
	return &ending{end: event.EndClientSyntax, why: lineReasons[f], detail: f.String(), reply: r}
}

// longAuth ends a session for a line of an authentication exchange, RFC 4954
// section 4.
var longAuth = &ending{end: event.EndClientSyntax, why: event.ReasonLineTooLong, detail: smtp.LongLine.String(),
	reply: code(500, 5, 5, 6, "Authentication line too long, closing the connection")}

var (
	lineReply = code(500, 5, 5, 2, "Syntax error: lines end with CRLF and have no other CR, LF or NUL in them, closing the connection")
	longReply = code(500, 5, 5, 2, "Command line too long, closing the connection")
)

// brokenReply ends a session whose origin broke the rules of replies: which
// reply belongs to which command is no longer known.
func brokenReply(what string) *ending {
	return &ending{end: event.EndOriginProtocol, why: event.ReasonOriginProtocol, detail: what, reply: lostReply, origin: Abort}
}

// wrongReply is brokenReply for a reply that was read, but is not one that the
// command can have.
func (x *session) wrongReply(r smtp.WireReply, what string) *ending {
	x.noteOffence(r.Raw())
	return brokenReply(what)
}

// originClosing passes the origin's 421 on, also as what became of an open
// message.
func (x *session) originClosing(r smtp.WireReply) *ending {
	x.noteClosing(r)
	return &ending{end: event.EndOriginClosing, why: event.ReasonOriginClosing, last: r.AppendTo(nil)}
}

// policyEnding carries out a verdict to disconnect.
func policyEnding(v inspect.Verdict) *ending {
	return &ending{end: event.EndPolicy, why: v.Reason, detail: v.Reason.String(), reply: v.Reply}
}
