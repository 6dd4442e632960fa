package differential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// client is a program or library that sends mail. It talks as itself:
// client.example.net.
type client struct {
	name string
	// able says whether it can send a letter at all; nil: any without
	// parameters.
	able func(letter) bool
	// send sends it and returns the codes of the replies that it read. An error
	// means that this was not a conversation; a refusal is none.
	send func(context.Context, *stage, netip.AddrPort, letter) ([]int, error)
	// tail is what it puts behind content, as it is stored.
	tail string
}

const helo = "client.example.net"

var clients = []client{
	{name: "swaks", able: swaksAble, send: func(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
		return swaks(ctx, s, to, l)
	}},
	{name: "swaks --pipeline", able: swaksAble, send: func(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
		return swaks(ctx, s, to, l, "--pipeline")
	}},
	{name: "swaks HELO", able: swaksAble, send: func(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
		return swaks(ctx, s, to, l, "--protocol", "SMTP")
	}},
	{name: "curl", send: curl},
	{name: "smtp-source", able: smtpSourceAble, send: smtpSource, tail: "\n"},
	{name: "net/smtp", send: netSMTP},
	{name: "DATA", able: anything, send: peerClient{}.send},
	{name: "DATA, pipelined", able: anything, send: peerClient{pipelined: true}.send},
	{name: "BDAT, one chunk", able: anything, send: peerClient{chunk: 1 << 30}.send},
	{name: "BDAT, many chunks, pipelined", able: anything, send: peerClient{chunk: 60_000, pipelined: true}.send},
}

func anything(letter) bool { return true }

func (c client) can(l letter) bool {
	if c.able == nil {
		return !l.params
	}
	return c.able(l)
}

// program runs a client's command on the client and returns what it says. How
// it judges the outcome does not matter: the codes of replies tell it.
func (s *stage) program(ctx context.Context, name string, args ...string) (string, error) {
	cmd := s.Client.Command(ctx, name, args...)
	cmd.WaitDelay = time.Second // its children may hold on to the output
	output, err := cmd.CombinedOutput()
	if err != nil && (ctx.Err() != nil || !errors.As(err, new(*exec.ExitError))) {
		return "", fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return string(output), nil
}

// codesIn finds the codes in what a program says, by a pattern that has the
// code and what follows it as groups.
func codesIn(said string, pattern *regexp.Regexp) (codes []int, err error) {
	for _, match := range pattern.FindAllStringSubmatch(said, -1) {
		if match[2] == "-" {
			continue
		}
		code, err := strconv.Atoi(match[1])
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	if len(codes) == 0 {
		return nil, fmt.Errorf("no reply in %.2000q", said)
	}
	return codes, nil
}

// swaksAble: it takes a text without a line's end for the name of a file.
func swaksAble(l letter) bool { return !l.params && l.content != "" }

var swaksReply = regexp.MustCompile(`(?m)^ ?<(?:-|~|\*)[ *~-] (\d{3})(-?)`)

func swaks(ctx context.Context, s *stage, to netip.AddrPort, l letter, more ...string) ([]int, error) {
	path, err := s.file("swaks", l.stuffed()+".") // it sends the last CRLF itself
	if err != nil {
		return nil, err
	}
	from := l.from
	if from == "" {
		from = "<>"
	}
	said, err := s.program(ctx, "swaks", append(more, "--server", to.Addr().String(), "--port", strconv.Itoa(int(to.Port())),
		"--helo", helo, "--from", from, "--to", strings.Join(l.to, ","), "--data", "@"+path, "--no-data-fixup", "--suppress-data")...)
	if err != nil {
		return nil, err
	}
	return codesIn(said, swaksReply)
}

var curlReply = regexp.MustCompile(`(?m)^< (\d{3})(-?)`)

func curl(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
	path, err := s.file("curl", l.content)
	if err != nil {
		return nil, err
	}
	args := []string{"--silent", "--verbose", "--url", "smtp://" + to.String() + "/" + helo, "--mail-from", l.from,
		"--mail-rcpt-allowfails", "--upload-file", path}
	for _, rcpt := range l.to {
		args = append(args, "--mail-rcpt", rcpt)
	}
	said, err := s.program(ctx, "curl", args...)
	if err != nil {
		return nil, err
	}
	return codesIn(said, curlReply)
}

// smtpSourceAble: it has one sender and one recipient, and asks for DATA
// whatever becomes of them.
func smtpSourceAble(l letter) bool {
	return !l.params && len(l.to) == 1 && l.from != ""
}

var smtpSourceReply = regexp.MustCompile(`(?m)^smtp-source: <<< (\d{3})(-?)`)

func smtpSource(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
	path, err := s.file("smtp-source", l.stored())
	if err != nil {
		return nil, err
	}
	inRoot, err := filepath.Abs("../../scripts/in-root")
	if err != nil {
		return nil, err
	}
	said, err := s.program(ctx, inRoot, "postfix", s.Dir, "smtp-source", "-v", "-M", helo, "-f", l.from, "-t", l.to[0], "-F", path,
		fmt.Sprintf("%s:%d", to.Addr(), to.Port()))
	if err != nil {
		return nil, err
	}
	return codesIn(said, smtpSourceReply)
}

// netSMTP sends with Go's library, which adds parameters by itself.
func netSMTP(ctx context.Context, s *stage, to netip.AddrPort, l letter) ([]int, error) {
	conn, err := s.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	heard := &listener{Conn: conn}
	if err := netDialogue(heard, l); err != nil && !errors.As(err, new(*textproto.Error)) {
		return nil, err
	}
	return codesIn(heard.said.String(), plainReply)
}

// netDialogue goes on after refused recipients and gives up after any other
// refusal, both with QUIT.
func netDialogue(conn net.Conn, l letter) error {
	c, err := smtp.NewClient(conn, helo)
	if err != nil {
		return err
	}
	if err := c.Hello(helo); err != nil {
		return err
	}
	if err := netMessage(c, l); err != nil {
		return errors.Join(err, c.Quit())
	}
	return c.Quit()
}

func netMessage(c *smtp.Client, l letter) error {
	if err := c.Mail(l.from); err != nil {
		return err
	}
	var taken bool
	var refusal error
	for _, to := range l.to {
		err := c.Rcpt(to)
		taken, refusal = taken || err == nil, errors.Join(refusal, err)
	}
	if !taken {
		return refusal
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(l.content)); err != nil {
		return err
	}
	return w.Close()
}

var plainReply = regexp.MustCompile(`(?m)^(\d{3})(-?)`)

// listener keeps what was read from a connection.
type listener struct {
	net.Conn
	said strings.Builder
}

func (l *listener) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.said.Write(p[:n])
	return n, err
}
