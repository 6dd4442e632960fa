package smtp

import (
	"bytes"
	"net/netip"
	"unicode/utf8"
)

// Longest parts of an address in octets. RFC 5321 section 4.5.3.1 names 64,
// 255 and 256 as what everybody must take; longer local parts are ordinary in
// bounce addresses, so ours is what fits a domain.
const (
	maxLocal  = 255
	maxDomain = 255
	maxLabel  = 63 // of a domain, RFC 1035 section 2.3.4
)

// Path is a reverse or forward path, RFC 5321 section 4.1.2. A source route is
// recognised and left out, as section 3.3 and appendix C ask.
type Path struct {
	Local  []byte // as sent; a quoted string keeps its quotes
	Domain []byte // host name, address literal with its brackets, or nothing for a bare local part
	Routed bool   // a source route was left out
	UTF8   bool   // an octet outside ASCII is in it
}

// Null reports whether the path is "<>", the sender of bounces.
func (p *Path) Null() bool { return len(p.Local) == 0 && len(p.Domain) == 0 }

// Postmaster reports whether the path is the local part postmaster alone,
// which every server must take (RFC 5321 section 4.5.1).
func (p *Path) Postmaster() bool {
	return len(p.Domain) == 0 && EqualFold(p.Local, "POSTMASTER")
}

// parse reads a path in front of s and returns what follows it.
func (p *Path) parse(s []byte, utf8, bare bool) (rest []byte, ok bool) {
	*p = Path{}
	if len(s) == 0 {
		return nil, false
	}
	if s[0] != '<' {
		return p.parseBare(s, utf8, bare)
	}
	s = s[1:]
	if len(s) > 0 && s[0] == '@' {
		if s, ok = cutRoute(s); !ok {
			return nil, false
		}
		p.Routed = true
	}
	if len(s) > 0 && s[0] == '>' && !p.Routed {
		return endOfPath(s[1:])
	}
	s, ok = p.parseMailbox(s, utf8)
	if !ok || len(s) == 0 || s[0] != '>' {
		return nil, false
	}
	return endOfPath(s[1:])
}

// parseBare reads a mailbox without angle brackets, where that is allowed.
func (p *Path) parseBare(s []byte, utf8, allowed bool) (rest []byte, ok bool) {
	if !allowed {
		return nil, false
	}
	if s, ok = p.parseMailbox(s, utf8); !ok {
		return nil, false
	}
	return endOfPath(s)
}

// endOfPath: after a path comes a space or nothing. Servers differ on
// "<a@x>SIZE=1".
func endOfPath(s []byte) ([]byte, bool) {
	return s, len(s) == 0 || s[0] == ' '
}

// cutRoute removes "@one,@two:" and returns the mailbox behind it.
func cutRoute(s []byte) ([]byte, bool) {
	for {
		if len(s) == 0 || s[0] != '@' {
			return nil, false
		}
		_, rest, ok := cutDomain(s[1:], false)
		if !ok || len(rest) == 0 {
			return nil, false
		}
		switch rest[0] {
		case ':':
			return rest[1:], true
		case ',':
			s = rest[1:]
		default:
			return nil, false
		}
	}
}

func (p *Path) parseMailbox(s []byte, utf8 bool) (rest []byte, ok bool) {
	p.Local, rest, ok = cutLocal(s, utf8)
	if !ok {
		return nil, false
	}
	if len(rest) > 0 && rest[0] == '@' {
		p.Domain, rest, ok = cutDomain(rest[1:], utf8)
	}
	p.UTF8 = !isPrintable(p.Local) || !isPrintable(p.Domain)
	if p.UTF8 && !(isPlainUTF8(p.Local) && isPlainUTF8(p.Domain)) {
		return nil, false
	}
	return rest, ok
}

// cutLocal cuts a dot-string or a quoted string. Dots may stand anywhere in a
// dot-string: some providers gave out such addresses, and origins judge them.
func cutLocal(s []byte, utf8 bool) (local, rest []byte, ok bool) {
	if len(s) > 0 && s[0] == '"' {
		return cutQuoted(s, utf8)
	}
	n := 0
	for n < len(s) && isLocalOctet(s[n], utf8) {
		n++
	}
	return s[:n], s[n:], n > 0 && n <= maxLocal
}

// isLocalOctet: atext of RFC 5322, ".", and UTF-8 where allowed.
func isLocalOctet(c byte, utf8 bool) bool {
	if c >= 0x80 {
		return utf8
	}
	return isAlnum(c) || bytes.IndexByte(atextMarks, c) >= 0
}

var atextMarks = []byte(".!#$%&'*+-/=?^_`{|}~")

