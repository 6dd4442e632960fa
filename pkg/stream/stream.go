// Package stream reads, writes and looks into TCP connections by system calls
// that Go's scheduler is not told of.
//
// It owns no connection and closes none; relay, its only caller, does. Waiting
// for one is left to the runtime's poller as ever: deadlines, and a close by
// somebody else, end a wait as they end that of a net.TCPConn. Connections that
// stay silent are left to a Watch: one goroutine with an epoll instance of its
// own, which waits for that by the runtime's poller. It sees neither deadlines nor
// a close: who does that wakes the sleeper.
//
// The calls never block, so the scheduler need not know. It would take each for
// one that may: when a send lasts longer than 20 µs, since the network stack
// carries the packet on right then, it wakes a thread to take over, which often
// finds nothing to do. On two busy processors that was an eighth of what the
// inspector spent on a session. In return a garbage collection may have to wait
// for the end of a call.
package stream

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a connected TCP socket. One goroutine at a time may read or look, and
// one may write; closing and setting deadlines is free to all.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn
	in  transfer
	out transfer
	see look
	owe int32  // what a call of Unacknowledged found
	bed uint64 // number in a Watch, guarded by that

	// Bound once, so that no call allocates.
	receive, send func(fd uintptr) bool
	peek, count   func(fd uintptr)
}

// transfer is a call of Read or Write in progress.
type transfer struct {
	p     []byte
	n     int // octets of p done
	errno syscall.Errno
}

// look is a call of Pending in progress.
type look struct {
	n   int
	err error
}

// New returns a Conn for a connection, which stays its caller's. It panics when
// there never was one.
func New(c *net.TCPConn) *Conn {
	raw, err := c.SyscallConn()
	if err != nil {
		panic("stream: not a connection: " + err.Error())
	}
	s := &Conn{TCPConn: c, raw: raw}
	s.receive, s.send, s.peek, s.count = s.receiveNow, s.sendNow, s.peekNow, s.countNow
	return s
}

// Read reads as that of a net.TCPConn does.
func (s *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in = transfer{p: p}
	err := s.raw.Read(s.receive)
	t := s.in
	s.in = transfer{} // an idle connection must not keep a buffer alive
	switch {
	case err != nil:
		return 0, err
	case t.errno != 0:
		return 0, s.failed("read", t.errno)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

// Write writes all of p, as that of a net.TCPConn does.
func (s *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.out = transfer{p: p}
	err := s.raw.Write(s.send)
	t := s.out
	s.out = transfer{}
	if err == nil && t.errno != 0 {
		err = s.failed("write", t.errno)
	}
	return t.n, err
}

func (s *Conn) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// Pending reports what a read would meet now, without waiting and without taking
// anything: 1 when at least one octet is there, 0 when none is, 0 and io.EOF when
// the peer has closed its half, and otherwise the connection's error.
//
// It sees the socket alone: what the caller has read ahead into a buffer of its
// own is the caller's to count.
func (s *Conn) Pending() (int, error) {
	if err := s.raw.Control(s.peek); err != nil {
		return 0, err
	}
	return s.see.n, s.see.err
}

// Unacknowledged returns how many of the octets that were written the peer's host has
// not acknowledged yet (SIOCOUTQ, tcp(7)); none of a connection that is closed. What
// it has not acknowledged nobody there can have read, and an answer to what was read
// comes with the acknowledgement, or after it.
func (s *Conn) Unacknowledged() int {
	if s.raw.Control(s.count) != nil {
		return 0
	}
	return int(s.owe)
}

// Sleep waits until a read would not: something is there, the peer has closed,
// the connection is broken, or the read deadline has passed. It takes nothing. A
// Watch does the same for less.
func (s *Conn) Sleep() {
	s.Await() // what went wrong is met by who reads next, if only as an end
}

// Await waits as Sleep does, and returns how many octets a Read could take now, at
// least one; or why it can take none: io.EOF, the read deadline, the connection's
// error, which is told once.
func (s *Conn) Await() (n int, err error) {
	err = s.raw.Read(func(fd uintptr) bool {
		s.peekNow(fd)
		if s.see.n > 0 {
			queued, _ := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
			n = max(queued, 1)
		}
		return s.see != look{}
	})
	if err == nil {
		err = s.see.err
	}
	return n, err
}

// receiveNow takes what is there. It returns false when that is nothing: the
// poller then waits and calls again.
func (s *Conn) receiveNow(fd uintptr) bool {
	n, errno := call(unix.SYS_RECVFROM, fd, s.in.p, unix.MSG_DONTWAIT)
	s.in.n, s.in.errno = n, errno
	return errno != unix.EAGAIN
}

// sendNow hands over as much as there is room for. It returns false when some is
// left.
func (s *Conn) sendNow(fd uintptr) bool {
	for s.out.n < len(s.out.p) {
		n, errno := call(unix.SYS_SENDTO, fd, s.out.p[s.out.n:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno == unix.EAGAIN {
			return false
		}
		if errno != 0 {
			s.out.errno = errno
			return true
		}
		s.out.n += n
	}
	return true
}

// peekNow looks at the first octet of the receive queue.
func (s *Conn) peekNow(fd uintptr) {
	var octet [1]byte
	n, errno := call(unix.SYS_RECVFROM, fd, octet[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case errno == unix.EAGAIN:
		s.see = look{0, nil}
	case errno != 0:
		s.see = look{0, s.failed("read", errno)}
	case n == 0:
		s.see = look{0, io.EOF}
	default:
		s.see = look{1, nil}
	}
}

// countNow asks for the length of the send queue, in which octets stay until they are
// acknowledged. It cannot block.
func (s *Conn) countNow(fd uintptr) {
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, fd, unix.SIOCOUTQ, uintptr(unsafe.Pointer(&s.owe))); errno != 0 {
		s.owe = 0
	}
}

// call makes a recvfrom or sendto without an address, which has MSG_DONTWAIT
// among its flags and so cannot block: anything else in a raw call would stop
// every goroutine of its processor. p is not empty.
func call(number, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
