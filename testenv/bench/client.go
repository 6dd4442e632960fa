package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// client is a load of our own client, for what smtp-source cannot do: pipelining,
// sessions that are held open, and the time of each reply.
type client struct {
	*server
	sources []netip.Addr
	work    work
	in      io.WriteCloser
	reports chan ends.Report // closed when the process has ended
}

// newClient starts the client, which waits for orders.
func (s *stage) newClient() (*client, error) {
	c := &client{sources: s.env.MoreClients, work: s.work, reports: make(chan ends.Report)}
	cmd, err := end(s.env.Client, ends.Client)
	if err != nil {
		return nil, err
	}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	if c.server, err = s.serve(s.accounts.load, "client", cmd); err != nil {
		return nil, err
	}
	go func() {
		<-c.ended
		writer.Close()
	}()
	go c.listen(reader)
	return c, nil
}

// origin starts our own origin, for loads that smtp-sink would be the bottleneck
// of.
func (s *stage) origin(ctx context.Context, at netip.AddrPort) error {
	role := ends.Origin
	switch {
	case s.secure:
		role = ends.Secure
	case s.unseen:
		role = ends.StartTLS
	}
	cmd, err := end(s.env.Origin, role, at.String())
	if err != nil {
		return err
	}
	origin, err := s.serve(s.accounts.origin, "origin", cmd)
	if err != nil {
		return err
	}
	s.sinks = append(s.sinks, origin)
	return s.awaitGreeting(ctx, origin, s.env.Origin, at)
}

// end prepares a process of this executable that is one end of the mail.
func end(n *testenv.Node, role string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := n.Command(context.Background(), self, args...)
	cmd.Env = ends.Environ(role)
	return cmd, nil
}

// listen hands the client's reports on until it ends.
func (c *client) listen(out io.Reader) {
	defer close(c.reports)
	for reports := json.NewDecoder(out); ; {
		var r ends.Report
		if reports.Decode(&r) != nil {
			return
		}
		c.reports <- r
	}
}

func (c *client) total(n int) int { return n }

// run holds sessions as the section's work has them.
func (c *client) run(ctx context.Context, to netip.AddrPort, sessions, parallel int) error {
	_, err := c.order(ctx, ends.Order{To: to, Sessions: sessions, Parallel: parallel})
	return err
}

// order makes the client do something, in the way of the section's work, and
// waits for its report.
func (c *client) order(ctx context.Context, o ends.Order) (ends.Report, error) {
	o.Sources, o.Messages, o.Octets = c.sources, c.work.messages, c.work.octets
	o.Pipelined, o.Secure, o.StartTLS, o.Connect = c.work.pipelined, c.work.secure, c.work.unseen, c.work.connect
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		return ends.Report{}, c.complain(err)
	}
	slow := time.NewTimer(slowest)
	defer slow.Stop()
	select {
	case r, ok := <-c.reports:
		switch {
		case !ok:
			return r, c.complain(errors.New("it has ended"))
		case r.Failure != "":
			return r, c.complain(fmt.Errorf("%d sessions with %s: %s", o.Sessions, o.To, r.Failure))
		}
		return r, nil
	case <-slow.C:
		return ends.Report{}, c.complain(fmt.Errorf("%d sessions with %s are not over after %v", o.Sessions, o.To, slowest))
	case <-ctx.Done():
		return ends.Report{}, context.Cause(ctx)
	}
}

// kill ends the client and with it all its sessions.
func (c *client) kill() error { return errors.Join(c.in.Close(), c.server.kill()) }
