// Package smtp is the wire of RFC 5321: lines, commands with their parameters,
// replies, EHLO keywords and message content, each turned from octets into
// values and back.
//
// It also knows what comes to the port of SMTP and is none, and what of a client's
// words may be a credential, for records. It owns the grammar and nothing else: it
// reads no socket, keeps no session state, and never hands on octets that it has not
// understood. What is written to a peer is generated from values, so that every reader
// of it, however lenient, sees the boundaries that were decided on here. Its caller is
// the session, which gives it slices of a read buffer; values hold on to those slices
// instead of copying, and are valid until the buffer changes. Nothing here allocates
// for ordinary mail.
package smtp
