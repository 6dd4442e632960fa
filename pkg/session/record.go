package session

import (
	"bytes"
	"slices"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// notes keeps the texts of the records: one piece of memory per session, in
// itself while they are short. What belongs to a message lies behind mark and
// is overwritten by the next one.
type notes struct {
	text         []byte
	mark         int
	removedNoted bool
	number       int // of messages begun
	kept         []event.Recipient
	caller       []byte // argument of HELO
	few          [256]byte
	name         [64]byte
	one          [2]event.Recipient
}

// Bounds on what a peer can make us remember, so that a session stays far below
// 1 MiB.
const (
	maxNotes      = 128 << 10 // octets of text
	maxNote       = 1024      // octets of one text
	maxRecipients = 1024      // recipients in a record
)

// note copies s, cut to maxNote.
func (n *notes) note(s []byte) event.Text {
	at := len(n.text)
	n.text = append(n.text, n.clip(s)...)
	return n.text[at:len(n.text):len(n.text)]
}

func (n *notes) clip(s []byte) []byte {
	if n.text == nil {
		n.text = n.few[:0]
	}
	return s[:min(len(s), maxNote, max(maxNotes-len(n.text), 0))]
}

// noteAnswer copies a reply of the origin.
func (n *notes) noteAnswer(r smtp.WireReply) event.Answer {
	at := len(n.text)
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		n.text = append(n.text, n.clip(text)...)
		if rest.Size() > 0 && len(n.text)-at < maxNote && len(n.text) < maxNotes {
			n.text = append(n.text, '\n')
		}
	}
	return event.Answer{Code: r.Code, Text: n.text[at:len(n.text):len(n.text)]}
}

// noteOwn copies a reply of ours.
func (n *notes) noteOwn(r *smtp.Reply) event.Answer {
	n.clip(nil)
	at := len(n.text)
	n.text = r.AppendText(n.text)
	return event.Answer{Code: r.Code, Text: n.text[at:len(n.text):len(n.text)]}
}

func (x *session) openRecord() {
	x.rec = event.Session{Flow: x.o.Flow, Origin: x.o.Origin, Forged: x.o.Forged, Unreached: x.o.Unreached, Start: x.now, Mode: x.o.TLS.Mode}
	x.env.Flow = &x.o.Flow
}

func (x *session) noteGreeting(r smtp.WireReply) {
	x.rec.Greeted = x.now.Sub(x.rec.Start)
	x.rec.Greeting = x.noteAnswer(r)
	x.mark = len(x.text)
}

// noteHello keeps the name that the client calls itself.
func (x *session) noteHello() {
	if x.caller == nil {
		x.caller = x.name[:0]
	}
	x.caller = append(x.caller[:0], x.cmd.Arg...)
	x.rec.Hello, x.env.Hello = x.caller, x.caller
}

// noteOffence keeps the octets that the origin broke the rules with. Those of the client
// are slip's affair: there may be a password among them.
func (x *session) noteOffence(p []byte) {
	x.rec.Offence = bytes.Clone(p[:min(len(p), maxOffence)])
}

// maxOffence is how many octets are enough to see what the origin meant.
const maxOffence = 128

// maxRewritten bounds how many different rewritten replies a record has.
const maxRewritten = 16

// noteRewritten keeps a reply of the origin, or a line of its EHLO list, of which
// the client reads something else, with the code that it reads; each once per
// session.
func (x *session) noteRewritten(said []byte, code smtp.Code) {
	said = bytes.TrimSuffix(said, lineEnd)
	said = said[:min(len(said), maxOffence)]
	for _, r := range x.rec.Rewritten {
		if bytes.Equal(r.Reply, said) {
			return
		}
	}
	if len(x.rec.Rewritten) < maxRewritten {
		x.rec.Rewritten = append(x.rec.Rewritten, event.Rewrite{Reply: bytes.Clone(said), Code: code})
	}
}

// noteRemoved keeps a line of the origin's EHLO list that we do not pass on,
// once per session. No message is open then.
func (x *session) noteRemoved(line []byte) {
	if x.removedNoted {
		return
	}
	line = bytes.TrimLeft(line, " ")
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		line = line[:i]
	}
	if len(line) == 0 || hasWord(x.rec.Removed, line) {
		return
	}
	if len(x.rec.Removed) > 0 {
		x.note(space)
	}
	x.note(line)
	x.rec.Removed = x.text[x.mark:]
}

var (
	space   = []byte(" ")
	lineEnd = []byte("\r\n")
)

