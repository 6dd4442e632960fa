package relay

import (
	"context"
	"time"
)

const (
	// lastWords is how long sessions that were cut have to tell their clients so.
	lastWords = 4 * time.Second

	// severing bounds the wait for those that could not, and were reset: they notice at
	// once, and have only their record to write.
	severing = 5 * time.Second
)

// Drain ends all sessions. The caller has drained the listeners before. A session
// without an open transaction ends with 421 as soon as its client is silent;
// one inside a transaction finishes it first. What is left when ctx ends is
// cut: the origin's leg is reset, no message is committed any more, and the client is
// told 421; who does not read that is reset too. Drain returns how many sessions were
// cut.
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
	r.severing.Store(true) // before the interrupts, as above
	r.cut()
	calls := r.live.all()
	for _, c := range calls {
		c.giveUp()
	}
	if waits(gone, lastWords) {
		return len(calls)
	}
	for _, c := range r.live.all() {
		c.sever()
	}
	waits(gone, severing)
	return len(calls)
}

// waits reports whether all calls are over within a time.
func waits(gone <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-gone:
		return true
	case <-timer.C:
		return false
	}
}
