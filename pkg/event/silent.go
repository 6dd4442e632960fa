package event

import "time"

// WithoutSilent returns a sink that hands on every event but the sessions of silent
// visitors: port scans, and the health checks of load balancers and monitors.
func WithoutSilent(to Sink) Sink { return withoutSilent{to} }

type withoutSilent struct{ Sink }

func (w withoutSilent) Session(s *Session) {
	if !s.Silent() {
		w.Sink.Session(s)
	}
}

// Silent reports whether the client came and went without a word, and nothing went
// wrong meanwhile. It would not be silent if we had refused it something, if TLS had
// begun, or if an origin had given trouble.
func (s *Session) Silent() bool {
	return s.End == EndClientGone && s.Detail == "" && s.unspoken() && s.untroubled()
}

// unspoken: nothing came from the client, and it was refused nothing.
func (s *Session) unspoken() bool {
	return s.ClientIn == 0 && s.Commands == 0 && s.Errors == 0 && s.Messages == 0 &&
		s.ClientTLS == nil && s.Opaque == nil &&
		len(s.Refusals) == 0 && len(s.Slip.Said) == 0 && s.Last.Code == 0
}

// untroubled: the origin was there at once, and greeted the client, or had no time
// to.
func (s *Session) untroubled() bool {
	greeted := s.Greeting.Code.Class() == 2 || s.Greeting.Code == 0 && s.Duration < waitedInVain
	return greeted && len(s.Unreached) == 0 && (s.OriginTLS == nil || s.OriginTLS.Failure == NoFailure) &&
		len(s.Offence) == 0 && len(s.Rewritten) == 0 && s.Closing.Code == 0
}

// waitedInVain is how long a visitor does not wait for a greeting. Who does wants to
// send mail, and the origin is slow.
const waitedInVain = 10 * time.Second
