package smtp

import "bytes"

// ReplyLimits bound a reply that is read.
type ReplyLimits struct {
	Line   int // octets of a line, CRLF included
	Lines  int // lines of one reply
	Octets int // octets of one reply
}

// DefaultReplyLimits are more than servers need. RFC 5321 section 4.5.3.1.5 asks
// for lines of 512 octets; longer ones exist.
var DefaultReplyLimits = ReplyLimits{Line: 2048, Lines: 200, Octets: 32 * 1024}

// WireReply is a reply as it was read from a peer: a view of the read buffer,
// valid until the buffer changes.
type WireReply struct {
	// Code is that of every line, unless the reply is Odd.
	Code Code
	// Odd: the lines have different codes of one class, or a code whose second
	// digit SMTP does not have, such as 571. That the command failed, and whether
	// for now or for good, is clear all the same, so Code is 451 or 554.
	Odd bool
	// Damaged: CutReply would not have it, and a DamagedReply has made what it could
	// of it.
	Damaged bool
	// Unsure: it is damaged so that where it ends is not sure.
	Unsure bool
	raw    []byte
	said   []byte // of a damaged one, how it began
}

// CutReply finds the first reply of buf and the number n of octets that it
// took; n is 0 while the reply is incomplete.
//
// Grammar of RFC 5321 section 4.2: digits 2-5, 0-5, 0-9, then "-" for more
// lines or SP or nothing for the last, every line with the same code. Libraries
// differ on which line of a mixed reply counts, so a mixed reply is a fault,
// unless all of its lines say that the command failed in the same way: then it
// is Odd, as is a 4yz or 5yz with a second digit above 5.
func CutReply(buf []byte, max ReplyLimits) (r WireReply, n int, f Fault) {
	for lines := 1; ; lines++ {
		line, took, f := CutLine(buf[n:], max.Line)
		if f != NoFault {
			return r, 0, f
		}
		if n+took > max.Octets || lines > max.Lines {
			return r, 0, LongReply
		}
		if took == 0 {
			return r, 0, NoFault
		}
		code, last, ok := parseReplyLine(line)
		switch {
		case !ok:
			return r, 0, BadCode
		case lines > 1 && code.Class() != r.Code.Class():
			return r, 0, MixedCodes
		case lines > 1 && code != r.Code && code.Class() < 4:
			return r, 0, MixedCodes
		}
		r.Odd = r.Odd || !code.known() || (lines > 1 && code != r.Code)
		r.Code, n = code, n+took
		if last {
			r.raw = buf[:n]
			return r.settled(), n, NoFault
		}
	}
}

// known: the second digit of a code is 0 to 5, RFC 5321 section 4.2.
func (c Code) known() bool { return c/10%10 <= 5 }

// settled gives an Odd reply the code that says no more than its class.
func (r WireReply) settled() WireReply {
	switch {
	case r.Odd && r.Code.Class() == 4:
		r.Code = 451
	case r.Odd:
		r.Code = 554
	}
	return r
}

func parseReplyLine(line []byte) (code Code, last, ok bool) {
	if len(line) < 3 {
		return 0, false, false
	}
	a, b, c := line[0]-'0', line[1]-'0', line[2]-'0'
	if a < 2 || a > 5 || b > 9 || c > 9 {
		return 0, false, false
	}
	code = Code(a)*100 + Code(b)*10 + Code(c)
	if code.Class() < 4 && !code.known() {
		return 0, false, false
	}
	switch {
	case len(line) == 3 || line[3] == ' ':
		return code, true, true
	case line[3] == '-':
		return code, false, true
	}
	return 0, false, false
}

// Next returns the text of the reply's first line, and the reply that is left
// after it; ok is false when there is none left.
func (r WireReply) Next() (text []byte, rest WireReply, ok bool) {
	lf := bytes.IndexByte(r.raw, '\n')
	if lf < 0 {
		return nil, r, false
	}
	line := r.raw[:lf-1]
	if len(line) > 3 {
		text = line[4:]
	}
	r.raw = r.raw[lf+1:]
	return text, r, true
}

// Raw returns the octets as they were read, for records; of a damaged reply the
// first ones.
func (r WireReply) Raw() []byte {
	if r.Damaged {
		return r.said
	}
	return r.raw
}

// Faithful reports whether AppendTo repeats what was read: the codes are as they
// were, and no text has a control octet.
func (r WireReply) Faithful() bool {
	if r.Odd || r.Damaged {
		return false
	}
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		for _, c := range text {
			if c != replyOctet(c) {
				return false
			}
		}
	}
	return true
}

// Size returns the number of octets that AppendTo adds, or one less.
func (r WireReply) Size() int { return len(r.raw) }

// AppendTo appends the reply, generated anew from its code and its texts.
func (r WireReply) AppendTo(b []byte) []byte {
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		b = AppendReplyLine(b, r.Code, text, len(rest.raw) == 0)
	}
	return b
}

// AppendText appends the texts of all lines with "\n" between them, for
// records.
func (r WireReply) AppendText(b []byte) []byte {
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		b = append(b, text...)
		if len(rest.raw) > 0 {
			b = append(b, '\n')
		}
	}
	return b
}

// AppendReplyLine appends one line of a reply. Control octets in text are
// written as "?". The code of the last line has a space behind it also where there
// is no text: RFC 4954 section 4 writes "334" SP, RFC 5321 section 4.2 says that a
// bare code should not be sent, and there are clients that cannot read one.
func AppendReplyLine(b []byte, code Code, text []byte, last bool) []byte {
	b = code.AppendTo(b)
	if last {
		b = append(b, ' ')
	} else {
		b = append(b, '-')
	}
	start := len(b)
	b = append(b, text...)
	for i, c := range b[start:] {
		b[start+i] = replyOctet(c)
	}
	return append(b, '\r', '\n')
}
