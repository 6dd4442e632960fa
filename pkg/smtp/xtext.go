package smtp

import "bytes"

// xtext is how parameters write octets that they cannot have, RFC 3461 section 4: as
// "+" and two hex digits. Clients know it less well than servers do.

// MaxGrowth is the most octets by which a line of MAIL or RCPT grows when the values
// of its parameters are written as they should have been.
const MaxGrowth = 256

// growth is how many octets longer a value is when it is sent on.
func growth(k Param, v value) (n int) {
	if k != ParamORcpt && k != ParamEnvID && k != ParamAuth || isPlainXtext(v.text) {
		return 0
	}
	encoded := isEncoded(v.text)
	for i, c := range v.text {
		if c == '=' || c == '+' && !(encoded && hidesOctet(v.text[i+1:])) {
			n += 2
		}
	}
	return n
}

func parseXtext(s []byte, _ bool) (value, bool) { return value{text: s}, isLooseXtext(s, false) }

// isXtext: printable ASCII without "+" and "=", and octets written as "+" and
// two upper-case hex digits, RFC 3461 section 4. A hidden control octet is no
// part of an address or an envelope id.
func isXtext(s []byte, utf8 bool) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			if !hidesOctet(s[i+1:]) || upper(s[i+1]) != s[i+1] || upper(s[i+2]) != s[i+2] {
				return false
			}
			i += 2
		case c >= 0x80:
			if !utf8 {
				return false
			}
		case c <= ' ' || c > '~' || c == '=':
			return false
		}
	}
	return len(s) > 0 && (!utf8 || isPlainUTF8(s))
}

// isLooseXtext: xtext as clients write it, with "=" and "+" that nobody encoded,
// and hex digits of either case. appendXtext makes good what is wrong.
func isLooseXtext(s []byte, utf8 bool) bool {
	for _, c := range s {
		if c <= ' ' || c == 0x7F || c >= 0x80 && !utf8 {
			return false
		}
	}
	return len(s) > 0 && (!utf8 || isPlainUTF8(s))
}

// appendXtext appends the value of an ORCPT, ENVID or AUTH as valid xtext. A "+" is
// taken for itself where no octet is hidden behind it that an address can have, and
// in a value with "=", whose author encodes nothing.
func appendXtext(b []byte, v value) []byte {
	if isPlainXtext(v.text) {
		return append(b, v.text...)
	}
	encoded := isEncoded(v.text)
	for s := v.text; len(s) > 0; {
		n := 1
		switch {
		case s[0] == '=':
			b = append(b, "+3D"...)
		case s[0] != '+':
			b = append(b, s[0])
		case encoded && hidesOctet(s[1:]):
			b = append(b, '+', upper(s[1]), upper(s[2]))
			n = 3
		default:
			b = append(b, "+2B"...)
		}
		s = s[n:]
	}
	return b
}

// isPlainXtext reports whether a value has nothing that encodes, or is to be encoded.
func isPlainXtext(s []byte) bool {
	return bytes.IndexByte(s, '+') < 0 && bytes.IndexByte(s, '=') < 0
}

// isEncoded reports whether a value is xtext of an author who encodes: there is no "=",
// and what "+" hides is text.
func isEncoded(s []byte) bool {
	var room [256]byte
	plain := room[:0]
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '=':
			return false
		case c == '+' && hidesOctet(s[i+1:]):
			plain = append(plain, hexDigit(s[i+1])<<4|hexDigit(s[i+2]))
			i += 2
		default:
			plain = append(plain, c)
		}
	}
	return isPlainUTF8(plain)
}

func hexDigit(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return upper(c) - 'A' + 10
}

// hidesOctet: two hex digits in front of s, for an octet that is no control octet.
func hidesOctet(s []byte) bool {
	return len(s) >= 2 && isHex(s[0]) && isHex(s[1]) && s[0] >= '2' && !EqualFold(s[:2], "7F")
}

func isHex(c byte) bool { return isDigit(c) || upper(c)-'A' < 6 }
