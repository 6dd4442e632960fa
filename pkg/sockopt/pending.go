package sockopt

import (
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peeker looks at what a connected socket would give to a read, without waiting
// and without taking anything. A session asks before each of its writes, so a
// Peeker is made once per connection and asking costs one short system call and
// no allocation. One goroutine at a time may use it.
type Peeker struct {
	conn syscall.RawConn
	look func(fd uintptr) // p.peek, bound once
	n    int
	err  error
}

// NewPeeker returns a Peeker for a connection, which it neither owns nor keeps
// open.
func NewPeeker(c syscall.Conn) *Peeker {
	p := &Peeker{}
	p.look = p.peek
	p.conn, p.err = c.SyscallConn()
	return p
}

// Pending reports what a read would meet now: 1 when at least one octet is
// there, 0 when none is, 0 and io.EOF when the peer has closed its half, and
// otherwise the connection's error.
//
// It sees the socket alone: what the caller has read ahead into a buffer of its
// own is the caller's to count.
func (p *Peeker) Pending() (int, error) {
	if p.conn == nil { // there never was a connection
		return 0, p.err
	}
	if err := p.conn.Control(p.look); err != nil {
		return 0, err
	}
	return p.n, p.err
}

// peek looks at the first octet of the receive queue. The call never blocks, so
// it goes past the scheduler; unix.Recvfrom would also make room for an address.
func (p *Peeker) peek(fd uintptr) {
	var octet byte
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&octet)), 1,
		unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN:
		p.n, p.err = 0, nil
	case errno != 0:
		p.n, p.err = 0, errno
	case n == 0:
		p.n, p.err = 0, io.EOF
	default:
		p.n, p.err = 1, nil
	}
}
