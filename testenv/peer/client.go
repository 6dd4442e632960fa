// Package peer is the two ends of an SMTP session as tests need them: a client
// and an origin that send exactly the octets they are told, keep exactly those
// that they got, and break off at a chosen point.
//
// It owns no network: connections and listeners are given to it. It shares no
// code with the product, so that a mistake there is not repeated here. Tests
// and scenarios use it.
package peer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Reply is what a server said to one command.
type Reply struct {
	Code int
	Raw  string // all lines, each with its CRLF
}

// Client is the client's end of a session. Deadlines are set on the
// connection by who made it.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// NewClient talks over a connection that it does not own.
func NewClient(conn net.Conn) *Client {
	return &Client{conn: conn, in: bufio.NewReader(conn)}
}

// Write sends octets as they are.
func (c *Client) Write(octets string) error {
	_, err := io.WriteString(c.conn, octets)
	return err
}

// Reply reads one reply. An end of the connection within it is
// io.ErrUnexpectedEOF, one before it io.EOF.
func (c *Client) Reply() (Reply, error) {
	var raw strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		raw.WriteString(line)
		if errors.Is(err, io.EOF) && raw.Len() > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Reply{Raw: raw.String()}, err
		}
		code, more, err := parseReplyLine(line)
		if err != nil {
			return Reply{Raw: raw.String()}, err
		}
		if !more {
			return Reply{Code: code, Raw: raw.String()}, nil
		}
	}
}

// parseReplyLine reads the code and whether a further line follows.
func parseReplyLine(line string) (code int, more bool, err error) {
	if len(line) < 5 || !strings.HasSuffix(line, "\r\n") || (line[3] != ' ' && line[3] != '-' && line[3] != '\r') {
		return 0, false, fmt.Errorf("%q is not a line of a reply", line)
	}
	code, err = strconv.Atoi(line[:3])
	return code, line[3] == '-', err
}

// Command sends a line and reads the reply.
func (c *Client) Command(line string) (Reply, error) {
	if err := c.Write(line + "\r\n"); err != nil {
		return Reply{}, err
	}
	return c.Reply()
}

// Message is one message as it is on the wire.
type Message struct {
	From    string
	Mail    string // parameters of MAIL, with a space before
	To      []string
	Content string // dots doubled, without the final ".\r\n"; ends in CRLF unless empty
}

// StartTLS says STARTTLS and makes the handshake; what follows is inside TLS.
func (c *Client) StartTLS(config *tls.Config) error {
	reply, err := c.Command("STARTTLS")
	if err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	if reply.Code != 220 {
		return fmt.Errorf("STARTTLS: %q", reply.Raw)
	}
	if n := c.in.Buffered(); n > 0 {
		return fmt.Errorf("STARTTLS: %d octets behind the reply", n)
	}
	return c.Secure(config)
}

// Secure makes the handshake at once.
func (c *Client) Secure(config *tls.Config) error {
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	c.conn, c.in = conn, bufio.NewReader(conn)
	return nil
}

// TLS returns the state of TLS, and whether there is any.
func (c *Client) TLS() (tls.ConnectionState, bool) {
	conn, ok := c.conn.(*tls.Conn)
	if !ok {
		return tls.ConnectionState{}, false
	}
	return conn.ConnectionState(), true
}

// Open reads the greeting and says EHLO.
func (c *Client) Open(name string) (ehlo Reply, err error) {
	greeting, err := c.Reply()
	if err != nil {
		return Reply{}, fmt.Errorf("greeting: %w", err)
	}
	if greeting.Code != 220 {
		return greeting, fmt.Errorf("greeting: %q", greeting.Raw)
	}
	return c.Command("EHLO " + name)
}

// Envelope sends MAIL, RCPTs and DATA, each after the reply to the one
// before, and returns when 354 is there.
func (c *Client) Envelope(m Message) error {
	commands := []string{"MAIL FROM:<" + m.From + ">" + m.Mail}
	for _, to := range m.To {
		commands = append(commands, "RCPT TO:<"+to+">")
	}
	for _, line := range append(commands, "DATA") {
		reply, err := c.Command(line)
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if want := 250; reply.Code != want && !(line == "DATA" && reply.Code == 354) {
			return fmt.Errorf("%s: %q", line, reply.Raw)
		}
	}
	return nil
}

// Send carries one message in the open session and returns the reply to its
// end.
func (c *Client) Send(m Message) (Reply, error) {
	if err := c.Envelope(m); err != nil {
		return Reply{}, err
	}
	if err := c.Write(m.Content + ".\r\n"); err != nil {
		return Reply{}, fmt.Errorf("content: %w", err)
	}
	return c.Reply()
}

// Accepted is Send where a reply other than 250 is an error.
func (c *Client) Accepted(m Message) error {
	reply, err := c.Send(m)
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("end of data: %q", reply.Raw)
	}
	return err
}

// Quit says QUIT and closes the connection.
func (c *Client) Quit() error {
	reply, err := c.Command("QUIT")
	if err == nil && reply.Code != 221 {
		err = fmt.Errorf("QUIT: %q", reply.Raw)
	}
	return errors.Join(err, c.conn.Close())
}

// Deliver is a whole session: greeting, EHLO, one message, QUIT. It returns
// the reply to the message.
func (c *Client) Deliver(m Message) (Reply, error) {
	ehlo, err := c.Open("client.example.net")
	if err != nil {
		return Reply{}, err
	}
	if ehlo.Code != 250 {
		return ehlo, fmt.Errorf("EHLO: %q", ehlo.Raw)
	}
	reply, err := c.Send(m)
	if err != nil {
		return reply, err
	}
	if quit, err := c.Command("QUIT"); err != nil || quit.Code != 221 {
		return reply, fmt.Errorf("QUIT: %q, %w", quit.Raw, err)
	}
	return reply, nil
}

// Reset ends a TCP connection with RST.
func Reset(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("reset: %T has no RST", conn)
	}
	return errors.Join(tcp.SetLinger(0), tcp.Close())
}
