package event

import "github.com/portreeve/portreeve/pkg/flow"

// Join returns a sink that hands every event to each of the sinks, in order.
func Join(sinks ...Sink) Sink { return joined(sinks) }

type joined []Sink

func (j joined) Opened(f *flow.Flow) {
	for _, s := range j {
		s.Opened(f)
	}
}

func (j joined) Refused(f *flow.Flow, why Reason) {
	for _, s := range j {
		s.Refused(f, why)
	}
}

func (j joined) Message(m *Message) {
	for _, s := range j {
		s.Message(m)
	}
}

func (j joined) Session(r *Session) {
	for _, s := range j {
		s.Session(r)
	}
}
