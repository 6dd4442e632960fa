// Package inspect is the policy of a conversation: it sees the envelope, and
// answers with a verdict that is also a reply.
//
// It owns the rules and their limits. It never reads or writes a connection and
// never changes what it sees: the session asks, and carries the verdict out.
// One Inspector serves any number of sessions at once.
package inspect

import (
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// Inspector judges the conversations of one service.
type Inspector interface {
	// Protocol returns the rules of the protocol. The session asks once, at its
	// start, and keeps the answer; it must not change afterwards.
	Protocol() *Protocol
	// Command judges a command whose grammar and sequence are in order, before
	// it is forwarded. The command is valid during the call only.
	Command(e *Envelope, c *smtp.Command) Verdict
	// End judges a message whose content is complete, before the origin is told
	// so. It is the last chance to refuse.
	End(e *Envelope) Verdict
}

// Envelope is what is known of the conversation so far. It is valid during the
// call only.
type Envelope struct {
	Flow       *flow.Flow
	Hello      []byte // argument of HELO or EHLO
	Sender     []byte // mailbox of MAIL without angle brackets, empty for bounces
	Recipients int    // accepted so far
	Size       int64  // octets of content
}

// Action is what a verdict does with a command.
type Action uint8

const (
	Pass       Action = iota
	Refuse            // answer with Reply, the session goes on
	Disconnect        // answer with Reply and close
)

// Verdict is a judgement with its reason.
type Verdict struct {
	Action Action
	Reply  *smtp.Reply // for Refuse and Disconnect; for Disconnect its code is 421
	Reason string      // one or two words for the record
}

// Protocol holds the rules of the protocol for one service.
type Protocol struct {
	Keywords   smtp.Extensions // may be offered when the origin offers them
	Recipients int             // most recipients of one message
	Errors     int             // refused commands after which the client is sent away
	Size       int64           // largest message in octets, 0 for the origin's own limit
	TextLine   int             // longest line of content in octets without CRLF, 0 for any
	Drain      int64           // most octets of a refused message that are read to find its end
}

// Default returns the rules that carry ordinary mail: every extension that the
// session can carry, and limits that only a machine out of order meets.
func Default() Protocol {
	return Protocol{
		Keywords: smtp.SetOf(smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME,
			smtp.ExtEnhancedCodes, smtp.ExtDSN, smtp.ExtSMTPUTF8, smtp.ExtChunking, smtp.ExtBinaryMIME),
		Recipients: 1000,      // ten times what RFC 5321 section 4.5.3.1.8 asks for
		Errors:     20,        // as Postfix's smtpd_hard_error_limit
		TextLine:   64 * 1024, // fixed-size readers start a new line where their buffer ends
		Drain:      64 << 20,
	}
}

// New returns the Inspector that applies rules and nothing else.
func New(rules Protocol) Inspector { return &plain{rules} }

type plain struct{ rules Protocol }

func (p *plain) Protocol() *Protocol { return &p.rules }

// Command refuses a message whose declared size is over the limit, RFC 1870
// section 6.1, and more recipients than are allowed.
func (p *plain) Command(e *Envelope, c *smtp.Command) Verdict {
	switch c.Verb {
	case smtp.MAIL:
		if p.rules.Size > 0 && c.Params.Number(smtp.ParamSize) > p.rules.Size {
			return tooLarge
		}
	case smtp.RCPT:
		if e.Recipients >= p.rules.Recipients {
			return tooMany
		}
	}
	return Verdict{}
}

func (p *plain) End(e *Envelope) Verdict {
	if p.rules.Size > 0 && e.Size > p.rules.Size {
		return tooLarge
	}
	return Verdict{}
}

var (
	tooLarge = Verdict{Refuse, &smtp.Reply{
		Code: 552, Enhanced: smtp.Enhanced{Class: 5, Subject: 3, Detail: 4},
		Text: "Message is larger than this gateway lets pass",
	}, "message size"}
	tooMany = Verdict{Refuse, &smtp.Reply{
		Code: 452, Enhanced: smtp.Enhanced{Class: 4, Subject: 5, Detail: 3},
		Text: "Too many recipients, send the rest in another message",
	}, "recipients"}
)
