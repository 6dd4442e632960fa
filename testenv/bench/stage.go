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

// stage is a network with an origin and a load, for one measurement. Each has a
// new one: connections that one subject leaves half closed would take packets
// of the next one's, which have the same forged addresses.
type stage struct {
	*options
	env   *testenv.Env
	load  *load
	sinks []*server
}

// onStage builds a stage for a function and removes it.
func (o *options) onStage(ctx context.Context, do func(*stage) error) (err error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	s := &stage{options: o, env: env}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return do(s)
}

// prepare starts the origin and the load's driver.
func (s *stage) prepare(ctx context.Context) (err error) {
	if err := s.sink(ctx, s.env.Origin, netip.AddrPortFrom(s.env.Origin4, smtpPort)); err != nil {
		return err
	}
	s.load, err = s.newLoad(ctx)
	return err
}

// close ends the origin and the load.
func (s *stage) close() error {
	var failures []error
	if s.load != nil {
		failures = append(failures, s.load.kill())
	}
	for _, sink := range s.sinks {
		failures = append(failures, sink.kill())
	}
	return errors.Join(failures...)
}

// sink starts smtp-sink, which takes any mail and throws it away, on a node.
func (s *stage) sink(ctx context.Context, n *testenv.Node, at netip.AddrPort) error {
	cmd := s.unpacked(n, "postfix", "smtp-sink", "-u", "nobody", at.String(), "4096")
	sink, err := s.serve(fmt.Sprintf("smtp-sink-%s-%d", n.Role, at.Port()), cmd)
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
