package record

import (
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// WithoutSilent returns a sink that hands on every event but the sessions of silent
// visitors: port scans, and the health checks of load balancers and monitors.
func WithoutSilent(to event.Sink) event.Sink { return withoutSilent{to} }

type withoutSilent struct{ event.Sink }

func (w withoutSilent) Session(s *event.Session) {
	if !silent(s) {
		w.Sink.Session(s)
	}
}

// silent reports whether the client came and went without a word, and nothing went
// wrong meanwhile. It would not be silent if we had refused it something, if TLS had
// begun, or if an origin had given trouble.
func silent(s *event.Session) bool {
	return s.End == event.EndClientGone && s.Detail == "" && unspoken(s) && untroubled(s)
}

// unspoken: nothing came from the client, and it was refused nothing.
func unspoken(s *event.Session) bool {
	return s.ClientIn == 0 && s.Commands == 0 && s.Errors == 0 && s.Messages == 0 &&
		s.ClientTLS == nil && s.Opaque == nil &&
		len(s.Refusals) == 0 && len(s.Slip.Said) == 0 && s.Last.Code == 0 && s.Rule == nil
}

// untroubled: the origin was there at once, and greeted the client, or had no time
// to.
func untroubled(s *event.Session) bool {
	greeted := s.Greeting.Code.Class() == 2 || s.Greeting.Code == 0 && s.Duration < waitedInVain
	return greeted && len(s.Unreached) == 0 && (s.OriginTLS == nil || s.OriginTLS.Failure == event.NoFailure) &&
		len(s.Offence) == 0 && len(s.Rewritten) == 0 && s.Closing.Code == 0
}

// waitedInVain is how long a visitor does not wait for a greeting. Who does wants to
// send mail, and the origin is slow.
const waitedInVain = 10 * time.Second
