package inspect

import (
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
)

var everything = ^smtp.Extensions(0)

// judge parses a line and asks the inspector about it.
func judge(t *testing.T, i Inspector, e Envelope, line string) Verdict {
	t.Helper()
	var c smtp.Command
	if r := c.Parse([]byte(line), smtp.Grammar{Offered: everything}); r != nil {
		t.Fatalf("%s: %v", line, r)
	}
	return i.Command(&e, &c)
}

func TestDefaultPassesOrdinaryMail(t *testing.T) {
	rules := Default()
	if err := rules.Check(); err != nil {
		t.Fatal(err)
	}
	i := New(rules)
	for _, line := range []string{
		"EHLO client", "EHLO [192.0.2.1]", "HELO localhost", "MAIL FROM:<> SIZE=50000000", "MAIL FROM:<@x:a@b>", "RCPT TO:<a%b!c@d>", "RCPT TO:<Postmaster>",
		"DATA", "BDAT 1", "NOOP", "VRFY a", "AUTH PLAIN", "ETRN a",
	} {
		if v := judge(t, i, Envelope{Recipients: 999, Messages: 1000, Size: 1 << 40}, line); v.Action != Pass {
			t.Errorf("%s: %v", line, v.Reply)
		}
	}
	if v := i.End(&Envelope{Size: 1 << 40}); v.Action != Pass {
		t.Errorf("end: %v", v.Reply)
	}
	if i.Protocol().Keywords.Has(smtp.ExtAuth) || i.Protocol().Keywords.Has(smtp.ExtMTPriority) || !i.Protocol().Keywords.Has(smtp.ExtChunking) {
		t.Errorf("keywords: %s", i.Protocol().Keywords.AppendTo(nil, ' '))
	}
}

func TestVerdicts(t *testing.T) {
	reject := Verdict{Refuse, &smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{Class: 5, Subject: 7, Detail: 1}, Text: "no"}, event.ReasonPolicy}
	for _, c := range []struct {
		name  string
		rule  func(p *Protocol)
		e     Envelope
		line  string
		reply string
	}{
		{"size", func(p *Protocol) { p.Size = 10 }, Envelope{}, "MAIL FROM:<a@b> SIZE=11", "552 5.3.4"},
		{"size not declared", func(p *Protocol) { p.Size = 10 }, Envelope{}, "MAIL FROM:<a@b>", ""},
		{"recipients", func(p *Protocol) { p.Recipients = 100 }, Envelope{Recipients: 100}, "RCPT TO:<a@b>", "452 4.5.3"},
		{"recipients, the last", func(p *Protocol) { p.Recipients = 100 }, Envelope{Recipients: 99}, "RCPT TO:<a@b>", ""},
		{"messages", func(p *Protocol) { p.Messages = 1 }, Envelope{Messages: 1}, "MAIL FROM:<a@b>", "452 4.5.3"},
		{"route in MAIL", func(p *Protocol) { p.RefuseRoutes = true }, Envelope{}, "MAIL FROM:<@x:a@b>", "550 5.1.3"},
		{"route in RCPT", func(p *Protocol) { p.RefuseRoutes = true }, Envelope{}, "RCPT TO:<@x:a@b>", "550 5.1.3"},
		{"percent", func(p *Protocol) { p.RefusePercent = true }, Envelope{}, "RCPT TO:<a%b@c>", "550 5.7.1"},
		{"percent in a sender", func(p *Protocol) { p.RefusePercent = true }, Envelope{}, "MAIL FROM:<a%b@c>", ""},
		{"bang", func(p *Protocol) { p.RefuseBang = true }, Envelope{}, "RCPT TO:<a!b@c>", "550 5.7.1"},
		{"hello", func(p *Protocol) { p.StrictHello = true }, Envelope{}, "EHLO a_b/c", "501 5.5.4"},
		{"hello with a name", func(p *Protocol) { p.StrictHello = true }, Envelope{}, "EHLO a.example", ""},
		{"hello with an address", func(p *Protocol) { p.StrictHello = true }, Envelope{}, "EHLO [IPv6:2001:db8::1]", ""},
		{"command", func(p *Protocol) { p.Commands = map[smtp.Verb]Verdict{smtp.VRFY: reject} }, Envelope{}, "VRFY a", "550 5.7.1"},
		{"command before the other rules", func(p *Protocol) {
			p.Commands, p.Size = map[smtp.Verb]Verdict{smtp.MAIL: reject}, 1
		}, Envelope{}, "MAIL FROM:<a@b> SIZE=2", "550 5.7.1"},
	} {
		rules := Default()
		c.rule(&rules)
		if err := rules.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		v := judge(t, New(rules), c.e, c.line)
		switch {
		case c.reply == "" && v.Action != Pass:
			t.Errorf("%s: %v", c.name, v.Reply)
		case c.reply != "" && (v.Action != Refuse || !strings.HasPrefix(v.Reply.Error(), c.reply+" ") || v.Reason == event.NoReason):
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	rules := Default()
	rules.Size = 10
	if v := New(rules).End(&Envelope{Size: 11}); v.Reply == nil || v.Reply.Code != 552 {
		t.Errorf("end: %+v", v)
	}
}

func TestCheck(t *testing.T) {
	reply := func(c smtp.Code) *smtp.Reply { return &smtp.Reply{Code: c} }
	for want, rule := range map[string]func(p *Protocol){
		"forward: only VRFY, EXPN and HELP can be left to the origin or not":           func(p *Protocol) { p.Forward = smtp.VerbsOf(smtp.ETRN) },
		"recipients: 99 is too few, RFC 5321 section 4.5.3.1.8 asks for 100":           func(p *Protocol) { p.Recipients = 99 },
		"errors: 0 leaves no room for a slip; the least is 1":                          func(p *Protocol) { p.Errors = 0 },
		"text line: 997 is too short, RFC 5321 section 4.5.3.1.6 asks for 998 without": func(p *Protocol) { p.TextLine = 997 },
		"a limit is negative; 0 stands for none":                                       func(p *Protocol) { p.Session = -time.Second },
		"commands: QUIT cannot be refused":                                             func(p *Protocol) { p.Commands = map[smtp.Verb]Verdict{smtp.QUIT: {}} },
		"commands: NOOP: a refusal needs a reply":                                      func(p *Protocol) { p.Commands = map[smtp.Verb]Verdict{smtp.NOOP: {Action: Refuse}} },
		"commands: NOOP: 250 is no refusal; use a code from 400 to 599": func(p *Protocol) {
			p.Commands = map[smtp.Verb]Verdict{smtp.NOOP: {Refuse, reply(250), event.NoReason}}
		},
		"commands: NOOP: 421 is for closing the connection, and closing is for 421": func(p *Protocol) {
			p.Commands = map[smtp.Verb]Verdict{smtp.NOOP: {Disconnect, reply(550), event.NoReason}}
		},
	} {
		rules := Default()
		rule(&rules)
		if err := rules.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
