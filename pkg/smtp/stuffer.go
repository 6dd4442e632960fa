package smtp

import "bytes"

// Stuffer turns content that came without dots stuffed, as BDAT brings it, into
// content for DATA. The zero value is ready for the first octet of a message; its
// state spans chunks, since a chunk may end anywhere, also inside a CRLF.
//
// DATA has no way to carry a bare CR, a bare LF or a NUL that every server reads
// alike, so they are faults here as they are in Body.
type Stuffer struct {
	MaxLine int   // longest line without its CRLF, 0 for any
	Fault   Fault // the first violation; nothing more is appended after it
	Dots    int64 // dots that were stuffed so far: sent, but no part of the message

	mid    bool // the next octet continues a line
	cr     bool // a CR was read and not yet appended
	column int  // octets of that line so far
}

// Stuffed returns how many octets Append may add for n octets of content.
func Stuffed(n int) int { return n + n/2 + 3 }

// Append appends the content src, stuffed, to dst. A CR at the end of src stays
// behind until what follows it is known.
func (s *Stuffer) Append(dst, src []byte) []byte {
	for len(src) > 0 && s.Fault == NoFault {
		if s.cr {
			dst, src = s.afterCR(dst, src)
			continue
		}
		lf := bytes.IndexByte(src, '\n')
		line := src
		if lf >= 0 {
			line = src[:lf+1]
		}
		dst, src = s.appendLine(dst, line), src[len(line):]
	}
	return dst
}

// afterCR goes on behind a CR that was held back.
func (s *Stuffer) afterCR(dst, src []byte) (to, rest []byte) {
	if src[0] != '\n' {
		s.Fault = BareCR
		return dst, src
	}
	s.cr, s.mid, s.column = false, false, 0
	return append(dst, '\r', '\n'), src[1:]
}

// appendLine appends a line, or the part of one that is there.
func (s *Stuffer) appendLine(dst, line []byte) []byte {
	text, ended := bytes.CutSuffix(line, crlf)
	if !ended {
		if text, s.cr = bytes.CutSuffix(line, crlf[:1]); !s.cr && line[len(line)-1] == '\n' {
			s.Fault = BareLF
			text = line[:len(line)-1]
		}
	}
	if s.check(text); s.Fault != NoFault {
		return dst
	}
	if !s.mid && len(text) > 0 && text[0] == '.' {
		dst = append(dst, '.')
		s.Dots++
	}
	dst = append(dst, text...)
	s.mid = s.mid || len(text) > 0
	if ended {
		dst = append(dst, '\r', '\n')
		s.mid, s.column = false, 0
	}
	return dst
}

// check finds the first violation in the text of a line.
func (s *Stuffer) check(text []byte) {
	if i := bytes.IndexByte(text, '\r'); i >= 0 {
		text, s.Fault = text[:i], BareCR
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text, s.Fault = text[:i], NUL
	}
	s.column += len(text)
	if s.MaxLine > 0 && s.column > s.MaxLine {
		s.Fault = LongLine
	}
}

// Close appends the CRLF that the last line lacks, so that the end of data can
// follow. A CR as the very last octet is a fault.
func (s *Stuffer) Close(dst []byte) []byte {
	if s.cr && s.Fault == NoFault {
		s.Fault = BareCR
	}
	if s.Fault != NoFault || !s.mid {
		return dst
	}
	s.mid, s.column = false, 0
	return append(dst, '\r', '\n')
}
