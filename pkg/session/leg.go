package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Leg is one side of the conversation. Read and Write behave as those of a
// net.Conn; they fail with os.ErrDeadlineExceeded when their deadline passes.
type Leg interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	// Pending says what a Read would find now, without waiting: n > 0 octets (1
	// means at least one); 0 and nil: nothing yet; 0 and io.EOF: the peer has
	// closed; any other error: the connection is broken.
	Pending() (n int, err error)
}

// Aborter is what an origin leg may also be. The session calls Abort, once, as
// soon as the leg must be reset while the conversation with the client still
// goes on; without it, the origin learns of it when Run returns.
type Aborter interface{ Abort() error }

// Acknowledger is what an origin leg may also be. Unacknowledged returns how much, of
// what was written, the origin's host has not acknowledged: nobody there can have
// read it, so what the origin has said by then is no answer to it. 0 proves nothing.
type Acknowledger interface{ Unacknowledged() int }

// Sleeper is what a client leg may also be. Sleep returns when a Read would not
// wait: there is something to read, the peer has closed, the leg is broken, or
// the read deadline has passed. A session whose client leg is one can rest.
type Sleeper interface{ Sleep() }

// Sizes of read buffers.
const (
	smallSize = 512      // a command, most replies
	pageSize  = 4 << 10  // pipelined commands, long replies
	blockSize = 64 << 10 // content, the longest replies
)

var (
	smalls = sync.Pool{New: func() any { return new([smallSize]byte) }}
	pages  = sync.Pool{New: func() any { return new([pageSize]byte) }}
	blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}
)

// side is a leg with its read buffer: buf[r:w] was read and not yet used.
type side struct {
	leg      Leg
	buf      []byte
	r, w     int
	small    *[smallSize]byte // the one of these that buf is in
	page     *[pageSize]byte
	block    *[blockSize]byte
	readBy   time.Time // deadlines as set on the leg
	writeBy  time.Time
	in, sent int64 // octets
	filled   bool  // the last read filled the buffer: there is more
}

func (s *side) init(l Leg) { s.leg = l }

// window returns what was read and not yet used.
func (s *side) window() []byte { return s.buf[s.r:s.w] }

// skip marks n octets as used. Slices of them stay valid until the next read.
func (s *side) skip(n int) {
	s.r += n
	if s.r == s.w {
		s.r, s.w = 0, 0
	}
}

// room makes the buffer want octets long, or longer where the window needs it,
// with the window at its start.
func (s *side) room(want int) {
	kept := s.window()
	for want <= len(kept) && want < blockSize {
		want = nextSize(want)
	}
	if want == len(s.buf) {
		n := copy(s.buf, kept)
		clear(s.buf[max(n, s.r):s.w]) // as below
		s.r, s.w = 0, n
		return
	}
	small, page, block := s.small, s.page, s.block
	s.small, s.page, s.block = nil, nil, nil
	switch want {
	case pageSize:
		s.page = pages.Get().(*[pageSize]byte)
		s.buf = s.page[:]
	case blockSize:
		s.block = blocks.Get().(*[blockSize]byte)
		s.buf = s.block[:]
	default:
		s.small = smalls.Get().(*[smallSize]byte)
		s.buf = s.small[:]
	}
	s.r, s.w = 0, copy(s.buf, kept)
	clear(kept) // it may be the beginning of a secret
	release(small, page, block)
}

func nextSize(size int) int {
	if size < pageSize {
		return pageSize
	}
	return blockSize
}

func release(small *[smallSize]byte, page *[pageSize]byte, block *[blockSize]byte) {
	if small != nil {
		smalls.Put(small)
	}
	if page != nil {
		pages.Put(page)
	}
	if block != nil {
		blocks.Put(block)
	}
}

// free gives the buffers back; the window is lost.
func (s *side) free() {
	clear(s.window())
	release(s.small, s.page, s.block)
	s.small, s.page, s.block, s.buf, s.r, s.w = nil, nil, nil, nil, 0, 0
}

