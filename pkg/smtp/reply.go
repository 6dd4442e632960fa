package smtp

import (
	"slices"
	"strconv"
)

// Enhanced is the status code of RFC 3463 that goes with a reply. The zero
// value means none, as in greetings and in replies to EHLO.
type Enhanced struct{ Class, Subject, Detail uint8 }

// Reply is an answer of our own: to a client, never read from an origin. It is
// a value, compares with ==, and is also an error.
type Reply struct {
	Code     Code
	Enhanced Enhanced
	Text     string // one line; octets that do not belong in a reply are printed as "?"
}

// refusals are all replies to commands that break the grammar.
var refusals []*Reply

// Refusals returns all replies with which Command.Parse refuses a line.
func Refusals() []*Reply { return slices.Clone(refusals) }

// refusal makes one of them.
func refusal(code Code, subject, detail uint8, text string) *Reply {
	r := &Reply{code, Enhanced{uint8(code.Class()), subject, detail}, text}
	refusals = append(refusals, r)
	return r
}

// Code is the three-digit reply code of RFC 5321 section 4.2.
type Code uint16

// Class returns the first digit: 2 done, 3 go on, 4 failed for now, 5 failed
// for good.
func (c Code) Class() int { return int(c) / 100 }

// Positive reports whether the code means that the command was carried out.
func (c Code) Positive() bool { return c.Class() == 2 }

// AppendTo appends the three digits.
func (c Code) AppendTo(b []byte) []byte {
	return append(b, '0'+byte(c/100%10), '0'+byte(c/10%10), '0'+byte(c%10))
}

// Error prints the reply as the peer sees it, without the CRLF.
func (r *Reply) Error() string {
	b := r.AppendTo(nil)
	return string(b[:len(b)-2])
}

// String is Error.
func (r *Reply) String() string { return r.Error() }

// AppendTo appends the reply line with its CRLF.
func (r *Reply) AppendTo(b []byte) []byte {
	b = r.Code.AppendTo(b)
	b = append(b, ' ')
	b = r.AppendText(b)
	return append(b, '\r', '\n')
}

// AppendText appends what follows the code: the enhanced code and the text.
func (r *Reply) AppendText(b []byte) []byte {
	if r.Enhanced.Class != 0 {
		b = strconv.AppendUint(b, uint64(r.Enhanced.Class), 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(r.Enhanced.Subject), 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(r.Enhanced.Detail), 10)
		b = append(b, ' ')
	}
	for i := 0; i < len(r.Text); i++ {
		b = append(b, replyOctet(r.Text[i]))
	}
	return b
}

// replyOctet returns c, or "?" for a control octet: nothing in a reply text may
// start a second line or drive a terminal.
func replyOctet(c byte) byte {
	if (c < ' ' && c != '\t') || c == 0x7F {
		return '?'
	}
	return c
}
