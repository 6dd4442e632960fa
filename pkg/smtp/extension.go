package smtp

import "bytes"

// Extension is an SMTP service extension that this package knows by its EHLO
// keyword.
type Extension uint8

const (
	ExtPipelining    Extension = iota // RFC 2920
	ExtSize                           // RFC 1870
	Ext8BitMIME                       // RFC 6152
	ExtEnhancedCodes                  // RFC 2034
	ExtDSN                            // RFC 3461
	ExtSMTPUTF8                       // RFC 6531
	ExtChunking                       // RFC 3030
	ExtBinaryMIME                     // RFC 3030
	ExtDeliverBy                      // RFC 2852
	ExtMTPriority                     // RFC 6710
	ExtFutureRelease                  // RFC 4865
	ExtRequireTLS                     // RFC 8689
	ExtLimits                         // RFC 9422
	ExtAuth                           // RFC 4954
	ExtStartTLS                       // RFC 3207
	ExtETRN                           // RFC 1985
	ExtXClient                        // Postfix's XCLIENT_README
	ExtXForward                       // Postfix's XFORWARD_README
	extensions                        // how many there are
)

// NumExtensions is how many extensions there are, one more than the last one.
const NumExtensions = int(extensions)

var keywords = [extensions]string{
	ExtPipelining:    "PIPELINING",
	ExtSize:          "SIZE",
	Ext8BitMIME:      "8BITMIME",
	ExtEnhancedCodes: "ENHANCEDSTATUSCODES",
	ExtDSN:           "DSN",
	ExtSMTPUTF8:      "SMTPUTF8",
	ExtChunking:      "CHUNKING",
	ExtBinaryMIME:    "BINARYMIME",
	ExtDeliverBy:     "DELIVERBY",
	ExtMTPriority:    "MT-PRIORITY",
	ExtFutureRelease: "FUTURERELEASE",
	ExtRequireTLS:    "REQUIRETLS",
	ExtLimits:        "LIMITS",
	ExtAuth:          "AUTH",
	ExtStartTLS:      "STARTTLS",
	ExtETRN:          "ETRN",
	ExtXClient:       "XCLIENT",
	ExtXForward:      "XFORWARD",
}

// String returns the EHLO keyword.
func (e Extension) String() string { return keywords[e] }

// Extensions is a set of Extension.
type Extensions uint32

// SetOf returns the set of the given extensions.
func SetOf(list ...Extension) (s Extensions) {
	for _, e := range list {
		s = s.With(e)
	}
	return s
}

// Has reports whether e is in the set.
func (s Extensions) Has(e Extension) bool { return s&(1<<e) != 0 }

// With returns the set with e in it.
func (s Extensions) With(e Extension) Extensions { return s | 1<<e }

// Without returns the set without e.
func (s Extensions) Without(e Extension) Extensions { return s &^ (1 << e) }

// AppendTo appends the keywords in the order of their declaration, separated
// by sep.
func (s Extensions) AppendTo(b []byte, sep byte) []byte {
	start := len(b)
	for e := Extension(0); e < extensions; e++ {
		if !s.Has(e) {
			continue
		}
		if len(b) > start {
			b = append(b, sep)
		}
		b = append(b, keywords[e]...)
	}
	return b
}

// Keyword is one line of a reply to EHLO, RFC 5321 section 4.1.1.1.
type Keyword struct {
	Name  []byte // as the peer wrote it
	Args  []byte // what follows the first space, possibly empty
	Ext   Extension
	Known bool // Ext is set
}

// ParseKeyword reads one line of a reply to EHLO; ok is false when the line is
// not ehlo-keyword *(SP ehlo-param) of printable ASCII.
func ParseKeyword(text []byte) (k Keyword, ok bool) {
	text = bytes.TrimRight(text, " ")
	k.Name = text
	if i := bytes.IndexByte(text, ' '); i >= 0 {
		k.Name, k.Args = text[:i], bytes.TrimLeft(text[i:], " ")
	}
	if !isKeyword(k.Name) || !isPrintable(k.Args) {
		return k, false
	}
	for e, name := range keywords {
		if EqualFold(k.Name, name) {
			k.Ext, k.Known = Extension(e), true
			break
		}
	}
	return k, true
}

// isKeyword: ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-").
func isKeyword(s []byte) bool {
	if len(s) == 0 || s[0] == '-' {
		return false
	}
	for _, c := range s {
		if !isAlnum(c) && c != '-' {
			return false
		}
	}
	return true
}

// isPrintable: every octet in 0x20-0x7E.
func isPrintable(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool { return isDigit(c) || isAlpha(c) }
func isDigit(c byte) bool { return c-'0' < 10 }
func isAlpha(c byte) bool { return (c|0x20)-'a' < 26 }

// EqualFold compares s with the upper-case ASCII word, ignoring case.
func EqualFold(s []byte, word string) bool {
	if len(s) != len(word) {
		return false
	}
	for i := range s {
		if upper(s[i]) != word[i] {
			return false
		}
	}
	return true
}

func upper(c byte) byte {
	if c-'a' < 26 {
		return c - 0x20
	}
	return c
}
