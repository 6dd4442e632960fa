// Package policy decides about conversations: before the origin is dialled, at each
// command, for each recipient, at the end of the headers, and when a message is complete.
//
// It owns no rule: package protocol declares them. It never reads or writes a connection
// and never changes what it sees: the relay and the session ask, and carry the answers
// out. A policy may remember what it has seen of a session, may take its time, and hears
// what became of each message.
package policy

import (
	"bytes"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// Policy decides about the conversations of one service. It serves any number of them at
// once.
type Policy interface {
	// Rules returns the rules of the protocol, which sessions themselves enforce. They
	// must not change.
	Rules() *protocol.Rules
	// Open begins a conversation, before its origin is dialled. A verdict is told in
	// place of the origin's greeting; its code is 421, and the conversation is closed at
	// once. The flow must not change afterwards.
	Open(f *flow.Flow) (Conversation, Answer)
}

// Conversation is what a policy knows of one connection. It is asked one question at a
// time.
type Conversation interface {
	// Command judges a command whose grammar and place are in order, before it is
	// forwarded: HELO, EHLO, MAIL, each RCPT, DATA or the first BDAT of a message, and
	// those that move no mail. Envelope and command are valid during the call only.
	Command(e *Envelope, c *smtp.Command) Answer
	// Content is asked when the content of a message begins: who looks at it? nil: nobody,
	// and nothing is spent on it.
	Content(e *Envelope) Content
	// End judges a message whose content is complete, before the origin is told so. It
	// is the last chance to refuse.
	End(e *Envelope) Answer
	// Done tells what became of a message. The record is valid during the call only.
	Done(m *event.Message)
	// Close ends the conversation; nothing is asked any more. Answers that are still
	// waited for are not wanted.
	Close()
}

// Content looks at one message. What becomes of that, Done tells. A message whose octets
// the rules refuse may be refused before it was shown so far.
type Content interface {
	// Write shows a piece of the content as its reader will have it, without the dots that
	// DATA doubles and without a Received header of ours. The piece is valid during the
	// call only.
	Write(p []byte)
	// Headers is asked once: when the empty line behind the headers was shown, or at the
	// end of content that has none.
	Headers() Answer
}

// Envelope is what is known of the conversation so far. It is valid during the
// call only.
type Envelope struct {
	Flow       *flow.Flow
	Hello      []byte // argument of HELO or EHLO
	Sender     []byte // mailbox of MAIL without angle brackets, empty for bounces and before MAIL
	Recipients int    // accepted so far
	Messages   int    // accepted before, in this session
	Size       int64  // octets of content
}

// Answer is what a policy says. The zero value means: go on. Verdicts, also later ones,
// are of 4yz or 5yz; 421 ends the session.
type Answer struct {
	Verdict *verdict.V // that refuses
	Wait    *Wait      // or: nobody knows yet
}

// refuse is an answer.
func refuse(v *verdict.V) Answer { return Answer{Verdict: v} }

// Wait is an answer that takes its time. Whoever waits for it goes on as soon as it is
// there, or ends because of something else: its client has left, the origin has spoken,
// the gateway is being stopped.
type Wait struct {
	Done   <-chan struct{}   // closed when there is an answer
	Answer func() *verdict.V // asked once, after that; nil: go on
	Until  time.Time         // when nobody waits any longer
	Late   *verdict.V        // what is answered then; nil: go on
}

// glance is how often one who waits looks whether the answer is still wanted.
const glance = time.Second

// Await waits for the answer. When the time is up, it is the one that is there by then,
// else Late. Every second it asks whether something else ends the wait; nothing is
// answered then, and it returns nil.
func (w *Wait) Await(over func() bool) *verdict.V {
	look := time.NewTicker(glance)
	defer look.Stop()
	late := time.NewTimer(time.Until(w.Until))
	defer late.Stop()
	for {
		select {
		case <-w.Done:
			return w.Answer()
		case <-late.C:
			select {
			case <-w.Done:
				return w.Answer()
			default:
				return w.Late
			}
		case <-look.C:
			if over() {
				return nil
			}
		}
	}
}

// Ordinary is the policy of services that name none: the rules that carry ordinary mail.
var Ordinary = New(protocol.Default())

// Plain applies rules and nothing else. It remembers nothing, so one value serves as the
// policy and as each of its conversations.
type Plain struct {
	rules    protocol.Rules
	commands map[smtp.Verb]*verdict.V // those that are not let through
}

// New returns the policy of rules.
func New(rules protocol.Rules) *Plain {
	p := &Plain{rules: rules}
	for _, c := range rules.Commands {
		if c.Action == protocol.Accept {
			continue
		}
		if p.commands == nil {
			p.commands = make(map[smtp.Verb]*verdict.V, len(rules.Commands))
		}
		p.commands[c.Verb] = &verdict.V{
			Reply: c.Reply,
			Cause: event.Cause{Reason: event.ReasonCommandPolicy, Rule: &protocol.Rule{Key: "smtp.commands", Place: c.Place}},
		}
	}
	return p
}

// Open lets everybody in.
func (p *Plain) Open(*flow.Flow) (Conversation, Answer) { return p, Answer{} }

// Rules returns those that it was made of.
func (p *Plain) Rules() *protocol.Rules { return &p.rules }

// Command applies the rules that are about commands and addresses.
func (p *Plain) Command(e *Envelope, c *smtp.Command) Answer { return refuse(p.command(e, c)) }

func (p *Plain) command(e *Envelope, c *smtp.Command) *verdict.V {
	if v, ok := p.commands[c.Verb]; ok {
		return v
	}
	switch c.Verb {
	case smtp.HELO, smtp.EHLO:
		if p.rules.StrictHello && !smtp.IsHost(c.Arg) {
			return wording.HelloName
		}
	case smtp.MAIL:
		return p.mail(e, c)
	case smtp.RCPT:
		return p.rcpt(e, c)
	}
	return nil
}

// mail refuses a message whose declared size is over the limit (RFC 1870
// section 6.1), and one message too many.
func (p *Plain) mail(e *Envelope, c *smtp.Command) *verdict.V {
	switch {
	case p.rules.Size > 0 && c.Params.Number(smtp.ParamSize) > p.rules.Size:
		return wording.TooLarge
	case p.rules.Messages > 0 && e.Messages >= p.rules.Messages:
		return wording.TooManyMessages
	case p.rules.RefuseRoutes && c.Path.Routed:
		return wording.SourceRoute
	}
	return nil
}

// rcpt refuses addresses that ask for relaying in disguise, and recipients over
// the limit.
func (p *Plain) rcpt(e *Envelope, c *smtp.Command) *verdict.V {
	switch {
	case e.Recipients >= p.rules.Recipients:
		return wording.TooManyRecipients
	case p.rules.RefuseRoutes && c.Path.Routed:
		return wording.SourceRoute
	case p.rules.RefusePercent && bytes.IndexByte(c.Path.Local, '%') >= 0:
		return percent
	case p.rules.RefuseBang && bytes.IndexByte(c.Path.Local, '!') >= 0:
		return bang
	}
	return nil
}

// Content lets nobody look.
func (p *Plain) Content(*Envelope) Content { return nil }

// End minds the size.
func (p *Plain) End(e *Envelope) Answer {
	if p.rules.Size > 0 && e.Size > p.rules.Size {
		return refuse(wording.TooLarge)
	}
	return Answer{}
}

// Done remembers nothing.
func (p *Plain) Done(*event.Message) {}

// Close has nothing to end.
func (p *Plain) Close() {}

var (
	percent = wording.Indirect.By("smtp.refuse_percent")
	bang    = wording.Indirect.By("smtp.refuse_bang")
)
