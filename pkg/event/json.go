package event

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// jsonFormat writes records as JSON. Members are in a fixed order and are never
// renamed; new ones may be added; those without a value are left out.
type jsonFormat struct{}

const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

func (jsonFormat) message(b []byte, m *Message) []byte {
	o := object(b)
	o.word("event", "message")
	o.time("time", m.Start.Add(m.Total))
	o.flow(&m.Flow)
	o.addr("origin", m.Origin)
	o.addr("forged", m.Forged)
	o.word("unforged", m.Unforged.String())
	o.number("number", int64(m.Number))
	o.text("helo", m.Hello)
	o.must("from", m.Sender)
	o.recipients(m.Recipients)
	o.number("accepted", int64(m.Accepted))
	o.number("refused", int64(m.Refused))
	o.option("declared_size", m.Declared)
	o.number("size", m.Size)
	o.text("envid", m.EnvID)
	o.text("xclient", m.XClient)
	o.text("xforward", m.XForward)
	o.extensions("extensions", m.Used)
	o.seconds("envelope_after", m.Enveloped)
	o.seconds("opened_after", m.Opened)
	o.seconds("content_after", m.Content)
	o.seconds("duration", m.Total)
	o.word("outcome", m.Outcome.String())
	o.word("reason", m.Reason.String())
	o.answer("reply", m.Client)
	o.answer("origin_reply", m.Reply)
	return o.line()
}

func (jsonFormat) session(b []byte, s *Session) []byte {
	o := object(b)
	o.word("event", "session")
	o.time("time", s.Start.Add(s.Duration))
	o.flow(&s.Flow)
	o.addr("origin", s.Origin)
	o.addr("forged", s.Forged)
	o.word("unforged", s.Unforged.String())
	o.unreached(s.Unreached)
	o.answer("greeting", s.Greeting)
	o.text("helo", s.Hello)
	o.flag("esmtp", s.Extended)
	o.text("xclient", s.XClient)
	o.flag("authenticated", s.Authenticated)
	o.extensions("offered", s.Offered)
	o.text("removed", s.Removed)
	o.extensions("extensions", s.Used)
	o.number("commands", int64(s.Commands))
	o.number("errors", int64(s.Errors))
	o.number("messages", int64(s.Messages))
	o.word("tls", s.Mode)
	o.tls("client_tls", s.ClientTLS)
	o.tls("origin_tls", s.OriginTLS)
	o.opaque("opaque", s.Opaque)
	o.tallies("refusals", s.Refusals)
	o.number("client_in", s.ClientIn)
	o.number("client_out", s.ClientOut)
	o.number("origin_in", s.OriginIn)
	o.number("origin_out", s.OriginOut)
	o.seconds("greeted_after", s.Greeted)
	o.seconds("duration", s.Duration)
	o.word("end", s.End.String())
	o.word("detail", s.Detail)
	o.text("offence", s.Offence)
	o.answer("reply", s.Last)
	o.answer("origin_reply", s.Closing)
	o.rewritten(s.Rewritten)
	return o.line()
}

func (jsonFormat) lost(b []byte, at time.Time, records uint64) []byte {
	o := object(b)
	o.word("event", "lost")
	o.time("time", at)
	o.number("records", int64(records))
	return o.line()
}

// jsonObject is an object under construction.
type jsonObject struct{ b []byte }

func object(b []byte) *jsonObject { return &jsonObject{append(b, '{')} }

func (o *jsonObject) line() []byte {
	o.b[len(o.b)-1] = '}' // in place of the last comma
	return append(o.b, '\n')
}

func (o *jsonObject) name(n string) {
	o.b = append(o.b, '"')
	o.b = append(o.b, n...)
	o.b = append(o.b, '"', ':')
}

// must writes a text, also an empty one.
func (o *jsonObject) must(n string, s Text) {
	o.name(n)
	o.b = append(o.b, '"')
	o.b = appendEscaped(o.b, s)
	o.b = append(o.b, '"', ',')
}

func (o *jsonObject) text(n string, s Text) {
	if len(s) > 0 {
		o.must(n, s)
	}
}

// word writes a string of our own.
func (o *jsonObject) word(n, s string) {
	if s != "" {
		o.must(n, []byte(s))
	}
}

func (o *jsonObject) number(n string, v int64) {
	o.name(n)
	o.b = strconv.AppendInt(o.b, v, 10)
	o.b = append(o.b, ',')
}

func (o *jsonObject) option(n string, v int64) {
	if v != 0 {
		o.number(n, v)
	}
}

func (o *jsonObject) flag(n string, v bool) {
	o.name(n)
	o.b = strconv.AppendBool(o.b, v)
	o.b = append(o.b, ',')
}

