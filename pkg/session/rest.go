package session

import "time"

// Rest is a session whose client is silent and to whom nothing is owed. All that
// it needs while that lasts is here: no goroutine, and no buffer either, unless
// the client has begun a command: then the beginning stays in the smallest buffer
// that holds it. Whoever has it waits until the client leg has something to read,
// is broken, or Until has come, and calls Resume. To resume too early does no
// harm.
type Rest session

// resting stands for a Rest. It never ends a session.
var resting = &ending{}

// Begin carries the conversation from the origin's greeting to its end, or to its
// first rest, which is nil at the end. The legs stay open; the outcome says how
// to close them.
func Begin(o Options, client, origin Leg) (Outcome, *Rest) {
	x := open(o, client)
	x.origin.init(origin)
	return x.outcome(x.run())
}

// Until returns when the client must have said something.
func (r *Rest) Until() time.Time { return r.until }

// Sleep waits until the session has something to do.
func (r *Rest) Sleep() { r.client.leg.(Sleeper).Sleep() }

// Resume carries the conversation on, to its end or to its next rest.
func (r *Rest) Resume() (Outcome, *Rest) {
	x := (*session)(r)
	x.now = time.Now() // last words have time from now on
	x.unpark()
	if x.letter == nil {
		x.letter = letters.Get().(*letter)
	}
	e := x.waitLong(&x.client, x.until) // for no time, as a rule
	if e == nil {
		e = x.turns()
	}
	return x.outcome(e)
}

// carry lets a session go on until it is over.
func carry(o Outcome, rest *Rest) Outcome {
	for rest != nil {
		rest.Sleep()
		o, rest = rest.Resume()
	}
	return o
}

func (x *session) outcome(e *ending) (Outcome, *Rest) {
	if e != resting {
		return x.finish(e), nil
	}
	if x.tx.state == noMail {
		x.stow()
		x.shrink()
	}
	return Outcome{}, (*Rest)(x)
}

// mayRest waits for the client's next command, in a rest if that is possible:
// when no reply is outstanding, and the leg can sleep.
func (x *session) mayRest() *ending {
	_, sleeps := x.client.leg.(Sleeper)
	x.restful = sleeps && x.group.idle()
	e := x.awaitCommand(x.until)
	x.restful = false
	return e
}