// read reads once behind the window. It returns nil when octets came.
func (s *side) read() error {
	n, err := s.leg.Read(s.buf[s.w:])
	s.filled = n == len(s.buf)-s.w
	s.w += n
	s.in += int64(n)
	if n > 0 {
		return nil // an error with them comes again with the next read
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// patience is how long a wait may keep buffers and unsent replies: long enough
// never to matter for a peer that is at work, short enough that one that sleeps
// costs nothing.
const patience = time.Second

// expectSoon arms the read deadline for patience or until, whichever is
// earlier, unless one near enough is armed already.
func (s *side) expectSoon(now, until time.Time) {
	late := now.Add(patience)
	early := now.Add(patience / 2)
	if until.Before(late) {
		late, early = until, until
	}
	if s.readBy.Before(early) || s.readBy.After(late) {
		s.setReadDeadline(late)
	}
}

func (s *side) setReadDeadline(t time.Time) {
	s.readBy = t
	s.leg.SetReadDeadline(t) // fails only on a closed leg, as will the read
}

// write writes all of p. Each write has at least limit, at most one and a half
// times limit.
func (s *side) write(p []byte, now time.Time, limit time.Duration) error {
	if s.writeBy.Before(now.Add(limit)) {
		s.writeBy = now.Add(limit + limit/2)
		s.leg.SetWriteDeadline(s.writeBy) // fails only on a closed leg, as will the write
	}
	n, err := s.leg.Write(p)
	s.sent += int64(n)
	return err
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// await reads more from a side. It waits in two stages: a short one that keeps
// the buffers, since peers at work answer at once, and a long one without them.
func (x *session) await(s *side, want int, until time.Time) *ending {
	if s == &x.client && !x.limit.IsZero() && x.limit.Before(until) {
		until = x.limit
	}
	s.expectSoon(x.now, until)
	s.room(want)
	err := s.read()
	if timedOut(err) {
		return x.wait(s, until)
	}
	return x.arrived(s, err)
}

// wait is the second stage: what was kept is handed on or given back.
func (x *session) wait(s *side, until time.Time) *ending {
	x.now = time.Now()
	if e := x.flush(); e != nil {
		return e
	}
	if s == &x.client {
		began := x.now
		x.spillInWait()
		until = until.Add(x.now.Sub(began)) // this was not its time
	}
	if x.group == nil || !x.held { // else cmd refers to the buffer
		x.client.shrink()
	}
	x.origin.shrink()
	if x.group != nil && x.group.idle() {
		x.park()
		defer x.unpark()
	}
	return x.waitLong(s, until)
}

func (x *session) waitLong(s *side, until time.Time) *ending {
	for {
		s.setReadDeadline(until)
		// Draining is asked after the deadline is armed: who sets it and then
		// interrupts the read is either seen here, or interrupts it.
		switch {
		case s == &x.client && x.tx.state == noMail && x.o.Draining():
			return draining
		case s == &x.client && x.o.Cut():
			return severed
		}
		if x.restful && s == &x.client { // the origin may be owing a reply to what was gathered
			x.until = until
			return resting
		}
		s.room(smallSize)
		err := s.read()
		if !timedOut(err) {
			return x.arrived(s, err)
		}
		if x.now = time.Now(); !x.now.Before(until) {
			return x.silent(s)
		}
	}
}

// shrink gives buffers back as far as the window allows.
func (s *side) shrink() {
	if s.r == s.w {
		s.free()
		return
	}
	s.room(smallSize)
}

func (x *session) arrived(s *side, err error) *ending {
	x.now = time.Now()
	switch {
	case err == nil:
		return nil
	case s == &x.client && errors.Is(err, net.ErrClosed): // we have cut it ourselves
		return x.unlessCut(left(err))
	case s == &x.client:
		return left(err)
	}
	return x.unlessCut(originGone)
}

// left says how a client has gone: it has ended its stream, and may still read what
// it was told, or its connection is broken.
func left(err error) *ending {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return clientEnded
	}
	return clientGone
}

// isGone reports whether a session ends since its client sends nothing any more.
func (e *ending) isGone() bool { return e == clientGone || e == clientEnded }

// silent says what a wait that was too long means.
func (x *session) silent(s *side) *ending {
	switch {
	case s != &x.client:
		return originTimeout
	case !x.limit.IsZero() && !x.now.Before(x.limit):
		return overtime
	}
	return clientTimeout
}
