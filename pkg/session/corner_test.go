package session

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

var envelope = turn{"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}

// TestNormalizedBeyondPiece: a client whose whole message is in one read sends
// no more, so the session must find the end in what it has.
func TestNormalizedBeyondPiece(t *testing.T) {
	for _, size := range []int{maxPiece - 2, maxPiece - 1, maxPiece, maxPiece + 1, blockSize - 5, blockSize, 3 * blockSize} {
		content := strings.Repeat(strings.Repeat("a", 98)+"\r\n", size/100) + strings.Repeat("b", size%100) + "\r\n"
		p := newPlay(conversation{"x", fullEHLO, []turn{{"EHLO c\r\n", 1}, envelope, {content + ".\r\n", 1}, {"QUIT\r\n", 1}}, nil, nil})
		p.rules.Newlines = protocol.NormalizeNewlines
		p.run()
		if p.outcome.End != event.EndQuit || len(p.origin.messages) != 1 || p.origin.messages[0].content != content {
			t.Errorf("%d octets: %s, the origin has %d messages", size, p.outcome.End, len(p.origin.messages))
		}
	}
}

// slowLeg is an origin that refuses content on its way: the write of it hangs,
// and then fails. It keeps read deadlines.
type slowLeg struct {
	*modelLeg
	readBy time.Time
}

func (l *slowLeg) SetReadDeadline(t time.Time) error { l.readBy = t; return nil }

func (l *slowLeg) Read(p []byte) (int, error) {
	if !l.readBy.IsZero() && !time.Now().Before(l.readBy) {
		return 0, os.ErrDeadlineExceeded
	}
	return l.modelLeg.Read(p)
}

func (l *slowLeg) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(p, []byte("large")) {
		return l.modelLeg.Write(p)
	}
	time.Sleep(time.Minute)
	l.in = append(l.in, "552 5.3.4 too large\r\n"...)
	return 0, errReset
}

// TestRefusedBehindSlowWrite: a refusal that came while a write hung is the
// client's answer, however long that was: otherwise it sends the message again
// and again.
func TestRefusedBehindSlowWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(conversation{"x", fullEHLO, []turn{{"EHLO c\r\n", 1}, envelope, {"large\r\n.\r\n", 1}, {"QUIT\r\n", 1}}, nil, nil})
		Run(Options{Sink: p, Policy: policy.New(p.rules), Rules: &p.rules}, p.client.leg, &slowLeg{modelLeg: p.origin.leg})
		if got := fmt.Sprint(codes(p.client.replies)); got != "[220 250 250 250 354 552 221]" {
			t.Errorf("the client reads %s", got)
		}
	})
}

// TestRecipientLimitInGroup: the limit holds to the unit, also for recipients
// that come in one group.
func TestRecipientLimitInGroup(t *testing.T) {
	group := "MAIL FROM:<a@c>\r\n" + strings.Repeat("RCPT TO:<b@d>\r\n", 140)
	p := newPlay(conversation{"x", fullEHLO, []turn{{"EHLO c\r\n", 1}, {group, 141}, {"QUIT\r\n", 1}}, map[string]string{"RCPT7": "550"}, nil})
	p.rules.Recipients = 100
	p.run()
	if n := len(p.origin.rcpts); n != 100 || p.origin.uses["RCPT"] != 101 {
		t.Errorf("the origin has %d recipients of %d", n, p.origin.uses["RCPT"])
	}
}

