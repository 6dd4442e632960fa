package smtp

import "bytes"

// AppendSayable appends what a client said as a record may have it: line by line,
// without what may be a credential. Of AUTH the mechanism is left, of HTTP the method,
// of a header its name, of what nobody knows a word. secretive says that AUTH was said
// before: a line may then be a response out of place, so only what no response can be
// is left of it.
func AppendSayable(b, said []byte, secretive bool) []byte {
	if bytes.HasPrefix(said, handshake) || bytes.HasPrefix(said, proxy2) { // nothing that anybody has typed
		return append(b, said...)
	}
	for len(said) > 0 {
		n := bytes.IndexAny(said, "\r\n\x00") // whatever some reader takes for the end of a line
		if n < 0 {
			n = len(said)
		}
		line := said[:n]
		var more bool
		if b, more = appendSayableLine(b, line, secretive); !more {
			return b
		}
		secretive = secretive || lookupVerb(firstWord(line)) == AUTH
		for said = said[n:]; len(said) > 0 && bytes.IndexByte(lineEnders, said[0]) >= 0; said = said[1:] {
			b = append(b, said[0])
		}
	}
	return b
}

var lineEnders = []byte("\r\n\x00")

// appendSayableLine appends one line without its end. more is false when what
// follows is not of SMTP.
func appendSayableLine(b, line []byte, secretive bool) (_ []byte, more bool) {
	word := firstWord(line)
	arg := bytes.TrimLeft(line[len(word):], " ")
	verb := lookupVerb(word)
	switch {
	case verb == AUTH:
		mechanism := firstWord(arg)
		if !isUsualMechanism(mechanism) { // a response has the same letters
			mechanism = nil
		}
		return appendCut(b, word, mechanism, len(arg) > len(mechanism)), true
	case verb == HELO, verb == EHLO, verb == MAIL, verb == RCPT, EqualFold(word, "PROXY"):
		return append(b, line...), true
	case secretive && (verb == Unknown || verb == Foreign):
		return appendCut(b, nil, nil, len(line) > 0), true
	case verb == Unknown && !isVerbLike(word):
		return appendCut(b, nil, nil, len(line) > 0), true
	case verb == Foreign:
		return appendCut(b, word, nil, len(arg) > 0), word[len(word)-1] == ':'
	case verb == Unknown, verb == Obsolete, secretive:
		return appendCut(b, word, nil, len(arg) > 0), true
	}
	return append(b, line...), true
}

// appendCut appends words, and "..." for what is left out behind them.
func appendCut(b, word, second []byte, cut bool) []byte {
	b = append(b, word...)
	if len(second) > 0 {
		b = append(append(b, ' '), second...)
	}
	if !cut {
		return b
	}
	if len(word) > 0 {
		b = append(b, ' ')
	}
	return append(b, "..."...)
}

func isUsualMechanism(s []byte) bool {
	for _, m := range usualMechanisms {
		if EqualFold(s, m) {
			return true
		}
	}
	return false
}

var usualMechanisms = []string{"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS",
	"XOAUTH2", "OAUTHBEARER", "NTLM", "GSSAPI", "GS2-KRB5", "EXTERNAL", "ANONYMOUS"}

func firstWord(s []byte) []byte {
	if i := bytes.IndexByte(s, ' '); i >= 0 {
		return s[:i]
	}
	return s
}

// isVerbLike: letters, as verbs have them, and few.
func isVerbLike(word []byte) bool {
	for _, c := range word {
		if !isAlpha(c) {
			return false
		}
	}
	return len(word) > 0 && len(word) <= longestVerb
}
