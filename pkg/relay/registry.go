package relay

import (
	"slices"
	"sync"
)

// registry knows the calls that are under way.
type registry struct {
	limit int // 0: none

	mu    sync.Mutex
	calls map[*call]struct{}
	empty chan struct{} // closed when the last call has left; nil: nobody waits
}

// add enters a call, or returns false when there are too many.
func (g *registry) add(c *call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit > 0 && len(g.calls) >= g.limit {
		return false
	}
	if g.calls == nil {
		g.calls = make(map[*call]struct{})
	}
	g.calls[c] = struct{}{}
	return true
}

// remove takes a call out, if it was in.
func (g *registry) remove(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, c)
	if len(g.calls) == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// gone returns a channel that is closed once no call is under way.
func (g *registry) gone() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	if len(g.calls) == 0 {
		close(g.empty)
		g.empty = nil
	}
	return empty
}

// all returns the calls that are under way.
func (g *registry) all() []*call {
	g.mu.Lock()
	defer g.mu.Unlock()
	calls := make([]*call, 0, len(g.calls))
	for c := range g.calls {
		calls = append(calls, c)
	}
	return calls
}

// snapshot describes the calls that are under way, oldest first.
func (g *registry) snapshot() []Session {
	calls := g.all()
	sessions := make([]Session, len(calls))
	for i, c := range calls {
		sessions[i] = c.describe()
	}
	slices.SortFunc(sessions, func(a, b Session) int { return a.Start.Compare(b.Start) })
	return sessions
}
