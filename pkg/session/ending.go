package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/inspect"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
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

// deny makes a refusal of a text.
func deny(w *wording.Reply) refusal { return refusal{&w.Reply, w.Why} }

// Trouble of our own or of the origin is never permanent for the client.
var (
	clientGone    = &ending{end: event.EndClientGone, why: event.ReasonClientGone, client: Abort}
	clientEnded   = &ending{end: event.EndClientGone, why: event.ReasonClientGone} // replies to it may be on their way: a reset would take them back
	clientDeaf    = &ending{end: event.EndClientTimeout, why: event.ReasonClientTimeout, detail: "the client does not read", client: Abort}
	clientTimeout = &ending{end: event.EndClientTimeout, why: event.ReasonClientTimeout, reply: &wording.Idle.Reply}
	overtime      = &ending{end: event.EndClientTimeout, why: event.ReasonSessionTime, detail: "the session is too long", reply: &wording.Overtime.Reply}
	tooSlow       = &ending{end: event.EndClientTimeout, why: event.ReasonSlowContent, detail: "the content comes too slowly", reply: &wording.SlowContent.Reply}
	draining      = &ending{end: event.EndDraining, why: event.ReasonDraining, reply: &wording.Draining.Reply}

	severed = &ending{end: event.EndCut, why: event.ReasonDraining, reply: draining.reply, origin: Abort}

	originGone    = &ending{end: event.EndOriginGone, why: event.ReasonOriginGone, reply: lostReply, origin: Abort}
	originTimeout = &ending{end: event.EndOriginTimeout, why: event.ReasonOriginTimeout, reply: &wording.OriginSilent.Reply, origin: Abort}

	quit         = &ending{end: event.EndQuit, why: event.ReasonQuit}
	localQuit    = &ending{end: event.EndQuit, why: event.ReasonQuit, reply: &wording.Bye.Reply}
	earlyTalker  = &ending{end: event.EndEarlyTalker, why: event.ReasonEarlyTalker, reply: &wording.TooEarly.Reply, origin: Abort}
	strayTalker  = &ending{end: event.EndEarlyTalker, why: event.ReasonEarlyTalker, reply: &wording.Noise.Reply, origin: Abort}
	foreign      = &ending{end: event.EndForeign, why: event.ReasonForeign, reply: &wording.Foreign.Reply}
	tooMany      = &ending{end: event.EndErrors, why: event.ReasonErrors, reply: &wording.TooManyErrors.Reply}
	unframed     = &ending{end: event.EndClientSyntax, why: event.ReasonNotOffered, detail: "BDAT", reply: &wording.NoChunks.Reply}
	afterContent = &ending{end: event.EndContent, why: event.ReasonAfterRefusal, reply: &wording.AfterRefusal.Reply, origin: Abort}
)

var lostReply = &wording.OriginLost.Reply

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
	reply: &wording.LongAuth.Reply}

var (
	lineReply = &wording.BadLine.Reply
	longReply = &wording.LongLine.Reply
)

// brokenReply ends a session whose origin broke the rules of replies: which
// reply belongs to which command is no longer known.
func brokenReply(what string) *ending {
	return &ending{end: event.EndOriginProtocol, why: event.ReasonOriginProtocol, detail: what, reply: &wording.OriginGarbled.Reply, origin: Abort}
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
