package smtp

import (
	"bytes"
	"net/netip"
)

// Attribute is what XCLIENT or XFORWARD says of somebody else's connection, as
// Postfix's XCLIENT_README and XFORWARD_README have it.
type Attribute uint8

const (
	AttrName        Attribute = iota // the client's host name
	AttrReverseName                  // the same, not verified
	AttrAddr                         // the client's address
	AttrPort                         // the client's port
	AttrProto                        // SMTP or ESMTP
	AttrHelo                         // argument of HELO or EHLO
	AttrLogin                        // who the client has authenticated as
	AttrDestAddr                     // the address that the client connected to
	AttrDestPort                     // the port that the client connected to
	AttrIdent                        // name of the message where it was taken
	AttrSource                       // LOCAL or REMOTE
	attributes                       // how many there are
)

// Attributes is a set of Attribute.
type Attributes uint16

// The attributes that each command can have.
const (
	XClientAttributes = 1<<AttrName | 1<<AttrReverseName | 1<<AttrAddr | 1<<AttrPort | 1<<AttrProto | 1<<AttrHelo |
		1<<AttrLogin | 1<<AttrDestAddr | 1<<AttrDestPort
	XForwardAttributes = 1<<AttrName | 1<<AttrAddr | 1<<AttrPort | 1<<AttrProto | 1<<AttrHelo | 1<<AttrIdent | 1<<AttrSource
)

// Has reports whether a is in the set.
func (s Attributes) Has(a Attribute) bool { return s&(1<<a) != 0 }

// attributeSpec is the grammar of one attribute.
type attributeSpec struct {
	name   string
	parse  func(s []byte) bool
	append func(b, s []byte) []byte
}

var attributeSpecs = [attributes]attributeSpec{
	AttrName:        {"NAME", isClientName, appendPlain},
	AttrReverseName: {"REVERSE_NAME", isClientName, appendPlain},
	AttrAddr:        {"ADDR", isClientAddr, appendClientAddr},
	AttrPort:        {"PORT", isClientPort, appendPlain},
	AttrProto:       {"PROTO", isProto, appendUpper},
	AttrHelo:        {"HELO", isClientText, appendPlain},
	AttrLogin:       {"LOGIN", isClientText, appendPlain},
	AttrDestAddr:    {"DESTADDR", isClientAddr, appendClientAddr},
	AttrDestPort:    {"DESTPORT", isClientPort, appendPlain},
	AttrIdent:       {"IDENT", isClientText, appendPlain},
	AttrSource:      {"SOURCE", isSource, appendUpper},
}

// Values that stand for one that is not known, for now or at all.
const (
	unavailable = "[UNAVAILABLE]"
	tempUnavail = "[TEMPUNAVAIL]" // of names alone
)

// ParseAttributes returns those attributes in the argument of an EHLO keyword
// that are also in may.
func ParseAttributes(args []byte, may Attributes) (s Attributes) {
	for len(args) > 0 {
		word, rest, _ := bytes.Cut(args, []byte{' '})
		args = rest
		if a, ok := lookupAttribute(word); ok && may.Has(a) {
			s |= 1 << a
		}
	}
	return s
}

// AppendTo appends the names of the attributes in the order of their
// declaration, each with a space before it.
func (s Attributes) AppendTo(b []byte) []byte {
	for a, spec := range attributeSpecs {
		if s.Has(Attribute(a)) {
			b = append(append(b, ' '), spec.name...)
		}
	}
	return b
}

// lookupAttribute finds an attribute by its name, ignoring case.
func lookupAttribute(name []byte) (Attribute, bool) {
	for a, spec := range attributeSpecs {
		if EqualFold(name, spec.name) {
			return Attribute(a), true
		}
	}
	return 0, false
}

// Claim is the argument of XCLIENT and XFORWARD: what the client says of
// somebody else.
type Claim struct {
	order  [attributes]Attribute
	count  int
	seen   Attributes
	values [attributes][]byte
}

var (
	badClaim      = refusal(501, 5, 4, "Syntax: the command needs attribute=value")
	unknownClaim  = refusal(501, 5, 4, "Attribute not offered in this session")
	repeatedClaim = refusal(501, 5, 4, "Attribute given twice")
	badClaimValue = refusal(501, 5, 4, "Syntax error in the value of an attribute")
)

