package config

import (
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// SMTP holds the rules of the protocol for one service. reference.yaml explains
// each; package inspect applies them.
type SMTP struct {
	Extensions  smtp.Extensions // may be offered when the origin offers them
	AuthInClear bool            // offer AUTH on a connection without TLS
	Mechanisms  []string        // of AUTH that may be offered, in upper case; empty: any

	Forward  smtp.Verbs // of VRFY, EXPN and HELP, those that the origin answers
	Commands []Command  // verdicts, each verb once; the others are let through

	BareAddress      bool   // take MAIL FROM:a@b without angle brackets
	AppendDomain     string // to addresses without one; empty: refuse them
	RefuseRoutes     bool   // refuse source routes; they are left out otherwise
	RefusePercent    bool   // refuse recipients like a%b@c
	RefuseBang       bool   // refuse recipients like a!b@c
	StrictHELO       bool   // refuse a HELO argument that is neither a domain nor an address literal
	StrictPipelining bool   // send a client away that sends ahead where it must not

	Unoffered        Unoffered
	EarlyTalkers     EarlyTalkers
	BareNewlines     BareNewlines
	NUL              NUL
	EightBit         EightBit
	Received         string // our own host name for a Received header; empty: no header
	MalformedReplies MalformedReplies
	ReplyID          bool // end each of our refusals with the session's id
	Limits           SMTPLimits
}

// SMTPLimits are the limits of one session.
type SMTPLimits struct {
	Command    int           // octets of a command line with CRLF, 512 to 3000
	Parameter  int           // octets of a parameter of MAIL or RCPT, 0 for any
	AuthLine   int           // octets of AUTH and of a line of its exchange with CRLF, 512 to 32768
	ReplyLine  int           // octets of a line of a reply with CRLF, 512 to 3000
	ReplyLines int           // lines of a reply, at least 20
	Reply      int           // octets of a reply, 3000 to 61440
	Line       int           // of content, in octets without CRLF; at least 998, or 0 for any
	Size       int64         // of a message in octets, 0 for the origin's own limit
	Drain      int64         // octets of a refused message that are read to find its end
	Recipients int           // of one message, at least 100
	Messages   int           // of one session, 0 for any
	Idle       int           // commands that move no mail, between two messages, before each counts as refused; 0 for any
	TinyChunks int           // of less than 64 octets in a message, before each counts as refused; 0 for any
	Errors     int           // refused commands that a session survives, at least 1
	Rate       int           // least octets of content per second, 0 for any
	Session    time.Duration // longest session, 0 for any
}

// Command is the verdict on a command.
type Command struct {
	Verb    smtp.Verb
	Verdict Verdict
	Code    smtp.Code // 421 exactly for Disconnect, 0 for Accept, else one of 4yz and 5yz
	Text    string    // printable ASCII, without an enhanced code
}

// Verdict is what a command meets.
type Verdict uint8

const (
	Reject     Verdict = iota // the session goes on
	Disconnect                // it ends
	Accept                    // the command is let through, as if it were not listed
)

// Unoffered is what becomes of a parameter of MAIL or RCPT that was not offered,
// though the message can do without it.
type Unoffered uint8

const (
	DropUnoffered   Unoffered = iota // leave it out
	RefuseUnoffered                  // refuse the command
)

// EarlyTalkers is what becomes of a client that speaks before the greeting.
type EarlyTalkers uint8

const (
	RefuseEarly EarlyTalkers = iota // send it away
	PassEarly                       // read what it said after the greeting
)

// NUL is what becomes of a message with an octet of value 0.
type NUL uint8

const (
	RejectNUL NUL = iota // refuse the message
	RemoveNUL            // leave them out
)

// MalformedReplies is what becomes of a reply of the origin that breaks the
// rules, though it is clear what it says.
type MalformedReplies uint8

const (
	ReplaceReplies MalformedReplies = iota // the client reads what is clear
	CloseReplies                           // the session ends
)

// BareNewlines is what becomes of a message with a CR or LF alone.
type BareNewlines uint8

const (
	RejectNewlines    BareNewlines = iota // refuse the message
	NormalizeNewlines                     // make CRLF of LF and a space of CR
)

// EightBit is what becomes of octets above 127 without BODY=8BITMIME.
type EightBit uint8

const (
	PassEightBit   EightBit = iota // let them pass
	RejectEightBit                 // refuse the message
)

// defaultSMTP repeats inspect.Default, to which package daemon's tests hold it.
func defaultSMTP() SMTP {
	return SMTP{
		Extensions: smtp.SetOf(smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtEnhancedCodes, smtp.ExtDSN,
			smtp.ExtSMTPUTF8, smtp.ExtChunking, smtp.ExtBinaryMIME, smtp.ExtRequireTLS, smtp.ExtLimits),
		ReplyID: true,
		Limits: SMTPLimits{
			Command:    smtp.MaxCommandLine,
			Parameter:  1000,
			AuthLine:   smtp.MaxResponse,
			ReplyLine:  smtp.DefaultReplyLimits.Line,
			ReplyLines: smtp.DefaultReplyLimits.Lines,
			Reply:      smtp.DefaultReplyLimits.Octets,
			Line:       64 << 10,
			Drain:      64 << 20,
			Recipients: 1000,
			Idle:       100,
			TinyChunks: 300,
			Errors:     20,
			Rate:       100,
			Session:    24 * time.Hour,
		},
	}
}
