package session

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// Chunks, RFC 3030. A client's chunk follows its BDAT at once, so it is read in
// any case: what is refused is consumed, and never taken for commands. Towards
// the origin the chunks do not exist: the content travels as DATA, which every
// server frames alike. Only BINARYMIME, which DATA cannot carry, travels as
// chunks, in sizes of our own and of octets that we have.

// maxPiece is the most content handled at once; stuffed, with its end of data,
// it fits a block.
const maxPiece = blockSize/2 - 16

var (
	afterChunks = &ending{end: event.EndContent, verdict: wording.Unfinished, origin: Abort}
	manyTiny    = &ending{end: event.EndErrors, verdict: wording.TinyChunks, detail: "BDAT"}
	badChunk    = &ending{end: event.EndClientSyntax, verdict: wording.BadChunk, detail: "BDAT"}
)

// bdat handles BDAT: everything before it is settled, then its chunk is read.
func (x *session) bdat() step {
	switch {
	case !x.offered.Has(smtp.ExtChunking):
		return x.stop(unframed) // its content would be read as commands
	case x.refusal != nil:
		return x.stop(badChunk) // the same
	case x.ledger.n > 0:
		return hold
	}
	x.chunk, x.chunkDue = x.cmd.Chunk, true
	return barrier
}

// dawdles counts the time between chunks as the client's, for the origin waits
// meanwhile as it does inside one. It reports whether the content comes too
// slowly.
func (x *session) dawdles() bool {
	x.tx.waited += x.now.Sub(x.tx.paused)
	x.tx.paused = x.now
	return x.tooFew(x.tx.waited)
}

// takeChunk reads the chunk that was announced and answers it.
func (x *session) takeChunk() *ending {
	x.chunkDue = false
	x.left = x.chunk.Size
	if e := x.petty(); e != nil {
		return e
	}
	if v := x.strayChunk(); v != nil {
		x.slip(x.chunk.AppendTo(nil), v)
		x.rec.Errors++
		return x.refuseChunk(v)
	}
	switch v, e := x.judgeChunk(); {
	case e != nil:
		return e
	case v != nil:
		return x.spoil(v)
	}
	if x.tx.state == opened {
		if e := x.openChunks(); e != nil || x.tx.state != inChunks {
			return e
		}
	}
	for {
		if done, e := x.piece(); done || e != nil {
			return e
		}
		if x.left == 0 {
			x.tx.paused = x.now
			return x.tell(wording.ChunkTaken)
		}
	}
}

// tinyChunk is the size below which a chunk is a tiny one: with its command and its
// reply it costs more than it carries. Senders make chunks of some KiB at least.
const tinyChunk = 64

// petty counts chunks of nothing as errors, and tiny ones once there are more of them
// in a message than the rules allow: they are in order, and carry next to nothing.
// The last one may have any size.
func (x *session) petty() *ending {
	if x.chunk.Last || x.left >= tinyChunk {
		return nil
	}
	many := tooMany
	if x.left > 0 {
		if x.tx.tiny++; x.rules.TinyChunks == 0 || x.tx.tiny <= x.rules.TinyChunks {
			return nil
		}
		many = manyTiny
	}
	if x.rec.Errors++; x.rec.Errors <= x.rules.Errors {
		return nil
	}
	return many
}

// strayChunk refuses a chunk that belongs to no message.
func (x *session) strayChunk() *verdict.V {
	switch {
	case x.dropped != nil || x.tx.state == spoilt:
		return wording.Spoilt
	case x.tx.state == noMail:
		return wording.MailFirst
	case x.tx.recipients == 0:
		return wording.NoRecipients
	}
	return nil
}

// judgeChunk asks the policy about a message's first chunk, and minds the size
// with each one.
func (x *session) judgeChunk() (*verdict.V, *ending) {
	if x.rules.Size > 0 && x.msg.Size+x.left > x.rules.Size {
		return wording.TooLarge, nil
	}
	if x.tx.state != opened {
		return nil, nil
	}
	a := x.o.Policy.Command(x.envelope(), &x.cmd)
	if a.Wait != nil {
		return x.awaitAnswer(a.Wait)
	}
	return sound(a.Verdict), nil
}

// refuseChunk consumes what is left of a chunk, and refuses it.
func (x *session) refuseChunk(v *verdict.V) *ending {
	switch e := x.discardChunk(); {
	case e.isGone():
		return e
	case e != nil:
		return &ending{end: e.end, verdict: v, detail: "BDAT"}
	case x.rec.Errors > x.rules.Errors:
		return tooMany
	case v.Ends():
		return &ending{end: event.EndPolicy, verdict: v, detail: "BDAT"}
	}
	return x.tell(v)
}

