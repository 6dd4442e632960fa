// Package protocol declares what a service may ask of SMTP: each rule once, with its
// key in the file, its range and its default.
//
// It owns the words, the numbers and the place in the file that set a rule, and judges
// nothing: package config reads them by the table Settings, package policy and the session
// act by the Rules that come of it.
package protocol

import (
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// Rules say for one service what is offered, what is taken, and how much of it.
// reference.yaml explains each.
type Rules struct {
	// Extensions
	Keywords    smtp.Extensions // may be offered when the origin offers them
	Mechanisms  []string        // of AUTH that may be offered, in upper case; empty: any
	AuthInClear bool            // offer AUTH on a connection without TLS

	// Commands
	Forward          smtp.Verbs   // of VRFY, EXPN and HELP, those that the origin answers; we answer the others
	Commands         []Command    // each verb at most once; all others are let through
	BareAddress      bool         // take MAIL FROM:a@b without angle brackets
	AppendDomain     string       // to addresses without one; empty: refuse them
	RefuseRoutes     bool         // refuse source routes; they are left out otherwise
	RefusePercent    bool         // refuse recipients like a%b@c
	RefuseBang       bool         // refuse recipients like a!b@c
	StrictHello      bool         // refuse a HELO argument that is neither a domain nor an address literal
	StrictPipelining bool         // a client that sends a group without being offered PIPELINING is an early talker
	Unoffered        Unoffered    // parameters of MAIL and RCPT whose extension was not offered
	EarlyTalkers     EarlyTalkers // clients that speak before the greeting

	// Content
	Newlines Newlines // bare CR and bare LF
	NUL      NULs     // octets of value 0
	EightBit EightBit // octets above 127 without BODY=8BITMIME
	Received string   // our own host name for a Received header; empty: no header
	TextLine int      // longest line in octets without CRLF, 0 for any
	Size     int64    // largest message in octets, 0 for the origin's own limit
	Drain    int64    // most octets of a refused message that are read to find its end

	// Lines of commands and replies
	CommandLine int              // longest command line in octets with CRLF
	AuthLine    int              // the same of AUTH and of the exchange that it begins
	Parameter   int              // longest parameter of MAIL or RCPT in octets, 0 for any
	Replies     smtp.ReplyLimits // of the origin
	Malformed   MalformedReplies // replies of the origin that break the rules, though their meaning is clear

	// Replies of our own
	ReplyID bool // end refusals with the session's id, by which the gateway's owner finds its record

	// Amounts
	Recipients int           // most recipients of one message
	Messages   int           // most messages of one session, 0 for any
	Idle       int           // commands that move no mail, between two messages, before each counts as an error; 0 for any
	TinyChunks int           // chunks of less than 64 octets, but for the last, in a message before each counts as an error; 0 for any
	Errors     int           // refused commands after which the client is sent away
	Rate       int           // least octets per second of content, on average, after the first minute; 0 for any
	Session    time.Duration // longest session, 0 for any

	Given map[string]*Rule // those that the file says something of, by their keys
}

// Rule is something that can be set, as records name it.
type Rule struct {
	Key   string // in the file: smtp.limits.size
	Place string // where that is said: a file and its line, or a variable; empty: nowhere, it is the default
}

// Placed returns a rule with its place. nil stays nil.
func (r *Rules) Placed(of *Rule) *Rule {
	if of == nil || of.Place != "" {
		return of
	}
	if given := r.Given[of.Key]; given != nil {
		return given
	}
	return of
}

// Default returns the rules that carry ordinary mail: every extension that does
// no harm on port 25, and limits that only a machine out of order meets.
func Default() Rules {
	return Rules{
		Keywords: smtp.SetOf(smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtEnhancedCodes, smtp.ExtDSN,
			smtp.ExtSMTPUTF8, smtp.ExtChunking, smtp.ExtBinaryMIME, smtp.ExtRequireTLS, smtp.ExtLimits),
		ReplyID:     true,
		CommandLine: smtp.MaxCommandLine, AuthLine: smtp.MaxResponse,
		Parameter:  1000, // twice the longest of RFC 3461
		Replies:    smtp.DefaultReplyLimits,
		Recipients: 1000,           // ten times what RFC 5321 section 4.5.3.1.8 asks for
		Idle:       100,            // as Postfix's smtpd_junk_command_limit
		TinyChunks: 300,            // a few KiB of a message; no sender is known to make any
		Errors:     20,             // as Postfix's smtpd_hard_error_limit
		TextLine:   64 * 1024,      // fixed-size readers start a new line where their buffer ends
		Drain:      64 << 20,       // what a client may still be sending when it could be told
		Rate:       100,            // a modem has ten times that
		Session:    24 * time.Hour, // more than any queue run
	}
}

// Carried are the extensions that a session can speak on both sides. All others are
// left out of the reply to EHLO, whatever the rules say.
var Carried = []smtp.Extension{
	smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtEnhancedCodes, smtp.ExtDSN, smtp.ExtSMTPUTF8,
	smtp.ExtChunking, smtp.ExtBinaryMIME, smtp.ExtDeliverBy, smtp.ExtMTPriority, smtp.ExtFutureRelease,
	smtp.ExtRequireTLS, smtp.ExtLimits, smtp.ExtAuth, smtp.ExtETRN,
}

// Forwardable are the verbs that can be left to the origin or not.
var Forwardable = []smtp.Verb{smtp.VRFY, smtp.EXPN, smtp.HELP}

// Refusable are the verbs that a service can do without: the others end a session in
// order, or are refused anyway.
var Refusable = []smtp.Verb{
	smtp.HELO, smtp.EHLO, smtp.MAIL, smtp.RCPT, smtp.DATA, smtp.BDAT, smtp.NOOP,
	smtp.VRFY, smtp.EXPN, smtp.HELP, smtp.ETRN, smtp.AUTH,
}

// Command is what becomes of a command whose grammar and place are in order.
type Command struct {
	Verb   smtp.Verb
	Place  string // where the file says so, see Rule
	Action Action
	Reply  smtp.Reply // to Reject and Disconnect: its code is 421 exactly for the latter
}

// Action is what a verdict does.
type Action uint8

const (
	Accept     Action = iota // go on
	Reject                   // answer with the reply; the session goes on
	Disconnect               // answer with the reply and close
)

// Newlines says what becomes of a message with a CR or LF that is not part of
// CRLF.
type Newlines uint8

const (
	// RejectNewlines reads the message to its true end and refuses it with 550
	// 5.6.11; the origin never sees it as complete.
	RejectNewlines Newlines = iota
	// NormalizeNewlines makes CRLF of a bare LF and a space of a bare CR. A line
	// with a dot alone ends the message only if CRLF precedes and follows the dot;
	// a dot is taken off only after CRLF. The body is then no longer what was
	// signed.
	NormalizeNewlines
)

// NULs says what becomes of a message with NUL octets, which RFC 5322 section 2.2
// leaves no room for.
type NULs uint8

const (
	RejectNUL NULs = iota // read the message to its true end and refuse it with 554 5.6.0
	RemoveNUL             // leave them out; lines and their dots stay what they were
)

// Unoffered says what becomes of a parameter whose extension was not offered in the
// session, if the message can do without it: AUTH, SIZE, BODY=7BIT and 8BITMIME,
// RET, ENVID, NOTIFY, ORCPT. Clients write some of them unasked. All others are
// refused with 555 in any case.
type Unoffered uint8

const (
	DropUnoffered   Unoffered = iota // the origin is not given it
	RefuseUnoffered                  // refuse the command with 555
)

// EarlyTalkers says what becomes of a client that speaks before the greeting.
// Content before 354 is refused in any case.
type EarlyTalkers uint8

const (
	RefuseEarly EarlyTalkers = iota // end the session: with 421 for one that speaks SMTP, else 554
	PassEarly                       // read what it said after the greeting
)

// MalformedReplies says what becomes of a reply that breaks the rules though its
// class is clear: see smtp.WireReply and smtp.DamagedReply. Other malformed replies
// end the session with 421.
type MalformedReplies uint8

const (
	ReplaceReplies MalformedReplies = iota // the client reads what is clear, with the origin's text
	CloseReplies                           // they end the session, too
)

// EightBit says what becomes of octets above 127 in a message whose client did
// not announce them by BODY=8BITMIME, RFC 6152 section 3.
type EightBit uint8

const (
	PassEightBit   EightBit = iota // as nearly every server does
	RejectEightBit                 // refuse with 554 5.6.3
)
