package session

import "bytes"

// sendReceived puts a Received header in front of the content of DATA, where the
// rules ask for one. We hand a message on without taking responsibility for it, so
// none is due (RFC 5321 section 3.7.2 is about relays); some want one to see the
// gateway in.
func (x *session) sendReceived() *ending {
	if x.rules.Received == "" {
		return nil
	}
	page := pages.Get().(*[pageSize]byte)
	defer pages.Put(page)
	return x.stream(x.appendReceived(page[:0]))
}

// gatherReceived does the same for content in chunks.
func (x *session) gatherReceived() {
	if x.rules.Received != "" {
		x.batch.holds(x.appendReceived(x.batch.content()))
	}
}

// appendReceived appends the trace field of RFC 5321 section 4.4.
func (x *session) appendReceived(b []byte) []byte {
	b = append(b, "Received: from "...)
	b = appendAtoms(b, x.caller)
	b = append(b, " (["...)
	if a := x.o.Flow.Client.Addr(); a.Is6() {
		b = a.AppendTo(append(b, "IPv6:"...))
	} else {
		b = a.AppendTo(b)
	}
	b = append(b, "])\r\n\tby "...)
	b = append(b, x.rules.Received...)
	b = append(b, " with "...)
	b = append(b, x.with()...)
	b = append(b, " id "...)
	b, _ = x.o.Flow.ID.AppendText(b) // cannot fail
	b = append(b, ";\r\n\t"...)
	b = x.now.UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 -0700")
	return append(b, '\r', '\n')
}

// appendAtoms appends the name that a client calls itself, as the domain or address
// literal that a trace field has: clients call themselves anything, and a parenthesis
// or a quote would change what the field says.
func appendAtoms(b, name []byte) []byte {
	for _, c := range name {
		if c <= ' ' || c >= 0x7F || bytes.IndexByte(traceSpecials, c) >= 0 {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// traceSpecials end a word in a header, RFC 5322 section 3.2.3; without those of
// address literals.
var traceSpecials = []byte("()<>;,\\\"")

// with names the protocol as RFC 3848 and RFC 6531 section 4.3 have it.
func (x *session) with() string {
	name := "SMTP"
	switch {
	case x.tx.utf8:
		name = "UTF8SMTP"
	case x.rec.Extended || x.authenticated:
		name = "ESMTP"
	}
	if name != "SMTP" && x.tls.client {
		name += "S"
	}
	if x.authenticated {
		name += "A"
	}
	return name
}
