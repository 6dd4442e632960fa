package smtp

import "bytes"

// MaxResponse is the usual limit of a line of an authentication exchange in
// octets, CRLF included: what RFC 4954 section 4 lets clients send.
const MaxResponse = 12288

// parseAuth reads "mechanism [initial-response]", RFC 4954 section 4.
func (c *Command) parseAuth(arg []byte) *Reply {
	mechanism, initial, _ := bytes.Cut(arg, []byte{' '})
	initial = bytes.TrimLeft(initial, " ")
	if !IsMechanism(mechanism) {
		return badAuth
	}
	if len(initial) > 0 && string(initial) != "=" && !isBase64(initial) {
		return badAuth
	}
	c.Arg, c.Secret = mechanism, initial
	return nil
}

// appendAuth appends the mechanism in upper case and the initial response.
func (c *Command) appendAuth(b []byte) []byte {
	for _, o := range c.Arg {
		b = append(b, upper(o))
	}
	if len(c.Secret) > 0 {
		b = append(b, ' ')
		b = append(b, c.Secret...)
	}
	return b
}

// IsMechanism reports whether s is the name of a SASL mechanism, RFC 4422
// section 3.1, in any letter case.
func IsMechanism(s []byte) bool {
	for _, c := range s {
		if !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 20
}

// IsResponse reports whether a line, without its CRLF, is a client's answer to a
// challenge: base64, nothing, or "*" to give up.
func IsResponse(line []byte) bool {
	return len(line) == 0 || string(line) == "*" || isBase64(line)
}

// isBase64: RFC 4648 section 4, padded.
func isBase64(s []byte) bool {
	text := bytes.TrimRight(s, "=")
	if len(s) == 0 || len(s)%4 != 0 || len(s)-len(text) > 2 {
		return false
	}
	for _, c := range text {
		if !isAlnum(c) && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// isNode: the argument of ETRN, RFC 1985 section 5.1: a name, which "@" makes a
// domain with everything below it, and "#" the name of a queue.
func isNode(s []byte) bool {
	if len(s) > 0 && (s[0] == '@' || s[0] == '#') {
		s = s[1:]
	}
	for _, c := range s {
		if !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxDomain
}
