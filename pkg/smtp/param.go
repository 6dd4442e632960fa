package smtp

import (
	"bytes"
	"strconv"
)

// Param is a parameter of MAIL or RCPT.
type Param uint8

const (
	ParamSize       Param = iota // RFC 1870
	ParamBody                    // RFC 6152, RFC 3030
	ParamSMTPUTF8                // RFC 6531
	ParamRet                     // RFC 3461
	ParamEnvID                   // RFC 3461
	ParamNotify                  // RFC 3461
	ParamORcpt                   // RFC 3461
	ParamAuth                    // RFC 4954
	ParamBy                      // RFC 2852
	ParamMTPriority              // RFC 6710
	ParamHoldFor                 // RFC 4865
	ParamHoldUntil               // RFC 4865
	ParamRequireTLS              // RFC 8689
	params                       // how many there are
)

// Values of ParamBody and ParamRet.
const (
	Body7Bit = iota
	Body8BitMIME
	BodyBinaryMIME
)

// Bits of the value of ParamNotify.
const (
	NotifyNever = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// value is a parameter's value: a number, a choice, a set of bits or a text.
type value struct {
	number int64
	text   []byte
}

// paramSpec is the grammar of one parameter. parse has nil for a parameter
// without a value.
type paramSpec struct {
	name   string
	ext    Extension
	verb   Verb
	parse  func(s []byte, utf8 bool) (value, bool)
	append func(b []byte, v value) []byte
}

var paramSpecs = [params]paramSpec{
	ParamSize:       {"SIZE", ExtSize, MAIL, parseSize, appendNumber},
	ParamBody:       {"BODY", Ext8BitMIME, MAIL, parseChoice(bodyWords), appendChoice(bodyWords)},
	ParamSMTPUTF8:   {"SMTPUTF8", ExtSMTPUTF8, MAIL, nil, nil},
	ParamRet:        {"RET", ExtDSN, MAIL, parseChoice(retWords), appendChoice(retWords)},
	ParamEnvID:      {"ENVID", ExtDSN, MAIL, parseXtext, appendXtext},
	ParamNotify:     {"NOTIFY", ExtDSN, RCPT, parseNotify, appendNotify},
	ParamORcpt:      {"ORCPT", ExtDSN, RCPT, parseORcpt, appendXtext},
	ParamAuth:       {"AUTH", ExtAuth, MAIL, parseAuth, appendXtext},
	ParamBy:         {"BY", ExtDeliverBy, MAIL, parseBy, appendText},
	ParamMTPriority: {"MT-PRIORITY", ExtMTPriority, MAIL, parsePriority, appendNumber},
	ParamHoldFor:    {"HOLDFOR", ExtFutureRelease, MAIL, parseHoldFor, appendNumber},
	ParamHoldUntil:  {"HOLDUNTIL", ExtFutureRelease, MAIL, parseHoldUntil, appendText},
	ParamRequireTLS: {"REQUIRETLS", ExtRequireTLS, MAIL, nil, nil},
}

var (
	bodyWords = []string{"7BIT", "8BITMIME", "BINARYMIME"}
	retWords  = []string{"FULL", "HDRS"}
)

var (
	unknownParam  = refusal(555, 5, 4, "Parameter not offered in this session")
	badParam      = refusal(501, 5, 4, "Syntax error in a parameter")
	longParam     = refusal(501, 5, 4, "Parameter too long")
	repeatedParam = refusal(501, 5, 4, "Parameter given twice")
	clashingParam = refusal(501, 5, 4, "Parameters exclude each other")
)

// Params holds the parameters of one command.
type Params struct {
	seen    uint32
	dropped uint32
	growth  int // octets by which the line is longer when it is sent on
	order   [params]Param
	count   int
	values  [params]value
	words   [params][]byte // as they were given, of those that are dropped
}

// Has reports whether the parameter was given.
func (p *Params) Has(k Param) bool { return p.seen&(1<<k) != 0 }

// Number returns the value of a parameter that is a number, a choice or a set
// of bits; 0 when it was not given.
func (p *Params) Number(k Param) int64 {
	if !p.Has(k) {
		return 0
	}
	return p.values[k].number
}

// Text returns the value of a parameter that is a text; nil when it was not
// given.
func (p *Params) Text(k Param) []byte {
	if !p.Has(k) {
		return nil
	}
	return p.values[k].text
}

// Dropped reports whether the parameter was given and is not sent on. It has no
// value then but SIZE and BODY, which are for us to know.
func (p *Params) Dropped(k Param) bool { return p.dropped&(1<<k) != 0 }

// AppendDropped appends the parameters that are not sent on as they were given,
// with spaces between them.
func (p *Params) AppendDropped(b []byte) []byte {
	start := len(b)
	for _, k := range p.order[:p.count] {
		if !p.Dropped(k) {
			continue
		}
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, p.words[k]...)
	}
	return b
}

