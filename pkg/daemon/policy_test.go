package daemon

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/inspect"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// parse reads the smallest configuration with more behind it.
func parse(more string) (*config.Config, error) {
	return config.Parse("test.yaml", append(config.Minimal[:len(config.Minimal):len(config.Minimal)], more...), nil)
}

func mustParse(t *testing.T, more string) *config.Config {
	t.Helper()
	c, err := parse(more)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDefaultsAreTheInspectors: a file that says nothing about SMTP gets the
// rules that package inspect considers right.
func TestDefaultsAreTheInspectors(t *testing.T) {
	if diff := cmp.Diff(inspect.Default(), protocol(mustParse(t, "").Services[0].SMTP)); diff != "" {
		t.Error(diff)
	}
}

const everyRule = `
smtp:
  extensions: {allow: [AUTH], remove: [DSN]}
  auth_in_clear: true
  mechanisms: [plain]
  forward: [VRFY]
  commands:
    - {name: ETRN, code: 450, text: Not now}
    - {name: HELP, verdict: disconnect, text: Enough}
    - {name: NOOP, verdict: accept}
  bare_address: true
  append_domain: example.org
  refuse_routes: true
  refuse_percent: true
  refuse_bang: true
  strict_helo: true
  strict_pipelining: true
  bare_newlines: normalize
  eight_bit: reject
  received: mx.example.org
  unoffered_parameters: refuse
  reply_id: false
  early_talkers: pass
  nul: remove
  malformed_replies: close
  limits: {command: 512, parameter: 9, auth_line: 513, reply_line: 514, reply_lines: 20, reply_size: 3000, idle: 8, tiny_chunks: 6, line: 998, size: 50MiB, drain: 1GiB, recipients: 100, messages: 10, errors: 1, rate: 7, session: 1h}
`

// TestEveryRuleIsReachable: each rule of the inspector has a key, and what the
// file says is what the session asks for.
func TestEveryRuleIsReachable(t *testing.T) {
	want := inspect.Protocol{
		Keywords:   inspect.Default().Keywords.With(smtp.ExtAuth).Without(smtp.ExtDSN),
		Mechanisms: []string{"PLAIN"}, AuthInClear: true, Forward: smtp.VerbsOf(smtp.VRFY),
		Commands: map[smtp.Verb]inspect.Verdict{
			smtp.ETRN: {Action: inspect.Refuse, Reason: event.ReasonCommandPolicy,
				Reply: &smtp.Reply{Code: 450, Enhanced: smtp.Enhanced{Class: 4, Subject: 7}, Text: "Not now"}},
			smtp.HELP: {Action: inspect.Disconnect, Reason: event.ReasonCommandPolicy,
				Reply: &smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: 7}, Text: "Enough"}},
		},
		BareAddress: true, AppendDomain: "example.org", RefuseRoutes: true, RefusePercent: true, RefuseBang: true,
		StrictHello: true, StrictPipelining: true, Newlines: inspect.NormalizeNewlines, EightBit: inspect.RejectEightBit,
		Unoffered: inspect.RefuseUnoffered, EarlyTalkers: inspect.PassEarly, NUL: inspect.RemoveNUL, Malformed: inspect.CloseReplies,
		CommandLine: 512, Parameter: 9, AuthLine: 513, Replies: smtp.ReplyLimits{Line: 514, Lines: 20, Octets: 3000}, Idle: 8, TinyChunks: 6,
		Received: "mx.example.org", TextLine: 998, Size: 50 << 20, Drain: 1 << 30,
		Recipients: 100, Messages: 10, Errors: 1, Rate: 7, Session: time.Hour,
	}
	if diff := cmp.Diff(want, protocol(mustParse(t, everyRule).Services[0].SMTP)); diff != "" {
		t.Error(diff)
	}
	usual := reflect.ValueOf(inspect.Default())
	for i, f := range reflect.VisibleFields(usual.Type()) {
		if reflect.DeepEqual(usual.Field(i).Interface(), reflect.ValueOf(want).Field(i).Interface()) {
			t.Errorf("nothing here shows that %s can be set", f.Name)
		}
	}
}

