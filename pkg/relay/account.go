package relay

import (
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// account is the sink of one call. It passes everything on, adds to records what
// the session has no use for, and knows which records the call has: after a fault
// it gets those that it lacks and none twice, or the sessions that are counted as
// open would never agree with those that are.
type account struct {
	event.Sink
	unforged       event.Unforged // why the origin leg does not bear the client's address
	opened, closed bool           // set before the sink is called: a fault there is not tried again
}

func (a *account) Opened(f *flow.Flow) {
	a.opened = true
	a.Sink.Opened(f)
}

func (a *account) Message(m *event.Message) {
	m.Unforged = a.unforged
	a.Sink.Message(m)
}

func (a *account) Session(s *event.Session) {
	a.closed = true
	s.Unforged = a.unforged
	a.Sink.Session(s)
}
