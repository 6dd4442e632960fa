// Package event is what can happen to a flow, in words and records: one method of
// Sink per event, what the session hands to it, and the fixed words in that.
//
// It never writes, counts or decides anything: record.Log and metrics.Counters are
// sinks. The session fills the records in; a sink reads them before it returns and
// keeps nothing of them, so the session may use their memory again. The words are
// those of records, counters and the manual; policy, TLS and dialling give them.
package event

import (
	"net/netip"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// Sink receives what happens. Its methods are called by many sessions at once
// and return quickly; the record is valid during the call only.
type Sink interface {
	// Opened reports a client whose session begins.
	Opened(f *flow.Flow)
	// Refused reports a reply of ours that refuses a command, a message or a
	// session: one with a code of 4yz or 5yz that the origin did not give.
	Refused(f *flow.Flow, why Reason)
	// Message reports a message that met its end, one way or the other.
	Message(m *Message)
	// Session reports a session that is over. It is the last event of its flow.
	Session(s *Session)
}

// Text is a string that a peer chose: raw octets, to be escaped by the sink.
type Text = []byte

// Session is the record of one conversation.
type Session struct {
	Flow      flow.Flow
	Origin    netip.AddrPort // zero when none was reached
	Forged    netip.AddrPort // source address of the origin leg
	Unforged  Unforged       // why it is not the client's
	Unreached []Unreached    // origins that were tried in vain, in order
	Start     time.Time
	Duration  time.Duration
	Greeted   time.Duration // from the start to the origin's greeting

	Greeting      Answer          // the origin's greeting
	Hello         Text            // argument of the last HELO or EHLO
	Extended      bool            // it was EHLO
	XClient       Text            // attributes of XCLIENT in force at the end, separated by spaces
	Offered       smtp.Extensions // what we offered
	Used          smtp.Extensions // what the client made use of
	Authenticated bool            // by the origin
	Removed       Text            // EHLO keywords of the origin that were not passed on, separated by spaces

	Commands int     // command lines of the client
	Errors   int     // of these, refused by us
	Messages int     // of these, accepted by the origin
	Refusals []Tally // replies of ours that refused, by reason

	Mode      string  // of TLS: the word of the configuration; empty: none is configured
	ClientTLS *TLS    // nil: none was begun, or it is in Opaque
	OriginTLS *TLS    // the same
	Opaque    *Opaque // what was carried without being looked at; nil: nothing

	// Octets of SMTP: inside TLS where there is TLS, and without what was opaque.
	ClientIn, ClientOut int64 // octets read from and written to the client
	OriginIn, OriginOut int64 // octets read from and written to the origin

	End     End            // why it ended
	Detail  string         // what exactly, where End alone does not say
	Rule    *protocol.Rule // that ended it; nil: none that can be set
	Offence Text           // the first octets of a reply that broke the rules
	Slip    Slip           // the client's first words that we refused
	Last    Answer         // the reply that ended it, when it was ours
	Closing Answer         // the reply that ended it, when it was the origin's

	Rewritten []Rewrite // replies of the origin of which the client read something else
}

// Rewrite is a reply that was not passed on as it was.
type Rewrite struct {
	Reply Text      // its first octets, or a line of the origin's EHLO list
	Code  smtp.Code // what the client read instead
}

// Slip is what a client said that we refused, and how.
type Slip struct {
	Said   Text   // the first octets, without credentials; empty: nothing was refused
	Answer Answer // what the client was told; Code 0: it was told nothing
	Cause
}

// Cause is why something was refused, or came to nothing.
type Cause struct {
	Reason Reason
	Rule   *protocol.Rule // that decided; nil: none that can be set
}

// Tally is how often something happened for one reason.
type Tally struct {
	Reason Reason
	Count  int
}

// Answer is a reply as it is recorded.
type Answer struct {
	Code smtp.Code // 0: none
	Text Text      // lines separated by "\n"
}

// End says why a session ended. These words are stable: they are used in
// records, counters and the manual.
type End uint8

const (
	EndQuit           End = iota // the client said QUIT
	EndClientGone                // the client closed or reset the connection
	EndClientTimeout             // the client was silent for too long, or did not read
	EndClientSyntax              // the client broke the rules of lines
	EndEarlyTalker               // the client spoke before it was its turn
	EndForeign                   // the client speaks another protocol
	EndErrors                    // the client made too many errors
	EndPolicy                    // the policy said so
	EndOriginRefused             // the origin's greeting was a refusal
	EndOriginClosing             // the origin said 421
	EndOriginGone                // the origin closed or reset the connection
	EndOriginTimeout             // the origin was silent for too long, or did not read
	EndOriginProtocol            // the origin broke the rules of replies
	EndNoOrigin                  // no origin could be reached, or the gateway is full
	EndContent                   // a message with forbidden content was refused
	EndDraining                  // the gateway is being stopped
	EndFault                     // a fault of ours: both connections were reset
	EndClientTLS                 // the client and we could not agree on TLS
	EndOriginTLS                 // the origin and we could not agree on TLS
	EndOpaque                    // after STARTTLS the session was carried without being looked at
	EndProxyHeader               // no PROXY header came from where there must be one
	EndCut                       // the gateway was stopped, and did not wait for the session's end

	Ends // how many there are
)

var endWords = [Ends]string{
	EndQuit:           "quit",
	EndClientGone:     "client-gone",
	EndClientTimeout:  "client-timeout",
	EndClientSyntax:   "client-syntax",
	EndEarlyTalker:    "early-talker",
	EndForeign:        "foreign-protocol",
	EndErrors:         "too-many-errors",
	EndPolicy:         "policy",
	EndOriginRefused:  "origin-refused",
	EndOriginClosing:  "origin-closing",
	EndOriginGone:     "origin-gone",
	EndOriginTimeout:  "origin-timeout",
	EndOriginProtocol: "origin-protocol",
	EndNoOrigin:       "no-origin",
	EndContent:        "content",
	EndDraining:       "draining",
	EndFault:          "fault",
	EndClientTLS:      "client-tls",
	EndOriginTLS:      "origin-tls",
	EndOpaque:         "opaque",
	EndProxyHeader:    "proxy-header",
	EndCut:            "cut",
}

// String returns the word used in records.
func (e End) String() string { return endWords[e] }

// Message is the record of one mail transaction, from MAIL to its end.
type Message struct {
	Flow     flow.Flow
	Origin   netip.AddrPort
	Forged   netip.AddrPort
	Unforged Unforged
	Number   int // in the session, from 1
	Hello    Text

	Sender     Text // without angle brackets, empty for bounces
	Declared   int64
	Used       smtp.Extensions
	EnvID      Text
	Dropped    Text        // parameters of MAIL that the origin was not given, separated by spaces
	XClient    Text        // attributes of XCLIENT in force, separated by spaces
	XForward   Text        // attributes of XFORWARD in force, separated by spaces
	Recipients []Recipient // in order; the first ones when there were too many to keep
	Refused    int         // of all recipients, how many were refused
	Accepted   int         // of all recipients, how many were accepted
	Size       int64       // octets of content, without the dots that DATA doubles

	Start     time.Time
	Enveloped time.Duration // from Start to the origin's last reply to RCPT, 0: never
	Opened    time.Duration // from Start to the origin's 354, 0: never
	Content   time.Duration // from Start to the client's end of data, 0: never
	Total     time.Duration // from Start to the verdict

	Outcome Outcome
	Cause          // when it was not the origin's decision
	Client  Answer // what the client was told last
	Reply   Answer // what the origin said last
}

// Recipient is one RCPT of a message.
type Recipient struct {
	Address Text
	Answer  Answer // what the client was told
	Cause          // when it was not the origin's decision
	Dropped Text   // parameters of RCPT that the origin was not given, separated by spaces
}

// Outcome says what became of a message. These words are stable.
type Outcome uint8

const (
	Abandoned Outcome = iota // given up by the client before its content: RSET, QUIT, EHLO
	Accepted                 // the origin has taken it
	Refused                  // for good, by the origin or by us
	Deferred                 // for now, by the origin or because of trouble
	Aborted                  // the connection broke before the end of data: not delivered
	Unknown                  // the origin was lost after the end of data: perhaps delivered

	Outcomes // how many there are
)

var outcomeWords = [Outcomes]string{
	Abandoned: "abandoned",
	Accepted:  "accepted",
	Refused:   "refused",
	Deferred:  "deferred",
	Aborted:   "aborted",
	Unknown:   "unknown",
}

// String returns the word used in records.
func (o Outcome) String() string { return outcomeWords[o] }

// Discard is the sink that forgets everything.
var Discard Sink = discard{}

type discard struct{}

func (discard) Opened(*flow.Flow)          {}
func (discard) Refused(*flow.Flow, Reason) {}
func (discard) Message(*Message)           {}
func (discard) Session(*Session)           {}
