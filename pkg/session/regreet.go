package session

import "github.com/portreeve/portreeve/pkg/smtp"

// An origin may be greeted twice over the same leg: in clear and then again, when
// the client has started TLS and the origin's leg stays as it is; or by us, to
// learn whether it offers STARTTLS, and then by the client. RFC 5321 section 4.1.4
// allows that. OpenSMTPD says 503 to the second EHLO, and a client that has
// started TLS would get no mail through. What it said to the first one counts then:
// it was said over this leg, and the refusal has changed nothing.

// regreeting is what the origin said to EHLO, as long as it may come to be greeted
// again.
type regreeting struct {
	name  string // that it was greeted with
	reply []byte
}

// expectAgain keeps the reply to an EHLO.
func (x *session) expectAgain(r smtp.WireReply) {
	x.greeted = nil
	if r.Size() <= pageSize {
		x.greeted = &regreeting{string(x.caller), r.AppendTo(nil)}
	}
}

// mayGreetAgain reports whether a client can make the origin be greeted again over
// this leg by starting TLS.
func (x *session) mayGreetAgain() bool {
	return x.mayStart() && x.o.TLS.Tunnel == nil && (x.o.TLS.Origin != Mirror || x.tls.origin)
}

// saidBefore returns the reply that counts: the one before, where the origin
// refuses to be greeted again in the same name, and has neither a transaction nor
// claims that the greeting should have ended.
func (x *session) saidBefore(v smtp.Verb, r smtp.WireReply) smtp.WireReply {
	switch {
	case r.Code != 503 || v != smtp.EHLO || x.greeted == nil:
		return r
	case x.greeted.name != string(x.caller):
		return r
	case x.tx.state != noMail:
		return r
	case x.claims != nil:
		return r
	}
	before, n, _ := smtp.CutReply(x.greeted.reply, x.rules.Replies)
	if n == 0 {
		return r
	}
	x.noteRewritten(r.Raw(), before.Code)
	return before
}
