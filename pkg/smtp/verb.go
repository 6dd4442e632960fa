package smtp

// Verb is what a command line asks for.
type Verb uint8

const (
	Unknown  Verb = iota // not a verb of SMTP
	Foreign              // a line of another protocol, such as HTTP
	Obsolete             // of SMTP, but never carried: TURN, SEND, XADR ...
	HELO
	EHLO
	MAIL
	RCPT
	DATA
	BDAT
	RSET
	NOOP
	QUIT
	VRFY
	EXPN
	HELP
	ETRN
	AUTH
	STARTTLS
	XCLIENT
	XFORWARD
	verbs // how many there are
)

// NumVerbs is how many verbs there are, one more than the last one.
const NumVerbs = int(verbs)

var verbNames = [verbs]string{
	Unknown: "unknown", Foreign: "foreign", Obsolete: "obsolete",
	HELO: "HELO", EHLO: "EHLO", MAIL: "MAIL", RCPT: "RCPT", DATA: "DATA", BDAT: "BDAT",
	RSET: "RSET", NOOP: "NOOP", QUIT: "QUIT", VRFY: "VRFY", EXPN: "EXPN", HELP: "HELP",
	ETRN: "ETRN", AUTH: "AUTH", STARTTLS: "STARTTLS", XCLIENT: "XCLIENT", XFORWARD: "XFORWARD",
}

// String returns the verb as it is written on the wire.
func (v Verb) String() string { return verbNames[v] }

// Verbs is a set of Verb.
type Verbs uint32

// VerbsOf returns the set of the given verbs.
func VerbsOf(list ...Verb) (s Verbs) {
	for _, v := range list {
		s |= 1 << v
	}
	return s
}

// Has reports whether v is in the set.
func (s Verbs) Has(v Verb) bool { return s&(1<<v) != 0 }

const longestVerb = 12

// lookupVerb finds the verb of a word, ignoring case.
func lookupVerb(word []byte) Verb {
	if len(word) == 0 {
		return Unknown
	}
	if word[len(word)-1] == ':' {
		return Foreign // a header line: "Host:"
	}
	if len(word) > longestVerb {
		return Unknown
	}
	var up [longestVerb]byte
	for i, c := range word {
		up[i] = upper(c)
	}
	if v := knownVerb(up[:len(word)]); v != Unknown {
		return v
	}
	return strangeVerb(up[:len(word)])
}

func knownVerb(word []byte) Verb {
	switch string(word) {
	case "HELO":
		return HELO
	case "EHLO":
		return EHLO
	case "MAIL":
		return MAIL
	case "RCPT":
		return RCPT
	case "DATA":
		return DATA
	case "BDAT":
		return BDAT
	case "RSET":
		return RSET
	case "NOOP":
		return NOOP
	case "QUIT":
		return QUIT
	case "VRFY":
		return VRFY
	case "EXPN":
		return EXPN
	case "HELP":
		return HELP
	case "ETRN":
		return ETRN
	case "AUTH":
		return AUTH
	case "STARTTLS":
		return STARTTLS
	case "XCLIENT":
		return XCLIENT
	case "XFORWARD":
		return XFORWARD
	}
	return Unknown
}

// strangeVerb knows the verbs that must never reach an origin, and those of
// browsers that were tricked into talking to us.
func strangeVerb(word []byte) Verb {
	switch string(word) {
	case "GET", "PUT", "POST", "HEAD", "PATCH", "TRACE", "DELETE", "OPTIONS", "CONNECT", "PRI":
		return Foreign
	case "TURN", "ATRN", "SEND", "SOML", "SAML", "BURL", "XADR", "XEXCH50",
		"X-EXPS", "VERB", "ONEX", "DEBUG", "WIZ", "PROXY":
		return Obsolete
	}
	return Unknown
}