// Extensions returns the extensions that the parameters make use of.
func (p *Params) Extensions() (s Extensions) {
	for _, k := range p.order[:p.count] {
		if !p.Dropped(k) {
			s = s.With(paramSpecs[k].ext)
		}
	}
	return s
}

// parse reads *(SP esmtp-param). Each parameter may be given once, because
// servers differ on whether the first or the last of two counts.
func (p *Params) parse(s []byte, verb Verb, g Grammar, utf8 bool) *Reply {
	p.seen, p.dropped, p.growth, p.count = 0, 0, 0, 0
	for s = bytes.TrimLeft(s, " "); len(s) > 0; s = bytes.TrimLeft(s, " ") {
		word := s
		if i := bytes.IndexByte(s, ' '); i >= 0 {
			word = s[:i]
		}
		s = s[len(word):]
		if g.Parameter > 0 && len(word) > g.Parameter {
			return longParam
		}
		if r := p.add(word, verb, g, utf8); r != nil {
			return r
		}
	}
	if p.Has(ParamHoldFor) && p.Has(ParamHoldUntil) {
		return clashingParam
	}
	return nil
}

func (p *Params) add(word []byte, verb Verb, g Grammar, utf8 bool) *Reply {
	name, val, hasValue := bytes.Cut(word, []byte{'='})
	if !isKeyword(name) {
		return badParam
	}
	k, ok := lookupParam(name, verb)
	if !ok {
		return unknownParam
	}
	spec := &paramSpecs[k]
	offered := g.Offered.Has(spec.ext)
	if !offered && !(g.Drop && sparable(k, val)) {
		return unknownParam
	}
	if p.Has(k) {
		return repeatedParam
	}
	p.values[k] = value{}
	switch {
	case !offered:
		p.drop(k, word, val)
	case hasValue != (spec.parse != nil):
		return badParam
	case spec.parse != nil:
		if p.values[k], ok = spec.parse(val, utf8); !ok {
			return badParam
		}
	}
	if k == ParamBody && p.values[k].number == BodyBinaryMIME && !g.Offered.Has(ExtBinaryMIME) {
		return unknownParam
	}
	if more := p.growth + growth(k, p.values[k]); more <= MaxGrowth {
		p.growth = more
	} else if g.Drop {
		p.drop(k, word, val)
	} else {
		return longParam
	}
	p.seen |= 1 << k
	p.order[p.count] = k
	p.count++
	return nil
}

// drop leaves a parameter out of what is sent on. What it says of the content is for us
// to know all the same.
func (p *Params) drop(k Param, word, val []byte) {
	p.dropped |= 1 << k
	p.words[k] = word
	p.values[k] = value{}
	if k == ParamSize || k == ParamBody {
		p.values[k], _ = paramSpecs[k].parse(val, false)
	}
}

// sparables are the parameters without which a message is delivered all the same,
// to nobody else and not less protected. Some of them ask for nothing, and clients
// write them without having been asked: AUTH=<>, SIZE, BODY=7BIT.
const sparables = 1<<ParamAuth | 1<<ParamSize | 1<<ParamBody | 1<<ParamRet | 1<<ParamEnvID | 1<<ParamNotify | 1<<ParamORcpt

func sparable(k Param, val []byte) bool {
	if k == ParamBody && !EqualFold(val, bodyWords[Body7Bit]) && !EqualFold(val, bodyWords[Body8BitMIME]) {
		return false
	}
	return sparables&(1<<k) != 0
}

func lookupParam(name []byte, verb Verb) (Param, bool) {
	for k := range paramSpecs {
		if s := &paramSpecs[k]; s.verb == verb && EqualFold(name, s.name) {
			return Param(k), true
		}
	}
	return 0, false
}

