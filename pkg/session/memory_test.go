package session

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

var errReset = errors.New("connection reset by peer")

// memoryLeg is a Leg without a socket: the test plays the peer. It keeps
// deadlines as a net.Conn does.
type memoryLeg struct {
	mu      sync.Mutex
	cond    *sync.Cond
	in      []byte // from the peer, not yet read
	inErr   error  // what follows in
	out     []byte // written, not yet looked at by the test
	writes  []int  // length of each write
	outErr  error  // what a write meets
	room    int    // octets that may still be written before outErr; -1: any number
	writeBy time.Time
	deaf    bool          // with room 0 and no outErr: a write waits until its deadline
	atMost  int           // octets per read; 0: any number
	pace    time.Duration // how long a write takes
	aborted bool

	unacknowledged int
	readBy         time.Time
	timer          *time.Timer
	wtimer         *time.Timer
}

func newMemoryLeg() *memoryLeg {
	l := &memoryLeg{room: -1}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// passed reports whether a deadline is one and has come.
func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (l *memoryLeg) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case passed(l.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(l.in) > 0:
			n := len(p)
			if l.atMost > 0 {
				n = min(n, l.atMost)
			}
			n = copy(p[:n], l.in)
			l.in = l.in[n:]
			return n, nil
		case l.inErr != nil:
			return 0, l.inErr
		}
		l.cond.Wait()
	}
}

func (l *memoryLeg) Write(p []byte) (int, error) {
	time.Sleep(l.pace)
	l.mu.Lock()
	defer l.mu.Unlock()
	if passed(l.writeBy) {
		return 0, os.ErrDeadlineExceeded
	}
	n := len(p)
	if l.room >= 0 {
		n = min(n, l.room)
		l.room -= n
	}
	l.out = append(l.out, p[:n]...)
	l.writes = append(l.writes, n)
	if n < len(p) {
		return n, l.stuck()
	}
	return n, nil
}

// stuck is what a write meets that has no room.
func (l *memoryLeg) stuck() error {
	for l.deaf && l.outErr == nil {
		if passed(l.writeBy) {
			return os.ErrDeadlineExceeded
		}
		l.cond.Wait()
	}
	return l.outErr
}

func (l *memoryLeg) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readBy = t
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = time.AfterFunc(time.Until(t), l.cond.Broadcast)
	l.cond.Broadcast()
	return nil
}

// Sleep makes sessions rest in every test.
func (l *memoryLeg) Sleep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.in) == 0 && l.inErr == nil && !passed(l.readBy) {
		l.cond.Wait()
	}
}

func (l *memoryLeg) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeBy = t
	if l.wtimer != nil {
		l.wtimer.Stop()
	}
	l.wtimer = time.AfterFunc(time.Until(t), l.cond.Broadcast)
	return nil
}

// stopReading makes the peer take nothing more, as one with a closed window.
func (l *memoryLeg) stopReading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room, l.deaf = 0, true
}

func (l *memoryLeg) Pending() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.in) > 0 {
		return 1, nil
	}
	return 0, l.inErr
}

func (l *memoryLeg) Unacknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unacknowledged
}

func (l *memoryLeg) owe(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unacknowledged = n
}

func (l *memoryLeg) Abort() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = true
	return nil
}

// send makes octets come from the peer.
func (l *memoryLeg) send(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in = append(l.in, p...)
	l.cond.Broadcast()
}

// sendLast makes octets come from the peer, and its end with them.
func (l *memoryLeg) sendLast(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in, l.inErr = append(l.in, p...), io.EOF
	l.cond.Broadcast()
}

// hangUp makes the peer close (io.EOF) or reset the connection.
func (l *memoryLeg) hangUp(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inErr = err
	if err != io.EOF {
		l.in = nil
		l.room, l.outErr = 0, err
	}
	l.cond.Broadcast()
}

// taken returns what was written since the last call.
func (l *memoryLeg) taken() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.out
	l.out = nil
	return p
}
