package accept

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrExhausted comes with a connection that could be accepted only because a spare
// descriptor was closed for it: the process, or the machine, has no other. The caller
// owns the connection, tells the client to come again, and closes it before it calls
// Accept again. A client that were left in the queue would read nothing, and wait.
var ErrExhausted = errors.New("accept: the last descriptor is used for this connection")

// spare is a descriptor that is of no use but to be closed when there is no other.
type spare struct{ file *os.File }

// take opens it, if it is not open. It returns false when there is none to be had.
func (s *spare) take() bool {
	if s.file != nil {
		return true
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		return false
	}
	s.file = file
	return true
}

// release closes it, or returns false when it was closed before.
func (s *spare) release() bool {
	if s.file == nil {
		return false
	}
	s.file.Close()
	s.file = nil
	return true
}

// exhausted reports whether an error means that there is no descriptor left, in the
// process or on the machine.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// queued reports whether a client waits to be accepted. Without a descriptor accept(2)
// says so whether one waits or not.
func (l *Listener) queued() bool {
	conn, err := l.ln.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	conn.Control(func(fd uintptr) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return err == nil && n > 0
}
