package wording

import "github.com/portreeve/portreeve/pkg/event"

// No session: there is no origin for the client.
var (
	Full         = say(event.ReasonFull, 421, 3, 2, "Too many sessions, please try again later", "the limit of sessions is reached")
	Spent        = say(event.ReasonFull, 421, 3, 2, "Out of resources, please try again later", "the gateway has no descriptors or no memory left")
	Broken       = say(event.ReasonFault, 421, 3, 0, "Internal error of the mail gateway, please try again later", "the gateway's log says more")
	Loop         = say(event.ReasonNoOrigin, 421, 4, 6, "Mail would loop back to this gateway, please try again later", "an origin is the gateway itself: name the real one")
	OnLink       = by("forge.on_link", event.ReasonOnLink, 421, 4, 1, "Your address is on the mail server's own network, which answers it past this gateway: please connect to the mail server itself")
	LinkLocal    = by("forge.address", event.ReasonNoOrigin, 421, 4, 1, "Your address is link-local, and the mail server cannot answer it: please connect from a global one")
	OtherFamily  = say(event.ReasonNoOrigin, 421, 4, 1, "The mail server cannot be reached by this version of IP, please try its other addresses", "no origin of the service is of the client's family")
	NoAddress    = say(event.ReasonNoOrigin, 421, 4, 5, "Your connection cannot be handed to the mail server now, which is no judgement of your address: please try again later", "the client's address or port cannot be bound: the gateway's log says why")
	Silent       = say(event.ReasonNoOrigin, 421, 4, 1, "The mail server does not answer, please try again later", "no origin answered in time")
	Closed       = say(event.ReasonNoOrigin, 421, 4, 1, "The mail server refuses connections, please try again later", "nothing listens at the origin")
	Unreachable  = say(event.ReasonNoOrigin, 421, 4, 1, "The mail server cannot be reached, please try again later", "there is no way to the origin")
	NoHeader     = say(event.ReasonProxyHeader, 421, 7, 0, "No PROXY header came from a network that must send one: the proxy or this gateway has to be set up", "zones.trust has PROXY for the client's zone, and no header came")
	BrokenHeader = say(event.ReasonProxyHeader, 421, 7, 0, "The PROXY header cannot be read: the proxy or this gateway has to be set up", "zones.trust has PROXY for the client's zone, and the header that came breaks the rules")
)

