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
	t := &tunnel{idle: idle, until: until}
	t.touch()
	c.client.SetWriteDeadline(time.Time{}) // see half
	c.origin.SetWriteDeadline(time.Time{})
	var o event.Opaque
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() { o.FromClient, errs[0] = t.half(c.origin, c.client); c.breakOff(errs[0]) })
	both.Go(func() { o.FromOrigin, errs[1] = t.half(c.client, c.origin); c.breakOff(errs[1]) })
	both.Wait()
	if err := t.first(); err != nil {
		o.Detail = err.Error()
	}
	return o
}

// breakOff resets both connections after an error, which ends the other half.
func (c *call) breakOff(err error) {
	if err != nil {
		c.sever()
	}
}

// tunnel is a stretch under way.
type tunnel struct {
	idle  time.Duration
	until time.Time    // zero: any time
	last  atomic.Int64 // when something was carried, in nanoseconds since 1970

	mu  sync.Mutex
	err error // that came first; the other half's follows from it
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

func (t *tunnel) fail(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
	return err
}

// atOnce is how much is carried before it is noted that something was.
const atOnce = 1 << 20

// half carries what one side sends, and its end. Reads have deadlines, by which
// a stretch that is idle or too long is noticed; writes have none, because what
// was taken and not handed over by then would be lost. A peer that reads nothing
// is noticed by the other half, in which nothing moves either.
func (t *tunnel) half(to, from *leg) (carried int64, err error) {
	for {
		from.SetReadDeadline(t.wake())
		n, err := io.CopyN(to.TCPConn, from.TCPConn, atOnce)
		carried += n
		if n > 0 {
			t.touch()
		}
		switch {
		case err == io.EOF:
			to.CloseWrite() // an error means that it is gone, which its own half will see
			return carried, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = t.overdue()
		}
		if err != nil {
			return carried, t.fail(err)
		}
	}
}

// wake is when to look again whether anything moves.
func (t *tunnel) wake() time.Time {
	at := time.Now().Add(t.idle / 4)
	if !t.until.IsZero() && t.until.Before(at) {
		return t.until
	}
	return at
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
