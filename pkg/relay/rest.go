package relay

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/session"
)

// carryOn closes the call when its session is over. Otherwise the client is
// silent: the call then has no goroutine until it says something.
func (c *call) carryOn(o session.Outcome, rest *session.Rest) {
	if rest == nil {
		c.close(o)
		return
	}
	resume := func() { c.resume(rest) }
	if err := c.r.resting.Sleep(c.client.Conn, rest.Until(), resume); err != nil { // it was cut, or resources are short
		go func() {
			rest.Sleep()
			resume()
		}()
		return
	}
	if c.r.draining.Load() { // the interrupt may have come before the sleep
		c.r.resting.Wake(c.client.Conn)
	}
	c.r.tidy.rested()
}

// resume is what follows a rest.
func (c *call) resume(rest *session.Rest) {
	defer c.survive()
	c.carryOn(rest.Resume())
}

// tidy gives memory back to the system after many sessions have gone to rest.
// What they needed to get there, stacks above all, is several times what they
// keep, and the runtime takes minutes to look at it when nothing goes on.
type tidy struct {
	mu    sync.Mutex
	count int // rests begun since the last time
	timer *time.Timer
}

const (
	manyRests = 500
	lull      = 2 * time.Second
)

// rested counts one session, and tidies up when there were many and no more
// come.
func (t *tidy) rested() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	switch {
	case t.count < manyRests:
	case t.timer == nil:
		t.timer = time.AfterFunc(lull, t.up)
	default:
		t.timer.Reset(lull)
	}
}

func (t *tidy) up() {
	t.mu.Lock()
	t.count = 0
	t.mu.Unlock()
	runtime.GC() // what is in pools survives one collection
	debug.FreeOSMemory()
}
