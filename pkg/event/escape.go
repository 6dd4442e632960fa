package event

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// appendEscaped appends a peer's string so that it can neither end the string,
// nor start a line, nor drive a terminal: control octets and octets that are not
// UTF-8 become \xNN, control and direction characters of Unicode \uNNNN. The
// backslashes themselves are doubled, which in JSON makes them one again, and in
// quoted text keeps them apart from those that were sent.
func appendEscaped(b, s []byte) []byte {
	for {
		n := 0
		for n < len(s) && plain(s[n]) {
			n++
		}
		b, s = append(b, s[:n]...), s[n:]
		if len(s) == 0 {
			return b
		}
		c := s[0]
		if c < utf8.RuneSelf {
			b = appendOctet(b, c)
			s = s[1:]
			continue
		}
		r, n := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && n <= 1:
			b = appendHex(b, c)
		case unsafeRune(r):
			b = append(b, '\\', '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
}

// plain: printable ASCII that needs no escape.
func plain(c byte) bool { return c-' ' < 0x7F-' ' && c != '"' && c != '\\' }

func appendOctet(b []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(b, '\\', c)
	case c == '\n':
		return append(b, '\\', 'n') // between the lines of a reply
	case c < ' ' || c == 0x7F:
		return appendHex(b, c)
	}
	return append(b, c)
}

func appendHex(b []byte, c byte) []byte {
	return append(b, '\\', '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
}

// unsafeRune: C1 controls, line and paragraph separators, and what changes the
// direction of writing.
func unsafeRune(r rune) bool {
	switch {
	case r < 0xA0,
		r == 0x061C, r == 0x200E, r == 0x200F,
		r >= 0x2028 && r <= 0x202E,
		r >= 0x2066 && r <= 0x2069,
		r == 0xFEFF:
		return true
	}
	return false
}
