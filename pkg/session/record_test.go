package session

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/record"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// recordsOf plays a conversation and returns its records as JSON.
func recordsOf(t *testing.T, c conversation, prepare func(p *play)) (list []map[string]any, text string) {
	t.Helper()
	var out bytes.Buffer
	l := record.NewJSON(&out)
	p := newPlay(c)
	prepare(p)
	Run(Options{Sink: l, Policy: policy.New(p.rules), Rules: &p.rules}, p.client.leg, p.origin.leg)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text = out.String()
	for line := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		list = append(list, m)
	}
	return list, text
}

// TestRecords: what a record says is what happened.
func TestRecords(t *testing.T) {
	list, text := recordsOf(t, conversation{"records", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c> SIZE=40 ENVID=QQ1\r\nRCPT TO:<b@d> NOTIFY=NEVER\r\nRCPT TO:<e@f>\r\nDATA\r\n", 4},
		{content1 + ".\r\nQUIT\r\n", 2},
	}, map[string]string{"RCPT2": "550"}, nil}, func(*play) {})
	if len(list) != 2 {
		t.Fatalf("%d records: %s", len(list), text)
	}
	m, s := list[0], list[1]
	for name, want := range map[string]any{
		"event": "message", "number": 1.0, "helo": "c", "from": "a@c", "accepted": 1.0, "refused": 1.0, "declared_size": 40.0,
		"size": float64(len(content1) - 2), "envid": "QQ1", "extensions": "SIZE DSN", "outcome": "accepted",
	} {
		if m[name] != want {
			t.Errorf("message: %s is %v, not %v", name, m[name], want)
		}
	}
	to, _ := json.Marshal(m["to"])
	if want := `[{"address":"b@d","code":250,"text":"for 3"},{"address":"e@f","code":550,"text":"for 4"}]`; string(to) != want {
		t.Errorf("message: to is %s, not %s", to, want)
	}
	reply, _ := json.Marshal(m["reply"])
	if want := `{"code":250,"text":"message 1"}`; string(reply) != want {
		t.Errorf("message: reply is %s, not %s", reply, want)
	}
	for name, want := range map[string]any{
		"event": "session", "helo": "c", "esmtp": true, "offered": "PIPELINING SIZE 8BITMIME DSN SMTPUTF8", "extensions": "SIZE DSN",
		"commands": 6.0, "errors": 0.0, "messages": 1.0, "end": "quit",
	} {
		if s[name] != want {
			t.Errorf("session: %s is %v, not %v", name, s[name], want)
		}
	}
}

// TestNoSecrets: no part of an authentication reaches a record, whatever becomes
// of it.
func TestNoSecrets(t *testing.T) {
	const secret = "c2VjcmV0cGFzc3dvcmQ="
	for _, c := range []struct {
		turns   []turn
		answers map[string]string
	}{
		{[]turn{{"AUTH PLAIN " + secret + "\r\n", 1}}, map[string]string{"AUTH1": "235"}},
		{[]turn{{"AUTH PLAIN " + secret + "\r\n", 1}}, map[string]string{"AUTH1": "535"}},
		{[]turn{{"AUTH PLAIN " + secret + "!\r\n", 1}}, nil},
		{[]turn{{"AUTH PLAIN " + secret + "\n", 1}}, nil},
		{[]turn{{"AUTH LOGIN\r\n", 1}, {secret + "\r\n", 1}}, map[string]string{"AUTH1": "334"}},
		{[]turn{{"AUTH LOGIN\r\n", 1}, {secret + "\n", 1}}, map[string]string{"AUTH1": "334"}},
		{[]turn{{"AUTH LOGIN\r\n", 1}, {"!" + secret + "\r\n", 1}}, map[string]string{"AUTH1": "334"}},
		{[]turn{{"AUTH LOGIN\r\n", 1}, {"!" + secret + "\r\n", 1}, {"QUIT\r\n", 1}}, nil},
		{[]turn{{"AUTH LOGIN\r\n", 1}, {secret, 1}}, map[string]string{"AUTH1": "334"}},
		{[]turn{{"AUTH LOGIN\r\n" + secret + "\r\n", 2}}, map[string]string{"AUTH1": "535"}},
	} {
		turns := append([]turn{{"EHLO c\r\n", 1}}, c.turns...)
		_, text := recordsOf(t, conversation{"auth", "250-mx\r\n250 AUTH PLAIN LOGIN\r\n", turns, c.answers, nil}, func(p *play) {
			p.rules.AuthInClear = true
			p.rules.Keywords = carried
			p.client.leg.cutErr = io.EOF
		})
		if strings.Contains(text, "c2Vjcm") {
			t.Errorf("%v is recorded as %s", c.turns, text)
		}
	}
}

