package record

import (
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// The members of records, for both forms. They are in a fixed order and are never
// renamed; new ones may be added; those without a value are left out.

// message appends the record of a message.
func (f form) message(b []byte, m *event.Message) []byte {
	l := f.begin(b, "message", m.Start.Add(m.Total))
	l.flow(&m.Flow)
	l.addr("origin", m.Origin)
	l.addr("forged", m.Forged)
	l.word("unforged", m.Unforged.String())
	l.number("number", int64(m.Number))
	l.text("helo", m.Hello)
	l.must("from", m.Sender)
	l.recipients(m.Recipients)
	l.number("accepted", int64(m.Accepted))
	l.number("refused", int64(m.Refused))
	l.option("declared_size", m.Declared)
	l.number("size", m.Size)
	l.text("envid", m.EnvID)
	l.text("dropped", m.Dropped)
	l.text("xclient", m.XClient)
	l.text("xforward", m.XForward)
	l.extensions("extensions", m.Used)
	l.seconds("envelope_after", m.Enveloped)
	l.seconds("opened_after", m.Opened)
	l.seconds("content_after", m.Content)
	l.seconds("duration", m.Total)
	l.word("outcome", m.Outcome.String())
	l.cause(m.Cause)
	l.answer("reply", m.Client)
	l.answer("origin_reply", m.Reply)
	return l.end()
}

// session appends the record of a session.
func (f form) session(b []byte, s *event.Session) []byte {
	l := f.begin(b, "session", s.Start.Add(s.Duration))
	l.flow(&s.Flow)
	l.addr("origin", s.Origin)
	l.addr("forged", s.Forged)
	l.word("unforged", s.Unforged.String())
	l.unreached(s.Unreached)
	l.answer("greeting", s.Greeting)
	l.text("helo", s.Hello)
	l.flag("esmtp", s.Extended)
	l.text("xclient", s.XClient)
	l.flag("authenticated", s.Authenticated)
	l.extensions("offered", s.Offered)
	l.text("removed", s.Removed)
	l.extensions("extensions", s.Used)
	l.number("commands", int64(s.Commands))
	l.number("errors", int64(s.Errors))
	l.number("messages", int64(s.Messages))
	l.word("tls", s.Mode)
	l.tls("client_tls", s.ClientTLS)
	l.tls("origin_tls", s.OriginTLS)
	l.opaque(s.Opaque)
	l.tallies(s.Refusals)
	l.number("client_in", s.ClientIn)
	l.number("client_out", s.ClientOut)
	l.number("origin_in", s.OriginIn)
	l.number("origin_out", s.OriginOut)
	l.seconds("greeted_after", s.Greeted)
	l.seconds("duration", s.Duration)
	l.word("end", s.End.String())
	l.text("detail", []byte(s.Detail))
	l.text("offence", s.Offence)
	l.slip(s.Slip)
	l.answer("reply", s.Last)
	l.answer("origin_reply", s.Closing)
	l.rewritten(s.Rewritten)
	l.rule(s.Rule)
	return l.end()
}

// lost appends how many records were lost.
func (f form) lost(b []byte, at time.Time, records uint64) []byte {
	l := f.begin(b, "lost", at)
	l.number("records", int64(records))
	return l.end()
}

func (l *line) flow(f *flow.Flow) {
	l.id("id", f.ID)
	l.word("service", f.Service)
	l.word("way", f.Way.String())
	l.addr("client", f.Client)
	l.addr("server", f.Server)
	l.word("zone", f.Zone.Name)
	l.addr("via", f.Via)
}

func (l *line) extensions(name string, s smtp.Extensions) {
	if s != 0 {
		l.name(name)
		l.b = append(l.b, '"')
		l.b = s.AppendTo(l.b, ' ')
		l.b = append(l.b, '"', l.comma)
	}
}

func (l *line) answer(name string, a event.Answer) {
	if a.Code == 0 {
		return
	}
	l.open(name)
	l.number("code", int64(a.Code))
	l.text("text", a.Text)
	l.shut()
}

func (l *line) tls(name string, t *event.TLS) {
	if t == nil {
		return
	}
	l.open(name)
	l.word("version", t.Version)
	l.word("cipher", t.Cipher)
	l.word("group", t.Group)
	l.text("sni", t.Name)
	if t.Version != "" {
		l.flag("resumed", t.Resumed)
	}
	l.word("peer", t.Peer.String())
	l.text("peer_name", t.PeerName)
	l.word("failure", t.Failure.String())
	l.text("detail", []byte(t.Detail))
	l.shut()
}

func (l *line) opaque(o *event.Opaque) {
	if o == nil {
		return
	}
	l.open("opaque")
	l.number("from_client", o.FromClient)
	l.number("from_origin", o.FromOrigin)
	l.text("detail", []byte(o.Detail))
	l.shut()
}

func (l *line) slip(s event.Slip) {
	if len(s.Said) == 0 {
		return
	}
	l.open("client_offence")
	l.must("said", s.Said)
	l.option("code", int64(s.Answer.Code))
	l.text("text", s.Answer.Text)
	l.cause(s.Cause)
	l.shut()
}

func (l *line) cause(c event.Cause) {
	l.word("reason", c.Reason.String())
	l.rule(c.Rule)
}

func (l *line) rule(r *protocol.Rule) {
	if r != nil {
		l.word("rule", r.Key)
		l.word("place", r.Place)
	}
}

func (l *line) tallies(list []event.Tally) {
	if len(list) == 0 {
		return
	}
	l.open("refusals")
	for _, t := range list {
		l.number(t.Reason.String(), int64(t.Count))
	}
	l.shut()
}

func (l *line) rewritten(list []event.Rewrite) {
	if len(list) == 0 {
		return
	}
	l.openList("rewritten")
	for i := range list {
		l.openItem("rewritten", i)
		l.must("reply", list[i].Reply)
		l.number("code", int64(list[i].Code))
		l.shut()
	}
	l.shutList()
}

func (l *line) unreached(list []event.Unreached) {
	if len(list) == 0 {
		return
	}
	l.openList("unreached")
	for i := range list {
		l.openItem("unreached", i)
		l.addr("origin", list[i].Origin)
		l.word("trouble", list[i].Trouble.String())
		l.shut()
	}
	l.shutList()
}

func (l *line) recipients(list []event.Recipient) {
	l.openList("to")
	for i := range list {
		l.openItem("to", i)
		l.must("address", list[i].Address)
		l.option("code", int64(list[i].Answer.Code))
		l.text("text", list[i].Answer.Text)
		l.cause(list[i].Cause)
		l.text("dropped", list[i].Dropped)
		l.shut()
	}
	l.shutList()
}
