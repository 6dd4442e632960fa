package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// patience bounds the wait for any one thing that is not a measurement.
const patience = 30 * time.Second

// Ports of the origin and of the gateway.
const (
	smtpPort    = 25
	foreignPort = 2525 // that nobody bound
)

// stage is a network with an origin and a load, for one subject. Each has its own:
// connections that one subject leaves half closed would take packets of the next
// one's, which have the same forged addresses.
type stage struct {
	*options
	work
	env      *testenv.Env
	accounts accounts
	load     load
	sinks    []*server
	running  *serving // once it is started
	binary   string   // of the portreeve that runs here, if one does
	metered  bool     // it serves metrics
	sent     int      // sessions, warming included
}

// load is what sends mail.
type load interface {
	// run holds that many sessions and waits until all are over.
	run(ctx context.Context, to netip.AddrPort, sessions, parallel int) error
	// total returns how many sessions run makes of n.
	total(n int) int
	kill() error
}

// onStage builds a stage for a function and removes it.
func (o *options) onStage(ctx context.Context, w work, do func(*stage) error) (err error) {
	s, err := o.newStage(ctx, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return do(s)
}

// newStage builds a stage with an origin and a load, which wait for a subject.
func (o *options) newStage(ctx context.Context, w work) (*stage, error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return nil, err
	}
	s := &stage{options: o, work: w, env: env, binary: o.binary}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// begin starts the stage's subject.
func (s *stage) begin(ctx context.Context, start subject) (err error) {
	s.running, err = start(ctx, s)
	return err
}

// end ends the subject, and makes sure that it did its work.
func (s *stage) end() error {
	running := s.running
	s.running = nil
	if err := running.stop(); err != nil {
		return err
	}
	return running.verify(s.sent * s.messages)
}

// carry lets sessions run through the subject.
func (s *stage) carry(ctx context.Context, sessions int) error {
	err := s.load.run(ctx, s.running.target, sessions, s.parallel)
	if err == nil {
		s.sent += s.load.total(sessions)
	}
	return err
}

// warm lets a few sessions run before those that count: caches, pools and neighbour
// tables are filled then.
func (s *stage) warm(ctx context.Context) error { return s.carry(ctx, max(1, s.sessions/warming)) }

// warming is the part of the sessions that these are.
const warming = 10

// prepare starts the origin and the load's driver.
func (s *stage) prepare(ctx context.Context) (err error) {
	if s.accounts, err = newAccounts(s.env); err != nil {
		return err
	}
	at := netip.AddrPortFrom(s.env.Origin4, smtpPort)
	if s.ours {
		if err := s.origin(ctx, at); err != nil {
			return err
		}
		client, err := s.newClient()
		if err == nil { // else the interface would hold a nil that is none
			s.load = client
		}
		return err
	}
	if err := s.sink(ctx, s.env.Origin, at); err != nil {
		return err
	}
	driver, err := s.newPostfix(ctx)
	if err == nil {
		s.load = driver
	}
	return err
}

// close ends the subject, the load and the origin, and removes the stage.
func (s *stage) close() error {
	var failures []error
	if s.running != nil {
		failures = append(failures, s.running.stop())
	}
	if s.load != nil {
		failures = append(failures, s.load.kill())
	}
	for _, sink := range s.sinks {
		failures = append(failures, sink.kill())
	}
	s.accounts.close()
	return errors.Join(append(failures, s.env.Close())...)
}

// sink starts smtp-sink, which takes any mail and throws it away, on a node.
func (s *stage) sink(ctx context.Context, n *testenv.Node, at netip.AddrPort) error {
	cmd := s.unpacked(n, "postfix", "smtp-sink", "-u", "nobody", at.String(), "4096")
	sink, err := s.serve(s.accounts.origin, fmt.Sprintf("smtp-sink-%s-%d", n.Role, at.Port()), cmd)
	if err != nil {
		return err
	}
	s.sinks = append(s.sinks, sink)
	return sink.awaitGreeting(ctx, n, at)
}

// unpacked prepares a command of the packages unpacked below a name, on a node.
func (s *stage) unpacked(n *testenv.Node, name string, words ...string) *exec.Cmd {
	return n.Command(context.Background(), filepath.Join(s.scripts, "in-root"), append([]string{name, s.env.Dir}, words...)...)
}
