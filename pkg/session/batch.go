package session

import (
	"strconv"
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// batch is content of chunks that the origin shall get with the next write. A client
// may make a chunk of each octet, and one write for each would be one packet for
// each. So content is gathered until the batch is full, the message is complete, or
// the client has been silent for a moment.
type batch struct {
	block *[blockSize]byte // nil: the batch is empty
	end   int              // of the content, which begins behind headRoom
}

const (
	headRoom = len("BDAT 65536 LAST\r\n") // for the command of a chunk of ours
	tailRoom = 32                         // for a CR that was held back, the last CRLF and the end of data
)

// room returns how many octets of content fit, if each becomes two.
func (b *batch) room() int {
	if b.block == nil {
		return (blockSize - headRoom - tailRoom) / 2
	}
	return (blockSize - b.end - tailRoom) / 2
}

// content returns what was gathered, for appending.
func (b *batch) content() []byte {
	if b.block == nil {
		b.block, b.end = blocks.Get().(*[blockSize]byte), headRoom
	}
	return b.block[headRoom:b.end]
}

// holds makes content, which was appended to, the batch's.
func (b *batch) holds(content []byte) { b.end = headRoom + len(content) }

// chunk returns the batch as a chunk of our own. All of its octets are here, so the
// origin never waits for the rest of one.
func (b *batch) chunk(last bool) []byte {
	content := b.content()
	var room [headRoom]byte
	head := strconv.AppendInt(append(room[:0], "BDAT "...), int64(len(content)), 10)
	if last {
		head = append(head, " LAST"...)
	}
	head = append(head, '\r', '\n')
	copy(b.block[headRoom-len(head):], head)
	return b.block[headRoom-len(head) : b.end]
}

func (b *batch) free() {
	if b.block != nil {
		blocks.Put(b.block)
	}
	*b = batch{}
}

// gather adds a piece to the batch in the origin's form. With the last one it commits
// the message.
func (x *session) gather(in []byte, last bool) (f *failure, committed bool) {
	had := len(x.batch.content())
	content, fault := x.encode(x.batch.content(), in, last)
	x.batch.holds(content)
	switch {
	case fault != smtp.NoFault:
		return rejected(badContent[fault]), false
	case x.unannounced(in):
		return eightBit, false
	}
	if f = x.show(content[had:], !x.tx.binary); f != nil {
		return f, false
	}
	if last {
		f = x.complete(x.gathered(true))
		x.batch.free()
		return f, f == nil
	}
	return nil, false
}

// gathered returns the batch as it is written.
func (x *session) gathered(last bool) []byte {
	if x.tx.binary {
		return x.batch.chunk(last)
	}
	return x.batch.content()
}

// encode appends a piece of chunked content to dst as the origin gets it.
func (x *session) encode(dst, in []byte, last bool) ([]byte, smtp.Fault) {
	had := len(dst)
	switch {
	case x.tx.binary:
		x.grow(len(in), 0)
		return append(dst, in...), smtp.NoFault
	case x.normalizes():
		dst, _, _ = x.normal.Next(dst, in)
		x.grow(len(dst)-had, x.normal.Dots)
		if last {
			dst = x.normal.Close(dst)
		}
		return dst, x.normal.Fault
	}
	dst = x.stuffer.Append(dst, in)
	x.grow(len(dst)-had, x.stuffer.Dots)
	if last {
		dst = x.stuffer.Close(dst)
	}
	return dst, x.stuffer.Fault
}

// spill writes the batch to the origin.
func (x *session) spill() *failure {
	if len(x.batch.content()) == 0 {
		x.batch.free()
		return nil
	}
	e := x.stream(x.gathered(false))
	x.batch.free()
	switch {
	case e != nil:
		return x.interrupted(e)
	case x.tx.binary:
		return x.chunkReply()
	}
	return nil
}

// spillInWait is spill while the client is silent. It is told at its next chunk what
// came of that.
func (x *session) spillInWait() {
	if x.batch.block == nil {
		return
	}
	before := x.now
	x.tx.broken = x.spill()
	x.now = time.Now()
	x.tx.paused = x.tx.paused.Add(x.now.Sub(before)) // this was not the client's time
}
