package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// rules puts what a section smtp says over what is in s.
func rules(r *report, at path, raw rawSMTP, s *protocol.Rules) {
	own := false // s.Given is
	for _, setting := range protocol.Settings {
		here, given := at, reflect.ValueOf(raw)
		for key := range strings.SplitSeq(setting.Key, ".") {
			here, given = here.key(key), given.FieldByIndex(rawFields(given.Type())[key].Index)
		}
		setting.Visit(s, reader{r, here, given.Interface()})
		if place := r.place(here); place != "" {
			if !own { // that of all services stays as it is
				s.Given, own = maps.Clone(s.Given), true
			}
			if s.Given == nil {
				s.Given = map[string]*protocol.Rule{}
			}
			rule := protocol.Rule{Key: "smtp." + setting.Key, Place: place}
			s.Given[rule.Key] = &rule
		}
	}
	judgeAuth(r, at, raw, s)
}

// reader reads one key of a section smtp; what is given for it is nil where it is
// absent.
type reader struct {
	r     *report
	at    path
	given any
}

func (d reader) Truth(dst *bool) { truth(d.r, d.at, d.given, dst) }

func (d reader) Word(dst *uint8, words []string) { word(d.r, d.at, d.given, words, dst) }

func (d reader) Number(dst *int, least, most uint64) { number(d.r, d.at, d.given, least, most, dst) }

func (d reader) Octets(dst *int64, least, most uint64) { octets(d.r, d.at, d.given, least, most, dst) }

func (d reader) Time(dst *time.Duration, most time.Duration) {
	d.r.duration(d.at, d.given, 0, most, dst)
}

func (d reader) Host(dst *string, literal bool) {
	if literal {
		host(d.r, d.at, d.given, isHost, "a domain or an address literal", dst)
	} else {
		host(d.r, d.at, d.given, isDomain, "a domain", dst)
	}
}

func (d reader) Extensions(dst *smtp.Extensions) { extensions(d.r, d.at, d.given.(rawExtensions), dst) }

func (d reader) Mechanisms(dst *[]string) { mechanisms(d.r, d.at, d.given.([]scalar), dst) }

func (d reader) Forward(dst *smtp.Verbs) { forward(d.r, d.at, d.given.([]scalar), dst) }

func (d reader) Commands(dst *[]protocol.Command) {
	commands(d.r, d.at, d.given.([]rawCommand), dst)
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
	return member(s, protocol.Carried, "an extension that can be carried")
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
	return member(s, protocol.Forwardable, "a command that can be left to the origin")
}

// commands reads the list of verdicts on commands.
func commands(r *report, at path, raw []rawCommand, dst *[]protocol.Command) {
	if raw == nil || r.reported[at] {
		return
	}
	var all []protocol.Command
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
	v, wrong := member(s, protocol.Refusable, "a command that can be refused")
	if wrong != nil {
		r.refuse(at.key("name"), wrong.remedy, "%s", wrong.text)
		return smtp.Unknown, false
	}
	return v, true
}

// verdicts are what verdictWords stand for.
var verdicts = []protocol.Action{protocol.Reject, protocol.Disconnect, protocol.Accept}

// command reads what an entry says about its command. The enhanced code of the reply is
// X.7.0, "other or undefined security status" (RFC 3463 section 3.8).
func command(r *report, at path, v smtp.Verb, raw rawCommand) protocol.Command {
	var verdict uint8
	word(r, at.key("verdict"), raw.Verdict, verdictWords, &verdict)
	c := protocol.Command{Verb: v, Place: r.place(at), Action: verdicts[verdict]}
	reply := smtp.Reply{Code: 502, Text: "Command not available here"}
	switch c.Action {
	case protocol.Accept:
		accepted(r, at, raw)
		return c
	case protocol.Disconnect:
		reply.Code, reply.Text = closing, "Closing connection, command not available here"
	}
	if r.clean(at.key("verdict")) {
		replyCode(r, at.key("code"), raw.Code, c.Action, &reply.Code)
	}
	replyText(r, at.key("text"), raw.Text, &reply.Text)
	reply.Enhanced = smtp.Enhanced{Class: uint8(reply.Code.Class()), Subject: 7}
	c.Reply = reply
	return c
}

// accepted judges the rest of an entry about a command that is let through: there is
// none.
func accepted(r *report, at path, raw rawCommand) {
	for _, k := range []struct {
		key   string
		value scalar
	}{{"code", raw.Code}, {"text", raw.Text}} {
		if k.value != nil {
			r.refuse(at.key(k.key), "remove it", "has no effect, since the command is accepted")
		}
	}
}

// closing is the code that says that the connection ends, and no other does,
// RFC 5321 section 3.8.
const closing = 421

// replyCode reads the code of a refusal, RFC 5321 section 4.2.
func replyCode(r *report, at path, v scalar, action protocol.Action, dst *smtp.Code) {
	if r.absent(at, v) {
		return
	}
	code := uint16(*dst)
	number(r, at, v, 400, 559, &code)
	switch {
	case !r.clean(at):
	case code > 459 && code < 500:
		r.refuse(at, "write one from 400 to 459 or from 500 to 559", "%d is not a code of SMTP", code)
	case action == protocol.Disconnect && code != closing:
		r.refuse(at, "leave it out", "%d does not tell the client that the connection ends, as 421 does", code)
	case action == protocol.Reject && code == closing:
		r.refuse(at, `write "verdict: disconnect", or another code`, "421 tells the client that the connection ends, which it does not by reject")
	default:
		*dst = smtp.Code(code)
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

// judgeAuth refuses a section that asks for AUTH by half: it would have no
// effect.
func judgeAuth(r *report, at path, raw rawSMTP, s *protocol.Rules) {
	clear := at.key("auth_in_clear")
	if !r.clean(clear, at.key("extensions")) {
		return
	}
	if raw.AuthInClear != nil && s.AuthInClear && !s.Keywords.Has(smtp.ExtAuth) {
		r.refuse(clear, `add "extensions: {allow: [AUTH]}", or remove it`, "has no effect, since AUTH is not among the extensions")
	}
}

func isAuth(v scalar) bool {
	s, _ := v.(string)
	return strings.EqualFold(s, smtp.ExtAuth.String())
}
