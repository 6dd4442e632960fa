package smtp

import (
	"bytes"
	"strconv"
)

// MaxCommandLine is the usual limit of a command line in octets, CRLF included.
// RFC 5321 section 4.5.3.1.4 asks for 512, extensions add to it; what is longer
// is neither forwarded nor cut, because its tail would be read as a command.
const MaxCommandLine = 2048

// Grammar is what a session accepts in a command line.
type Grammar struct {
	Offered     Extensions // a parameter is taken only if its extension was offered
	UTF8        bool       // the transaction in force has SMTPUTF8
	BareAddress bool       // MAIL FROM:user@example.com without angle brackets
	Parameter   int        // longest parameter of MAIL or RCPT in octets, 0 for any
	Drop        bool       // leave out a parameter that was not offered, if it can be spared
	XClient     Attributes // of XCLIENT, those that were offered; none: its argument is not read
	XForward    Attributes // the same of XFORWARD
}

// Command is one command line as a value. It refers to the line that it was
// parsed from. Parse reuses it from command to command.
type Command struct {
	Verb   Verb
	Arg    []byte // HELO, EHLO: the name; AUTH: the mechanism; VRFY, EXPN, HELP, NOOP, ETRN: the argument
	Secret []byte // AUTH: the initial response; never to be logged
	Path   Path   // MAIL, RCPT
	Params Params // MAIL, RCPT
	Chunk  Chunk  // BDAT
	Claim  Claim  // XCLIENT, XFORWARD

	words []byte // memory of Arg where that is not in the line
}

// Chunk is the argument of BDAT, RFC 3030 section 2.
type Chunk struct {
	Size int64 // octets that follow the command line, at most 10 digits
	Last bool
}

// Replies to lines that are not commands we carry.
var (
	badLine      = refusal(500, 5, 2, "Syntax error: a command is printable ASCII ended by CRLF")
	badVerb      = refusal(500, 5, 1, "Command not recognized")
	needName     = refusal(501, 5, 4, "Syntax: a host name or address literal is needed")
	noArgument   = refusal(501, 5, 4, "Syntax: the command takes no argument")
	mailSyntax   = refusal(501, 5, 4, "Syntax: MAIL FROM:<address>")
	rcptSyntax   = refusal(501, 5, 4, "Syntax: RCPT TO:<address>")
	badSender    = refusal(501, 1, 7, "Syntax error in the sender's address")
	badRecipient = refusal(501, 1, 3, "Syntax error in the recipient's address")
	needUTF8     = refusal(553, 6, 7, "An address outside ASCII needs SMTPUTF8")
	badNode      = refusal(501, 5, 4, "Syntax: ETRN name")
	badAuth      = refusal(501, 5, 4, "Syntax: AUTH mechanism [response]")
	badChunk     = refusal(501, 5, 4, "Syntax: BDAT size [LAST]")
)

// Parse reads a command line without its CRLF. It returns nil, or the reply
// that refuses it; Verb is set in either case.
func (c *Command) Parse(line []byte, g Grammar) *Reply {
	c.Verb, c.Arg, c.Secret = Unknown, nil, nil
	line = bytes.TrimRight(line, " ") // RFC 5321 section 4.1.1: tolerate trailing spaces
	word, rest := line, []byte(nil)
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		word, rest = line[:i], line[i+1:]
	}
	c.Verb = lookupVerb(word)
	if looksLikeChunk(word) {
		c.Verb = BDAT
		return badChunk
	}
	for _, b := range line {
		if b < ' ' || b == 0x7F {
			return badLine
		}
	}
	return c.parseArgument(bytes.TrimLeft(rest, " "), g)
}

// looksLikeChunk: BDAT followed by anything but a space is no BDAT, but content
// may follow the line all the same, so the caller must know.
func looksLikeChunk(word []byte) bool {
	return len(word) > 4 && EqualFold(word[:4], "BDAT") && !isAlpha(word[4])
}

func (c *Command) parseArgument(arg []byte, g Grammar) *Reply {
	switch c.Verb {
	case MAIL:
		return c.parseMail(arg, g)
	case RCPT:
		return c.parseRcpt(arg, g)
	}
	if c.Verb == HELO || c.Verb == EHLO {
		return c.parseHello(arg)
	}
	if !isPrintable(arg) {
		return badLine
	}
	c.Arg = arg
	switch c.Verb {
	case DATA, RSET, QUIT, STARTTLS:
		if len(arg) > 0 {
			return noArgument
		}
	case BDAT:
		return c.parseChunk(arg)
	case AUTH:
		return c.parseAuth(arg)
	case XCLIENT:
		return c.parseClaim(arg, g.XClient)
	case XFORWARD:
		return c.parseClaim(arg, g.XForward)
	case ETRN:
		if !isNode(arg) {
			return badNode
		}
	case Unknown:
		return badVerb
	}
	return nil
}

