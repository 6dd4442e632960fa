package foreign

import (
	"math/rand/v2"
	"strings"
)

// job is what a client is told to do, in one session. Drivers read it as JSON.
type job struct {
	Server   string
	Port     int
	Name     string // for EHLO
	TLS      bool   // STARTTLS
	CA       string // PEM file
	Auth     string // mechanism; "": none
	User     string
	Password string
	Letters  []letter
}

// letter is a message with its envelope.
type letter struct {
	From     string
	To       []string
	Subject  string
	Body     string // lines end in CRLF
	Content  string // a header with this subject, and the body
	EightBit bool   // BODY=8BITMIME
	UTF8     bool   // SMTPUTF8
	DSN      bool   // RET, ENVID, NOTIFY and ORCPT
	NoAuth   bool   // MAIL has AUTH=<>, asked or not
}

// play is what one session is about.
type play struct {
	name    string
	letters []letter
	tls     bool
	auth    string
	wrong   bool // a wrong password
	arrives bool // without the gateway the origin has something at the end
	plainly bool // also by the way whose service has all defaults
	short   bool
	mta     bool // one letter, and no password: what a mail server can be told to send
}

const (
	sender    = "a@example.net"
	recipient = "b@example.org"
)

// subject makes a letter with an ordinary envelope.
func subject(subject, body string) letter {
	return envelope(subject, body, sender, recipient)
}

func envelope(subject, body, from string, to ...string) letter {
	l := letter{From: from, To: to, Subject: subject, Body: body}
	l.Content = "From: <a@example.net>\r\nTo: <b@example.org>\r\nSubject: " + subject + "\r\n" +
		"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <letter@example.net>\r\n\r\n" + body
	return l
}

const body = "a line\r\nand another one\r\n"

func changed(l letter, change func(*letter)) letter {
	change(&l)
	return l
}

// dots are what careless transports of dots change.
const dots = ".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n\r\nx.\r\n.\r\n"

var plays = []play{
	{name: "plain", letters: []letter{subject("plain", body)}, arrives: true, plainly: true, short: true, mta: true},
	{name: "null sender", letters: []letter{envelope("null", body, "", recipient)}, arrives: true, mta: true},
	{name: "recipients", letters: []letter{envelope("three", body, sender, "x@example.org", "y@example.org", "z@example.org")}, arrives: true, mta: true},
	{name: "one refused", letters: []letter{envelope("one", body, sender, "x@example.org", "y@elsewhere.example", "z@example.org")}, short: true, mta: true},
	{name: "all refused", letters: []letter{envelope("all", body, sender, "x@elsewhere.example", "y@elsewhere.example")}, mta: true},
	{name: "sender refused", letters: []letter{envelope("sender", body, "refused@example.net", recipient)}},
	{name: "content refused", letters: []letter{subject("refuse me", body)}, short: true, mta: true},
	{name: "parameters", letters: []letter{changed(subject("parameters", body), func(l *letter) { l.NoAuth = true })}, plainly: true, short: true},
	{name: "DSN", letters: []letter{changed(subject("dsn", body), func(l *letter) { l.DSN = true })}, plainly: true, short: true, mta: true},
	{name: "8BITMIME", letters: []letter{changed(subject("eight", "über €\r\n\xc3\xbf\r\n"), func(l *letter) { l.EightBit = true })}, arrives: true, mta: true},
	{name: "SMTPUTF8", letters: []letter{changed(envelope("utf8", "zoë\r\n", "jürgen@example.net", "zoë@example.org"), func(l *letter) { l.UTF8, l.EightBit = true, true })}, mta: true},
	{name: "dots", letters: []letter{subject("dots", dots)}, arrives: true, short: true, mta: true},
	{name: "large", letters: []letter{subject("large", large(3<<20))}, arrives: true, plainly: true, mta: true},
	{name: "several", letters: []letter{subject("first", body), subject("refuse me", body), subject("third", dots)}, arrives: true, short: true},
	{name: "AUTH PLAIN", auth: "PLAIN", letters: []letter{subject("auth", body)}, arrives: true, short: true},
	{name: "AUTH LOGIN", auth: "LOGIN", letters: []letter{subject("auth", body)}, arrives: true, short: true},
	{name: "AUTH refused", auth: "PLAIN", wrong: true, letters: []letter{subject("auth", body)}},
	{name: "TLS", tls: true, letters: []letter{subject("tls", body)}, arrives: true, plainly: true, short: true, mta: true},
	{name: "TLS, AUTH PLAIN", tls: true, auth: "PLAIN", letters: []letter{subject("auth", body)}, arrives: true, short: true},
	{name: "TLS, AUTH LOGIN", tls: true, auth: "LOGIN", letters: []letter{subject("auth", body)}, arrives: true},
	{name: "TLS, several", tls: true, letters: []letter{subject("first", body), subject("refuse me", body), subject("large", large(1<<20))}, arrives: true},
}

// goes says whether a client plays a play by a way. A mail server is configured for
// one address.
func (p play) goes(c client, w *way) bool {
	return w != addressed || p.plainly && *complete && !c.mta
}

// job is the play as a client is told.
func (p play) job(s *stage, w *way) job {
	to := w.to(s)
	j := job{
		Server: to.Addr().String(), Port: int(to.Port()), Name: "client.example.net", TLS: p.tls, CA: s.authority,
		Auth: p.auth, Letters: p.letters,
	}
	if p.auth != "" {
		j.User, j.Password = "user", "password"
	}
	if p.wrong {
		j.Password = "wrong"
	}
	return j
}

// large returns lines of that many octets, the same ones each time. Many begin with a
// dot.
func large(octets int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz .,;=0123456789"
	random := rand.New(rand.NewPCG(25, uint64(octets)))
	var b strings.Builder
	for b.Len() < octets {
		if random.IntN(4) == 0 {
			b.WriteString(strings.Repeat(".", 1+random.IntN(3)))
		}
		for range random.IntN(70) {
			b.WriteByte(letters[random.IntN(len(letters))])
		}
		b.WriteString("x\r\n")
	}
	return b.String()
}
