package smtp

import "bytes"

// EndOfData is what follows the last CRLF of a message's content. Only the
// session writes it, once, when every verdict is in: it is the commit.
const EndOfData = ".\r\n"

// BodyEvent says why Body.Next stopped.
type BodyEvent uint8

const (
	BodyMore  BodyEvent = iota // the rest of the input is needed to go on
	BodyEnd                    // CRLF.CRLF: the content is complete
	BodyFault                  // the content breaks the rules, see Body.Fault
)

// Body reads the content that follows DATA, RFC 5321 section 4.1.1.4, and
// turns it into the content that we send: dots are unstuffed and stuffed again.
// The zero value is ready for the first octet of a message.
//
// One rule ends a message: a line that consists of one dot, begun and ended by
// CRLF. It is the same rule when a refused message is thrown away, because a
// laxer one would turn its content into commands.
//
// Octets whose meaning depends on what follows them ("." and ".CR" at the start
// of a line, CR anywhere) are not consumed before that is known: they never
// leave the caller's buffer too early.
type Body struct {
	MaxLine int   // longest line without its CRLF, 0 for any
	Fault   Fault // the first violation; from then on everything is skipped
	Dots    int64 // stuffed dots in what Next returned so far: sent, but no part of the message

	mid    bool // the next octet continues a line
	column int  // octets of that line so far
}

// Next consumes a prefix of in. It returns what to send for it, a slice of in
// that may have been compacted in place, and the number n of octets consumed.
//
// After BodyMore the caller keeps in[n:] (at most two octets) in front of what
// it reads next. At BodyEnd, n includes the final ".CRLF" and out is directly
// followed by room for EndOfData. After BodyFault the message must never be
// completed; further calls return no content and find its true end.
func (b *Body) Next(in []byte) (out []byte, n int, ev BodyEvent) {
	if b.Fault != NoFault {
		n, ev = b.skip(in)
		return nil, n, ev
	}
	w := 0 // in[:w] is what we send
	for n < len(in) {
		drop, ev, ok := b.lineStart(in[n:])
		if ev == BodyFault {
			return nil, n, ev
		}
		if !ok {
			return in[:w], n + drop, ev
		}
		n += drop
		seg, whole := b.segment(in[n:])
		if b.Fault != NoFault {
			return nil, n, BodyFault
		}
		if w != n {
			copy(in[w:], in[n:n+seg])
		}
		w, n = w+seg, n+seg
		if !whole {
			break
		}
	}
	return in[:w], n, BodyMore
}

// lineStart deals with a dot at the start of a line. With ok, drop octets are
// left out (a dot that was stuffed without need) and the line goes on after
// them; without, ev says why not, and drop octets belong to it.
func (b *Body) lineStart(in []byte) (drop int, ev BodyEvent, ok bool) {
	if b.mid || in[0] != '.' {
		return 0, BodyMore, true
	}
	switch {
	case len(in) == 1:
		return 0, BodyMore, false
	case in[1] == '.':
		b.Dots++
		b.column = -1 // the stuffed dot is not counted, RFC 5321 section 4.5.3.1.6
		return 0, BodyMore, true
	case in[1] != '\r':
		return 1, BodyMore, true
	case len(in) == 2:
		return 0, BodyMore, false
	case in[2] != '\n':
		b.Fault = BareCR
		return 0, BodyFault, false
	}
	return 3, BodyEnd, false
}

// segment returns the length of what can be sent of the line in front, and
// whether that is the whole line with its CRLF. On a violation it sets Fault: the
// first one in the stream, wherever the input was cut.
func (b *Body) segment(in []byte) (n int, whole bool) {
	lf := bytes.IndexByte(in, '\n')
	text := in // without line end
	if lf >= 0 {
		text = in[:lf]
	}
	fault := NoFault
	switch cr := bytes.IndexByte(text, '\r'); {
	case cr >= 0 && cr != len(text)-1:
		text, fault = text[:cr], BareCR
	case cr >= 0:
		text = text[:cr]
	case lf >= 0:
		fault = BareLF
	}
	if nul := bytes.IndexByte(text, 0); nul >= 0 {
		text, fault = text[:nul], NUL
	}
	b.column += len(text)
	if b.MaxLine > 0 && b.column > b.MaxLine {
		fault = LongLine
	}
	b.Fault = fault
	if fault != NoFault {
		return 0, false
	}
	if lf < 0 {
		b.mid = b.column > 0
		return len(text), false
	}
	b.mid, b.column = false, 0
	return lf + 1, true
}

// skip throws content away up to its end, by the rule that Next has.
func (b *Body) skip(in []byte) (n int, ev BodyEvent) {
	for n < len(in) {
		rest := in[n:]
		if !b.mid && rest[0] == '.' {
			if len(rest) < 3 && string(rest) == EndOfData[:len(rest)] {
				return n, BodyMore
			}
			if len(rest) >= 3 && string(rest[:3]) == EndOfData {
				return n + 3, BodyEnd
			}
		}
		took := b.skipLine(rest)
		if took == 0 {
			break
		}
		n += took
	}
	return n, BodyMore
}

// skipLine returns the length of the line in front, with its CRLF, or of the
// part of it that is there.
func (b *Body) skipLine(in []byte) int {
	if i := bytes.Index(in, crlf); i >= 0 {
		b.mid = false
		return i + 2
	}
	n := len(in)
	if in[n-1] == '\r' {
		n--
	}
	b.mid = b.mid || n > 0
	return n
}

var crlf = []byte("\r\n")
