package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/verdict"
)

var everything = ^smtp.Extensions(0)

// judge parses a line and asks the policy about it.
func judge(t *testing.T, i *Plain, e Envelope, line string) *verdict.V {
	t.Helper()
	var c smtp.Command
	if r := c.Parse([]byte(line), smtp.Grammar{Offered: everything}); r != nil {
		t.Fatalf("%s: %v", line, r)
	}
	return i.Command(&e, &c).Verdict
}

func TestDefaultPassesOrdinaryMail(t *testing.T) {
	rules := protocol.Default()
	i := New(rules)
	for _, line := range []string{
		"EHLO client", "EHLO [192.0.2.1]", "HELO localhost", "MAIL FROM:<> SIZE=50000000", "MAIL FROM:<@x:a@b>", "RCPT TO:<a%b!c@d>", "RCPT TO:<Postmaster>",
		"DATA", "BDAT 1", "NOOP", "VRFY a", "AUTH PLAIN", "ETRN a",
	} {
		if v := judge(t, i, Envelope{Recipients: 999, Messages: 1000, Size: 1 << 40}, line); v != nil {
			t.Errorf("%s: %v", line, v.Reply)
		}
	}
	if v := i.End(&Envelope{Size: 1 << 40}).Verdict; v != nil {
		t.Errorf("end: %v", v.Reply)
	}
	if i.Rules().Keywords.Has(smtp.ExtAuth) || i.Rules().Keywords.Has(smtp.ExtMTPriority) || !i.Rules().Keywords.Has(smtp.ExtChunking) {
		t.Errorf("keywords: %s", i.Rules().Keywords.AppendTo(nil, ' '))
	}
}

func TestVerdicts(t *testing.T) {
	no := smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{Class: 5, Subject: 7, Detail: 1}, Text: "no"}
	for _, c := range []struct {
		name  string
		rule  func(p *protocol.Rules)
		e     Envelope
		line  string
		reply string
	}{
		{"size", func(p *protocol.Rules) { p.Size = 10 }, Envelope{}, "MAIL FROM:<a@b> SIZE=11", "552 5.3.4"},
		{"size not declared", func(p *protocol.Rules) { p.Size = 10 }, Envelope{}, "MAIL FROM:<a@b>", ""},
		{"recipients", func(p *protocol.Rules) { p.Recipients = 100 }, Envelope{Recipients: 100}, "RCPT TO:<a@b>", "452 4.5.3"},
		{"recipients, the last", func(p *protocol.Rules) { p.Recipients = 100 }, Envelope{Recipients: 99}, "RCPT TO:<a@b>", ""},
		{"messages", func(p *protocol.Rules) { p.Messages = 1 }, Envelope{Messages: 1}, "MAIL FROM:<a@b>", "452 4.5.3"},
		{"route in MAIL", func(p *protocol.Rules) { p.RefuseRoutes = true }, Envelope{}, "MAIL FROM:<@x:a@b>", "550 5.1.3"},
		{"route in RCPT", func(p *protocol.Rules) { p.RefuseRoutes = true }, Envelope{}, "RCPT TO:<@x:a@b>", "550 5.1.3"},
		{"percent", func(p *protocol.Rules) { p.RefusePercent = true }, Envelope{}, "RCPT TO:<a%b@c>", "550 5.7.1"},
		{"percent in a sender", func(p *protocol.Rules) { p.RefusePercent = true }, Envelope{}, "MAIL FROM:<a%b@c>", ""},
		{"bang", func(p *protocol.Rules) { p.RefuseBang = true }, Envelope{}, "RCPT TO:<a!b@c>", "550 5.7.1"},
		{"hello", func(p *protocol.Rules) { p.StrictHello = true }, Envelope{}, "EHLO a_b/c", "501 5.5.4"},
		{"hello with a name", func(p *protocol.Rules) { p.StrictHello = true }, Envelope{}, "EHLO a.example", ""},
		{"hello with an address", func(p *protocol.Rules) { p.StrictHello = true }, Envelope{}, "EHLO [IPv6:2001:db8::1]", ""},
		{"command that is let through", func(p *protocol.Rules) { p.Commands = []protocol.Command{{Verb: smtp.VRFY}} }, Envelope{}, "VRFY a", ""},
		{"command", func(p *protocol.Rules) {
			p.Commands = []protocol.Command{{Verb: smtp.EXPN}, {Verb: smtp.VRFY, Action: protocol.Reject, Reply: no}}
		}, Envelope{}, "VRFY a", "550 5.7.1"},
		{"command before the other rules", func(p *protocol.Rules) {
			p.Commands, p.Size = []protocol.Command{{Verb: smtp.MAIL, Action: protocol.Reject, Reply: no}}, 1
		}, Envelope{}, "MAIL FROM:<a@b> SIZE=2", "550 5.7.1"},
	} {
		rules := protocol.Default()
		c.rule(&rules)
		v := judge(t, New(rules), c.e, c.line)
		switch {
		case c.reply == "" && v == nil:
		case c.reply == "":
			t.Errorf("%s: %v", c.name, v.Reply)
		case v == nil || v.Ends() || !strings.HasPrefix(v.Error(), c.reply+" ") || v.Reason == event.NoReason || v.Rule == nil || !strings.HasPrefix(v.Rule.Key, "smtp."):
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	rules := protocol.Default()
	rules.Size = 10
	if v := New(rules).End(&Envelope{Size: 11}).Verdict; v == nil || v.Code != 552 {
		t.Errorf("end: %+v", v)
	}
}

// TestAwait: the answer that is there wins over the time that is up, and one who no longer
// wants it is not told any.
func TestAwait(t *testing.T) {
	given, late := &verdict.V{}, &verdict.V{}
	answer := func() *verdict.V { return given }
	there := make(chan struct{})
	close(there)
	now := time.Now()
	wanted := func() bool { return false }
	unwanted := func() bool { return true }
	for range 50 { // both are ready: either may be seen first
		w := Wait{Done: there, Answer: answer, Until: now.Add(-time.Hour), Late: late}
		if v := w.Await(wanted); v != given {
			t.Fatal("the answer was there and was not taken")
		}
	}
	if w := (Wait{Answer: answer, Until: now, Late: late}); w.Await(wanted) != late {
		t.Error("the time was up and something else was said")
	}
	if w := (Wait{Answer: answer, Until: now.Add(time.Hour), Late: late}); w.Await(unwanted) != nil {
		t.Error("an answer was told to one who no longer wanted it")
	}
}
