package config

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// carried are the extensions that a session can speak; all others are left out
// of the reply to EHLO whatever a file says.
var carried = []smtp.Extension{
	smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtEnhancedCodes, smtp.ExtDSN, smtp.ExtSMTPUTF8,
	smtp.ExtChunking, smtp.ExtBinaryMIME, smtp.ExtDeliverBy, smtp.ExtMTPriority, smtp.ExtFutureRelease,
	smtp.ExtRequireTLS, smtp.ExtLimits, smtp.ExtAuth, smtp.ExtETRN,
}

// forwardable are the verbs that can be left to the origin or not.
var forwardable = []smtp.Verb{smtp.VRFY, smtp.EXPN, smtp.HELP}

// refusable are the verbs that a service can do without: the others end a
// session in order, or are refused anyway.
var refusable = []smtp.Verb{
	smtp.HELO, smtp.EHLO, smtp.MAIL, smtp.RCPT, smtp.DATA, smtp.BDAT, smtp.NOOP,
	smtp.VRFY, smtp.EXPN, smtp.HELP, smtp.ETRN, smtp.AUTH,
}

// rules puts what a section smtp says over what is in s.
func rules(r *report, at path, raw rawSMTP, s *SMTP) {
	extensions(r, at.key("extensions"), raw.Extensions, &s.Extensions)
	truth(r, at.key("auth_in_clear"), raw.AuthInClear, &s.AuthInClear)
	mechanisms(r, at.key("mechanisms"), raw.Mechanisms, &s.Mechanisms)
	forward(r, at.key("forward"), raw.Forward, &s.Forward)
	commands(r, at.key("commands"), raw.Commands, &s.Commands)
	truth(r, at.key("bare_address"), raw.BareAddress, &s.BareAddress)
	host(r, at.key("append_domain"), raw.AppendDomain, isDomain, "a domain", &s.AppendDomain)
	truth(r, at.key("refuse_routes"), raw.RefuseRoutes, &s.RefuseRoutes)
	truth(r, at.key("refuse_percent"), raw.RefusePercent, &s.RefusePercent)
	truth(r, at.key("refuse_bang"), raw.RefuseBang, &s.RefuseBang)
	truth(r, at.key("strict_helo"), raw.StrictHELO, &s.StrictHELO)
	truth(r, at.key("strict_pipelining"), raw.StrictPipelining, &s.StrictPipelining)
	word(r, at.key("unoffered_parameters"), raw.Unoffered, unofferedWords, &s.Unoffered)
	word(r, at.key("early_talkers"), raw.EarlyTalkers, earlyTalkersWords, &s.EarlyTalkers)
	word(r, at.key("bare_newlines"), raw.BareNewlines, bareNewlinesWords, &s.BareNewlines)
	word(r, at.key("nul"), raw.NUL, nulWords, &s.NUL)
	word(r, at.key("eight_bit"), raw.EightBit, eightBitWords, &s.EightBit)
	host(r, at.key("received"), raw.Received, isHost, "a domain or an address literal", &s.Received)
	word(r, at.key("malformed_replies"), raw.MalformedReplies, malformedWords, &s.MalformedReplies)
	truth(r, at.key("reply_id"), raw.ReplyID, &s.ReplyID)
	limits(r, at.key("limits"), raw.Limits, &s.Limits)
	judgeAuth(r, at, raw, s)
}

// extensions adds to the set and takes from it.
func extensions(r *report, at path, raw rawExtensions, set *smtp.Extensions) {
	allowed := unique(r, at.key("allow"), raw.Allow, parseExtension)
	removed := unique(r, at.key("remove"), raw.Remove, parseExtension)
	first := map[smtp.Extension]path{}
	for _, a := range allowed {
		*set = set.With(a.value)
		first[a.value] = a.at
	}
	for _, d := range removed {
		if a, both := first[d.value]; both {
			r.refuse(d.at, "remove one of them", "%s is allowed at %s", d.value, a)
		}
		*set = set.Without(d.value)
	}
}

func parseExtension(s string) (smtp.Extension, *fault) {
	return member(s, carried, "an extension that can be carried")
}

// member finds the value with a name, in any letter case as in the protocol.
func member[T fmt.Stringer](s string, all []T, what string) (none T, wrong *fault) {
	var names []string
	for _, v := range all {
		if v.String() == strings.ToUpper(s) {
			return v, nil
		}
		names = append(names, v.String())
	}
	remedy := "write one of " + strings.Join(names, ", ")
	if near := nearest(strings.ToUpper(s), names); near != "" {
		remedy = fmt.Sprintf("did you mean %q?", near)
	}
	return none, faultf(remedy, "%s is not %s", quote(s), what)
}