// parseHello reads the argument of HELO and EHLO. RFC 5321 wants a domain or an
// address literal, RFC 2821 let a remark follow it; what clients send is the name of
// a host as its owner wrote it. Words of printable text are passed on for the origin
// to judge.
func (c *Command) parseHello(arg []byte) *Reply {
	if bytes.Contains(arg, twoSpaces) {
		c.words = squeeze(c.words[:0], arg)
		arg = c.words
	}
	c.Arg = arg
	switch {
	case !isPlainUTF8(arg):
		return badLine
	case len(arg) == 0 || len(arg) > maxDomain:
		return needName
	}
	return nil
}

var twoSpaces = []byte("  ")

// squeeze appends s to b with one space in place of several.
func squeeze(b, s []byte) []byte {
	for i, c := range s {
		if c != ' ' || i == 0 || s[i-1] != ' ' {
			b = append(b, c)
		}
	}
	return b
}

func (c *Command) parseMail(arg []byte, g Grammar) *Reply {
	arg, ok := cutLabel(arg, "FROM:")
	if !ok {
		return mailSyntax
	}
	utf8 := g.Offered.Has(ExtSMTPUTF8)
	rest, ok := c.Path.parse(arg, utf8, g.BareAddress)
	if !ok && !utf8 && !isPrintable(arg) {
		return needUTF8
	}
	if !ok {
		return badSender
	}
	if r := c.Params.parse(rest, MAIL, g, utf8); r != nil {
		return r
	}
	if c.Path.UTF8 && !c.Params.Has(ParamSMTPUTF8) {
		return needUTF8
	}
	return nil
}

func (c *Command) parseRcpt(arg []byte, g Grammar) *Reply {
	arg, ok := cutLabel(arg, "TO:")
	if !ok {
		return rcptSyntax
	}
	rest, ok := c.Path.parse(arg, g.UTF8, g.BareAddress)
	if !ok && !g.UTF8 && !isPrintable(arg) {
		return needUTF8
	}
	if !ok || c.Path.Null() {
		return badRecipient
	}
	return c.Params.parse(rest, RCPT, g, g.UTF8)
}

// cutLabel removes "FROM:" or "TO:" and the spaces that careless clients put
// after it.
func cutLabel(s []byte, label string) ([]byte, bool) {
	if len(s) < len(label) || !EqualFold(s[:len(label)], label) {
		return nil, false
	}
	return bytes.TrimLeft(s[len(label):], " "), true
}

// parseChunk reads the argument of BDAT by the narrowest grammar there is:
// servers read "+5", "0x5", "5LAST" and numbers beyond 32 bits in their own
// ways, and where two readings differ content becomes commands.
func (c *Command) parseChunk(arg []byte) *Reply {
	c.Chunk = Chunk{}
	digits := arg
	if i := bytes.IndexByte(arg, ' '); i >= 0 {
		digits = arg[:i]
		if !EqualFold(arg[i+1:], "LAST") {
			return badChunk
		}
		c.Chunk.Last = true
	}
	n, ok := parseNumber(digits, 10)
	if !ok || (len(digits) > 1 && digits[0] == '0') {
		return badChunk
	}
	c.Chunk.Size = int64(n)
	return nil
}

// parseClaim reads the argument of a command that was offered. What was not is
// nobody's business, and refused whatever it says.
func (c *Command) parseClaim(arg []byte, offered Attributes) *Reply {
	c.Claim.count, c.Claim.seen = 0, 0
	if offered == 0 {
		return nil
	}
	return c.Claim.parse(arg, offered)
}

// parseNumber reads 1 to max decimal digits.
func parseNumber(s []byte, max int) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > max {
		return 0, false
	}
	for _, c := range s {
		if !isDigit(c) {
			return 0, false
		}
		if n > (1<<64-10)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// AppendTo appends the command line, generated anew, with its CRLF.
func (c *Command) AppendTo(b []byte) []byte {
	b = append(b, c.Verb.String()...)
	switch c.Verb {
	case MAIL:
		b = append(b, " FROM:"...)
		b = c.Params.appendTo(c.Path.AppendTo(b))
	case RCPT:
		b = append(b, " TO:"...)
		b = c.Params.appendTo(c.Path.AppendTo(b))
	case BDAT:
		b = c.Chunk.appendArgument(append(b, ' '))
	case AUTH:
		b = c.appendAuth(append(b, ' '))
	case XCLIENT, XFORWARD:
		b = c.Claim.AppendTo(b)
	default:
		if len(c.Arg) > 0 {
			b = append(b, ' ')
			b = append(b, c.Arg...)
		}
	}
	return append(b, '\r', '\n')
}

// AppendTo appends the command without its CRLF.
func (k Chunk) AppendTo(b []byte) []byte { return k.appendArgument(append(b, "BDAT "...)) }

func (k Chunk) appendArgument(b []byte) []byte {
	b = strconv.AppendInt(b, k.Size, 10)
	if k.Last {
		b = append(b, " LAST"...)
	}
	return b
}
