package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// ending is why and how a session ends. Functions return one to end the
// session, and nil to go on.
type ending struct {
	end     event.End
	verdict *verdict.V // our last words to the client, and why an open message comes to nothing; nil: neither
	detail  string
	last    []byte // the origin's last words instead, ready to be sent
	client  Close
	origin  Close
}

// cause is why, also for a message that is open.
func (e *ending) cause() event.Cause {
	if e.verdict == nil {
		return event.Cause{}
	}
	return e.verdict.Cause
}

// Trouble of our own or of the origin is never permanent for the client.
var (
	clientGone    = &ending{end: event.EndClientGone, verdict: verdict.Silent(event.ReasonClientGone), client: Abort}
	clientEnded   = &ending{end: event.EndClientGone, verdict: verdict.Silent(event.ReasonClientGone)} // replies to it may be on their way: a reset would take them back
	clientDeaf    = &ending{end: event.EndClientTimeout, verdict: verdict.Silent(event.ReasonClientTimeout), detail: "the client does not read", client: Abort}
	clientTimeout = &ending{end: event.EndClientTimeout, verdict: wording.Idle}
	overtime      = &ending{end: event.EndClientTimeout, verdict: wording.Overtime, detail: "the session is too long"}
	tooSlow       = &ending{end: event.EndClientTimeout, verdict: wording.SlowContent, detail: "the content comes too slowly"}
	draining      = &ending{end: event.EndDraining, verdict: wording.Draining}

	severed = &ending{end: event.EndCut, verdict: wording.Draining, origin: Abort}

	originGone    = &ending{end: event.EndOriginGone, verdict: wording.OriginLost, origin: Abort}
	originTimeout = &ending{end: event.EndOriginTimeout, verdict: wording.OriginSilent, origin: Abort}

	quit         = &ending{end: event.EndQuit, verdict: verdict.Silent(event.ReasonQuit)}
	localQuit    = &ending{end: event.EndQuit, verdict: wording.Bye.Because(event.ReasonQuit)}
	earlyTalker  = &ending{end: event.EndEarlyTalker, verdict: wording.TooEarly, origin: Abort}
	strayTalker  = &ending{end: event.EndEarlyTalker, verdict: wording.Noise, origin: Abort}
	foreign      = &ending{end: event.EndForeign, verdict: wording.Foreign}
	tooMany      = &ending{end: event.EndErrors, verdict: wording.TooManyErrors}
	unframed     = &ending{end: event.EndClientSyntax, verdict: wording.NoChunks, detail: "BDAT"}
	afterContent = &ending{end: event.EndContent, verdict: wording.AfterRefusal, origin: Abort}
)

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
	return &ending{end: event.EndClientSyntax, verdict: badLines[f], detail: f.String()}
}

// longAuth ends a session for a line of an authentication exchange, RFC 4954
// section 4.
var longAuth = &ending{end: event.EndClientSyntax, verdict: wording.LongAuth, detail: smtp.LongLine.String()}

// brokenReply ends a session whose origin broke the rules of replies: which
// reply belongs to which command is no longer known.
func brokenReply(what string) *ending {
	return &ending{end: event.EndOriginProtocol, verdict: wording.OriginGarbled, detail: what, origin: Abort}
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
	return &ending{end: event.EndOriginClosing, verdict: verdict.Silent(event.ReasonOriginClosing), last: r.AppendTo(nil)}
}

// policyEnding carries out a verdict to disconnect.
func policyEnding(v *verdict.V) *ending {
	return &ending{end: event.EndPolicy, verdict: v, detail: v.Reason.String()}
}