// TestDisconnectAtChunk: 421 is said exactly when the session ends.
func TestDisconnectAtChunk(t *testing.T) {
	p := newPlay(conversation{"x", chunkEHLO, []turn{{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nBDAT 3 LAST\r\nabcNOOP\r\n", 4}}, nil, nil})
	p.rules.Commands = []protocol.Command{{Verb: smtp.BDAT, Action: protocol.Disconnect, Reply: smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: 7}, Text: "No"}}}
	p.run()
	if got := fmt.Sprint(codes(p.client.replies)); got != "[220 250 250 250 421]" || p.outcome.End != event.EndPolicy {
		t.Errorf("%s: the client reads %s", p.outcome.End, got)
	}
}

// helloSink keeps the names of clients in the records of messages.
type helloSink struct{ names []string }

func (s *helloSink) Opened(*flow.Flow)                {}
func (s *helloSink) Refused(*flow.Flow, event.Reason) {}
func (s *helloSink) Session(*event.Session)           {}
func (s *helloSink) Message(m *event.Message)         { s.names = append(s.names, string(m.Hello)) }

// TestHelloOfMessage: the record of a message has the name that was in force.
func TestHelloOfMessage(t *testing.T) {
	p := newPlay(conversation{"x", fullEHLO, []turn{{"EHLO alpha.example\r\n", 1}, {"MAIL FROM:<a@c>\r\n", 1}, {"EHLO zz\r\n", 1}, {"QUIT\r\n", 1}}, nil, nil})
	s := &helloSink{}
	Run(Options{Sink: s, Policy: policy.New(p.rules), Rules: &p.rules}, p.client.leg, p.origin.leg)
	if fmt.Sprint(s.names) != "[alpha.example]" {
		t.Errorf("the message came from %q", s.names)
	}
}

// TestNotesBounded: replies of many lines do not get past the bound.
func TestNotesBounded(t *testing.T) {
	r, _, _ := smtp.CutReply([]byte(strings.Repeat("450-a\r\n", 150)+"450 b\r\n"), smtp.DefaultReplyLimits)
	var n notes
	for range 10000 {
		n.noteAnswer(r)
	}
	if len(n.text) > maxNotes {
		t.Errorf("%d octets of notes", len(n.text))
	}
}

// lazyLeg is a client that sleeps for a minute where it could go on, and looks
// at the session's buffers meanwhile.
type lazyLeg struct {
	*modelLeg
	readBy time.Time
	look   func()
}

func (l *lazyLeg) SetReadDeadline(t time.Time) error { l.readBy = t; return nil }

func (l *lazyLeg) Read(p []byte) (int, error) {
	if wait := time.Until(l.readBy); wait < time.Minute {
		time.Sleep(wait)
		return 0, os.ErrDeadlineExceeded
	}
	l.look()
	time.Sleep(time.Minute)
	return l.modelLeg.Read(p)
}

// TestIdleAfterLongReply: a long reply of the origin leaves no buffer behind while
// the client sleeps.
func TestIdleAfterLongReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := "250-mx\r\n" + strings.Repeat("250-X-LONG "+strings.Repeat("x", 400)+"\r\n", 20) + "250 SIZE\r\n"
		p := newPlay(conversation{"x", long, []turn{{"EHLO c\r\n", 1}, {"QUIT\r\n", 1}}, nil, nil})
		client := &lazyLeg{modelLeg: p.client.leg}
		x := open(Options{Sink: p}, client)
		looked := 0
		client.look = func() {
			looked++
			if x.client.page != nil || x.client.block != nil || x.origin.page != nil || x.origin.block != nil || x.group != nil {
				t.Errorf("wait %d: the session holds buffers", looked)
			}
		}
		x.origin.init(p.origin.leg)
		x.finish(x.run())
		if looked != 2 {
			t.Errorf("%d waits", looked)
		}
	})
}

// TestManyAuthLines: what an origin offers costs no more than its list is long.
func TestManyAuthLines(t *testing.T) {
	var b strings.Builder
	for i := range 198 {
		fmt.Fprintf(&b, "250-AUTH %s%03d\r\n", strings.Repeat("X!", 70), i)
	}
	b.WriteString("250 OK\r\n")
	r, _, _ := smtp.CutReply([]byte(b.String()), smtp.DefaultReplyLimits)
	first, rest, _ := r.Next()
	if got := len(mechanismsOf(first, rest)); got != maxMechanisms {
		t.Errorf("%d octets of mechanisms, %d are read", got, maxMechanisms)
	}
	if n := testing.AllocsPerRun(10, func() { mechanismsOf(first, rest) }); n > 8 {
		t.Errorf("%.0f pieces of memory for one list", n)
	}
}
