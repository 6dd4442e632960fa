package session

import (
	"bytes"
	"strconv"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// greet passes the origin's greeting on. A client that has spoken before it is
// not let in: it does not wait for replies, so it may be a machine that was
// told what to say.
func (x *session) greet() *ending {
	r, e := x.reply(x.o.Timeouts.Greet)
	if e != nil {
		return e
	}
	x.noteGreeting(r)
	switch class := r.Code.Class(); {
	case class == 4 || class == 5:
		return &ending{end: event.EndOriginRefused, last: r.AppendTo(nil)}
	case r.Code != 220:
		return brokenReply("greeting with code " + strconv.Itoa(int(r.Code)))
	case len(x.origin.window()) > 0:
		return x.surprise()
	}
	if n, _ := x.client.leg.Pending(); n > 0 {
		return earlyTalker
	}
	return x.pass(r)
}

// hello forwards HELO and EHLO, which stand alone: what the origin offers
// decides how everything after it is read.
func (x *session) hello() step {
	if x.ledger.n > 0 {
		return hold
	}
	if r, s := x.judge(); r != nil {
		return s
	}
	x.noteHello()
	x.forward(entry{verb: x.cmd.Verb})
	return barrier
}

// concludeHello: a refused greeting changes nothing (RFC 5321 section 4.1.4), an
// accepted one starts afresh.
func (x *session) concludeHello(v smtp.Verb, r smtp.WireReply) *ending {
	if !r.Code.Positive() {
		return x.pass(r)
	}
	x.endTransaction(event.Abandoned, v.String())
	x.hailed, x.theirs, x.offered = true, 0, 0
	x.rec.Extended = v == smtp.EHLO
	if v == smtp.HELO {
		return x.pass(r)
	}
	return x.offer(r)
}

// offer passes the reply to EHLO on, with the extensions that both the origin
// offers and we carry. Its first line is the origin's, word for word.
func (x *session) offer(r smtp.WireReply) *ending {
	text, list, _ := r.Next()
	if e := x.reserve(len(text) + 6 + maxKeywords); e != nil {
		return e
	}
	x.theirs = keywordsOf(list)
	may := x.mayOffer()
	last := len(x.out.b)
	x.out.b = smtp.AppendReplyLine(x.out.grow(), r.Code, text, false)
	for text, rest, ok := list.Next(); ok; text, rest, ok = rest.Next() {
		k, good := smtp.ParseKeyword(text)
		if !good || !k.Known || !may.Has(k.Ext) || x.offered.Has(k.Ext) {
			x.noteRemoved(text)
			continue
		}
		line := x.appendKeyword(append(x.out.b, "250-"...), k)
		if line == nil || len(line) > pageSize {
			x.noteRemoved(text)
			continue
		}
		last, x.out.b = len(x.out.b), line
		x.offered = x.offered.With(k.Ext)
	}
	x.out.b[last+3] = ' '
	x.endRemoved()
	x.rec.Offered = x.offered
	return nil
}

// maxKeywords is the most octets that the lines of all extensions take, each
// being offered once.
const maxKeywords = 1024

// keywordsOf returns the extensions in a list of EHLO keywords.
func keywordsOf(list smtp.WireReply) (s smtp.Extensions) {
	for text, rest, ok := list.Next(); ok; text, rest, ok = rest.Next() {
		if k, good := smtp.ParseKeyword(text); good && k.Known {
			s = s.With(k.Ext)
		}
	}
	return s
}

// mayOffer returns what the origin offers and we carry. SMTPUTF8 and BINARYMIME
// are nothing without 8BITMIME (RFC 6531 section 3.1), and BINARYMIME nothing
// without CHUNKING (RFC 3030 section 3).
func (x *session) mayOffer() smtp.Extensions {
	s := x.theirs & x.rules.Keywords & carried
	if !s.Has(smtp.Ext8BitMIME) {
		s = s.Without(smtp.ExtSMTPUTF8).Without(smtp.ExtBinaryMIME)
	}
	if !s.Has(smtp.ExtChunking) {
		s = s.Without(smtp.ExtBinaryMIME)
	}
	if !x.rules.AuthInClear {
		s = s.Without(smtp.ExtAuth)
	}
	return s
}

// carried are the extensions that this package can speak on both sides.
var carried = smtp.SetOf(smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME,
	smtp.ExtEnhancedCodes, smtp.ExtDSN, smtp.ExtSMTPUTF8, smtp.ExtChunking, smtp.ExtBinaryMIME,
	smtp.ExtDeliverBy, smtp.ExtMTPriority, smtp.ExtFutureRelease, smtp.ExtLimits, smtp.ExtAuth, smtp.ExtETRN)

// appendKeyword appends the rest of an EHLO line, generated anew. It returns nil
// when the origin's arguments make no sense, or leave nothing to offer.
func (x *session) appendKeyword(b []byte, k smtp.Keyword) []byte {
	b = append(b, k.Ext.String()...)
	var ok bool
	switch k.Ext {
	case smtp.ExtSize:
		b, ok = x.appendSize(b, k.Args), true
	case smtp.ExtDeliverBy:
		b, ok = appendNumbers(b, k.Args, 1)
	case smtp.ExtFutureRelease:
		b, ok = appendNumbers(b, k.Args, 2)
	case smtp.ExtMTPriority:
		b, ok = appendWord(b, k.Args)
	case smtp.ExtLimits:
		b, ok = x.appendLimits(b, k.Args)
	case smtp.ExtAuth:
		b, ok = x.appendMechanisms(b, k.Args)
	default:
		ok = true
	}
	if !ok {
		return nil
	}
	return append(b, '\r', '\n')
}

// appendSize appends the smaller of the origin's limit and our own; 0 or
// nothing is no limit (RFC 1870 section 4).
func (x *session) appendSize(b, args []byte) []byte {
	size, err := strconv.ParseInt(string(args), 10, 64)
	if err != nil || size < 0 {
		size = 0
	}
	if own := x.rules.Size; own > 0 && (size == 0 || own < size) {
		size = own
	}
	if size == 0 {
		return b
	}
	return strconv.AppendInt(append(b, ' '), size, 10)
}

// appendNumbers appends up to most numbers: DELIVERBY's least time (RFC 2852
// section 4), FUTURERELEASE's longest hold; of the latter's two the second may be
// a date (RFC 4865 section 4).
func appendNumbers(b, args []byte, most int) ([]byte, bool) {
	for len(args) > 0 {
		word, rest, _ := bytes.Cut(args, space)
		args = bytes.TrimLeft(rest, " ")
		if most--; most < 0 || !isNumberOrDate(word) {
			return nil, false
		}
		b = append(append(b, ' '), word...)
	}
	return b, true
}

func isNumberOrDate(word []byte) bool {
	for _, c := range word {
		if (c < '0' || c > '9') && bytes.IndexByte([]byte("-:TZ+."), c) < 0 {
			return false
		}
	}
	return len(word) > 0 && len(word) <= 40
}

// appendWord appends one word, the name of MT-PRIORITY's profile (RFC 6710
// section 4).
func appendWord(b, args []byte) ([]byte, bool) {
	if len(args) == 0 {
		return b, true
	}
	if len(args) > 64 || bytes.IndexByte(args, ' ') >= 0 {
		return nil, false
	}
	return append(append(b, ' '), args...), true
}

// appendMechanisms appends the mechanisms of the origin that the rules allow.
func (x *session) appendMechanisms(b, args []byte) ([]byte, bool) {
	offered := false
	for len(args) > 0 && len(b) < pageSize-64 {
		word, rest, _ := bytes.Cut(args, space)
		args = bytes.TrimLeft(rest, " ")
		if smtp.IsMechanism(word) && x.mayUse(word) {
			b = append(append(b, ' '), word...)
			offered = true
		}
	}
	return b, offered
}

// appendLimits appends the limits of RFC 9422 that we understand, each the
// smaller of the origin's and our own.
func (x *session) appendLimits(b, args []byte) ([]byte, bool) {
	own := []struct {
		name  string
		limit int
		told  int
	}{{"RCPTMAX", x.rules.Recipients, 0}, {"MAILMAX", x.rules.Messages, 0}, {"RCPTDOMAINMAX", 0, 0}}
	for len(args) > 0 {
		word, rest, _ := bytes.Cut(args, space)
		args = bytes.TrimLeft(rest, " ")
		name, val, _ := bytes.Cut(word, []byte{'='})
		n, err := strconv.Atoi(string(val))
		if err != nil || n < 1 || n > 999999 {
			continue
		}
		for i := range own {
			if smtp.EqualFold(name, own[i].name) {
				own[i].told = n
			}
		}
	}
	offered := false
	for _, l := range own {
		if l.told == 0 {
			continue // the origin has no such limit, and need not hear of ours before it matters
		}
		if l.limit > 0 {
			l.told = min(l.told, l.limit)
		}
		b = append(append(append(b, ' '), l.name...), '=')
		b = strconv.AppendInt(b, int64(l.told), 10)
		offered = true
	}
	return b, offered
}
