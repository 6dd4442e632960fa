package smtp

import "bytes"

// Normalizer turns content with bare CR and bare LF into content that every
// server reads alike. The zero value reads content that came in chunks; with
// Dotted set it reads what follows DATA.
//
// A bare LF becomes CRLF, a bare CR a space: as CRLF it would end lines, and so
// messages, where its sender saw none. A dot alone on its line ends the content
// only when CRLF precedes and follows it, and a dot is taken off a line only
// after CRLF; a line that a bare LF or a NUL began is content whatever it holds.
// What is not to be normalized is a fault, after which the end is still found by
// the same rule.
type Normalizer struct {
	Dotted     bool
	RefuseBare bool // a bare CR or LF is a fault
	RemoveNUL  bool // a NUL is left out; else it is a fault
	MaxLine    int  // longest line without its CRLF, 0 for any
	Fault      Fault
	Dots       int64 // stuffed dots in what Next returned so far: sent, but no part of the message

	state  normalState
	column int
}

type normalState uint8

const (
	afterCRLF normalState = iota // at the start of a line that CRLF began
	afterLF                      // the same, but a dot here is content: a bare LF, a dot or a NUL went before
	midLine
	heldCR
	heldDot   // a dot after CRLF, not yet written
	heldDotCR // a dot and a CR
)

// Normalized returns how many octets Next may add for n octets of content.
func Normalized(n int) int { return 2*n + 4 }

// Next appends what to send for src to dst, which needs the room that Normalized
// tells, and says how many octets it consumed: all of them, or those up to and
// with the end of data.
func (n *Normalizer) Next(dst, src []byte) (out []byte, used int, ev BodyEvent) {
	keep := len(dst)
	for used < len(src) {
		if n.state == midLine {
			run := textRun(src[used:])
			dst = append(dst, src[used:used+run]...)
			n.count(run)
			if used += run; used == len(src) {
				break
			}
		}
		end := false
		if dst, end = n.step(dst, src[used]); end {
			return n.clean(dst, keep), used + 1, BodyEnd
		}
		used++
	}
	return n.clean(dst, keep), used, BodyMore
}

// Skip is Next for content that is thrown away.
func (n *Normalizer) Skip(src []byte) (used int, ev BodyEvent) {
	var scratch [1024]byte
	for used < len(src) {
		piece := src[used:min(len(src), used+(len(scratch)-4)/2)]
		_, took, ev := n.Next(scratch[:0], piece)
		if used += took; ev == BodyEnd {
			return used, ev
		}
	}
	return used, BodyMore
}

// clean drops the output of content that breaks the rules.
func (n *Normalizer) clean(dst []byte, keep int) []byte {
	if n.Fault != NoFault {
		return dst[:keep]
	}
	return dst
}

// textRun returns the length of the octets in front that mean nothing.
func textRun(s []byte) int {
	if i := bytes.IndexByte(s, '\n'); i >= 0 {
		s = s[:i]
	}
	if i := bytes.IndexByte(s, '\r'); i >= 0 {
		s = s[:i]
	}
	if i := bytes.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return len(s)
}

// step reads one octet.
func (n *Normalizer) step(dst []byte, c byte) (out []byte, end bool) {
	switch n.state {
	case heldCR:
		if c == '\n' {
			return n.endLine(dst, afterCRLF), false
		}
		dst = n.bareCR(dst)
	case heldDotCR:
		if c == '\n' {
			return dst, true
		}
		dst = n.bareCR(dst)
	case heldDot:
		if c == '\r' {
			n.state = heldDotCR
			return dst, false
		}
		n.state = afterLF // the dot was stuffing: the line starts behind it
	case afterCRLF:
		if n.Dotted && c == '.' {
			n.state = heldDot
			return dst, false
		}
	}
	return n.content(dst, c), false
}

// content reads an octet that is content.
func (n *Normalizer) content(dst []byte, c byte) []byte {
	switch {
	case c == '\r':
		n.state = heldCR
		return dst
	case c == '\n':
		n.fail(BareLF, n.RefuseBare)
		return n.endLine(dst, afterLF)
	case c == 0 && n.RemoveNUL:
		if n.state == afterCRLF {
			n.state = afterLF // the end of data is none behind it, here or elsewhere
		}
		n.count(1) // a line of nothing else has an end, too
		return dst
	case c == 0:
		n.fail(NUL, true)
	case c == '.' && n.state != midLine:
		dst = append(dst, '.')
		n.Dots++
	}
	return n.text(dst, c)
}

// bareCR appends what a CR becomes that was held back in vain.
func (n *Normalizer) bareCR(dst []byte) []byte {
	n.fail(BareCR, n.RefuseBare)
	return n.text(dst, ' ')
}

// fail notes the first fault.
func (n *Normalizer) fail(f Fault, is bool) {
	if is && n.Fault == NoFault {
		n.Fault = f
	}
}

func (n *Normalizer) text(dst []byte, c byte) []byte {
	n.state = midLine
	n.count(1)
	return append(dst, c)
}

// count minds the length of a line.
func (n *Normalizer) count(octets int) {
	n.column += octets
	n.fail(LongLine, n.MaxLine > 0 && n.column > n.MaxLine)
}

func (n *Normalizer) endLine(dst []byte, next normalState) []byte {
	n.state, n.column = next, 0
	return append(dst, '\r', '\n')
}

// Close ends content that came in chunks: the last line gets the CRLF that it
// lacks.
func (n *Normalizer) Close(dst []byte) []byte {
	keep := len(dst)
	if n.state == heldCR {
		dst = n.bareCR(dst)
	}
	if n.state == midLine {
		dst = n.endLine(dst, afterCRLF)
	}
	return n.clean(dst, keep)
}
