package session

import (
	"bytes"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// data handles DATA. It is forwarded alone, when at least one recipient is known
// to be accepted: a 354 without recipients would leave us inside a message that
// we must not end.
func (x *session) dataCommand() step {
	switch {
	case x.ledger.n > 0:
		return hold
	case x.tx.state == noMail:
		return x.excuse(wording.MailFirst)
	case x.tx.recipients == 0:
		return x.excuse(wording.NoRecipients)
	case x.tx.state == spoilt:
		return x.excuse(wording.Spoilt)
	case x.tx.body == smtp.BodyBinaryMIME:
		return x.refuse(wording.NeedsChunks)
	}
	if passes, s := x.judge(); !passes {
		return s
	}
	x.forward(entry{verb: smtp.DATA})
	return barrier
}

// ahead reports whether the client has sent something behind DATA, the last
// command of a group, that was read with it. It would be content that its author
// wants carried out as commands, or commands that he wants taken for content
// elsewhere.
func (x *session) ahead() bool { return len(x.client.window()) > 0 }

// arrivedAhead is ahead, and looks also at what was not read yet: how the stream
// was cut decides nothing. What arrives only after this look cannot be told from
// the next command of a client that has waited.
func (x *session) arrivedAhead() (bool, error) {
	n, err := x.client.leg.Pending()
	return n > 0 || x.ahead(), err
}

// concludeData: what the client sends now is content exactly if the reply is
// 354. A client that has not waited for it is not listened to any longer,
// whatever the reply.
func (x *session) concludeData(_ *entry, r smtp.WireReply) *ending {
	if r.Code.Positive() {
		return x.wrongReply(r, "DATA answered without 354")
	}
	early, err := x.arrivedAhead()
	if r.Code.Class() != 3 {
		x.noteReply(r)
		if e := x.pass(r); e != nil || !early {
			return e
		}
		return earlyTalker
	}
	if r.Code != 354 {
		return x.wrongReply(r, "intermediate reply to DATA")
	}
	x.tx.state = inContent
	if early {
		return earlyTalker
	}
	if err != nil {
		return left(err)
	}
	x.msg.Opened = x.now.Sub(x.msg.Start)
	return x.pass(r)
}

// content streams the message to the origin, up to its end of data.
func (x *session) content() *ending {
	if e := x.flush(); e != nil {
		return e
	}
	x.data = smtp.Body{MaxLine: x.rules.TextLine}
	x.normal = x.normalizer(true)
	x.openTap()
	if e := x.sendReceived(); e != nil {
		return x.fail(*x.interrupted(e))
	}
	for {
		if e := x.awaitContent(); e != nil {
			return e
		}
		f, committed := x.contentPiece()
		switch {
		case f != nil:
			return x.fail(*f)
		case committed:
			return x.verdict()
		}
	}
}

// awaitContent reads more content, and minds how fast it comes. Time in which
// we wrote to the origin is not the client's: stream has seen to that.
func (x *session) awaitContent() *ending {
	x.tx.paused = x.now
	if e := x.await(&x.client, blockSize, x.now.Add(x.o.Timeouts.Block)); e != nil {
		return e
	}
	x.tx.waited += x.now.Sub(x.tx.paused)
	if x.tooFew(x.tx.waited) {
		return tooSlow
	}
	return nil
}

// contentPiece hands on what was read. committed says that it was the last of
// the message.
func (x *session) contentPiece() (f *failure, committed bool) {
	if x.normalizes() {
		return x.normalPieces()
	}
	out, n, ev := x.data.Next(x.client.window())
	x.grow(len(out), x.data.Dots)
	f, committed = x.handContent(out, ev, x.data.Fault)
	x.client.skip(n)
	return f, committed
}

// normalizes reports whether the rules let content pass that has to be changed.
func (x *session) normalizes() bool {
	return x.rules.Newlines == protocol.NormalizeNewlines || x.rules.NUL == protocol.RemoveNUL
}

// normalizer returns the one that the rules ask for.
func (x *session) normalizer(dotted bool) smtp.Normalizer {
	return smtp.Normalizer{
		Dotted:     dotted,
		RefuseBare: x.rules.Newlines != protocol.NormalizeNewlines,
		RemoveNUL:  x.rules.NUL == protocol.RemoveNUL,
		MaxLine:    x.rules.TextLine,
	}
}

// grow counts content as it is sent, less the dots that were stuffed: all that
// have been so far.
func (x *session) grow(sent int, dots int64) {
	if sent > 0 {
		x.msg.Size += int64(sent) - (dots - x.tx.dots)
		x.tx.dots = dots
	}
}

// normalPieces is contentPiece where content is changed. Nothing may
// be left of what was read: the end of data could be in it, and its client sends
// no more.
func (x *session) normalPieces() (f *failure, committed bool) {
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	for f == nil && !committed && len(x.client.window()) > 0 {
		in := x.client.window()
		out, n, ev := x.normal.Next(block[:0], in[:min(len(in), maxPiece)])
		x.grow(len(out), x.normal.Dots)
		f, committed = x.handContent(out, ev, x.normal.Fault)
		x.client.skip(n)
	}
	return f, committed
}

// handContent writes content to the origin, and commits the message with the
// last of it.
func (x *session) handContent(out []byte, ev smtp.BodyEvent, fault smtp.Fault) (f *failure, committed bool) {
	x.tx.ended = ev == smtp.BodyEnd
	switch {
	case fault != smtp.NoFault:
		return rejected(badContent[fault]), false
	case x.rules.Size > 0 && x.msg.Size > x.rules.Size:
		return oversize, false
	case x.unannounced(out):
		return eightBit, false
	}
	if f = x.show(out, true); f != nil {
		return f, false
	}
	if x.tx.ended {
		f = x.complete(out)
		return f, f == nil
	}
	if e := x.stream(out); e != nil {
		return x.interrupted(e), false
	}
	return nil, false
}

// unannounced reports whether content has octets above 127 against the rules.
func (x *session) unannounced(out []byte) bool {
	if x.rules.EightBit == protocol.PassEightBit || x.tx.body != smtp.Body7Bit {
		return false
	}
	for _, c := range out {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// complete commits a message whose content is complete; tail is the last of it.
// It returns nil, or why the message is not committed.
func (x *session) complete(tail []byte) *failure {
	x.msg.Content = x.now.Sub(x.msg.Start)
	if f := x.concluded(); f != nil {
		return f
	}
	if e := x.commit(tail); e != nil {
		return x.interrupted(e)
	}
	x.tx.committed = true
	return nil
}

// verdict waits for what the origin says to a committed message.
func (x *session) verdict() *ending {
	r, e := x.reply(x.o.Timeouts.End)
	switch {
	case e != nil:
		return e
	case x.tx.crossed:
		return x.crossing(r)
	case r.Code.Positive() && x.saysMore():
		return x.wrongReply(r, "two replies to the end of data")
	}
	return x.conclusion(r)
}

// saysMore reports whether behind a reply there is something else than a 421, which
// may come unasked. Nobody knows then which of the two is the answer, and 2yz may be a
// stray that met the end of data on its way.
func (x *session) saysMore() bool {
	more := x.origin.window()
	return !bytes.HasPrefix(more, code421[:min(len(more), len(code421))])
}

var code421 = []byte("421")

// crossing handles a reply that met the end of data on its way: the origin said it
// before it can have read that. As for one inside the content (see interrupted),
// a refusal counts and 2yz does not, since the origin may go on to refuse the
// message. What it makes of the message is not known then: the client tries
// again, and a duplicate is better than a loss. Nor is any later reply to be relied
// upon, so the leg is given up.
func (x *session) crossing(r smtp.WireReply) *ending {
	switch class := r.Code.Class(); {
	case r.Code == 421:
		return x.conclusion(r)
	case class == 4 || class == 5:
		x.noteReply(r)
		x.drop(originGone)
		return x.failed(failure{last: r.AppendTo(nil), outcome: outcomeOf(r.Code), then: originGone}, nil)
	}
	return x.wrongReply(r, "reply ahead of the end of data")
}

// conclusion is the only place where a client learns that its message was
// taken: r is the origin's own reply to the end of data.
func (x *session) conclusion(r smtp.WireReply) *ending {
	if r.Code.Class() == 3 {
		return x.wrongReply(r, "intermediate reply to the end of data")
	}
	x.noteReply(r)
	if r.Code.Positive() {
		x.rec.Messages++
		x.idled = 0
	}
	if r.Code == 421 {
		x.endTransaction(event.Deferred, event.Cause{})
		return x.originClosing(r)
	}
	var why event.Cause
	e := x.deliver(r)
	if e != nil {
		x.msg.Client, why = event.Answer{}, e.cause()
	}
	x.endTransaction(outcomeOf(r.Code), why)
	switch {
	case e != nil:
		return e
	case len(x.origin.window()) > 0:
		return x.surprise()
	}
	return nil
}

// deliver passes a verdict on and writes it: the record says what the client was
// told, and a client that has gone was told nothing.
func (x *session) deliver(r smtp.WireReply) *ending {
	if e := x.pass(r); e != nil {
		return e
	}
	return x.flush()
}

// failure is a message that will not be completed, and what its client is told
// when it has sent it all: before, it would not listen.
type failure struct {
	verdict *verdict.V // ours; nil: the origin refused it
	last    []byte     // the origin's reply, ready to be sent
	outcome event.Outcome
	then    *ending // how the session ends
	at      moment  // and when
}

// cause is why, unless the origin refused it.
func (f *failure) cause() event.Cause {
	if f.verdict == nil {
		return event.Cause{}
	}
	return f.verdict.Cause
}

// undone is a message that comes to nothing because the session ends.
func undone(e *ending) *failure {
	return &failure{verdict: e.verdict, outcome: event.Deferred, then: e, at: atOnce}
}

type moment bool

const (
	nextCommand moment = false
	atOnce      moment = true
)

// fail gives the origin leg up, reads the message to its true end, and tells
// the client.
func (x *session) fail(f failure) *ending {
	x.drop(f.then)
	if x.tx.ended {
		return x.failed(f, nil)
	}
	return x.failed(f, x.discard())
}

// failed tells the client that its message is refused. e says why the client has
// not sent all of it; nil: it has.
func (x *session) failed(f failure, e *ending) *ending {
	var unread *ending // why nobody reads the refusal
	switch {
	case e.isGone():
		unread = e
	case f.verdict.IsSaid():
		x.noteVerdict(f.verdict)
	}
	if e == nil && f.at == nextCommand {
		unread = x.refuseContent(f)
	}
	if unread != nil {
		x.msg.Client = event.Answer{}
	}
	x.endTransaction(f.outcome, f.cause())
	switch {
	case unread != nil:
		return unread
	case f.at == atOnce:
		return f.then
	case e != nil:
		return &ending{end: f.then.end, verdict: f.verdict, detail: f.cause().Reason.String(), last: f.last, origin: Abort}
	}
	return nil
}

// refuseContent writes the refusal of a message that the client has sent to its end.
func (x *session) refuseContent(f failure) *ending {
	e := x.say(f.last) // nothing, where the reply is ours
	if f.verdict.IsSaid() {
		e = x.tell(f.verdict)
	}
	if e != nil {
		return e
	}
	return x.flush()
}

// endless stands for a refused message that is too long to wait for its end.
var endless = &ending{end: event.EndContent, detail: "too long to be read to its end"}

// discard reads the rest of a message, by the same rule as an accepted one. It
// returns nil at the end of data.
func (x *session) discard() *ending {
	until := x.now.Add(x.o.Timeouts.Rest)
	for left := x.rules.Drain; ; {
		n, ev := x.skipContent(x.client.window())
		x.client.skip(n)
		left -= int64(n)
		switch {
		case ev == smtp.BodyEnd:
			return nil
		case left < 0:
			return endless
		case ev == smtp.BodyFault:
			continue
		}
		if e := x.await(&x.client, blockSize, until); e != nil {
			return e
		}
	}
}

// skipContent reads content that nobody gets.
func (x *session) skipContent(in []byte) (n int, ev smtp.BodyEvent) {
	if x.normalizes() {
		return x.normal.Skip(in)
	}
	_, n, ev = x.data.Next(in)
	return n, ev
}

// interrupted says what becomes of a message when the origin broke it off with
// e. A refusal that the origin gave on the way counts; a 2yz for a message that
// is not complete does not.
func (x *session) interrupted(e *ending) *failure {
	r, lost := x.reply(patience)
	if lost == nil {
		x.noteReply(r)
	}
	switch {
	case lost != nil && e == originTalks:
		return undone(lost)
	case lost != nil:
		return undone(e)
	case r.Code == 421:
		return undone(x.originClosing(r))
	case r.Code.Class() == 4 || r.Code.Class() == 5:
		return &failure{last: r.AppendTo(nil), outcome: outcomeOf(r.Code), then: originGone}
	}
	x.noteRewritten(r.Raw(), wording.OriginTooSoon.Code)
	return &failure{verdict: wording.OriginTooSoon, outcome: event.Deferred, then: originGone}
}

// rejected is a message that is refused for good as soon as the client has sent it all.
func rejected(v *verdict.V) *failure {
	return &failure{verdict: v, outcome: event.Refused, then: afterContent}
}

var (
	oversize = rejected(wording.TooLarge) // as soon as it is too large, RFC 1870 section 6.3
	eightBit = rejected(wording.EightBit) // that was not announced by BODY=8BITMIME
)

// judged refuses a complete message by policy.
func judged(v *verdict.V) *failure {
	f := &failure{verdict: v, outcome: outcomeOf(v.Code), then: afterContent}
	if v.Ends() {
		f.then, f.at = policyEnding(v), atOnce
	}
	return f
}
