package secure

import (
	"errors"
	"net"
	"os"
	"time"
)

// transport is a stream as crypto/tls wants it: a net.Conn.
type transport struct {
	Stream
	until   time.Time // of the handshake; zero: none is under way
	readBy  time.Time // the deadlines outside a handshake
	writeBy time.Time
	reading bool   // TLS reads: what it writes meanwhile is its own
	now     bool   // reads must not wait
	held    []byte // not nil: writes gather here
	own     int    // octets that TLS wrote of its own since the last Write of the Conn
}

// Read reads from the stream. A handshake is not interrupted: whoever wants the
// session's attention by a deadline in the past gets it afterwards.
func (t *transport) Read(p []byte) (int, error) {
	if t.now {
		return t.readNow(p)
	}
	for {
		n, err := t.Stream.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(t.until) {
			return n, err
		}
		t.Stream.SetReadDeadline(t.until) // fails only on a closed leg, as will the read
	}
}

// readNow reads what is there. A deadline that has passed does not hide it.
func (t *transport) readNow(p []byte) (int, error) {
	if n, err := t.Stream.Pending(); n == 0 && err == nil {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := t.Stream.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Stream.SetReadDeadline(time.Time{})
		n, err = t.Stream.Read(p)
		t.Stream.SetReadDeadline(t.readBy)
	}
	return n, err
}

// Write writes to the stream, or to what gathers.
func (t *transport) Write(p []byte) (int, error) {
	switch {
	case t.held != nil:
		t.held = append(t.held, p...)
		return len(p), nil
	case t.reading:
		return t.answer(p)
	}
	return t.Stream.Write(p)
}

// courtesy is how long TLS may take to say something of its own.
const courtesy = 5 * time.Second

// answer writes what TLS has to say to what it reads: an alert, or that it has new
// keys too. The deadline of the last write, which may have passed long ago, is not
// for that: new keys of which the peer does not learn are the end of the session.
func (t *transport) answer(p []byte) (int, error) {
	t.Stream.SetWriteDeadline(time.Now().Add(courtesy)) // fails only on a closed leg, as will the write
	defer t.Stream.SetWriteDeadline(t.writeBy)
	n, err := t.Stream.Write(p)
	t.own += n
	return n, err
}

// Close does nothing: the leg's owner closes it.
func (t *transport) Close() error { return nil }

// SetDeadline sets both deadlines.
func (t *transport) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

// LocalAddr is asked for and not used by crypto/tls.
func (t *transport) LocalAddr() net.Addr { return nowhere{} }

// RemoteAddr is, without a server name, under what crypto/tls remembers a
// session to take it up again.
func (t *transport) RemoteAddr() net.Addr { return nowhere{} }

type nowhere struct{}

func (nowhere) Network() string { return "leg" }
func (nowhere) String() string  { return "leg" }
