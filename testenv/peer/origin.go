package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Point is a place in a session at which an origin resets the connection.
type Point string

// The points, in the order in which a session reaches them.
const (
	Never      Point = ""
	AtConnect  Point = "connect"  // instead of the greeting
	AtEHLO     Point = "ehlo"     // instead of the reply to EHLO
	AtMAIL     Point = "mail"     // instead of the reply to MAIL
	AtRCPT     Point = "rcpt"     // instead of the reply to RCPT
	AtDATA     Point = "data"     // instead of 354
	InContent  Point = "content"  // after the first line of the content
	AtEnd      Point = "end"      // instead of the reply to the end of data
	InEndReply Point = "endreply" // within the reply to the end of data
)

// Points lists every point but Never.
var Points = []Point{AtConnect, AtEHLO, AtMAIL, AtRCPT, AtDATA, InContent, AtEnd, InEndReply}

// Behaviour is how an origin answers. The zero value takes everything.
type Behaviour struct {
	Extensions []string          // lines of the EHLO reply after the first
	Replies    map[string]string // by verb, "." for the end of data: octets in place of the usual reply
	Reset      Point             // where every session ends
	TLS        *tls.Config       // for STARTTLS, which is offered in clear; nil: none
	Implicit   bool              // TLS comes before the greeting
	Handshake  Handshake         // what comes in place of a handshake
}

// Handshake is how an origin breaks off where the handshake of TLS should be.
type Handshake string

// In place of the handshake an origin
const (
	Drop    Handshake = "drop"    // closes the connection
	Garbage Handshake = "garbage" // sends a line that is no TLS, after the first octet from the client
	Stall   Handshake = "stall"   // reads, and says nothing
)

// Session is what an origin saw of one connection.
type Session struct {
	Client   netip.AddrPort
	Commands []string  // lines without CRLF
	Messages []Message // those whose end of data arrived
	Content  string    // of an unfinished message
	TLS      string    // the version, "" without
	Name     string    // that was asked for in TLS
	Done     bool      // the connection is over
}

// Origin is a server that accepts mail for tests.
type Origin struct {
	*Server
	behaviour Behaviour

	mu       sync.Mutex
	sessions []*Session
	changed  chan struct{} // closed and replaced when a session changes
}

// Serve accepts connections until Close, which closes the listeners too.
func Serve(b Behaviour, listeners ...net.Listener) *Origin {
	o := &Origin{behaviour: b, changed: make(chan struct{})}
	o.Server = Accept(o.begin, listeners...)
	return o
}

// Sessions returns what has been seen so far.
func (o *Origin) Sessions() []Session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.copies()
}

// copies returns the sessions as values; o.mu is held.
func (o *Origin) copies() []Session {
	sessions := make([]Session, len(o.sessions))
	for i, s := range o.sessions {
		sessions[i] = *s
		sessions[i].Commands = slices.Clone(s.Commands)
		sessions[i].Messages = slices.Clone(s.Messages)
	}
	return sessions
}

// Await waits until the sessions satisfy a condition and returns them.
func (o *Origin) Await(ctx context.Context, condition func([]Session) bool) ([]Session, error) {
	for {
		o.mu.Lock()
		sessions, changed := o.copies(), o.changed
		o.mu.Unlock()
		if condition(sessions) {
			return sessions, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sessions, fmt.Errorf("await the origin: %w; it saw %+v", context.Cause(ctx), sessions)
		}
	}
}

// begin notes a session.
func (o *Origin) begin(conn net.Conn) func() {
	s := &Session{Client: netip.MustParseAddrPort(conn.RemoteAddr().String())}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions = append(o.sessions, s)
	return func() { o.serve(conn, s) }
}

// update changes a session and wakes those who wait.
func (o *Origin) update(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Origin) serve(conn net.Conn, s *Session) {
	talk := &dialogue{origin: o, session: s, conn: conn, in: bufio.NewReader(conn)}
	if errors.Is(talk.run(), errReset) {
		Reset(conn)
	}
	conn.Close()
	o.update(func() { s.Done = true })
}

// errReset ends a session with RST.
var errReset = errors.New("reset as asked")

// dialogue is one session in progress.
type dialogue struct {
	origin  *Origin
	session *Session
	conn    net.Conn
	in      *bufio.Reader
	message Message
}

// run talks until the client quits or the connection ends.
func (d *dialogue) run() error {
	if d.origin.behaviour.Implicit {
		if err := d.secure(); err != nil {
			return err
		}
	}
	if err := d.answer("greeting", AtConnect, "220 origin.example.org ESMTP\r\n"); err != nil {
		return err
	}
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSuffix(line, "\r\n")
		d.origin.update(func() { d.session.Commands = append(d.session.Commands, line) })
		if err := d.command(line); err != nil {
			return err
		}
	}
}