// endRemoved makes the list part of the session's own notes.
func (x *session) endRemoved() {
	x.removedNoted = true
	x.mark = len(x.text)
}

// unnoteRemoved forgets the list: another takes its place. It lies behind the
// greeting.
func (x *session) unnoteRemoved() {
	x.mark = len(x.rec.Greeting.Text)
	x.text = x.text[:x.mark]
	x.rec.Removed, x.removedNoted = nil, false
}

// noteSender begins the record of a message.
func (x *session) noteSender() {
	x.number++
	if x.kept == nil {
		x.kept = x.one[:0]
	}
	p := &x.cmd.Params
	x.msg = event.Message{
		Flow: x.o.Flow, Origin: x.o.Origin, Forged: x.o.Forged, Number: x.number,
		Hello: x.note(x.rec.Hello), Start: x.now, // a copy: the client may call itself something else before the end
		Sender: x.notePath(),
	}
	if x.refusal == nil { // else there are no parameters
		x.msg.Declared, x.msg.Used = p.Number(smtp.ParamSize), p.Extensions()
		x.msg.EnvID, x.msg.Dropped = x.note(p.Text(smtp.ParamEnvID)), x.noteDropped()
	}
	x.noteClaimed()
	x.env.Sender, x.env.Recipients, x.env.Size = x.msg.Sender, 0, 0
}

// noteDropped keeps the parameters of x.cmd that the origin is not given.
func (x *session) noteDropped() event.Text {
	x.clip(nil)
	at := len(x.text)
	if at < maxNotes {
		x.text = x.cmd.Params.AppendDropped(x.text)
	}
	return x.text[at:len(x.text):len(x.text)]
}

// notePath keeps the path of x.cmd; one that could not be read as it was said.
func (x *session) notePath() event.Text {
	if x.refusal != nil {
		return x.note(smtp.UnreadPath(x.line))
	}
	x.clip(nil)
	at := len(x.text)
	if at < maxNotes {
		x.text = x.cmd.Path.AppendMailbox(x.text)
	}
	return x.text[at:len(x.text):len(x.text)]
}

// noteRecipient begins the record of a recipient and returns its number.
func (x *session) noteRecipient() int {
	read := x.refusal == nil // else there are no parameters
	if read {
		x.msg.Used |= x.cmd.Params.Extensions()
	}
	if len(x.kept) == maxRecipients {
		return maxRecipients
	}
	r := event.Recipient{Address: x.notePath()}
	if read {
		r.Dropped = x.noteDropped()
	}
	x.kept = append(x.kept, r)
	return len(x.kept) - 1
}

func (x *session) noteRecipientReply(n int, r smtp.WireReply) {
	x.countRecipient(r.Code)
	if n < len(x.kept) {
		x.kept[n].Answer = x.noteAnswer(r)
	}
}

func (x *session) noteRefusedRecipient(n int, v *verdict.V) {
	x.countRecipient(v.Code)
	if n < len(x.kept) {
		x.kept[n].Answer, x.kept[n].Cause = x.noteOwn(&v.Reply), x.placed(v.Cause)
	}
}

func (x *session) countRecipient(c smtp.Code) {
	if c.Positive() {
		x.msg.Accepted++
	} else {
		x.msg.Refused++
	}
}

// noteRefusal counts a refusal of ours.
func (x *session) noteRefusal(why event.Reason) {
	if why == event.NoReason { // a policy that gives none
		why = event.ReasonPolicy
	}
	x.o.Sink.Refused(&x.o.Flow, why)
	for i := range x.rec.Refusals {
		if x.rec.Refusals[i].Reason == why {
			x.rec.Refusals[i].Count++
			return
		}
	}
	x.rec.Refusals = append(x.rec.Refusals, event.Tally{Reason: why, Count: 1})
}

// noteReply keeps what the origin said to the message, which is what the client
// is told.
func (x *session) noteReply(r smtp.WireReply) {
	x.msg.Reply = x.noteAnswer(r)
	x.msg.Client = x.msg.Reply
}

// noteClosing keeps the origin's 421 to a command of the message.
func (x *session) noteClosing(r smtp.WireReply) {
	if x.msg.Number != 0 {
		x.noteReply(r)
	}
}

// noteVerdict keeps what we tell the client about the message.
func (x *session) noteVerdict(v *verdict.V) { x.msg.Client = x.noteOwn(&v.Reply) }

// placed completes a cause with the place where the file has its rule.
func (x *session) placed(c event.Cause) event.Cause {
	c.Rule = x.rules.Placed(c.Rule)
	return c
}

