package relay

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// tunnel carries octets between the two connections without looking at them, by
// splice(2): they never come into this process. It is the one place besides
// package session from which anything reaches the origin, and only after the
// session has said so.
func (c *call) tunnel(idle time.Duration, until time.Time) event.Opaque {
	t := &tunnel{client: c.client, origin: c.origin, pipes: c.r.pipes, idle: idle, until: until}
	t.touch()
	c.client.SetWriteDeadline(time.Time{}) // see half
	c.origin.SetWriteDeadline(time.Time{})
	t.watch()
	var o event.Opaque
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() { o.FromClient, errs[0] = t.half(c.origin, c.client) })
	both.Go(func() { o.FromOrigin, errs[1] = t.half(c.client, c.origin) })
	both.Wait()
	t.unwatch()
	o.Detail = t.detail(errs[0] == nil || errs[1] == nil)
	return o
}

// detail says why a stretch was broken off. A peer that resets the connection
// after the other has ended is in order: that is how most end TLS.
func (t *tunnel) detail(ended bool) string {
	err := t.first()
	switch {
	case err == nil:
		return ""
	case err == errIdle, err == errLong:
		return err.Error()
	case ended:
		return ""
	}
	return "broken off"
}

// tunnel is a stretch under way.
type tunnel struct {
	client, origin *leg
	pipes          pipes
	idle           time.Duration
	until          time.Time    // zero: any time
	last           atomic.Int64 // when something was carried, in nanoseconds since 1970

	mu    sync.Mutex
	timer *time.Timer // calls watch
	done  bool        // both halves have ended
	err   error       // that came first; what else happens follows from it
	over  time.Time   // when both halves end after an error; zero: there was none
}

var (
	errIdle = errors.New("neither side has sent anything for too long")
	errLong = errors.New("the session is too long")
)

func (t *tunnel) touch() { t.last.Store(time.Now().UnixNano()) }

func (t *tunnel) first() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// fail notes an error, and gives the other half little time to hand on what is on
// its way.
func (t *tunnel) fail(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(err)
	return err
}

// end is fail for who has the lock. From here on writes have a deadline too: a
// half may be waiting for a peer that takes nothing any more.
func (t *tunnel) end(err error) {
	if t.err != nil {
		return
	}
	t.err, t.over = err, time.Now().Add(parting)
	t.client.SetDeadline(t.over)
	t.origin.SetDeadline(t.over)
}

// parting is how long the other half may go on after an error in one.
const parting = time.Second

// atOnce is how much is carried before it is noted that something was: who takes
// that in the time in which something must move is slow, and no more.
const atOnce = 64 << 10

// half carries what one side sends, and its end. It has no deadlines before the
// stretch is over: what was taken and not handed over by then would be lost.
func (t *tunnel) half(to, from *leg) (carried int64, err error) {
	for {
		t.arm(from)
		n, err := t.carry(to, from)
		carried += n
		if n > 0 {
			t.touch()
		}
		switch {
		case err == io.EOF:
			to.CloseWrite() // an error means that it is gone, which its own half will see
			return carried, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = t.first()
		}
		if err != nil {
			return carried, t.fail(err)
		}
	}
}

// carry waits for something and hands it on. It waits without the pipe that
// splice(2) needs: an idle stretch would keep two, and four descriptors.
func (t *tunnel) carry(to, from *leg) (int64, error) {
	n, err := from.Await()
	if err != nil {
		return 0, err
	}
	some := int64(min(n, atOnce))
	if !t.pipes.take() {
		return io.CopyN(struct{ io.Writer }{to.TCPConn}, from.TCPConn, some) // by read(2) and write(2)
	}
	defer t.pipes.release()
	return io.CopyN(to.TCPConn, from.TCPConn, some)
}

// pipes bounds how many are in use at once; nil is no bound. One is held for as long
// as a peer takes nothing, so that strangers could make two of each session.
type pipes chan struct{}

// take reports whether there is one to be had.
func (p pipes) take() bool {
	if p == nil {
		return true
	}
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p pipes) release() {
	if p != nil {
		<-p
	}
}

// arm sets the deadline of reads that is in force, which the session, or a drain
// that means to wake it, has set otherwise.
func (t *tunnel) arm(from *leg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from.SetReadDeadline(t.over)
}

// watch looks whether the stretch must end, and when to look again. The halves
// cannot: both may be waiting for peers that take nothing.
func (t *tunnel) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	if err := t.overdue(); err != nil {
		t.end(err)
		return
	}
	next := t.idle / 4
	if !t.until.IsZero() {
		next = min(next, time.Until(t.until))
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(next, t.watch)
		return
	}
	t.timer.Reset(next)
}

// unwatch ends that.
func (t *tunnel) unwatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// overdue says why the stretch must end, nil when it may go on.
func (t *tunnel) overdue() error {
	now := time.Now()
	switch {
	case !t.until.IsZero() && !now.Before(t.until):
		return errLong
	case now.Sub(time.Unix(0, t.last.Load())) >= t.idle:
		return errIdle
	}
	return nil
}
