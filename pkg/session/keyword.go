package session

import (
	"bytes"
	"strconv"

	"github.com/portreeve/portreeve/pkg/smtp"
)

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
	case smtp.ExtXClient:
		b, x.xclient = appendAttributes(b, k.Args, smtp.XClientAttributes)
		ok = x.xclient != 0
	case smtp.ExtXForward:
		b, x.xforward = appendAttributes(b, k.Args, smtp.XForwardAttributes)
		ok = x.xforward != 0
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
	from := len(b)
	for len(args) > 0 {
		word, rest, _ := bytes.Cut(args, space)
		args = bytes.TrimLeft(rest, " ")
		if smtp.IsMechanism(word) && x.mayUse(word) && !hasWord(b[from:], word) {
			b = append(append(b, ' '), word...)
			offered = true
		}
	}
	return b, offered
}

// hasWord reports whether a word is in a list of words.
func hasWord(list, word []byte) bool {
	for w := range bytes.FieldsSeq(list) {
		if bytes.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// maxMechanisms is the most octets of mechanisms that are read and offered.
const maxMechanisms = 1024

// mechanismsOf returns the arguments of all lines of AUTH in a list, of which first is
// one and rest has the others: some origins write several.
func mechanismsOf(first []byte, rest smtp.WireReply) []byte {
	k, _ := smtp.ParseKeyword(first)
	args := k.Args[:len(k.Args):len(k.Args)] // which grows into memory of its own
	for text, rest, ok := rest.Next(); ok && len(args) < maxMechanisms; text, rest, ok = rest.Next() {
		if k, good := smtp.ParseKeyword(text); good && k.Known && k.Ext == smtp.ExtAuth {
			args = append(append(args, ' '), k.Args...)
		}
	}
	return args[:min(len(args), maxMechanisms)]
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