// command answers one command. io.EOF is the answer after QUIT.
func (d *dialogue) command(line string) error {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	switch verb {
	case "EHLO":
		return d.answer(verb, AtEHLO, d.ehlo())
	case "HELO":
		return d.answer(verb, AtEHLO, "250 origin.example.org\r\n")
	case "MAIL":
		_, parameters, _ := strings.Cut(line, ">")
		d.message = Message{From: path(line), Mail: parameters}
		return d.answer(verb, AtMAIL, "250 2.1.0 Sender in the test's book\r\n")
	case "RCPT":
		d.message.To = append(d.message.To, path(line))
		return d.answer(verb, AtRCPT, "250 2.1.5 Recipient in the test's book\r\n")
	case "DATA":
		return d.data()
	case "RSET":
		d.message = Message{}
		return d.answer(verb, Never, "250 2.0.0 Forgotten\r\n")
	case "NOOP":
		return d.answer(verb, Never, "250 2.0.0 Nothing done\r\n")
	case "STARTTLS":
		return d.startTLS()
	case "QUIT":
		return errors.Join(d.answer(verb, Never, "221 2.0.0 Until next time\r\n"), io.EOF)
	}
	return d.answer(verb, Never, "500 5.5.1 Not in the test's book\r\n")
}

// ehlo returns the usual reply to EHLO.
func (d *dialogue) ehlo() string {
	lines := append([]string{"origin.example.org"}, d.origin.behaviour.Extensions...)
	if d.origin.behaviour.TLS != nil && d.session.TLS == "" {
		lines = append(lines, "STARTTLS")
	}
	var reply strings.Builder
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		reply.WriteString("250" + separator + line + "\r\n")
	}
	return reply.String()
}

// startTLS agrees and begins anew inside TLS, as far as the reply says 220.
func (d *dialogue) startTLS() error {
	if d.origin.behaviour.TLS == nil {
		return d.answer("STARTTLS", Never, "500 5.5.1 Not in the test's book\r\n")
	}
	if err := d.answer("STARTTLS", Never, "220 2.0.0 Begin\r\n"); err != nil {
		return err
	}
	if other, ok := d.origin.behaviour.Replies["STARTTLS"]; ok && !strings.HasPrefix(other, "220") {
		return nil
	}
	return d.secure()
}

// secure makes the handshake, or what comes in its place.
func (d *dialogue) secure() error {
	switch d.origin.behaviour.Handshake {
	case Drop:
		return io.EOF
	case Garbage:
		if _, err := d.in.ReadByte(); err != nil {
			return err
		}
		io.WriteString(d.conn, "this is a line of text\r\n")
		fallthrough
	case Stall:
		_, err := io.Copy(io.Discard, d.conn)
		return errors.Join(err, io.EOF)
	}
	conn := tls.Server(d.conn, d.origin.behaviour.TLS)
	if err := conn.Handshake(); err != nil {
		return err
	}
	d.conn, d.in, d.message = conn, bufio.NewReader(conn), Message{}
	state := conn.ConnectionState()
	d.origin.update(func() {
		d.session.TLS, d.session.Name = tls.VersionName(state.Version), state.ServerName
	})
	return nil
}

// data takes the content of a message.
func (d *dialogue) data() error {
	if err := d.answer("DATA", AtDATA, "354 Go ahead\r\n"); err != nil {
		return err
	}
	if err := d.content(); err != nil {
		return err
	}
	d.origin.update(func() {
		d.session.Messages = append(d.session.Messages, d.message)
		d.session.Content = ""
	})
	if d.origin.behaviour.Reset == InEndReply {
		d.conn.Write([]byte("25"))
		return errReset
	}
	return d.answer(".", AtEnd, "250 2.0.0 Queued as TEST1\r\n")
}

// content reads lines up to the one that is only a dot. Only CRLF ends a line.
func (d *dialogue) content() error {
	var content strings.Builder
	for {
		line, err := readLine(d.in)
		if line == ".\r\n" {
			d.message.Content = content.String()
			return err
		}
		content.WriteString(line)
		d.origin.update(func() { d.session.Content = content.String() })
		if err != nil {
			return err
		}
		if d.origin.behaviour.Reset == InContent {
			return errReset
		}
	}
}

// readLine reads up to and including CRLF; a lone LF does not end a line.
func readLine(in *bufio.Reader) (string, error) {
	var line strings.Builder
	for {
		part, err := in.ReadString('\n')
		line.WriteString(part)
		if err != nil || strings.HasSuffix(line.String(), "\r\n") {
			return line.String(), err
		}
	}
}

// answer sends the reply to a verb, or resets the connection in its place.
func (d *dialogue) answer(verb string, point Point, usual string) error {
	if point != Never && d.origin.behaviour.Reset == point {
		return errReset
	}
	reply := usual
	if other, ok := d.origin.behaviour.Replies[verb]; ok {
		reply = other
	}
	_, err := io.WriteString(d.conn, reply)
	return err
}

// path returns what is between the angle brackets of MAIL and RCPT.
func path(line string) string {
	_, rest, _ := strings.Cut(line, "<")
	inside, _, _ := strings.Cut(rest, ">")
	return inside
}