// appendTo appends the parameters in the order in which they were given.
func (p *Params) appendTo(b []byte) []byte {
	for _, k := range p.order[:p.count] {
		if p.Dropped(k) {
			continue
		}
		spec := &paramSpecs[k]
		b = append(b, ' ')
		b = append(b, spec.name...)
		if spec.append != nil {
			b = spec.append(append(b, '='), p.values[k])
		}
	}
	return b
}

// parseSize: 1*20DIGIT. What does not fit 63 bits is as good as infinite, and
// refused.
func parseSize(s []byte, _ bool) (value, bool) {
	n, ok := parseNumber(s, 20)
	return value{number: int64(n)}, ok && n < 1<<63
}

// parseHoldFor: 1*9DIGIT seconds.
func parseHoldFor(s []byte, _ bool) (value, bool) {
	n, ok := parseNumber(s, 9)
	return value{number: int64(n)}, ok
}

// parsePriority: -9 to 9.
func parsePriority(s []byte, _ bool) (value, bool) {
	sign := int64(1)
	if len(s) > 0 && s[0] == '-' {
		sign, s = -1, s[1:]
	}
	n, ok := parseNumber(s, 1)
	return value{number: sign * int64(n)}, ok
}

// parseHoldUntil: a date and time of RFC 3339 in UTC or with an offset.
func parseHoldUntil(s []byte, _ bool) (value, bool) {
	for _, c := range s {
		if !isDigit(c) && bytes.IndexByte([]byte("-:.+TZtz"), c) < 0 {
			return value{}, false
		}
	}
	return value{text: s}, len(s) >= 20 && len(s) <= 40
}

// parseBy: by-time ";" by-mode [by-trace], RFC 2852 section 4.
func parseBy(s []byte, _ bool) (value, bool) {
	when, mode, ok := bytes.Cut(s, []byte{';'})
	digits := when
	if len(when) > 0 && when[0] == '-' {
		digits = when[1:]
	}
	if _, number := parseNumber(digits, 9); !number {
		return value{}, false
	}
	if len(mode) == 2 && upper(mode[1]) == 'T' {
		mode = mode[:1]
	}
	ok = ok && len(mode) == 1 && (upper(mode[0]) == 'R' || upper(mode[0]) == 'N')
	return value{text: s}, ok
}

// parseAuth: xtext or "<>", RFC 4954 section 5. Nothing at all, which some clients
// write, says the same as "<>".
func parseAuth(s []byte, utf8 bool) (value, bool) {
	if len(s) == 0 || string(s) == "<>" {
		return value{text: nobody}, true
	}
	return parseXtext(s, utf8)
}

var nobody = []byte("<>")

// parseNotify: NEVER, or a list of SUCCESS, FAILURE and DELAY.
func parseNotify(s []byte, _ bool) (value, bool) {
	var bits int64
	for more := true; more; {
		var word []byte
		word, s, more = bytes.Cut(s, []byte{','})
		bit, ok := notifyBit(word)
		if !ok || bits&bit != 0 {
			return value{}, false
		}
		bits |= bit
	}
	return value{number: bits}, bits&NotifyNever == 0 || bits == NotifyNever
}

var notifyWords = [...]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}

func notifyBit(word []byte) (int64, bool) {
	for i, w := range notifyWords {
		if EqualFold(word, w) {
			return 1 << i, true
		}
	}
	return 0, false
}

func appendNotify(b []byte, v value) []byte {
	first := true
	for i, w := range notifyWords {
		if v.number&(1<<i) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		b, first = append(b, w...), false
	}
	return b
}

// parseORcpt: addr-type ";" xtext, RFC 3461 section 4.2; with SMTPUTF8 the
// address may be UTF-8, RFC 6533 section 3.
func parseORcpt(s []byte, utf8 bool) (value, bool) {
	kind, addr, ok := bytes.Cut(s, []byte{';'})
	if !ok || !isKeyword(kind) {
		return value{}, false
	}
	return value{text: s}, isLooseXtext(addr, utf8)
}

func parseChoice(words []string) func([]byte, bool) (value, bool) {
	return func(s []byte, _ bool) (value, bool) {
		for i, w := range words {
			if EqualFold(s, w) {
				return value{number: int64(i)}, true
			}
		}
		return value{}, false
	}
}

func appendChoice(words []string) func([]byte, value) []byte {
	return func(b []byte, v value) []byte { return append(b, words[v.number]...) }
}

func appendNumber(b []byte, v value) []byte { return strconv.AppendInt(b, v.number, 10) }
func appendText(b []byte, v value) []byte   { return append(b, v.text...) }