// parse reads 1*(SP attribute-name "=" attribute-value). Each attribute may be
// given once: nobody says which of two counts.
func (k *Claim) parse(s []byte, offered Attributes) *Reply {
	for s = bytes.TrimLeft(s, " "); len(s) > 0; s = bytes.TrimLeft(s, " ") {
		word, rest, _ := bytes.Cut(s, []byte{' '})
		s = rest
		if r := k.add(word, offered); r != nil {
			return r
		}
	}
	if k.count == 0 {
		return badClaim
	}
	return nil
}

func (k *Claim) add(word []byte, offered Attributes) *Reply {
	name, val, ok := bytes.Cut(word, []byte{'='})
	if !ok {
		return badClaim
	}
	a, ok := lookupAttribute(name)
	switch {
	case !ok || !offered.Has(a):
		return unknownClaim
	case k.seen.Has(a):
		return repeatedClaim
	case !attributeSpecs[a].parse(val):
		return badClaimValue
	}
	k.seen |= 1 << a
	k.order[k.count], k.values[a] = a, val
	k.count++
	return nil
}

// AppendTo appends the attributes in the order in which they were given,
// generated anew, each with a space before it.
func (k *Claim) AppendTo(b []byte) []byte {
	for _, a := range k.order[:k.count] {
		spec := &attributeSpecs[a]
		b = append(append(b, ' '), spec.name...)
		b = append(b, '=')
		if v := k.values[a]; v[0] == '[' && isUnknownValue(v) {
			b = appendUpper(b, v)
		} else {
			b = spec.append(b, v)
		}
	}
	return b
}

// maxClaim is the longest value in octets, decoded (XFORWARD_README).
const maxClaim = 255

func isUnknownValue(s []byte) bool { return EqualFold(s, unavailable) || EqualFold(s, tempUnavail) }

// isClientName: a host name as the DNS may have it, which needs no encoding.
func isClientName(s []byte) bool {
	if isUnknownValue(s) {
		return true
	}
	for _, c := range s {
		if !isAlnum(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxClaim
}

// isClientAddr: an IPv4 address, or an IPv6 address behind "IPV6:".
func isClientAddr(s []byte) bool {
	_, ok := clientAddr(s)
	return ok || EqualFold(s, unavailable)
}

func clientAddr(s []byte) (netip.Addr, bool) {
	digits := s
	six := len(s) > len(ipv6Tag) && EqualFold(s[:len(ipv6Tag)], ipv6Tag)
	if six {
		digits = s[len(ipv6Tag):]
	}
	if len(digits) > maxAddr {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(digits))
	return a, err == nil && a.Is6() == six && a.Zone() == ""
}

const (
	ipv6Tag = "IPV6:"
	maxAddr = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
)

func appendClientAddr(b, s []byte) []byte {
	a, _ := clientAddr(s) // seen to be one
	if a.Is6() {
		b = append(b, ipv6Tag...)
	}
	return a.AppendTo(b)
}

// isClientPort: 1 to 65535 without leading zeros.
func isClientPort(s []byte) bool {
	n, ok := parseNumber(s, 5)
	return ok && n > 0 && n < 1<<16 && s[0] != '0' || EqualFold(s, unavailable)
}

// isProto: Postfix knows the first two alone; others add letters for TLS and
// authentication (RFC 3848).
func isProto(s []byte) bool {
	for _, c := range s {
		if !isAlnum(c) {
			return EqualFold(s, unavailable)
		}
	}
	return len(s) > 0 && len(s) <= 16
}

func isSource(s []byte) bool {
	return EqualFold(s, "LOCAL") || EqualFold(s, "REMOTE") || EqualFold(s, unavailable)
}

// isClientText: any printable text, as xtext.
func isClientText(s []byte) bool {
	return isXtext(s, false) && len(s)-2*bytes.Count(s, []byte{'+'}) <= maxClaim
}

func appendPlain(b, s []byte) []byte { return append(b, s...) }

func appendUpper(b, s []byte) []byte {
	for _, c := range s {
		b = append(b, upper(c))
	}
	return b
}
