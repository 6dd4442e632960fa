// Package session holds one SMTP conversation between a client and an origin.
//
// It owns the state machine: what may be said when, what is forwarded, whose
// reply belongs to which command, and when a message is committed. It knows no
// sockets: relay hands it two legs, and tests hand it two made of memory. It
// never closes a leg, never keeps a message, and never tells a client that a
// message was taken before the origin said so.
//
// One goroutine serves a session, one side at a time: read commands from the
// client, write them to the origin, read its replies, write them to the client.
// Everything that reaches the origin is generated from values by package smtp
// and written in origin.go, and nowhere else; but for what follows a STARTTLS that
// is passed through, which a Tunnel carries unseen.
//
// Read buffers are taken from pools when there is something to read, and given
// back when a wait lasts: a session that waits keeps one at most for each side,
// the smallest that holds what has come and is not complete. While its client is
// silent between commands it needs no goroutine either, see Rest.
package session

import (
	"net/netip"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

// Options are what a session needs to know. Zero values stand for the defaults
// named at each field.
type Options struct {
	Flow      flow.Flow
	Origin    netip.AddrPort    // for the record
	Forged    netip.AddrPort    // for the record: source address of the origin leg
	Unreached []event.Unreached // for the record: origins that were tried before
	Timeouts  Timeouts
	TLS       TLS
	Sink      event.Sink          // default event.Discard
	Policy    policy.Conversation // default: that of rules that carry ordinary mail
	Rules     *protocol.Rules     // the policy's; default: those

	// Draining says that the daemon wants to stop. The session then ends with
	// 421 as soon as no transaction is open. To end a wait for the client's next
	// command, set this first and then interrupt the client leg's read by a read
	// deadline in the past; inside a transaction that does no harm. Default:
	// never.
	Draining func() bool

	// Cut says that the daemon waits no longer. The session then ends at once, with
	// 421, and nothing more is committed. Set this first, then abort the origin leg
	// and interrupt the client leg's read. Default: never.
	Cut func() bool
}

// Timeouts bound each wait, RFC 5321 section 4.5.3.2. A zero means the default.
type Timeouts struct {
	Greet   time.Duration // the origin's 220; default 60 s
	Command time.Duration // the client's next command; default 5 min
	Reply   time.Duration // the origin's reply to a command; default 5 min
	Data    time.Duration // the origin's 354; default 2 min
	Block   time.Duration // one read or write of content; default 3 min
	End     time.Duration // the origin's reply to the end of data; default 10 min
	Rest    time.Duration // the rest of a refused message; default 1 min

	Handshake time.Duration // of TLS, with one side; default 1 min
}

func (t Timeouts) complete() Timeouts {
	for _, d := range []struct {
		of *time.Duration
		or time.Duration
	}{
		{&t.Greet, time.Minute},
		{&t.Command, 5 * time.Minute},
		{&t.Reply, 5 * time.Minute},
		{&t.Data, 2 * time.Minute},
		{&t.Block, 3 * time.Minute},
		{&t.End, 10 * time.Minute},
		{&t.Rest, time.Minute},
		{&t.Handshake, time.Minute},
	} {
		if *d.of <= 0 {
			*d.of = d.or
		}
	}
	return t
}

// Close says how a leg is to be closed.
type Close uint8

const (
	// Graceful: everything written is to be delivered, then the end of the
	// stream. Unread input may be left, and must not destroy what was written. To an
	// origin nothing was written then that matters: no message is open, and its
	// answer to the last one was read.
	Graceful Close = iota
	// Abort: reset. An origin leg that is inside a message must look broken, so
	// that the origin throws the message away.
	Abort
)

// String returns the word used in messages.
func (c Close) String() string {
	if c == Abort {
		return "abort"
	}
	return "graceful"
}

// Outcome is how a session ended. The caller closes the legs accordingly.
type Outcome struct {
	Client Close
	Origin Close
	End    event.End
	Record *event.Session // as given to the sink
}

// session is the state of one conversation.
type session struct {
	o     Options
	rules *protocol.Rules
	now   time.Time // when the last read returned
	limit time.Time // when the session must be over; zero: any time
	until time.Time // when the client must have sent its command

	client side
	origin side
	out    outbox // replies for the client
	fwd    outbox // commands for the origin
	*group        // nil while the session waits for its client

	hailed  bool            // HELO or EHLO was accepted
	greeted *regreeting     // nil: the origin will not be greeted again
	theirs  smtp.Extensions // what the origin offers
	offered smtp.Extensions // what we offer
	dropped *ending         // the origin leg is gone; the next command ends the session so

	tls               armour
	xclient, xforward smtp.Attributes // of those commands, what we offer
	claims            *claims         // nil: none were made

	restful bool // nothing is outstanding, and the client leg can sleep

	authenticated bool
	secretive     bool // AUTH was said: a line that is no command may be a response
	rounds        int  // challenges of the exchange under way, 0: none is
	idled         int  // commands that moved no mail, since the last message

	tx       transaction
	*letter  // nil while the session rests without a transaction
	chunk    smtp.Chunk
	chunkDue bool  // the chunk was announced and not yet read
	left     int64 // octets of it that are to come
	env      policy.Envelope
	rec      event.Session
	notes
}

// letter is what a session needs for a message.
type letter struct {
	msg     event.Message
	data    smtp.Body       // content that follows DATA
	stuffer smtp.Stuffer    // content in chunks
	normal  smtp.Normalizer // either, where bare CR and LF are normalized
	batch   batch           // of content in chunks
	tap     tap             // for whom looks at it
}

var letters = sync.Pool{New: func() any { return new(letter) }}

// stow gives the letter back.
func (x *session) stow() {
	*x.letter = letter{}
	letters.Put(x.letter)
	x.letter = nil
}

// Run carries the conversation from the origin's greeting to its end. It blocks
// until then. The legs stay open; the outcome says how to close them.
func Run(o Options, client, origin Leg) Outcome {
	return carry(Begin(o, client, origin))
}

// Refuse tells a client for whom there is no origin leg so by v, whose code is 421, and
// makes the record: why is what ended the conversation.
func Refuse(o Options, client Leg, why event.End, v *verdict.V) Outcome {
	x := open(o, client)
	if e := x.begin(); e != nil {
		return x.finish(e)
	}
	return x.finish(&ending{end: why, verdict: v})
}

// Left makes the record of a client that has left before there was an origin leg.
func Left(o Options, client Leg) Outcome {
	x := open(o, client)
	return x.finish(clientEnded)
}

func open(o Options, client Leg) *session {
	x := &session{o: o, now: time.Now(), letter: letters.Get().(*letter)}
	x.o.Timeouts = o.Timeouts.complete()
	if o.Sink == nil {
		x.o.Sink = event.Discard
	}
	if o.Policy == nil {
		x.o.Policy = policy.Ordinary
	}
	if o.Draining == nil {
		x.o.Draining = never
	}
	if o.Cut == nil {
		x.o.Cut = never
	}
	if x.rules = o.Rules; x.rules == nil {
		x.rules = policy.Ordinary.Rules()
	}
	if x.rules.Session > 0 {
		x.limit = x.now.Add(x.rules.Session)
	}
	x.client.init(client)
	x.openRecord()
	x.o.Sink.Opened(&x.o.Flow)
	return x
}

func never() bool { return false }

func (x *session) run() *ending {
	if e := x.begin(); e != nil {
		return e
	}
	if e := x.greet(); e != nil {
		return e
	}
	x.unpark()
	x.until = x.now.Add(x.o.Timeouts.Command)
	return x.turns()
}

// turns handles group after group of the client's commands.
func (x *session) turns() *ending {
	for {
		if e := x.collect(); e != nil {
			return e
		}
		if e := x.settle(); e != nil {
			return e
		}
		if e := x.body(); e != nil {
			return e
		}
		x.until = x.now.Add(x.o.Timeouts.Command)
	}
}

// body reads what follows a command that announced content or a response.
func (x *session) body() *ending {
	switch {
	case x.tx.state == inContent:
		return x.content()
	case x.chunkDue:
		return x.takeChunk()
	case x.tls.due:
		return x.switchLegs()
	}
	for x.rounds > 0 {
		if e := x.response(); e != nil {
			return e
		}
	}
	return nil
}

// finish says the last words, writes the record and lets go of everything.
func (x *session) finish(e *ending) Outcome {
	client := e.client
	if e.verdict.IsSaid() {
		x.tell(e.verdict)
	}
	if e.last != nil {
		x.say(e.last)
	}
	if client == Graceful && x.flush() != nil {
		client = Abort
		unread := *e
		unread.verdict, unread.last = e.verdict.Unsaid(), nil // nobody has read them
		e = &unread
	}
	origin := e.origin
	if x.dropped != nil || x.tx.state == inContent || x.tx.state == inChunks {
		origin = Abort
	}
	x.farewell(client, origin)
	x.closeRecord(e)
	x.batch.free()
	x.stow()
	x.park()
	x.out.free()
	x.fwd.free()
	x.client.free()
	x.origin.free()
	return Outcome{Client: client, Origin: origin, End: e.end, Record: &x.rec}
}
