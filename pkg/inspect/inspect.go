// Package inspect is the policy of a conversation: it sees the envelope, and
// answers with a verdict that is also a reply.
//
// It owns no rule: package protocol declares them. It never reads or writes a connection
// and never changes what it sees: the session asks, and carries the verdict out.
// One Inspector serves any number of sessions at once.
package inspect

import (
	"bytes"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
)

// Inspector judges the conversations of one service.
type Inspector interface {
	// Protocol returns the rules of the protocol. The session asks once, at its
	// start, and keeps the answer; it must not change afterwards.
	Protocol() *protocol.Rules
	// Command judges a command whose grammar and sequence are in order, before
	// it is forwarded. nil lets it pass. The command is valid during the call only.
	Command(e *Envelope, c *smtp.Command) *verdict.V
	// End judges a message whose content is complete, before the origin is told
	// so. nil lets it pass. It is the last chance to refuse.
	End(e *Envelope) *verdict.V
}

// Envelope is what is known of the conversation so far. It is valid during the
// call only.
type Envelope struct {
	Flow       *flow.Flow
	Hello      []byte // argument of HELO or EHLO
	Sender     []byte // mailbox of MAIL without angle brackets, empty for bounces
	Recipients int    // accepted so far
	Messages   int    // accepted before, in this session
	Size       int64  // octets of content
}

// New returns the Inspector that applies rules and nothing else.
func New(rules protocol.Rules) Inspector {
	p := &plain{rules: rules}
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

type plain struct {
	rules    protocol.Rules
	commands map[smtp.Verb]*verdict.V // those that are not let through
}

func (p *plain) Protocol() *protocol.Rules { return &p.rules }

// Command applies the rules that are about commands and addresses.
func (p *plain) Command(e *Envelope, c *smtp.Command) *verdict.V {
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
func (p *plain) mail(e *Envelope, c *smtp.Command) *verdict.V {
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
func (p *plain) rcpt(e *Envelope, c *smtp.Command) *verdict.V {
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

func (p *plain) End(e *Envelope) *verdict.V {
	if p.rules.Size > 0 && e.Size > p.rules.Size {
		return wording.TooLarge
	}
	return nil
}

var (
	percent = wording.Indirect.By("smtp.refuse_percent")
	bang    = wording.Indirect.By("smtp.refuse_bang")
)
