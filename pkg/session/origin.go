package session

import (
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
)

// This file is the only one that writes to the origin.
//
// Before each write the origin must have nothing to say: a reply that nobody
// waits for would be taken for the reply to what we are about to send, and every
// later one for that of the command before it, until a refusal reads as 250.

// send writes the collected commands.
func (x *session) send() *ending {
	if len(x.fwd.b) == 0 {
		return nil
	}
	defer x.fwd.free()
	if !x.parting() && x.talking() {
		return x.surprise()
	}
	return x.toOrigin(x.fwd.b)
}

// parting reports whether QUIT alone is to be sent. Its reply decides nothing, so
// it does not matter what the origin had to say before.
func (x *session) parting() bool {
	return x.ledger.n == 1 && x.ledger.entries[0].verb == smtp.QUIT
}

// sendAuth writes AUTH, which stands alone. With its initial response it may be
// longer than the commands' page.
func (x *session) sendAuth() *ending {
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	return x.sendSecret(x.cmd.AppendTo(block[:0]))
}

// sendResponse writes a response of an authentication exchange.
func (x *session) sendResponse(line []byte) *ending {
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	return x.sendSecret(append(append(block[:0], line...), '\r', '\n'))
}

func (x *session) sendSecret(p []byte) *ending {
	defer clear(p) // it stays nowhere
	if x.talking() {
		return x.surprise()
	}
	return x.toOrigin(p)
}

// stream writes content. It returns nil, or why the message cannot go on.
func (x *session) stream(p []byte) *ending {
	if len(p) == 0 {
		return nil
	}
	if x.talking() {
		return originTalks
	}
	e := x.toOrigin(p)
	now := time.Now()
	x.tx.wrote += now.Sub(x.now)
	x.now = now
	if e == nil && x.tooFew(x.tx.wrote) {
		return slowOrigin
	}
	return e
}

// tooFew reports whether the content that came in so long is less than the rate
// asks for.
func (x *session) tooFew(in time.Duration) bool {
	return x.rules.Rate > 0 && in > rateGrace && float64(x.msg.Size) < float64(x.rules.Rate)*in.Seconds()
}

// rateGrace is how long a peer may pause before its rate matters.
const rateGrace = time.Minute

// commit ends the message: it writes tail, the last of the content, and the end
// of data in one go. It is called once per message, when every verdict is in.
// tail is followed by room for the end of data; a message in chunks of our own
// has it inside, as LAST. An error means that it was not sent completely.
func (x *session) commit(tail []byte) *ending {
	if x.talking() {
		return originTalks
	}
	if n := len(tail); !x.tx.binary {
		tail = append(tail[:n:n+len(smtp.EndOfData)], smtp.EndOfData...)
	}
	return x.toOrigin(tail)
}

func (x *session) toOrigin(p []byte) *ending {
	err := x.origin.write(p, x.now, x.o.Timeouts.Block)
	if err == nil {
		return nil
	}
	x.now = time.Now() // it may have lasted, and the client is to be told
	if timedOut(err) {
		return x.unlessCut(originDeaf)
	}
	return x.unlessCut(originGone)
}

// slowOrigin ends a message of which the origin takes less than the least rate.
var slowOrigin = &ending{end: event.EndOriginTimeout, verdict: wording.SlowOrigin, detail: "the origin takes the content too slowly", origin: Abort}

var originDeaf = &ending{end: event.EndOriginTimeout, verdict: wording.OriginDeaf, detail: "the origin does not read", origin: Abort}

// originTalks stands for an origin that speaks, or has closed, in the middle of
// content. It never ends a session: see interrupted.
var originTalks = &ending{end: event.EndOriginProtocol, verdict: wording.OriginGarbled, detail: "reply inside content", origin: Abort}

// talking reports whether the origin has said something, or has closed.
func (x *session) talking() bool {
	if len(x.origin.window()) > 0 {
		return true
	}
	n, err := x.origin.leg.Pending()
	return n > 0 || err != nil
}

// surprise is called when the origin speaks out of turn. Only 421 may come
// unasked; it is passed on.
func (x *session) surprise() *ending {
	r, e := x.reply(patience)
	switch {
	case e == originTimeout:
		return brokenReply("octets without a command")
	case e != nil:
		return e
	case r.Code == 421:
		return x.originClosing(r)
	}
	return x.wrongReply(r, "reply without a command")
}

