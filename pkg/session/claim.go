package session

import (
	"bytes"
	"slices"

	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/wording"
	"github.com/portreeve/portreeve/pkg/zone"
)

// XCLIENT and XFORWARD (Postfix's XCLIENT_README and XFORWARD_README): a client
// says on whose behalf it speaks, and an origin that believes it forgets who the
// client is. So they pass from zones that are trusted for them, and from nowhere
// else. They are between client and origin: our own idea of the client, the
// forged address and the record's, stays that of the connection.

// claims are what a client has claimed. Few sessions have any.
type claims struct {
	asked    []byte // attributes of the command under way, each with a space before it
	xclient  []byte // in force: those that the origin took
	xforward []byte // in force for the next message
}

// trusted returns those of the two that the client's zone is trusted for.
func (x *session) trusted() (s smtp.Extensions) {
	t := x.o.Flow.Zone.Trust
	if t.Has(zone.XCLIENT) {
		s = s.With(smtp.ExtXClient)
	}
	if t.Has(zone.XFORWARD) {
		s = s.With(smtp.ExtXForward)
	}
	return s
}

// forget takes back what was offered.
func (x *session) forget() {
	x.theirs, x.offered, x.xclient, x.xforward = 0, 0, 0, 0
}

// again forgets all but XCLIENT: what is too long for one is said in several, and
// no EHLO comes between them.
func (x *session) again() {
	more := x.xclient
	x.forget()
	x.offered, x.xclient = smtp.SetOf(smtp.ExtXClient), more
}

// appendAttributes appends those attributes of the origin's list that we know.
func appendAttributes(b, args []byte, may smtp.Attributes) ([]byte, smtp.Attributes) {
	s := smtp.ParseAttributes(args, may)
	return s.AppendTo(b), s
}

// xclientCommand handles XCLIENT.
func (x *session) xclientCommand() step { return x.claim(smtp.ExtXClient) }

// xforwardCommand handles XFORWARD.
func (x *session) xforwardCommand() step { return x.claim(smtp.ExtXForward) }

// claim handles both, each a group of its own: after XCLIENT all
// is different, and MAIL must not go with an XFORWARD that may be refused.
func (x *session) claim(ext smtp.Extension) step {
	switch {
	case !x.trusted().Has(ext):
		return x.refuse(wording.NotTrusted)
	case !x.offered.Has(ext):
		return x.refuse(wording.NotOffered)
	case x.ledger.n > 0:
		return hold
	case x.tx.state != noMail:
		return x.refuse(wording.ClaimInMail)
	}
	x.noteClaim()
	x.forward(entry{verb: x.cmd.Verb})
	return barrier
}

// concludeXClient: 220 is the greeting of a session that begins anew; whatever
// was said and offered before it is void, but for more of XCLIENT.
func (x *session) concludeXClient(_ *entry, r smtp.WireReply) *ending {
	switch {
	case r.Code == 220:
		x.claims.xclient = keep(x.claims.xclient, x.claims.asked)
		x.rec.XClient = bytes.TrimPrefix(x.claims.xclient, space)
		x.rec.Used = x.rec.Used.With(smtp.ExtXClient)
		x.hailed, x.authenticated = false, false
		x.greeted = nil
		x.unclaim()
		x.again()
	case r.Code.Class() < 4:
		return x.wrongReply(r, "XCLIENT answered without 220")
	}
	return x.pass(r)
}

func (x *session) concludeXForward(_ *entry, r smtp.WireReply) *ending {
	if r.Code.Positive() {
		x.claims.xforward = keep(x.claims.xforward, x.claims.asked)
		x.rec.Used = x.rec.Used.With(smtp.ExtXForward)
	}
	return x.pass(r)
}

// noteClaim keeps what x.cmd claims: it may be gone from the buffer when the
// origin answers.
func (x *session) noteClaim() {
	if x.claims == nil {
		x.claims = new(claims)
	}
	x.claims.asked = x.cmd.Claim.AppendTo(x.claims.asked[:0])
}

// keep appends attributes, each with a space before it, and takes out what was
// said of the same before: the origin goes by the last word. So there are never
// more than each attribute once, with a value of at most 255 octets before they
// are encoded.
func keep(all, more []byte) []byte {
	for word := range bytes.FieldsSeq(more) {
		name, _, _ := bytes.Cut(word, equals)
		all = append(append(without(all, name), ' '), word...)
	}
	return all
}

func without(all, name []byte) []byte {
	for at := 0; at < len(all); {
		word, _, _ := bytes.Cut(all[at+1:], space)
		end := at + 1 + len(word)
		if n, _, _ := bytes.Cut(word, equals); bytes.Equal(n, name) {
			return slices.Delete(all, at, end)
		}
		at = end
	}
	return all
}

var equals = []byte("=")

// noteClaimed makes what was claimed part of the message's record. It stays as it
// is while the message is open.
func (x *session) noteClaimed() {
	if x.claims != nil {
		x.msg.XClient, x.msg.XForward = bytes.TrimPrefix(x.claims.xclient, space), bytes.TrimPrefix(x.claims.xforward, space)
	}
}

// unclaim forgets XFORWARD where the origin does: at the end of a transaction
// that it had opened, and when it begins anew. It has heard nothing of a MAIL that
// we refused, and one that it refused changes nothing.
func (x *session) unclaim() {
	if x.claims != nil {
		x.claims.xforward = x.claims.xforward[:0]
	}
}
