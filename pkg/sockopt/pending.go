package sockopt

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pending reports what a read of a connected socket would meet now, without
// waiting and without taking anything: 1 when at least one octet is there, 0
// when none is, 0 and io.EOF when the peer has closed its half, and otherwise
// the connection's error.
//
// It looks at the socket alone: what the caller has read ahead into a buffer of
// its own is the caller's to count.
func Pending(c syscall.RawConn) (int, error) {
	var n int
	var peek error
	err := c.Control(func(fd uintptr) { n, peek = peekOctet(int(fd)) })
	if err != nil {
		return 0, err
	}
	return n, peek
}

// peekOctet looks at the first octet of a socket's receive queue.
func peekOctet(fd int) (int, error) {
	var octet [1]byte
	for {
		n, _, err := unix.Recvfrom(fd, octet[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
