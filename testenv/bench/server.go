package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// server is a process in the network that serves until it is ended.
type server struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	err   error         // how it ended, once it has
	said  string        // file of what it wrote to standard error
}

// serve starts a server, whose work is charged to a party. Its standard output is that
// of cmd, or else goes with standard error.
func (s *stage) serve(party *testenv.Account, name string, cmd *exec.Cmd) (*server, error) {
	party.Charge(cmd)
	v := &server{name: name, cmd: cmd, ended: make(chan struct{}), said: filepath.Join(s.env.Dir, name+".said")}
	said, err := os.Create(v.said)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd.Stderr = said
	if cmd.Stdout == nil {
		cmd.Stdout = said
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(v.ended)
		v.err = cmd.Wait()
	}()
	return v, nil
}

// awaitGreeting waits until a node reads 220 from the server. When that does not
// come the server is killed.
func (v *server) awaitGreeting(ctx context.Context, from *testenv.Node, at netip.AddrPort) error {
	return v.await(ctx, func() bool { return from.Greets(ctx, at) })
}

// await waits until something can be said of the server. When that does not come
// the server is killed.
func (v *server) await(ctx context.Context, condition func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no greeting within %v", patience))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-v.ended:
			return v.complain(v.err)
		case <-ctx.Done():
			return errors.Join(v.complain(context.Cause(ctx)), v.kill())
		}
	}
	return nil
}

// complain adds to an error what the server said to explain itself.
func (v *server) complain(err error) error {
	said, _ := os.ReadFile(v.said)
	return fmt.Errorf("%s: %w; it said: %s", v.name, err, testenv.Complaint(string(said)))
}

// kill ends a server that has nothing to put in order.
func (v *server) kill() error {
	err := v.cmd.Process.Kill()
	<-v.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// terminate asks a server to end and waits until it has.
func (v *server) terminate() error {
	err := v.cmd.Process.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-v.ended:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end", v.name), v.kill())
	}
	if v.err != nil {
		return v.complain(v.err)
	}
	return nil
}