func (o *jsonObject) seconds(n string, d time.Duration) {
	if d > 0 {
		o.name(n)
		o.b = strconv.AppendFloat(o.b, d.Seconds(), 'f', 6, 64)
		o.b = append(o.b, ',')
	}
}

func (o *jsonObject) time(n string, t time.Time) {
	o.name(n)
	o.b = append(o.b, '"')
	o.b = t.UTC().AppendFormat(o.b, timeLayout)
	o.b = append(o.b, '"', ',')
}

func (o *jsonObject) addr(n string, a netip.AddrPort) {
	if a.IsValid() {
		o.name(n)
		o.b = append(o.b, '"')
		o.b = a.AppendTo(o.b)
		o.b = append(o.b, '"', ',')
	}
}

func (o *jsonObject) flow(f *flow.Flow) {
	o.name("id")
	o.b = append(o.b, '"')
	o.b, _ = f.ID.AppendText(o.b) // cannot fail
	o.b = append(o.b, '"', ',')
	o.word("service", f.Service)
	o.word("way", f.Way.String())
	o.addr("client", f.Client)
	o.addr("server", f.Server)
	o.word("zone", f.Zone.Name)
	o.addr("via", f.Via)
}

func (o *jsonObject) extensions(n string, s smtp.Extensions) {
	if s != 0 {
		o.name(n)
		o.b = append(o.b, '"')
		o.b = s.AppendTo(o.b, ' ')
		o.b = append(o.b, '"', ',')
	}
}

func (o *jsonObject) answer(n string, a Answer) {
	if a.Code == 0 {
		return
	}
	o.name(n)
	o.b = append(o.b, '{')
	o.number("code", int64(a.Code))
	o.text("text", a.Text)
	o.b[len(o.b)-1] = '}'
	o.b = append(o.b, ',')
}

func (o *jsonObject) tls(n string, t *TLS) {
	if t == nil {
		return
	}
	o.name(n)
	o.b = append(o.b, '{')
	o.word("version", t.Version)
	o.word("cipher", t.Cipher)
	o.word("group", t.Group)
	o.text("sni", t.Name)
	if t.Version != "" {
		o.flag("resumed", t.Resumed)
	}
	o.word("peer", t.Peer.String())
	o.text("peer_name", t.PeerName)
	o.word("failure", t.Failure.String())
	o.word("detail", t.Detail)
	o.b[len(o.b)-1] = '}'
	o.b = append(o.b, ',')
}

func (o *jsonObject) opaque(n string, p *Opaque) {
	if p == nil {
		return
	}
	o.name(n)
	o.b = append(o.b, '{')
	o.number("from_client", p.FromClient)
	o.number("from_origin", p.FromOrigin)
	o.word("detail", p.Detail)
	o.b[len(o.b)-1] = '}'
	o.b = append(o.b, ',')
}

func (o *jsonObject) rewritten(list []Rewrite) {
	if len(list) == 0 {
		return
	}
	o.name("rewritten")
	o.b = append(o.b, '[')
	for _, r := range list {
		o.b = append(o.b, '{')
		o.must("reply", r.Reply)
		o.number("code", int64(r.Code))
		o.b[len(o.b)-1] = '}'
		o.b = append(o.b, ',')
	}
	o.b[len(o.b)-1] = ']'
	o.b = append(o.b, ',')
}

func (o *jsonObject) tallies(n string, list []Tally) {
	if len(list) == 0 {
		return
	}
	o.name(n)
	o.b = append(o.b, '{')
	for _, t := range list {
		o.number(t.Reason.String(), int64(t.Count))
	}
	o.b[len(o.b)-1] = '}'
	o.b = append(o.b, ',')
}

func (o *jsonObject) unreached(list []Unreached) {
	if len(list) == 0 {
		return
	}
	o.name("unreached")
	o.b = append(o.b, '[')
	for _, u := range list {
		o.b = append(o.b, '{')
		o.addr("origin", u.Origin)
		o.word("trouble", u.Trouble.String())
		o.b[len(o.b)-1] = '}'
		o.b = append(o.b, ',')
	}
	o.b[len(o.b)-1] = ']'
	o.b = append(o.b, ',')
}

func (o *jsonObject) recipients(list []Recipient) {
	o.name("to")
	o.b = append(o.b, '[')
	for i := range list {
		o.b = append(o.b, '{')
		o.must("address", list[i].Address)
		if c := list[i].Answer.Code; c != 0 {
			o.number("code", int64(c))
		}
		o.text("text", list[i].Answer.Text)
		o.word("reason", list[i].Reason.String())
		o.b[len(o.b)-1] = '}'
		o.b = append(o.b, ',')
	}
	if len(list) > 0 {
		o.b = o.b[:len(o.b)-1]
	}
	o.b = append(o.b, ']', ',')
}
