package smtp

import "bytes"

// CutLine finds the first line of buf. It returns the line without its CRLF
// and the number n of octets that it took with it.
//
// n is 0 while the line is incomplete. A line may have at most max octets,
// CRLF included. Only CRLF ends a line: a bare CR, a bare LF or a NUL is a
// fault, after which nobody can tell where the next line starts, so the caller
// must close the connection (RFC 5321 section 2.3.8).
func CutLine(buf []byte, max int) (line []byte, n int, f Fault) {
	lf := bytes.IndexByte(buf, '\n')
	if lf < 0 && len(buf) < max {
		return nil, 0, NoFault
	}
	if lf < 0 || lf >= max {
		return nil, 0, LongLine
	}
	if lf == 0 || buf[lf-1] != '\r' {
		return nil, 0, BareLF
	}
	line = buf[:lf-1]
	// Lenient servers split a command at a lone CR, or cut it at a NUL; both
	// would then see other commands than we do.
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, 0, BareCR
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, 0, NUL
	}
	return line, lf + 1, NoFault
}