// mechanisms reads names of SASL mechanisms. An absent list changes nothing, an
// empty one is one without members; so it is with all lists here.
func mechanisms(r *report, at path, raw []scalar, dst *[]string) {
	if raw != nil {
		*dst = values(unique(r, at, raw, parseMechanism))
	}
}

func parseMechanism(s string) (string, *fault) {
	if !smtp.IsMechanism([]byte(s)) {
		return "", faultf(`write it as "PLAIN" or "SCRAM-SHA-256"`, "%s cannot be the name of a SASL mechanism", quote(s))
	}
	return strings.ToUpper(s), nil
}

func forward(r *report, at path, raw []scalar, dst *smtp.Verbs) {
	if raw != nil {
		*dst = smtp.VerbsOf(values(unique(r, at, raw, parseForward))...)
	}
}

func parseForward(s string) (smtp.Verb, *fault) {
	return member(s, forwardable, "a command that can be left to the origin")
}

// commands reads the list of verdicts on commands.
func commands(r *report, at path, raw []rawCommand, dst *[]Command) {
	if raw == nil || r.reported[at] {
		return
	}
	var all []Command
	seen := map[smtp.Verb]path{}
	for i, c := range raw {
		here := at.item(i)
		if r.reported[here] {
			continue
		}
		v, ok := verb(r, here, c.Name)
		if first, again := seen[v]; ok && again {
			r.refuse(here.key("name"), "keep one of them", "%s is listed before, at %s", v, first)
		}
		seen[v] = here
		all = append(all, command(r, here, v, c))
	}
	*dst = all
}

// verb reads which command an entry is about.
func verb(r *report, at path, name scalar) (smtp.Verb, bool) {
	s, ok := r.text(at.key("name"), name)
	if !ok {
		if r.clean(at.key("name")) {
			r.refuse(at, `name it: "name: ETRN"`, "the entry names no command")
		}
		return smtp.Unknown, false
	}
	v, wrong := member(s, refusable, "a command that can be refused")
	if wrong != nil {
		r.refuse(at.key("name"), wrong.remedy, "%s", wrong.text)
		return smtp.Unknown, false
	}
	return v, true
}

// command reads what an entry says about its command.
func command(r *report, at path, v smtp.Verb, raw rawCommand) Command {
	c := Command{Verb: v, Code: 502, Text: "Command not available here"}
	word(r, at.key("verdict"), raw.Verdict, verdictWords, &c.Verdict)
	if c.Verdict == Accept {
		return accepted(r, at, v, raw)
	}
	if c.Verdict == Disconnect {
		c.Code, c.Text = closing, "Closing connection, command not available here"
	}
	if r.clean(at.key("verdict")) {
		replyCode(r, at.key("code"), raw.Code, &c)
	}
	replyText(r, at.key("text"), raw.Text, &c.Text)
	return c
}

// accepted reads the rest of an entry about a command that is let through: there
// is none.
func accepted(r *report, at path, v smtp.Verb, raw rawCommand) Command {
	for _, k := range []struct {
		key   string
		value scalar
	}{{"code", raw.Code}, {"text", raw.Text}} {
		if k.value != nil {
			r.refuse(at.key(k.key), "remove it", "has no effect, since the command is accepted")
		}
	}
	return Command{Verb: v, Verdict: Accept}
}

// closing is the code that says that the connection ends, and no other does,
// RFC 5321 section 3.8.
const closing = 421

// replyCode reads the code of a refusal, RFC 5321 section 4.2.
func replyCode(r *report, at path, v scalar, c *Command) {
	if r.absent(at, v) {
		return
	}
	code := uint16(c.Code)
	number(r, at, v, 400, 559, &code)
	switch {
	case !r.clean(at):
	case code > 459 && code < 500:
		r.refuse(at, "write one from 400 to 459 or from 500 to 559", "%d is not a code of SMTP", code)
	case c.Verdict == Disconnect && code != closing:
		r.refuse(at, "leave it out", "%d does not tell the client that the connection ends, as 421 does", code)
	case c.Verdict == Reject && code == closing:
		r.refuse(at, `write "verdict: disconnect", or another code`, "421 tells the client that the connection ends, which it does not by reject")
	default:
		c.Code = smtp.Code(code)
	}
}

// maxReplyText leaves room for code, enhanced code and CRLF in the 512 octets
// of RFC 5321 section 4.5.3.1.5.
const maxReplyText = 500

