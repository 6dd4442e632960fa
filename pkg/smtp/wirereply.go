package smtp

import "bytes"

// Limits of a reply that is read. RFC 5321 section 4.5.3.1.5 asks for lines of
// 512 octets; longer ones exist.
const (
	MaxReplyLine   = 2048      // octets, CRLF included
	MaxReplyLines  = 200       // lines of one reply
	MaxReplyOctets = 32 * 1024 // octets of one reply
)

// WireReply is a reply as it was read from a peer: a view of the read buffer,
// valid until the buffer changes. Every line of it has the same code.
type WireReply struct {
	Code Code
	raw  []byte
}

// CutReply finds the first reply of buf and the number n of octets that it
// took; n is 0 while the reply is incomplete.
//
// Grammar of RFC 5321 section 4.2: digits 2-5, 0-5, 0-9, then "-" for more
// lines or SP or nothing for the last, every line with the same code. Libraries
// differ on which line of a mixed reply counts, so a mixed reply is a fault.
func CutReply(buf []byte) (r WireReply, n int, f Fault) {
	for lines := 1; ; lines++ {
		line, took, f := CutLine(buf[n:], MaxReplyLine)
		if f != NoFault {
			return r, 0, f
		}
		if n+took > MaxReplyOctets || lines > MaxReplyLines {
			return r, 0, LongReply
		}
		if took == 0 {
			return r, 0, NoFault
		}
		code, last, ok := parseReplyLine(line)
		if !ok {
			return r, 0, BadCode
		}
		if lines > 1 && code != r.Code {
			return r, 0, MixedCodes
		}
		r.Code, n = code, n+took
		if last {
			r.raw = buf[:n]
			return r, n, NoFault
		}
	}
}

func parseReplyLine(line []byte) (code Code, last, ok bool) {
	if len(line) < 3 {
		return 0, false, false
	}
	a, b, c := line[0]-'0', line[1]-'0', line[2]-'0'
	if a < 2 || a > 5 || b > 5 || c > 9 {
		return 0, false, false
	}
	code = Code(a)*100 + Code(b)*10 + Code(c)
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
	return text, WireReply{r.Code, r.raw[lf+1:]}, true
}

// Size returns the number of octets that AppendTo adds.
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
// written as "?".
func AppendReplyLine(b []byte, code Code, text []byte, last bool) []byte {
	b = code.AppendTo(b)
	switch {
	case !last:
		b = append(b, '-')
	case len(text) > 0:
		b = append(b, ' ')
	}
	start := len(b)
	b = append(b, text...)
	for i, c := range b[start:] {
		b[start+i] = replyOctet(c)
	}
	return append(b, '\r', '\n')
}