// The end of a session.
var (
	Bye           = say(event.NoReason, 221, 0, 0, "Bye", "in place of the origin's reply to QUIT, where it has none that fits")
	Idle          = by("timeouts", event.ReasonClientTimeout, 421, 4, 2, "Idle for too long, closing the connection")
	Overtime      = by("smtp.limits.session", event.ReasonSessionTime, 421, 4, 2, "The session has lasted too long, please send the rest in another one")
	SlowContent   = by("smtp.limits.rate", event.ReasonSlowContent, 421, 4, 2, "The message comes too slowly, please try again")
	SlowOrigin    = by("smtp.limits.rate", event.ReasonSlowOrigin, 421, 4, 2, "The mail server takes the message too slowly, please try again")
	Draining      = say(event.ReasonDraining, 421, 3, 2, "Service is restarting, please try again", "the gateway is being stopped")
	OriginLost    = say(event.ReasonOriginGone, 421, 4, 2, "Connection to the mail server was lost, please try again", "the origin closed or reset the connection")
	OriginDeaf    = say(event.ReasonOriginTimeout, 421, 4, 2, "The mail server does not read what it is sent, please try again", "the origin takes nothing for timeouts.block")
	OriginSilent  = say(event.ReasonOriginTimeout, 421, 4, 2, "The mail server does not answer, please try again", "the origin's reply did not come in time, see timeouts")
	OriginGarbled = say(event.ReasonOriginProtocol, 421, 5, 0, "The mail server's reply cannot be understood, please try again", "the origin broke the rules of replies; the record has what it said")
	TooEarly      = say(event.ReasonEarlyTalker, 421, 5, 0, "Protocol synchronization error: please try again, and wait for each reply", "the client spoke before it was its turn")
	Noise         = say(event.ReasonEarlyTalker, 554, 5, 0, "Protocol synchronization error: wait for the greeting, and speak SMTP", "the client spoke before the greeting, and not SMTP")
	BehindTLS     = say(event.ReasonBehindStartTLS, 421, 5, 0, "Protocol synchronization error: please try again, and let nothing follow STARTTLS", "octets came behind STARTTLS, in clear")
	Foreign       = say(event.ReasonForeign, 421, 7, 0, "This is an SMTP service, and you speak another protocol", "HTTP, TLS or the like on a port of SMTP")
	TooManyErrors = by("smtp.limits.errors", event.ReasonErrors, 421, 7, 0, "Too many errors, closing the connection")
	TinyChunks    = by("smtp.limits.tiny_chunks", event.ReasonTinyChunks, 421, 7, 0, "Too many tiny chunks, closing the connection: please send larger ones")
	NoChunks      = say(event.ReasonNotOffered, 502, 5, 1, "BDAT is not offered here, closing the connection", "what follows BDAT would be read as commands")
	BadChunk      = say(event.ReasonChunkSyntax, 521, 5, 4, "Syntax: BDAT size [LAST], closing the connection", "what follows would be read as commands")
	AfterRefusal  = say(event.ReasonAfterRefusal, 421, 3, 0, "Closing the connection after a refused message, please send other mail in a new one", "the connection to the origin went with the message")
	Unfinished    = say(event.ReasonUnfinished, 421, 3, 0, "Closing the connection after an unfinished message, please send other mail in a new one", "the connection to the origin went with the message")
	BadLine       = say(event.ReasonLineBareLF, 500, 5, 2, "Syntax error: lines end with CRLF and have no other CR, LF or NUL in them, closing the connection", "where the next command begins is no longer agreed")
	LongLine      = by("smtp.limits.command", event.ReasonLineTooLong, 500, 5, 2, "Command line too long, closing the connection")
	LongAuth      = by("smtp.limits.auth_line", event.ReasonLineTooLong, 500, 5, 6, "Authentication line too long, closing the connection")
)

// TLS.
var (
	StartTLS      = say(event.NoReason, 220, 0, 0, "Ready to start TLS", "STARTTLS")
	TLSNotNow     = say(event.ReasonOriginTLS, 454, 7, 0, "TLS is not available now: the mail server does not start it", "the record says why the origin does not")
	TLSInMail     = say(event.ReasonSequence, 503, 5, 1, "STARTTLS is not possible inside a transaction", "STARTTLS behind MAIL")
	TLSAfterAuth  = say(event.ReasonSequence, 503, 5, 1, "STARTTLS is not possible after AUTH", "STARTTLS behind AUTH")
	NeedsTLS      = say(event.ReasonNeedsTLS, 530, 7, 0, "Must issue a STARTTLS command first", "tls.client.require")
	NeedsTLSLater = say(event.ReasonNeedsTLS, 451, 7, 0, "TLS is needed here, and the mail server does not offer it now: please try again", "tls.client.require, and the origin has no TLS")
	OriginPlain   = say(event.ReasonOriginTLS, 421, 7, 0, "TLS with the mail server is needed and not available now, please try again", "the origin must have TLS, and does not offer it")
	OriginTLS     = say(event.ReasonOriginTLS, 421, 7, 0, "TLS with the mail server failed, please try again", "the record says why")
)