// reply waits for one reply of the origin. The time counts from now: the write
// before it may have lasted, and a deadline that has passed would hide a reply
// that is there.
func (x *session) reply(limit time.Duration) (smtp.WireReply, *ending) {
	var until time.Time
	if x.dropped != nil {
		return smtp.WireReply{}, x.dropped
	}
	for {
		r, n, f := smtp.CutReply(x.origin.window(), x.rules.Replies)
		if f != smtp.NoFault {
			if until.IsZero() {
				until = time.Now().Add(limit)
			}
			return x.damaged(until)
		}
		if n > 0 {
			x.origin.skip(n)
			return r, x.inspect(r)
		}
		if until.IsZero() {
			x.now = time.Now()
			until = x.now.Add(limit)
		}
		first := len(x.origin.window()) == 0
		if e := x.await(&x.origin, smallSize, until); e != nil {
			return x.unfinished(e)
		}
		if first && x.tx.committed {
			x.tx.crossed = x.unheard()
		}
	}
}

// damaged reads a reply that smtp.CutReply has found a fault in. Of one that says
// that the command failed the end is not waited for long.
func (x *session) damaged(until time.Time) (smtp.WireReply, *ending) {
	d := smtp.DamagedReply{Limits: x.rules.Replies}
	x.now = time.Now()
	for {
		in := x.origin.window()
		if x.rules.Malformed == protocol.CloseReplies {
			x.noteOffence(in)
			return smtp.WireReply{}, brokenReply("malformed reply")
		}
		n, done, f := d.Next(in)
		x.origin.skip(n)
		switch {
		case f == smtp.LongReply && d.Failing():
			return x.salvage(&d, brokenReply(f.String()))
		case f != smtp.NoFault:
			x.noteOffence(d.Said())
			return smtp.WireReply{}, brokenReply(f.String())
		case done:
			return d.Reply(), x.inspect(d.Reply())
		}
		if soon := x.now.Add(mending); d.Failing() && soon.Before(until) {
			until = soon
		}
		if e := x.await(&x.origin, pageSize, until); e != nil {
			return x.salvage(&d, e)
		}
	}
}

// mending is how long the rest of a damaged reply is waited for when it is clear
// that the command has failed.
const mending = 10 * time.Second

// unfinished makes what it can of a reply that is not complete when the origin is
// lost, why is how.
func (x *session) unfinished(why *ending) (smtp.WireReply, *ending) {
	d := smtp.DamagedReply{Limits: x.rules.Replies}
	if len(x.origin.window()) == 0 || x.rules.Malformed == protocol.CloseReplies {
		return smtp.WireReply{}, why
	}
	n, _, f := d.Next(x.origin.window())
	x.origin.skip(n)
	if f != smtp.NoFault {
		x.noteOffence(d.Said())
		return smtp.WireReply{}, why
	}
	return x.salvage(&d, why)
}

// salvage returns what a reply without an end says for sure: that the command has
// failed. The origin leg is then given up, why says how the session ends.
func (x *session) salvage(d *smtp.DamagedReply, why *ending) (smtp.WireReply, *ending) {
	r, ok := d.Unfinished()
	if !ok {
		return r, why
	}
	x.drop(why)
	return r, x.inspect(r)
}

// unheard reports whether the origin cannot have read all that was written to it.
// It is asked when the first octets of a reply were read: the answer to what was
// written comes with its acknowledgement, in the same segment or behind it. The look
// ahead of a write cannot see a reply that is on its way, and a look right after it
// could not tell such a one from an answer. It costs a system call, so it is for the
// end of data alone.
func (x *session) unheard() bool {
	a, ok := x.origin.leg.(Acknowledger)
	return ok && a.Unacknowledged() > 0
}

// inspect notes a reply that cannot be passed on as it is. It returns nil unless
// the rules have none of it.
func (x *session) inspect(r smtp.WireReply) *ending {
	switch {
	case r.Faithful():
		return nil
	case r.Odd && x.rules.Malformed == protocol.CloseReplies:
		return x.wrongReply(r, "malformed reply")
	}
	x.noteRewritten(r.Raw(), r.Code)
	return nil
}

// drop ends the origin leg although the session goes on: a message must not be
// completed. why is what the client's next command is told.
func (x *session) drop(why *ending) {
	if x.dropped != nil {
		return
	}
	x.dropped = why
	if a, ok := x.origin.leg.(Aborter); ok {
		a.Abort() // best effort: the caller aborts it in any case
	}
}