// TestServicesHaveTheirOwnRules: what a service says is its own.
func TestServicesHaveTheirOwnRules(t *testing.T) {
	c := mustParse(t, `  - name: out
    listen: ["172.16.40.2:25"]
    origins: ["172.16.20.254:25"]
    smtp: {extensions: {remove: [CHUNKING]}, limits: {size: 1MiB}}
smtp: {limits: {size: 2MiB, errors: 5}}
`)
	i := &inspector{Options: Options{Config: c}}
	services, err := i.serve(nil)
	if err != nil {
		t.Fatal(err)
	}
	mx, out := services["mx"].Inspector.Protocol(), services["out"].Inspector.Protocol()
	if mx.Size != 2<<20 || mx.Errors != 5 || !mx.Keywords.Has(smtp.ExtChunking) {
		t.Errorf("mx has %+v", mx)
	}
	if out.Size != 1<<20 || out.Errors != 5 || out.Keywords.Has(smtp.ExtChunking) {
		t.Errorf("out has %+v", out)
	}
}

// TestCommandsAreThoseOfTheInspector: the file can name a command exactly when
// the inspector takes a verdict on it.
func TestCommandsAreThoseOfTheInspector(t *testing.T) {
	for v := smtp.HELO; v <= smtp.STARTTLS; v++ {
		for word, action := range map[string]inspect.Action{"reject": inspect.Refuse, "disconnect": inspect.Disconnect} {
			c, err := parse(fmt.Sprintf("smtp: {commands: [{name: %s, verdict: %s}]}\n", v, word))
			rules := inspect.Default()
			rules.Commands = map[smtp.Verb]inspect.Verdict{v: {Action: action, Reply: &smtp.Reply{Code: 421 + 81*smtp.Code(2-action)}}}
			if want := rules.Check(); (err == nil) != (want == nil) {
				t.Errorf("%s %s: config says %v, inspect %v", word, v, err, want)
			}
			if err != nil {
				continue
			}
			rules = protocol(c.SMTP)
			if err := rules.Check(); err != nil {
				t.Errorf("%s %s: %v", word, v, err)
			}
		}
	}
}

// TestForwardIsThatOfTheInspector: so with commands that the origin may answer.
func TestForwardIsThatOfTheInspector(t *testing.T) {
	for v := smtp.HELO; v <= smtp.STARTTLS; v++ {
		_, err := parse(fmt.Sprintf("smtp: {forward: [%s]}\n", v))
		rules := inspect.Default()
		rules.Forward = smtp.VerbsOf(v)
		if want := rules.Check(); (err == nil) != (want == nil) {
			t.Errorf("%s: config says %v, inspect %v", v, err, want)
		}
	}
}

// TestExtensionsAreThoseCarried: a file cannot allow what no session offers.
func TestExtensionsAreThoseCarried(t *testing.T) {
	for e := smtp.ExtPipelining; e <= smtp.ExtETRN; e++ {
		more := fmt.Sprintf("smtp: {extensions: {allow: [%s]}}\n", e)
		if e == smtp.ExtAuth {
			more = "smtp: {auth_in_clear: true, extensions: {allow: [AUTH]}}\n"
		}
		if _, err := parse(more); (err == nil) != session.Carried().Has(e) {
			t.Errorf("%s: %v", e, err)
		}
	}
}

// TestLimitsHoldForTheInspector: the least and the most that a file can say
// passes the inspector's own check.
func TestLimitsHoldForTheInspector(t *testing.T) {
	for _, limits := range []string{
		"command: 512, parameter: 0, auth_line: 512, reply_line: 512, reply_lines: 20, reply_size: 3000, idle: 0",
		"command: 3000, parameter: 3000, auth_line: 32768, reply_line: 3000, reply_lines: 999999, reply_size: 61440, idle: 999999",
		"line: 0, size: 0, drain: 0, recipients: 100, messages: 0, errors: 1, rate: 0, session: 0s",
		"line: 998, size: 1, drain: 1, recipients: 100, messages: 1, errors: 1, rate: 1, session: 1ns",
		"line: 1GiB, size: 1024GiB, drain: 1024GiB, recipients: 999999, messages: 999999, errors: 999999, rate: 2147483647, session: 720h",
	} {
		rules := protocol(mustParse(t, "smtp: {limits: {"+limits+"}}\n").SMTP)
		if err := rules.Check(); err != nil {
			t.Errorf("%s: %v", limits, err)
		}
	}
}
