package session

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/zone"
)

// claimSink keeps what records say of claims.
type claimSink struct {
	event.Sink
	messages []string
	session  string
}

func (s *claimSink) Message(m *event.Message) {
	s.messages = append(s.messages, string(m.XClient)+"|"+string(m.XForward))
}

func (s *claimSink) Session(r *event.Session) { s.session = string(r.XClient) }

// claiming plays a client that is trusted for everything, and an origin that
// answers each line by the next reply.
func claiming(t *testing.T, says string, replies ...string) (*claimSink, Outcome) {
	t.Helper()
	sink := &claimSink{Sink: event.Discard}
	rules := protocol.Default()
	rules.Size = 1000
	o := Options{Sink: sink, Policy: policy.New(rules), Rules: &rules, Flow: flow.Flow{Service: "mx", Zone: zone.Zone{Name: "lan", Trust: zone.XCLIENT | zone.XFORWARD}}}
	client := &floodLeg{next: firstThen(says, func() string { return "" }), limit: 1 << 20}
	n := -1
	origin := &floodLeg{limit: 1 << 20, next: func() string {
		if n++; n == 0 {
			return "220 mx\r\n"
		}
		return replies[n-1] + "\r\n"
	}}
	return sink, Run(o, client, origin)
}

const offerClaims = "250-mx\r\n250-XCLIENT NAME ADDR HELO\r\n250 XFORWARD NAME IDENT"

// TestClaimsAreRecorded: what the origin took, and nothing else, stands in the
// records; XFORWARD in that of the next message alone.
func TestClaimsAreRecorded(t *testing.T) {
	sink, o := claiming(t, "EHLO c\r\nXCLIENT NAME=c.example\r\nEHLO c\r\nXCLIENT ADDR=192.0.2.7\r\nXCLIENT HELO=h\r\nEHLO c\r\n"+
		"XFORWARD NAME=f\r\nXFORWARD IDENT=1\r\nMAIL FROM:<a@b>\r\nRSET\r\nMAIL FROM:<b@b>\r\nRSET\r\nQUIT\r\n",
		offerClaims, "220 mx", offerClaims, "550 no", "220 mx", offerClaims,
		"250 ok", "250 ok", "250 ok", "250 ok", "250 ok", "250 ok", "221 bye")
	const client = "NAME=c.example HELO=h"
	if got := strings.Join(sink.messages, ";"); got != client+"|NAME=f IDENT=1;"+client+"|" || sink.session != client {
		t.Errorf("messages %s, session %s", got, sink.session)
	}
	if o.End != event.EndQuit || o.Record.Used != smtp.SetOf(smtp.ExtXClient, smtp.ExtXForward) || o.Record.Errors != 0 {
		t.Errorf("%s, used %s", o.End, o.Record.Used.AppendTo(nil, ' '))
	}
}