// TestRestKeepsNoMessage: what a message with very many recipients or long replies
// took is let go when its session rests, and what the session's own record needs
// is kept.
func TestRestKeepsNoMessage(t *testing.T) {
	plain := []string{"O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250-FROB\r\n250-NICATE\r\n250 SIZE\r\n"`}
	t.Run("many recipients", func(t *testing.T) { restAfter(t, plain, maxRecipients, "O> 550 no") })
	t.Run("long reply", func(t *testing.T) {
		restAfter(t, plain, 1, "O>| \"550-"+strings.Repeat("x", 400)+"\\r\\n\"*10 \"550 no\\r\\n\"")
	})
	inside := []string{"tls mirror", "O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250-XCLEAR\r\n250 STARTTLS\r\n"`,
		"C> STARTTLS", "O> 220 go", `O>| "SHAKE\r\n"`, `C>| "HELLO\r\n"`,
		"C> EHLO c", `O>| "250-mx\r\n250-FROB\r\n250-NICATE\r\n250 SIZE\r\n"`}
	t.Run("inside TLS", func(t *testing.T) { restAfter(t, inside, maxRecipients, "O> 550 no") })
}

func restAfter(t *testing.T, begin []string, recipients int, reply string) {
	t.Helper()
	recipient := "C> RCPT TO:<" + strings.Repeat("x", 60) + "@" + strings.Repeat("y", 60) + ".example>"
	steps := []string{"C> MAIL FROM:<a@c>", "O> 250 ok"}
	for range recipients {
		steps = append(steps, recipient, reply)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStage(0)
		defer s.leave()
		if strings.HasPrefix(begin[0], "tls") {
			s.play(t, begin[:1])
			begin = begin[1:]
		}
		x := open(Options{Sink: s, TLS: s.tls}, s.client)
		x.origin.init(s.origin)
		go func() { s.outcome <- carry(x.outcome(x.run())) }()
		s.started = true
		synctest.Wait()
		s.play(t, append(begin, steps...))
		text := weak.Make(&x.text[0])
		s.play(t, []string{"C> RSET", "O> 250 ok", "wait 2s"})
		if cap(x.text)-x.mark > spareNotes || cap(x.kept) > spareRecipients {
			t.Errorf("at rest it has room for %d octets and %d recipients", cap(x.text), cap(x.kept))
		}
		runtime.GC()
		if text.Value() != nil {
			t.Error("something refers to the message still")
		}
		s.play(t, []string{"C> MAIL FROM:<b@c>", "O> 250 ok", "C> RCPT TO:<d@e>", "O> 250 ok", "C> RSET", "O> 250 ok", "C> QUIT", "O> 221 bye"})
		if m := s.messages[len(s.messages)-1]; m != "abandoned <b@c> d@e=250 said 0 (reset)" {
			t.Errorf("the next message is recorded as %s", m)
		}
		if r := s.record; string(r.Greeting.Text) != "mx" || string(r.Removed) != "FROB NICATE" {
			t.Errorf("greeting %q, removed %q", r.Greeting.Text, r.Removed)
		}
	})
}

func (s *stage) play(t *testing.T, steps []string) {
	t.Helper()
	for _, step := range steps {
		if err := s.step(step); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
}

// TestOffence: what could not be read is in the record.
func TestOffence(t *testing.T) {
	list, _ := recordsOf(t, conversation{"offence", "250-mx\r\n550 \x1b[2Jevil\r\n", []turn{{"EHLO c\r\n", 1}}, nil, nil}, func(*play) {})
	if s := list[len(list)-1]; s["offence"] != "250-mx\\x0d\n550 \\x1b[2Jevil\\x0d\n" || s["detail"] != "reply lines with different codes" {
		t.Errorf("got %v", s)
	}
}

// TestRecordsNameTheRule: what we refuse is told with the key that decided and the place
// where that is set, up to the end of the session.
func TestRecordsNameTheRule(t *testing.T) {
	list, text := recordsOf(t, conversation{"rules", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b%d@d>\r\n", 2}, {"RSET\r\n", 1}, {"ETRN x\r\n", 1},
	}, nil, nil}, func(p *play) {
		p.rules.RefusePercent, p.rules.Errors = true, 1
		p.rules.Commands = []protocol.Command{{Verb: smtp.ETRN, Place: "p.yaml:9", Action: protocol.Reject, Reply: smtp.Reply{Code: 502, Text: "No"}}}
		p.rules.Given = map[string]*protocol.Rule{"smtp.refuse_percent": {Key: "smtp.refuse_percent", Place: "p.yaml:7"}}
		p.rules.Keywords |= smtp.SetOf(smtp.ExtETRN)
	})
	if len(list) != 2 {
		t.Fatalf("%d records: %s", len(list), text)
	}
	m, s := list[0], list[1]
	to := m["to"].([]any)[0].(map[string]any)
	for what, of := range map[string]map[string]any{"message": m, "recipient": to, "offence": s["client_offence"].(map[string]any)} {
		if of["reason"] != "indirect-address" || of["rule"] != "smtp.refuse_percent" || of["place"] != "p.yaml:7" {
			t.Errorf("%s: %v", what, of)
		}
	}
	if s["end"] != "too-many-errors" || s["rule"] != "smtp.limits.errors" || s["place"] != nil {
		t.Errorf("session: %v", s)
	}
}