// Commands.
var (
	Ok              = say(event.NoReason, 250, 0, 0, "Ok", "NOOP between chunks")
	ChunkTaken      = say(event.NoReason, 250, 0, 0, "Chunk taken", "BDAT that is not the last")
	NoVerify        = say(event.NoReason, 252, 5, 2, "Cannot verify the address, but will take a message and try to deliver it", "VRFY, unless smtp.forward has it")
	Help            = say(event.NoReason, 214, 0, 0, "See RFC 5321", "HELP, unless smtp.forward has it")
	HelloFirst      = say(event.ReasonSequence, 503, 5, 1, "Send HELO or EHLO first", "a command out of place")
	MailFirst       = say(event.ReasonSequence, 503, 5, 1, "Send MAIL first", "a command out of place, or behind a MAIL that was refused")
	NestedMail      = say(event.ReasonSequence, 503, 5, 1, "A transaction is open already", "MAIL behind MAIL")
	NoRecipients    = say(event.ReasonSequence, 503, 5, 1, "No valid recipients", "DATA where no recipient was accepted")
	ClaimInMail     = say(event.ReasonSequence, 503, 5, 1, "A transaction is open", "XCLIENT or XFORWARD behind MAIL")
	ChunksOpen      = say(event.ReasonSequence, 503, 5, 1, "Chunks are under way: send BDAT, or QUIT", "a command between chunks")
	Spoilt          = say(event.ReasonSequence, 503, 5, 1, "The message is refused already: send RSET", "a chunk was refused before")
	NeedsChunks     = say(event.ReasonSequence, 503, 5, 1, "BINARYMIME needs BDAT", "DATA behind BODY=BINARYMIME")
	AuthTwice       = say(event.ReasonSequence, 503, 5, 1, "You are authenticated already", "AUTH behind AUTH")
	AuthInMail      = say(event.ReasonSequence, 503, 5, 1, "AUTH is not possible inside a transaction", "AUTH behind MAIL")
	NoMechanism     = by("smtp.mechanisms", event.ReasonMechanism, 504, 5, 4, "Mechanism not offered here")
	NotTrusted      = say(event.ReasonNotTrusted, 550, 7, 0, "Your address is not trusted to speak for others", "XCLIENT or XFORWARD, see zones.trust")
	NoExpand        = by("smtp.forward", event.ReasonNotOffered, 502, 5, 1, "EXPN is not offered here")
	NotOffered      = say(event.ReasonNotOffered, 502, 5, 1, "Command not offered here", "a command that is not carried, or whose extension was not offered")
	SenderDomain    = by("smtp.append_domain", event.ReasonSenderAddress, 501, 1, 7, "The sender's address needs a domain")
	RecipientDomain = by("smtp.append_domain", event.ReasonRecipientAddress, 501, 1, 3, "The recipient's address needs a domain")
)

// Policy.
var (
	TooManyRecipients = by("smtp.limits.recipients", event.ReasonRecipients, 452, 5, 3, "Too many recipients, send the rest in another message")
	TooManyMessages   = by("smtp.limits.messages", event.ReasonMessages, 452, 5, 3, "Too many messages in one session, send the rest in another one")
	HelloName         = by("smtp.strict_helo", event.ReasonHelloName, 501, 5, 4, "Syntax: your fully qualified domain name or address literal is needed")
	SourceRoute       = by("smtp.refuse_routes", event.ReasonSourceRoute, 550, 1, 3, "Addresses with a source route are not accepted here, please write it without")
	Indirect          = say(event.ReasonIndirect, 550, 7, 1, "Recipients with % or ! in their names, which hide another address, are not accepted here", "see smtp.refuse_percent and smtp.refuse_bang")
)

// Messages.
var (
	TooLarge      = by("smtp.limits.size", event.ReasonMessageSize, 552, 3, 4, "Message is larger than this gateway lets pass")
	BareNewline   = by("smtp.bare_newlines", event.ReasonBareLF, 550, 6, 11, "Message refused: it has a CR or LF that is not part of CRLF, the sending program has to be corrected")
	HasNUL        = by("smtp.nul", event.ReasonNUL, 554, 6, 0, "Message refused: it has a NUL octet, the sending program has to be corrected")
	LongText      = by("smtp.limits.line", event.ReasonLongLine, 554, 6, 0, "Message refused: it has a line that is too long, please send it with shorter ones")
	EightBit      = by("smtp.eight_bit", event.ReasonEightBit, 554, 6, 3, "Message refused: it has octets above 127 without BODY=8BITMIME")
	OriginTooSoon = say(event.ReasonUnexpectedReply, 451, 5, 0, "The mail server broke the protocol, please try again", "the origin accepted a message that it did not have yet")
)
