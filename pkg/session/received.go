package session

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
	b = append(b, x.caller...)
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
