package relay

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/portreeve/portreeve/pkg/stream"
)

// leg is a connection as the session sees it: a session.Leg and a
// session.Aborter.
type leg struct {
	*stream.Conn
}

// newLeg takes a connection over.
func newLeg(conn *net.TCPConn) *leg { return &leg{stream.New(conn)} }

// Abort resets the connection: what was not delivered yet is thrown away, and
// the peer sees a broken connection instead of an end of stream.
func (l *leg) Abort() error {
	return errors.Join(l.SetLinger(0), l.Close())
}

// release closes a connection to an origin over which nothing is under way: no message
// is open, and the answer to the last one was read. Who closes first keeps the
// addresses and ports for a minute (TIME_WAIT), and a forged port is one that other
// clients behind the same address need. An origin that has closed first, as it
// should after 221 and 421, keeps them itself. Otherwise a reset makes both sides
// forget them. It can take back a command whose answer nobody waits for, and
// never an end of data: the session has read the answer to that one, or asks for an
// abort, which is one of its own, and says so in the record.
func (l *leg) release() {
	if _, err := l.Pending(); err == io.EOF {
		l.Close()
		return
	}
	l.Abort()
}

// lingering is how long a client may go on sending after our last words.
const lingering = 2 * time.Second

// closeQuiet closes a connection whose peer says nothing more. Should there be
// unread input all the same, a close would reset the connection and the peer
// might lose our last words (RFC 1122 section 4.2.2.13), so it is read first.
func (l *leg) closeQuiet() {
	if n, err := l.Pending(); n > 0 && err == nil {
		l.closeBusy()
		return
	}
	l.Close()
}

// closeBusy closes a connection whose peer may be sending: it ends our half,
// throws away what still comes, for a bounded time, and closes. An error means
// that the connection is gone already.
func (l *leg) closeBusy() {
	l.CloseWrite()
	l.SetReadDeadline(time.Now().Add(lingering))
	io.Copy(io.Discard, l.TCPConn)
	l.Close()
}