// cutQuoted cuts a quoted string; inside it only a backslash or a quote needs
// to be quoted by a backslash.
func cutQuoted(s []byte, utf8 bool) (local, rest []byte, ok bool) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:], i+1 <= maxLocal
		case c >= 0x80 && !utf8:
			return nil, nil, false
		case c == '\\':
			i++ // Parse has seen to it that no control octet follows
			if i == len(s) || s[i] >= 0x80 {
				return nil, nil, false
			}
		}
	}
	return nil, nil, false
}

// cutDomain cuts a host name or an address literal.
func cutDomain(s []byte, utf8 bool) (domain, rest []byte, ok bool) {
	if len(s) > 0 && s[0] == '[' {
		i := bytes.IndexByte(s, ']')
		if i < 0 || !isAddress(s[1:i]) {
			return nil, nil, false
		}
		return s[:i+1], s[i+1:], true
	}
	n, label := 0, 0
	for n < len(s) && (isAlnum(s[n]) || s[n] == '-' || s[n] == '_' || s[n] == '.' || (utf8 && s[n] >= 0x80)) {
		if s[n] == '.' && label == 0 {
			return nil, nil, false
		}
		label++
		if s[n] == '.' {
			label = 0
		}
		n++
	}
	return s[:n], s[n:], label > 0 && n <= maxDomain
}

// IsHost reports whether s is a domain or an address literal, as RFC 5321 section
// 4.1.1.1 asks of the argument of EHLO. Labels have 63 octets at most and neither
// begin nor end with a hyphen; an underscore is taken for a letter, as it is all
// over the Internet.
func IsHost(s []byte) bool {
	_, rest, ok := cutDomain(s, false)
	if !ok || len(rest) > 0 {
		return false
	}
	if s[0] == '[' {
		return true
	}
	for more := true; more; {
		var label []byte
		label, s, more = bytes.Cut(s, []byte{'.'})
		if len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// isAddress: the inside of an address literal, RFC 5321 section 4.1.3.
func isAddress(s []byte) bool {
	const tag = "IPV6:"
	if len(s) > len(tag) && EqualFold(s[:len(tag)], tag) {
		a, err := netip.ParseAddr(string(s[len(tag):]))
		return err == nil && a.Is6() && a.Zone() == ""
	}
	return isIPv4(s)
}

// isIPv4: four decimal numbers up to 255 without leading zeros.
func isIPv4(s []byte) bool {
	for i := 0; i < 4; i++ {
		n := 0
		for n < len(s) && isDigit(s[n]) {
			n++
		}
		v, ok := parseNumber(s[:n], 3)
		if !ok || v > 255 || (n > 1 && s[0] == '0') {
			return false
		}
		if s = s[n:]; i < 3 {
			if len(s) == 0 || s[0] != '.' {
				return false
			}
			s = s[1:]
		}
	}
	return len(s) == 0
}

// isPlainUTF8: valid UTF-8 without C1 controls and without the line and
// paragraph separators, which some readers take for line ends.
func isPlainUTF8(s []byte) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1, r >= 0x80 && r <= 0x9F, r == 0x2028, r == 0x2029:
			return false
		}
		i += n
	}
	return true
}

// AppendTo appends the path with its angle brackets. A quoted local part is
// quoted anew: backslashes only where they are needed.
func (p *Path) AppendTo(b []byte) []byte {
	return append(p.AppendMailbox(append(b, '<')), '>')
}

// AppendMailbox appends the path without angle brackets, for records.
func (p *Path) AppendMailbox(b []byte) []byte {
	if len(p.Local) > 0 && p.Local[0] == '"' {
		b = appendQuoted(b, p.Local[1:len(p.Local)-1])
	} else {
		b = append(b, p.Local...)
	}
	if len(p.Domain) > 0 {
		b = append(b, '@')
		b = append(b, p.Domain...)
	}
	return b
}

// appendQuoted quotes the inside of a quoted string canonically.
func appendQuoted(b, inside []byte) []byte {
	b = append(b, '"')
	for i := 0; i < len(inside); i++ {
		c := inside[i]
		if c == '\\' {
			i++
			c = inside[i]
		}
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

// UnreadPath returns what stands for the path in a line of MAIL or RCPT that could
// not be read, without its angle brackets, for records.
func UnreadPath(line []byte) []byte {
	_, path, found := bytes.Cut(line, []byte{':'})
	if !found {
		return bytes.TrimLeft(line[len(firstWord(line)):], " ")
	}
	path = bytes.TrimLeft(path, " ")
	if len(path) == 0 || path[0] != '<' {
		return firstWord(path)
	}
	path = path[1:]
	for i, c := range path {
		if c == '>' && (i+1 == len(path) || path[i+1] == ' ') {
			return path[:i]
		}
	}
	return firstWord(path)
}
