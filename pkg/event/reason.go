package event

// Reason says why a command, a message or a session met its verdict. There is a
// fixed number of them, so they can label counters; their words are stable and
// the same in records, counters and the manual. The zero value means none: the
// decision was the origin's.
type Reason uint8

const (
	NoReason Reason = iota

	// What the client sent is not SMTP, so the session ends.
	ReasonLineBareCR  // a command line with a CR that is not part of CRLF
	ReasonLineBareLF  // a command line with an LF that is not part of CRLF
	ReasonLineNUL     // a command line with a NUL octet
	ReasonLineTooLong // a command line, or one of an authentication exchange, over its limit
	ReasonForeign     // the client speaks another protocol
	ReasonProxyHeader // no PROXY header, or a broken one, where there must be one
	ReasonEarlyTalker // the client spoke before it was its turn
	ReasonChunkSyntax // BDAT with a size that cannot be read

	// A command is refused for what it is.
	ReasonSyntax           // octets that no command has
	ReasonUnknownCommand   // a verb that SMTP does not have
	ReasonArgument         // an argument or parameter that breaks its grammar or limit
	ReasonSenderAddress    // MAIL with an address that breaks the grammar, or lacks its domain
	ReasonRecipientAddress // RCPT with an address that breaks the grammar, or lacks its domain
	ReasonNeedsUTF8        // an address outside ASCII without SMTPUTF8
	ReasonParameter        // a parameter whose extension was not offered
	ReasonNotOffered       // a command that is not carried, or whose extension was not offered
	ReasonSequence         // a command at the wrong time
	ReasonMechanism        // an AUTH mechanism that was not offered
	ReasonAuthResponse     // a response of an authentication exchange that is not base64

	// The policy refuses a command or a message.
	ReasonCommandPolicy // commands: the service does without it
	ReasonNotTrusted    // XCLIENT or XFORWARD from a zone that is not trusted for it
	ReasonHelloName     // the argument of HELO or EHLO
	ReasonSourceRoute   // a path with a source route
	ReasonIndirect      // an address that hides another one
	ReasonRecipients    // one recipient too many
	ReasonMessages      // one message too many
	ReasonMessageSize   // larger than the limit, declared or real
	ReasonTinyChunks    // too many chunks that carry next to nothing
	ReasonErrors        // too many refused commands
	ReasonPolicy        // any other rule

	// The content of a message is refused.
	ReasonBareCR       // a CR that is not part of CRLF
	ReasonBareLF       // an LF that is not part of CRLF
	ReasonNUL          // a NUL octet
	ReasonLongLine     // a line over its limit
	ReasonEightBit     // octets above 127 that were not announced
	ReasonAfterRefusal // the origin leg went with a refused message, so the session ends
	ReasonUnfinished   // a message in chunks was given up before its last one

	// Time.
	ReasonClientTimeout // the client was silent for too long, or did not read
	ReasonSlowContent   // the client's content came too slowly
	ReasonSlowOrigin    // the origin took the content too slowly
	ReasonSessionTime   // the session lasted too long

	// The gateway's own affairs.
	ReasonNoOrigin // no origin could be reached
	ReasonOnLink   // the client is in the origin's own network, which answers it past the gateway
	ReasonFull     // too many sessions, or no resources left to reach an origin with
	ReasonDraining // the gateway is being stopped
	ReasonFault    // an error in portreeve itself

	// The origin.
	ReasonOriginRefused   // the origin's greeting was a refusal
	ReasonOriginClosing   // the origin said 421
	ReasonOriginGone      // the origin closed or reset the connection
	ReasonOriginTimeout   // the origin was silent for too long, or did not read
	ReasonOriginProtocol  // the origin broke the rules of replies, and nobody can tell what it meant
	ReasonUnexpectedReply // the origin spoke in the middle of content

	// TLS.
	ReasonNeedsTLS       // a command that must wait for TLS
	ReasonBehindStartTLS // the client sent octets behind STARTTLS
	ReasonClientTLS      // the client and we could not agree on TLS
	ReasonOriginTLS      // the origin and we could not agree on TLS, or it does not offer it

	// What the client did of its own accord with a message.
	ReasonQuit       // the client said QUIT
	ReasonReset      // the client said RSET
	ReasonHello      // the client said HELO or EHLO
	ReasonClientGone // the client closed or reset the connection

	ReasonOpaque // after STARTTLS, which went through, nobody looked

	Reasons // how many there are
)

var reasonWords = [Reasons]string{
	ReasonLineBareCR:  "line-bare-cr",
	ReasonLineBareLF:  "line-bare-lf",
	ReasonLineNUL:     "line-nul",
	ReasonLineTooLong: "line-too-long",
	ReasonForeign:     "foreign-protocol",
	ReasonProxyHeader: "proxy-header",
	ReasonEarlyTalker: "early-talker",
	ReasonChunkSyntax: "chunk-syntax",

	ReasonSyntax:           "syntax",
	ReasonUnknownCommand:   "unknown-command",
	ReasonArgument:         "argument",
	ReasonSenderAddress:    "sender-address",
	ReasonRecipientAddress: "recipient-address",
	ReasonNeedsUTF8:        "needs-smtputf8",
	ReasonParameter:        "unknown-parameter",
	ReasonNotOffered:       "not-offered",
	ReasonSequence:         "sequence",
	ReasonMechanism:        "mechanism",
	ReasonAuthResponse:     "auth-response",

	ReasonCommandPolicy: "command-policy",
	ReasonNotTrusted:    "not-trusted",
	ReasonHelloName:     "hello-name",
	ReasonSourceRoute:   "source-route",
	ReasonIndirect:      "indirect-address",
	ReasonRecipients:    "too-many-recipients",
	ReasonMessages:      "too-many-messages",
	ReasonMessageSize:   "message-size",
	ReasonTinyChunks:    "tiny-chunks",
	ReasonErrors:        "too-many-errors",
	ReasonPolicy:        "policy",

	ReasonBareCR:       "bare-cr",
	ReasonBareLF:       "bare-lf",
	ReasonNUL:          "nul",
	ReasonLongLine:     "long-line",
	ReasonEightBit:     "eight-bit",
	ReasonAfterRefusal: "after-refusal",
	ReasonUnfinished:   "unfinished",

	ReasonClientTimeout: "client-timeout",
	ReasonSlowContent:   "slow-content",
	ReasonSlowOrigin:    "slow-origin",
	ReasonSessionTime:   "session-time",

	ReasonNoOrigin: "no-origin",
	ReasonOnLink:   "on-link",
	ReasonFull:     "full",
	ReasonDraining: "draining",
	ReasonFault:    "fault",

	ReasonOriginRefused:   "origin-refused",
	ReasonOriginClosing:   "origin-closing",
	ReasonOriginGone:      "origin-gone",
	ReasonOriginTimeout:   "origin-timeout",
	ReasonOriginProtocol:  "origin-protocol",
	ReasonUnexpectedReply: "unexpected-reply",

	ReasonNeedsTLS:       "needs-tls",
	ReasonBehindStartTLS: "behind-starttls",
	ReasonClientTLS:      "client-tls",
	ReasonOriginTLS:      "origin-tls",

	ReasonQuit:       "quit",
	ReasonReset:      "reset",
	ReasonHello:      "hello",
	ReasonClientGone: "client-gone",

	ReasonOpaque: "opaque",
}

// String returns the word used in records and counters, nothing for NoReason.
func (r Reason) String() string { return reasonWords[r] }
