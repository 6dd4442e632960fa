package record

import (
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendEscaped appends a peer's octets as the inside of a JSON string that can
// neither end early, nor start a line, nor drive a terminal, nor look like another
// one. JSON's own escapes are those of the quotation mark, the newline and the
// backslash. All others are in the string's value: \xNN is an octet that is a
// control or not UTF-8, \uNNNN and \UNNNNNNNN are a character that does not show as
// itself, and \\ is a backslash. So every backslash in the value begins an escape,
// and a reader gets back the very octets that were sent.
func appendEscaped(b, s []byte) []byte {
	shown := false // the character before stands there as itself
	for {
		n := 0
		for n < len(s) && plain(s[n]) {
			n++
		}
		b, s = append(b, s[:n]...), s[n:]
		if len(s) == 0 {
			return b
		}
		shown = shown || n > 0
		c := s[0]
		if c < utf8.RuneSelf {
			b = appendOctet(b, c)
			s, shown = s[1:], false
			continue
		}
		r, n := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && n <= 1:
			b, shown = appendHex(b, c), false
		case hidden(r), !shown && unicode.Is(unicode.M, r):
			b, shown = appendRune(b, r), false
		default:
			b, shown = append(b, s[:n]...), true
		}
		s = s[n:]
	}
}

// plain: printable ASCII that needs no escape.
func plain(c byte) bool { return c-' ' < 0x7F-' ' && c != '"' && c != '\\' }

// appendOctet appends an octet of ASCII that is not plain.
func appendOctet(b []byte, c byte) []byte {
	switch c {
	case '"':
		return append(b, `\"`...)
	case '\\':
		return append(b, `\\\\`...)
	case '\n':
		return append(b, `\n`...) // between the lines of a reply
	}
	return appendHex(b, c)
}

func appendHex(b []byte, c byte) []byte {
	return append(b, '\\', '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
}

func appendRune(b []byte, r rune) []byte {
	b, digits := append(b, `\\u`...), 4
	if r > 0xFFFF {
		b[len(b)-1], digits = 'U', 8
	}
	for i := digits - 1; i >= 0; i-- {
		b = append(b, hexDigits[r>>(4*i)&15])
	}
	return b
}

// hidden: a character that nobody sees, or that changes how others look. These are
// controls, format characters (zero-width, direction, tags), separators, spaces
// other than that of ASCII, and what is private or not assigned; and then letters,
// marks and symbols that show nothing. A combining mark joins what is before it:
// without a character before it, it would change our own quotation mark.
func hidden(r rune) bool {
	return !unicode.IsPrint(r) || r > unicode.MaxLatin1 && unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, blank)
}

// blank has the characters that count as printable, show nothing, and are in no
// table of package unicode: BRAILLE PATTERN BLANK, EGYPTIAN HIEROGLYPH FULL BLANK
// and HALF BLANK, KHITAN SMALL SCRIPT FILLER, MUSICAL SYMBOL NULL NOTEHEAD.
var blank = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x2800, Hi: 0x2800, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x13441, Hi: 0x13442, Stride: 1}, {Lo: 0x16FE4, Hi: 0x16FE4, Stride: 1}, {Lo: 0x1D159, Hi: 0x1D159, Stride: 1}},
}