// closeMessage hands the record of the message to the sink and forgets it.
func (x *session) closeMessage(o event.Outcome, why event.Cause) {
	m := &x.msg
	m.Outcome, m.Cause = x.settled(o, why)
	m.Cause = x.placed(m.Cause)
	m.Total = x.now.Sub(m.Start)
	m.Recipients = x.kept
	x.rec.Used |= m.Used
	x.o.Sink.Message(m)
	x.o.Policy.Done(m)
	x.tap = tap{}
	x.kept = x.kept[:0]
	x.text = x.text[:x.mark]
	x.msg = event.Message{}
	x.env.Sender, x.env.Recipients, x.env.Size = nil, 0, 0 // the sender was in x.text
}

// What a session keeps for the notes of a next message while it rests.
const (
	spareNotes      = 1024 // octets of text
	spareRecipients = 16
)

// shrink lets go of the memory that a message has taken. No message is open.
func (x *session) shrink() {
	if cap(x.text)-x.mark <= spareNotes && cap(x.kept) <= spareRecipients {
		return
	}
	text := make([]byte, x.mark)
	copy(text, x.text)
	greeting := len(x.rec.Greeting.Text)
	x.text, x.rec.Greeting.Text = text, text[:greeting:greeting]
	if x.rec.Removed != nil {
		x.rec.Removed = text[greeting:]
	}
	x.kept = nil
	clear(x.one[:]) // it refers to the old text
}

// settled says why a client gave a message up, when it was refused before: then
// that is its outcome. Where every recipient was refused, and not only for how it
// was written, one refusal for now makes that of the message one for now, and the
// reason is the first of ours of that kind; there is none where only the origin
// refused.
func (x *session) settled(o event.Outcome, why event.Cause) (event.Outcome, event.Cause) {
	switch {
	case o != event.Abandoned:
		return o, why
	case x.msg.Client.Code.Class() >= 4:
		return outcomeOf(x.msg.Client.Code), x.msg.Cause
	case x.msg.Accepted > 0 || x.msg.Refused == x.tx.unread:
		return event.Abandoned, why
	}
	if slices.ContainsFunc(x.kept, deferred) {
		return event.Deferred, firstCause(x.kept, true)
	}
	return event.Refused, firstCause(x.kept, false)
}

// deferred reports whether a recipient was refused for now.
func deferred(r event.Recipient) bool { return r.Answer.Code.Class() == 4 }

// firstCause returns why we refused the first recipient of those that were refused for
// now, or for good.
func firstCause(list []event.Recipient, forNow bool) event.Cause {
	for _, r := range list {
		if r.Reason != event.NoReason && deferred(r) == forNow {
			return r.Cause
		}
	}
	return event.Cause{}
}

// closeRecord hands out the records that a session's end completes.
func (x *session) closeRecord(e *ending) {
	if x.msg.Number != 0 {
		o, why := x.lost(e)
		if e.verdict.IsSaid() && x.msg.Client.Code.Class() < 4 { // else it is not about the message
			x.noteVerdict(e.verdict)
		}
		x.endTransaction(o, why)
	}
	r := &x.rec
	r.End, r.Detail = e.end, e.detail
	switch {
	case e.verdict.IsSaid():
		r.Last, r.Rule = x.noteOwn(&e.verdict.Reply), x.placed(e.verdict.Cause).Rule
	case e.last != nil:
		r.Closing = x.noteAnswer(x.lastWords(e))
	}
	r.ClientIn, r.ClientOut = x.client.in, x.client.sent
	r.OriginIn, r.OriginOut = x.origin.in, x.origin.sent
	r.Duration = x.now.Sub(r.Start)
	x.o.Sink.Session(r)
}

// lost is what became of a message that was open when its session ended, and why.
func (x *session) lost(e *ending) (event.Outcome, event.Cause) {
	switch {
	case x.tx.committed:
		return event.Unknown, e.cause()
	case x.msg.Client.Code.Class() >= 4 && e.end != event.EndOriginClosing: // it was refused before
		return outcomeOf(x.msg.Client.Code), x.msg.Cause
	}
	return lostOutcome(e.end), e.cause()
}

func lostOutcome(e event.End) event.Outcome {
	switch e {
	case event.EndQuit:
		return event.Abandoned
	case event.EndPolicy, event.EndErrors, // 421: the client is to try again
		event.EndOriginClosing, event.EndOriginGone, event.EndOriginTimeout, event.EndOriginProtocol, event.EndDraining, event.EndCut:
		return event.Deferred
	}
	return event.Aborted
}
