package session

import (
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
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
	o := Options{Sink: sink, Flow: flow.Flow{Service: "mx", Zone: zone.Zone{Name: "lan", Trust: zone.XCLIENT | zone.XFORWARD}}}
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

// TestClaimsAreBounded: whatever is claimed again and again, a record keeps so
// much of it and no more.
func TestClaimsAreBounded(t *testing.T) {
	const many = 50
	says := "EHLO c\r\n" + strings.Repeat("XFORWARD NAME="+strings.Repeat("n", 200)+"\r\n", many) + "MAIL FROM:<a@b>\r\nRSET\r\nQUIT\r\n"
	replies := []string{offerClaims}
	for range many + 2 {
		replies = append(replies, "250 ok")
	}
	sink, _ := claiming(t, says, append(replies, "221 bye")...)
	if len(sink.messages) != 1 || len(sink.messages[0]) != maxNote+1 {
		t.Errorf("recorded %q", sink.messages)
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
