package relay

import (
	"context"
	"time"
)

// severing bounds the wait for sessions that were cut: they notice at once,
// and have only their record to write.
const severing = 5 * time.Second

// Drain ends all sessions. The caller has drained the listeners before. A session
// without an open transaction ends with 421 as soon as its client is silent;
// one inside a transaction finishes it first. What is left when ctx ends is
// cut: both legs are reset, and no message is committed any more. Drain returns
// how many sessions were cut.
func (r *Relay) Drain(ctx context.Context) int {
	r.draining.Store(true) // before the interrupts: a session that they wake must see it
	for _, c := range r.live.all() {
		c.interrupt()
	}
	gone := r.live.gone()
	select {
	case <-gone:
		return 0
	case <-ctx.Done():
	}
	return r.sever(gone)
}

// sever cuts all sessions and waits for their end.
func (r *Relay) sever(gone <-chan struct{}) int {
	r.cut()
	calls := r.live.all()
	for _, c := range calls {
		c.sever()
	}
	timer := time.NewTimer(severing)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
	return len(calls)
}
