// Package secure puts TLS over a leg: it makes the handshake and returns a leg
// that reads and writes what is inside.
//
// It knows no sockets: under it may be a connection or a piece of memory. It
// decides neither who gets TLS nor who is trusted: the *tls.Config that it is given
// does, and for origins a function that judges them. It closes nothing.
// Relay, its only caller, gives it the legs of a session.
package secure

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// Stream is what TLS can be put over: session.Leg.
type Stream interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Pending() (n int, err error)
}

// Judge says what a peer's certificates are worth, while the handshake is under
// way. An error ends it; one with a method Failure() event.Failure says why.
type Judge func(tls.ConnectionState) (event.Verification, error)

// Conn is a leg inside TLS, with the methods of a session.Leg. One goroutine at a
// time may use it. Who wants to end its wait sets a deadline of the leg below, or
// closes that.
type Conn struct {
	tls   *tls.Conn
	under *transport
	ahead [1]byte // read by Pending
	has   bool    // ahead is not yet read
}

// Server makes the handshake with a client over s, until by. On failure it
// returns no Conn, the record says why, and s is only good for closing.
func Server(s Stream, c *tls.Config, by time.Time) (*Conn, event.TLS) {
	t := &transport{Stream: s}
	conn := &Conn{tls: tls.Server(t, c), under: t}
	err := conn.handshake(by)
	r := conn.record(err)
	if err == nil && c.ClientAuth != tls.NoClientCert {
		r.Peer, r.PeerName = clientPeer(conn.tls.ConnectionState())
	}
	return conn.orNil(err), r
}

// Client makes the handshake with an origin over s, until by. judge, if not nil,
// takes the place of the verification by crypto/tls.
func Client(s Stream, c *tls.Config, judge Judge, by time.Time) (*Conn, event.TLS) {
	t := &transport{Stream: s}
	peer := event.Unverified
	if judge != nil {
		c = c.Clone()
		c.InsecureSkipVerify = true // by crypto/tls; judge does it
		c.VerifyConnection = func(state tls.ConnectionState) (err error) {
			peer, err = judge(state)
			return err
		}
	}
	conn := &Conn{tls: tls.Client(t, c), under: t}
	err := conn.handshake(by)
	r := conn.record(err)
	if err == nil {
		r.Peer, r.PeerName = peer, subject(conn.tls.ConnectionState())
	}
	return conn.orNil(err), r
}

func (c *Conn) orNil(err error) *Conn {
	if err != nil {
		return nil
	}
	return c
}

// handshake makes the handshake in a goroutine of its own: it takes far more
// stack than a session needs while it waits, and a stack once grown stays.
func (c *Conn) handshake(by time.Time) error {
	c.under.until = by
	c.under.SetReadDeadline(by) // fails only on a closed leg, as will the read
	c.under.SetWriteDeadline(by)
	done := make(chan error, 1)
	go func() {
		defer func() {
			if value := recover(); value != nil {
				done <- &fault{value, debug.Stack()}
			}
		}()
		done <- c.tls.Handshake()
	}()
	err := <-done
	c.under.until = time.Time{}
	if f, is := err.(*fault); is {
		panic(f) // where it ends this session only, and is reported
	}
	return err
}

// fault is a panic that was carried from one goroutine into another.
type fault struct {
	value any
	stack []byte
}

func (f *fault) Error() string { return fmt.Sprintf("%v, in the handshake:\n%s", f.value, f.stack) }

// Read reads what is inside TLS. The end is io.EOF, inside a record
// io.ErrUnexpectedEOF. Whether the peer has told it (close_notify) does not show:
// for SMTP no end of the stream ever means that a message is complete.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.has || len(p) == 0 {
		return c.read(p)
	}
	p[0], c.has = c.ahead[0], false
	n, _ := c.readNow(p[1:]) // an error comes again
	return 1 + n, nil
}

func (c *Conn) read(p []byte) (int, error) {
	c.under.reading = true
	n, err := c.tls.Read(p)
	c.under.reading = false
	return n, err
}

// readNow reads what is there, without waiting.
func (c *Conn) readNow(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.under.now = true
	n, err := c.read(p)
	c.under.now = false
	return n, err
}

// Pending says what a Read would find now, without waiting. A record of which a
// part has come is nothing yet.
func (c *Conn) Pending() (int, error) {
	if c.has {
		return 1, nil
	}
	n, err := c.readNow(c.ahead[:])
	switch {
	case n > 0:
		c.has = true
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	}
	return 0, err
}

// maxRecord is the most octets in a record, RFC 8446 section 5.1.
const maxRecord = 16 << 10

// blocks are for the records of one write: 64 KiB and what TLS adds to them.
var blocks = sync.Pool{New: func() any { b := make([]byte, 0, 68<<10); return &b }}

// Write writes all of p, in records as long as they may be, with one write
// below.
func (c *Conn) Write(p []byte) (int, error) {
	c.under.own = 0
	if len(p) <= maxRecord {
		return c.tls.Write(p)
	}
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	c.under.held = (*block)[:0]
	_, err := c.tls.Write(p)
	held := c.under.held
	c.under.held = nil
	if err == nil {
		_, err = c.under.Stream.Write(held)
	}
	if err != nil {
		return 0, err // how much of it the peer can read is not known
	}
	return len(p), nil
}

// Unacknowledged says of what was written as session.Acknowledger does, where the leg
// below can tell, in octets of TLS. What TLS has said of its own after the last Write,
// new keys above all, does not count: it is said while a reply is read, and
// acknowledged after that.
func (c *Conn) Unacknowledged() int {
	below, ok := c.under.Stream.(interface{ Unacknowledged() int })
	if !ok {
		return 0
	}
	return max(0, below.Unacknowledged()-c.under.own)
}

// SetReadDeadline sets the deadline of the leg below.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.under.readBy = t
	return c.under.Stream.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of the leg below.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.under.writeBy = t
	return c.under.Stream.SetWriteDeadline(t)
}

// Sleep waits until a Read would not wait, see session.Sleeper. What comes below may
// be no more than a part of a record; then the one who sleeps wakes too early.
func (c *Conn) Sleep() {
	if c.has {
		return
	}
	if below, ok := c.under.Stream.(interface{ Sleep() }); ok {
		below.Sleep()
		return
	}
	n, _ := c.read(c.ahead[:]) // an error comes again
	c.has = n > 0
}

// CloseNotify tells the peer that nothing more comes. Without it the peer has to
// take the end for an interruption.
func (c *Conn) CloseNotify() error { return c.tls.CloseWrite() }

// Abort resets the leg below, where that can be.
func (c *Conn) Abort() error {
	if a, ok := c.under.Stream.(interface{ Abort() error }); ok {
		return a.Abort()
	}
	return nil
}