// enhanced matches a text with a status code of RFC 3463 in front.
var enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}( |$)`)

func replyText(r *report, at path, v scalar, dst *string) {
	s, ok := r.text(at, v)
	switch {
	case !ok:
	case s == "":
		r.refuse(at, defaultRemedy(quote(*dst)), "is empty")
	case len(s) > maxReplyText:
		r.refuse(at, "shorten it", "is %d octets long, more than %d", len(s), maxReplyText)
	case strings.ContainsFunc(s, notASCII):
		r.refuse(at, "write it in English", "%s has characters that a reply must not have", quote(s))
	case enhanced.MatchString(s):
		r.refuse(at, "leave it out", "%s begins with an enhanced code, which is added to it anyway", quote(s))
	default:
		*dst = s
	}
}

func notASCII(c rune) bool { return c > '~' }

// host reads a name, or nothing.
func host(r *report, at path, v scalar, is func(string) bool, what string, dst *string) {
	s, ok := r.text(at, v)
	switch {
	case !ok:
	case s != "" && !is(s):
		r.refuse(at, `write it as "mx.example.org", or "" for none`, "%s is not %s", quote(s), what)
	default:
		*dst = s
	}
}

func isHost(s string) bool { return smtp.IsHost([]byte(s)) }

// isDomain: a domain that is no address literal.
func isDomain(s string) bool { return isHost(s) && s[0] != '[' }

// maxAmount bounds counts; RFC 9422 section 4 has six digits for them.
const maxAmount = 999_999

// maxSession is the longest limit for a session.
const maxSession = 30 * 24 * time.Hour

func limits(r *report, at path, raw rawSMTPLimits, l *SMTPLimits) {
	lines(r, at, raw, l)
	octets(r, at.key("line"), raw.Line, 998, gib, &l.Line) // RFC 5321 section 4.5.3.1.6
	octets(r, at.key("size"), raw.Size, 0, 1024*gib, &l.Size)
	octets(r, at.key("drain"), raw.Drain, 0, 1024*gib, &l.Drain)
	number(r, at.key("recipients"), raw.Recipients, 100, maxAmount, &l.Recipients) // RFC 5321 section 4.5.3.1.8
	number(r, at.key("messages"), raw.Messages, 0, maxAmount, &l.Messages)
	number(r, at.key("idle"), raw.Idle, 0, maxAmount, &l.Idle)
	number(r, at.key("tiny_chunks"), raw.TinyChunks, 0, maxAmount, &l.TinyChunks)
	number(r, at.key("errors"), raw.Errors, 1, maxAmount, &l.Errors)
	number(r, at.key("rate"), raw.Rate, 0, math.MaxInt32, &l.Rate)
	r.duration(at.key("session"), raw.Session, 0, maxSession, &l.Session)
}

// The most that a session has room for, in octets.
const (
	maxCommand   = 3000 // of a command line, and of a line of a reply
	maxParameter = maxCommand
	maxAuthLine  = 32 << 10
	maxReply     = 60 << 10
)

// lines reads the limits of commands and replies.
func lines(r *report, at path, raw rawSMTPLimits, l *SMTPLimits) {
	number(r, at.key("command"), raw.Command, 512, maxCommand, &l.Command) // RFC 5321 section 4.5.3.1.4
	number(r, at.key("parameter"), raw.Parameter, 0, maxParameter, &l.Parameter)
	number(r, at.key("auth_line"), raw.AuthLine, 512, maxAuthLine, &l.AuthLine)
	number(r, at.key("reply_line"), raw.ReplyLine, 512, maxCommand, &l.ReplyLine) // RFC 5321 section 4.5.3.1.5
	number(r, at.key("reply_lines"), raw.ReplyLines, 20, maxAmount, &l.ReplyLines)
	number(r, at.key("reply_size"), raw.Reply, maxCommand, maxReply, &l.Reply)
}

// judgeAuth refuses a section that asks for AUTH by half: it would have no
// effect.
func judgeAuth(r *report, at path, raw rawSMTP, s *SMTP) {
	clear := at.key("auth_in_clear")
	if !r.clean(clear, at.key("extensions")) {
		return
	}
	if raw.AuthInClear != nil && s.AuthInClear && !s.Extensions.Has(smtp.ExtAuth) {
		r.refuse(clear, `add "extensions: {allow: [AUTH]}", or remove it`, "has no effect, since AUTH is not among the extensions")
	}
}

func isAuth(v scalar) bool {
	s, _ := v.(string)
	return strings.EqualFold(s, smtp.ExtAuth.String())
}
