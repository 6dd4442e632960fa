package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

//go:embed postfix.sh
var postfixScript string

// firstUser is the user id of the load's first client; nobody else's.
const firstUser = 21000

// postfix is a load of Postfix's smtp-source: small sessions as they have always
// been measured. It sends mail from all of the client's further addresses at
// once, so that ports in TIME_WAIT are never short.
type postfix struct {
	*server
	sources int
	in      io.WriteCloser
	replies chan string // of the driver, a line each; closed when it has ended
}

// newPostfix starts the driver, which waits for orders.
func (s *stage) newPostfix(ctx context.Context) (*postfix, error) {
	if err := s.routeUsers(ctx); err != nil {
		return nil, err
	}
	l := &postfix{sources: len(s.env.MoreClients), replies: make(chan string)}
	cmd := s.unpacked(s.env.Client, "postfix", "sh", "-c", postfixScript, "postfix.sh",
		strconv.Itoa(firstUser), strconv.Itoa(l.sources), strconv.Itoa(s.octets))
	var err error
	if l.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	if l.server, err = s.serve(s.accounts.load, "load", cmd); err != nil {
		return nil, err
	}
	go func() {
		<-l.ended
		writer.Close()
	}()
	go l.listen(reader)
	return l, nil
}

// routeUsers gives each user of the load a source address of its own.
func (s *stage) routeUsers(ctx context.Context) error {
	said, err := s.env.Client.Run(ctx, "ip", "-4", "route", "show", "default")
	if err != nil {
		return err
	}
	way := strings.Fields(said)
	for n, source := range s.env.MoreClients {
		user := strconv.Itoa(firstUser + n) // names the table too
		route := append(append([]string{"route", "add"}, way...), "src", source.String(), "table", user)
		if _, err := s.env.Client.Run(ctx, "ip", route...); err != nil {
			return err
		}
		if _, err := s.env.Client.Run(ctx, "ip", "rule", "add", "uidrange", user+"-"+user, "lookup", user); err != nil {
			return err
		}
	}
	return nil
}

// listen hands the driver's lines on until it ends.
func (l *postfix) listen(out io.Reader) {
	defer close(l.replies)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		l.replies <- lines.Text()
	}
}

// each returns the share of one source address, rounded up.
func (l *postfix) each(n int) int { return (n + l.sources - 1) / l.sources }

// total returns what n becomes when every source address has the same share.
func (l *postfix) total(n int) int { return l.each(n) * l.sources }

// run sends messages, a session each, and waits until all are delivered. The
// numbers are rounded up to multiples of the addresses.
func (l *postfix) run(ctx context.Context, to netip.AddrPort, sessions, parallel int) error {
	_, err := fmt.Fprintf(l.in, "%s %d %d\n", to, l.each(sessions), l.each(parallel))
	if err != nil {
		return l.complain(err)
	}
	slow := time.NewTimer(slowest)
	defer slow.Stop()
	select {
	case reply, ok := <-l.replies:
		if !ok || reply != "done" {
			return l.complain(fmt.Errorf("not all of %d sessions with %s succeeded", sessions, to))
		}
		return nil
	case <-slow.C:
		return l.complain(fmt.Errorf("%d sessions with %s are not over after %v", sessions, to, slowest))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// slowest is how long one run of the load may take: a connection that hangs
// would otherwise make us wait for the timeouts of mail, which are in minutes.
const slowest = 5 * time.Minute

// kill ends the driver and what it started.
func (l *postfix) kill() error {
	return errors.Join(l.in.Close(), l.server.kill())
}