// spoil refuses a chunk, and with it the message. What the origin already has of
// it can only be taken back by giving the leg up.
func (x *session) spoil(v *verdict.V) *ending {
	if x.tx.state == inChunks {
		return x.failChunk(failure{verdict: v, outcome: outcomeOf(v.Code), then: afterContent})
	}
	x.tx.state = spoilt
	x.msg.Cause = v.Cause
	x.noteVerdict(v)
	return x.refuseChunk(v)
}

// openChunks begins the message at the origin. A refusal is the client's answer
// to the chunk.
func (x *session) openChunks() *ending {
	x.msg.Used = x.msg.Used.With(smtp.ExtChunking)
	x.stuffer = smtp.Stuffer{MaxLine: x.rules.TextLine}
	x.normal = x.normalizer(false)
	x.tx.binary = x.tx.body == smtp.BodyBinaryMIME
	if x.tx.binary {
		x.tx.state = inChunks
		x.openTap()
		x.gatherReceived()
		return nil
	}
	r, e := x.sendData()
	switch {
	case e != nil:
		return x.failChunk(*undone(e))
	case r.Code == 354:
		x.tx.state = inChunks
		x.msg.Opened = x.now.Sub(x.msg.Start)
		x.openTap()
		x.gatherReceived()
		return nil
	}
	return x.failChunk(*x.refusedBy(r))
}

// sendData sends DATA and returns the reply, 354 or a refusal.
func (x *session) sendData() (r smtp.WireReply, e *ending) {
	x.fwd.b = append(x.fwd.grow(), "DATA\r\n"...)
	if e = x.send(); e != nil {
		return r, e
	}
	if r, e = x.reply(x.o.Timeouts.Data); e != nil {
		return r, e
	}
	switch class := r.Code.Class(); {
	case r.Code == 421:
		return r, x.originClosing(r)
	case class == 2 || (class == 3 && r.Code != 354):
		return r, x.wrongReply(r, "DATA answered without 354")
	}
	return r, nil
}

// refusedBy makes a failure of the origin's refusal. The leg can be used on.
func (x *session) refusedBy(r smtp.WireReply) *failure {
	x.noteReply(r)
	return &failure{last: r.AppendTo(nil)} // r does not outlive the chunk
}

// originSpoils passes the origin's refusal on, as the answer to the chunk.
func (x *session) originSpoils(last []byte) *ending {
	x.tx.state = spoilt
	if e := x.discardChunk(); e != nil {
		if !e.isGone() {
			e = &ending{end: e.end, detail: "BDAT", last: last}
		}
		return e
	}
	return x.say(last)
}

// piece hands one piece of the chunk on. done says that the chunk is answered.
func (x *session) piece() (done bool, e *ending) {
	for x.left > 0 && len(x.client.window()) == 0 {
		if e := x.awaitContent(); e != nil {
			return false, e
		}
	}
	n := int(min(int64(len(x.client.window())), x.left))
	if f := x.makeRoom(n); f != nil {
		return true, x.failChunk(*f)
	}
	in := x.client.window()[:min(n, x.batch.room())] // only now: it moves while the origin takes its time
	x.left -= int64(len(in))
	f, committed := x.gather(in, x.left == 0 && x.chunk.Last)
	x.client.skip(len(in))
	switch {
	case f != nil:
		return true, x.failChunk(*f)
	case committed:
		return true, x.verdict()
	}
	return false, nil
}

// makeRoom makes room for a piece of n octets, or for much of it. It returns what has
// gone wrong with what was gathered before.
func (x *session) makeRoom(n int) *failure {
	switch {
	case x.tx.broken != nil:
		return x.tx.broken
	case x.batch.room() < min(n, maxPiece/2):
		return x.spill()
	}
	return nil
}

// chunkReply reads the origin's reply to a chunk of our own, and returns what it
// makes of the message: nil when that goes on.
func (x *session) chunkReply() *failure {
	r, e := x.reply(x.o.Timeouts.Reply)
	switch {
	case e != nil:
		return undone(e)
	case r.Code == 421:
		return undone(x.originClosing(r))
	case r.Code.Class() == 3:
		return undone(x.wrongReply(r, "intermediate reply to BDAT"))
	case !r.Code.Positive():
		return x.refusedBy(r)
	}
	return nil
}

// failChunk is fail for a message in chunks: its client is told at the end of
// this one.
func (x *session) failChunk(f failure) *ending {
	x.batch.free()
	if f.then == nil { // the origin has refused it, and no more than it
		return x.originSpoils(f.last)
	}
	x.drop(f.then)
	return x.failed(f, x.discardChunk())
}

// discardChunk reads what is left of the chunk.
func (x *session) discardChunk() *ending {
	if x.left > x.rules.Drain {
		return endless
	}
	until := x.now.Add(x.o.Timeouts.Rest)
	for {
		n := min(int64(len(x.client.window())), x.left)
		x.client.skip(int(n))
		if x.left -= n; x.left == 0 {
			return nil
		}
		if e := x.await(&x.client, blockSize, until); e != nil {
			return e
		}
	}
}