// TestXForwardLastsAsAtTheOrigin: it goes for the next message that the origin
// takes, and is forgotten when the origin forgets it.
func TestXForwardLastsAsAtTheOrigin(t *testing.T) {
	const claimed = "|IDENT=1"
	for name, c := range map[string]struct {
		says    string
		replies []string
		want    string
	}{
		"MAIL refused unread":        {"MAIL FROM:<a@b> X=1\r\nMAIL FROM:<a>\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"250 ok", "250 ok"}, claimed + ";" + claimed + ";" + claimed},
		"MAIL refused by policy":     {"MAIL FROM:<b@c> SIZE=5000\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"250 ok", "250 ok"}, claimed + ";" + claimed},
		"MAIL refused by the origin": {"MAIL FROM:<a@b>\r\nMAIL FROM:<b@b>\r\nRSET\r\n", []string{"550 no", "250 ok", "250 ok"}, claimed + ";" + claimed},
		"RSET":                       {"RSET\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"250 ok", "250 ok", "250 ok"}, "|"},
		"RSET refused":               {"RSET\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"550 no", "250 ok", "250 ok"}, claimed},
		"EHLO":                       {"EHLO c\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{offerClaims, "250 ok", "250 ok"}, "|"},
		"HELO refused":               {"HELO c\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"550 no", "250 ok", "250 ok"}, claimed},
		"XCLIENT":                    {"XCLIENT NAME=c\r\nHELO c\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"220 mx", "250 ok", "250 ok", "250 ok"}, "NAME=c|"},
		"XCLIENT refused":            {"XCLIENT NAME=c\r\nMAIL FROM:<a@b>\r\nRSET\r\n", []string{"550 no", "250 ok", "250 ok"}, claimed},
		"a message": {"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\na\r\nMAIL FROM:<a@b>\r\nRSET\r\n",
			[]string{"250 ok", "250 ok", "354 go", "250 taken", "250 ok", "250 ok"}, claimed + ";|"},
	} {
		t.Run(name, func(t *testing.T) {
			replies := append([]string{"250-mx\r\n250-SIZE\r\n250-CHUNKING\r\n" + offerClaims[len("250-mx\r\n"):], "250 ok"}, c.replies...)
			sink, _ := claiming(t, "EHLO c\r\nXFORWARD IDENT=1\r\n"+c.says+"QUIT\r\n", append(replies, "221 bye")...)
			if got := strings.Join(sink.messages, ";"); got != c.want {
				t.Errorf("recorded %q, not %q", got, c.want)
			}
		})
	}
}

// TestClaimsAreBounded: whatever is claimed again and again, a record has each
// attribute once, with the last value that the origin took.
func TestClaimsAreBounded(t *testing.T) {
	const many = 50
	says, replies := "EHLO c\r\n", []string{offerClaims}
	long := strings.Repeat("+2B", 140)
	for i := range many {
		says += fmt.Sprintf("XCLIENT NAME=c%d HELO=%s\r\nXCLIENT ADDR=192.0.2.%d\r\n", i, long, i)
		replies = append(replies, "220 mx", "220 mx")
	}
	says, replies = says+"XCLIENT HELO=refused\r\nEHLO c\r\n", append(replies, "550 no", offerClaims)
	for i := range many {
		says += fmt.Sprintf("XFORWARD IDENT=%s\r\nXFORWARD NAME=%0200d\r\n", long, i)
		replies = append(replies, "250 ok", "250 ok")
	}
	sink, _ := claiming(t, says+"MAIL FROM:<a@b>\r\nRSET\r\nQUIT\r\n", append(replies, "250 ok", "250 ok", "221 bye")...)
	const last = many - 1
	client := fmt.Sprintf("NAME=c%d HELO=%s ADDR=192.0.2.%d", last, long, last)
	want := fmt.Sprintf("%s|IDENT=%s NAME=%0200d", client, long, last)
	if len(sink.messages) != 1 || sink.messages[0] != want || sink.session != client {
		t.Errorf("recorded %q, session %q", sink.messages, sink.session)
	}
}

// TestUntrustedClaimsAreCounted: each attempt is a refusal with its reason.
func TestUntrustedClaimsAreCounted(t *testing.T) {
	client := &floodLeg{next: firstThen("EHLO c\r\nXCLIENT ADDR=127.0.0.1\r\nXFORWARD x\r\n", func() string { return "" }), limit: 1 << 20}
	origin := &floodLeg{limit: 1 << 20}
	origin.next = firstThen("220 mx\r\n", firstThen("250-mx\r\n250 XCLIENT ADDR\r\n", func() string { return "" }))
	o := Run(Options{}, client, origin)
	if len(o.Record.Refusals) != 1 || o.Record.Refusals[0] != (event.Tally{Reason: event.ReasonNotTrusted, Count: 2}) || o.Record.Errors != 2 {
		t.Errorf("refusals %+v, %d errors", o.Record.Refusals, o.Record.Errors)
	}
	if string(o.Record.Removed) != "XCLIENT" || o.Record.Offered.Has(smtp.ExtXClient) {
		t.Errorf("removed %q, offered %s", o.Record.Removed, o.Record.Offered.AppendTo(nil, ' '))
	}
}

// believer is an origin that takes every claim and everything else, and looks at
// what it is sent, line by line. It takes no content.
type believer struct {
	sent    []byte // not yet a line
	replies []byte
	greeted bool // HELO or EHLO counts
	inMail  bool
	problem string
}

func (b *believer) Read(p []byte) (int, error) {
	if len(b.replies) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.replies)
	b.replies = b.replies[n:]
	return n, nil
}

func (b *believer) Write(p []byte) (int, error) {
	b.sent = append(b.sent, p...)
	for {
		line, rest, ok := bytes.Cut(b.sent, []byte("\r\n"))
		if !ok {
			return len(p), nil
		}
		b.take(line)
		b.sent = rest
	}
}

func (b *believer) SetReadDeadline(time.Time) error  { return nil }
func (b *believer) SetWriteDeadline(time.Time) error { return nil }
func (b *believer) Pending() (int, error)            { return min(1, len(b.replies)), nil }

func (b *believer) take(line []byte) {
	var c smtp.Command
	all := smtp.Grammar{Offered: ^smtp.Extensions(0), UTF8: true, XClient: smtp.XClientAttributes, XForward: smtp.XForwardAttributes}
	if r := c.Parse(line, all); r != nil {
		b.problem = fmt.Sprintf("%q: %s", line, r.Text)
	}
	reply := "250 ok\r\n"
	switch c.Verb {
	case smtp.EHLO:
		reply, b.greeted, b.inMail = offerClaims+"\r\n", true, false
	case smtp.HELO:
		b.greeted, b.inMail = true, false
	case smtp.RSET:
		b.inMail = false
	case smtp.QUIT:
		reply = "221 bye\r\n"
	case smtp.DATA:
		reply = "554 no\r\n"
	case smtp.XCLIENT, smtp.XFORWARD:
		if b.inMail || !bytes.Equal(c.AppendTo(nil), append(line, '\r', '\n')) {
			b.problem = fmt.Sprintf("%q, in mail %v", line, b.inMail)
		}
	}
	if (c.Verb == smtp.MAIL || c.Verb == smtp.XFORWARD) && !b.greeted {
		b.problem = fmt.Sprintf("%q before EHLO", line)
	}
	switch c.Verb {
	case smtp.XCLIENT:
		reply, b.greeted = "220 mx\r\n", false
	case smtp.MAIL:
		b.inMail = true
	}
	b.replies = append(b.replies, reply...)
}

// FuzzClaims lets a client that is trusted for everything say anything: an origin
// reads claims that are as they should be, where they may be.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		"EHLO c\r\nXCLIENT NAME=c ADDR=192.0.2.7\r\nMAIL FROM:<a@b>\r\nXCLIENT HELO=h\r\nEHLO c\r\nXFORWARD NAME=c\r\nMAIL FROM:<a@b>\r\nXFORWARD NAME=c\r\nRSET\r\nQUIT\r\n",
		"EHLO c\r\nXFORWARD NAME=a IDENT=1+20\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nXCLIENT NAME=[UNAVAILABLE]\r\nHELO c\r\nXCLIENT NAME=a NAME=b\r\n",
	} {
		f.Add(s, byte(0))
	}
	f.Fuzz(func(t *testing.T, says string, size byte) {
		origin := &believer{replies: []byte("220 mx\r\n")}
		client := newMemoryLeg()
		client.atMost = int(size)
		rules := protocol.Default()
		rules.Errors, rules.Idle = 1000, 0
		sent := false
		o := Options{Policy: policy.New(rules), Rules: &rules, Flow: flow.Flow{Zone: zone.Zone{Trust: zone.XCLIENT | zone.XFORWARD}}}
		run := Run(o, &lateLeg{client, says, &sent}, origin)
		if origin.problem != "" {
			t.Fatalf("%s\nfrom %q, %s", origin.problem, says, run.End)
		}
	})
}

// lateLeg is a client that speaks once it was greeted, and then hangs up.
type lateLeg struct {
	*memoryLeg
	says string
	sent *bool
}

func (l *lateLeg) Write(p []byte) (int, error) {
	if !*l.sent {
		*l.sent = true
		l.send([]byte(l.says))
		l.hangUp(io.EOF)
	}
	return l.memoryLeg.Write(p)
}
