package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/nameserver"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// stage is what a story plays on.
type stage struct {
	ctx  context.Context
	work string // directory of the story's files

	env         *testenv.Env
	processes   map[string]*process
	postfix     *mta.Server
	sender      *mta.Server
	origin      *peer.Origin // the fake one
	locals      []*peer.Origin
	capture     *testenv.Capture
	seen        int // packets of the capture before and with the last SYN
	before      map[string]testenv.Snapshot
	foreign     []*testenv.ForeignTCX
	meddling    func() error // ends the program of `meddle`; nil: there is none
	load        *loading
	flowing     *flowing
	barring     *barring
	authorities map[string]*pki.Authority // by directory
	steady      *peer.Client
	midway      *halfSent
	names       *nameserver.Server
	pages       *http.Server
}

// process is a command in the background.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	files []*os.File
}

// close ends whatever the story left running and removes the network.
func (s *stage) close() error {
	if s.env == nil {
		return nil
	}
	var failures []error
	if s.load != nil {
		failures = append(failures, s.load.end())
	}
	if s.barring != nil {
		failures = append(failures, s.barring.end())
	}
	if s.flowing != nil {
		failures = append(failures, s.flowing.end())
	}
	for _, p := range s.processes {
		failures = append(failures, p.kill())
	}
	if s.origin != nil {
		s.locals = append(s.locals, s.origin)
	}
	for _, o := range s.locals {
		failures = append(failures, o.Close())
	}
	if s.sender != nil {
		failures = append(failures, s.sender.Stop())
	}
	if s.postfix != nil {
		failures = append(failures, s.postfix.Stop())
	}
	if s.names != nil {
		s.names.Close()
	}
	if s.pages != nil {
		failures = append(failures, s.pages.Close())
	}
	if s.capture != nil {
		failures = append(failures, s.capture.Close())
	}
	for _, f := range s.foreign {
		failures = append(failures, f.Close())
	}
	if s.meddling != nil {
		failures = append(failures, s.meddling())
	}
	return errors.Join(append(failures, s.env.Close())...)
}

// patience is the context of one thing that is waited for.
func (s *stage) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, patience)
}

// await looks at a condition again and again.
func (s *stage) await(condition func() bool) error {
	ctx, cancel := s.patience()
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited for %s in vain", patience)
		}
	}
	return nil
}

// node finds a node by its role.
func (s *stage) node(role string) (*testenv.Node, error) {
	if s.env == nil {
		return nil, usage("up comes first")
	}
	for _, n := range s.env.Nodes() {
		if n.Role == role {
			return n, nil
		}
	}
	return nil, usage("no node " + role)
}

// wrappers puts a command named like each node into the story's PATH, for exec.
func (s *stage) wrappers() error {
	if err := os.MkdirAll(filepath.Join(s.work, ".bin"), 0o755); err != nil {
		return err
	}
	for _, n := range s.env.Nodes() {
		if err := s.wrap(n, ""); err != nil {
			return err
		}
	}
	return nil
}

// wrap writes the command of one node; nsenter gets more options.
func (s *stage) wrap(n *testenv.Node, options string) error {
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=%s %s -- \"$@\"\n", n.Path(), options)
	return writeProgram(filepath.Join(s.work, ".bin", n.Role), script)
}

// start runs a command on a node in the background.
func (s *stage) start(name string, n *testenv.Node, words, environ []string) error {
	if _, ok := s.processes[name]; ok {
		return usage("a second process " + name)
	}
	p := &process{cmd: n.Command(context.Background(), words[0], words[1:]...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = environ, s.work
	for _, stream := range []string{".out", ".err"} {
		file, err := os.Create(filepath.Join(s.work, name+stream))
		if err != nil {
			return err
		}
		p.files = append(p.files, file)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.files[0], p.files[1]
	if err := p.cmd.Start(); err != nil {
		return err
	}
	s.processes[name] = p
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	return nil
}

// kill ends a process that may have ended.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.ended
	for _, f := range p.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// process finds a process by its name.
func (s *stage) process(name string) (*process, error) {
	if p, ok := s.processes[name]; ok {
		return p, nil
	}
	return nil, usage("no process " + name)
}

func signal(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return usage("signal SIGNAL NAME")
	}
	p, err := s.process(args[1])
	if err != nil {
		return err
	}
	number := unix.SignalNum("SIG" + args[0])
	if number == 0 {
		return usage("no signal " + args[0])
	}
	return p.cmd.Process.Signal(number)
}

func ended(s *stage, _ *testscript.TestScript, args []string) error {
	if err := atLeast(1, args, "ended NAME [CODE]"); err != nil {
		return err
	}
	p, err := s.process(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := s.patience()
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended", args[0])
	}
	delete(s.processes, args[0])
	code := strconv.Itoa(p.cmd.ProcessState.ExitCode())
	if len(args) == 2 && code != args[1] {
		text, _ := os.ReadFile(p.files[1].Name())
		return fmt.Errorf("%s ended with %s, want %s: %s", args[0], code, args[1], text)
	}
	return p.kill()
}

// fake replaces the fake origin. Sessions of the one before are forgotten.
func (s *stage) fake(b peer.Behaviour) error {
	if s.origin != nil {
		if err := s.origin.Close(); err != nil {
			return err
		}
		s.origin = nil
	}
	var listeners []net.Listener
	for _, address := range []netip.Addr{s.env.Origin4, s.env.Origin6, s.env.More4, s.env.More6} {
		listener, err := s.listen(netip.AddrPortFrom(address, 25))
		if err != nil {
			return err
		}
		listeners = append(listeners, listener)
	}
	s.origin = peer.Serve(b, listeners...)
	return nil
}

// listen listens on the origin. A process that is being started elsewhere in this
// one has, for a moment, a copy of a listener that was just closed.
func (s *stage) listen(at netip.AddrPort) (listener net.Listener, err error) {
	late := s.await(func() bool {
		listener, err = s.env.Origin.Listen(at)
		return !errors.Is(err, unix.EADDRINUSE)
	})
	return listener, errors.Join(err, late)
}

// sessions waits until the fake origin's sessions satisfy a condition.
func (s *stage) sessions(condition func([]peer.Session) bool) ([]peer.Session, error) {
	ctx, cancel := s.patience()
	defer cancel()
	return s.origin.Await(ctx, condition)
}

// messages waits for a number of messages at the fake origin, no more and no
// fewer.
func (s *stage) messages(count int) ([]peer.Message, error) {
	collect := func(sessions []peer.Session) (all []peer.Message) {
		for _, session := range sessions {
			all = append(all, session.Messages...)
		}
		return all
	}
	sessions, err := s.sessions(func(sessions []peer.Session) bool { return len(collect(sessions)) >= count })
	messages := collect(sessions)
	if err == nil && len(messages) != count {
		err = fmt.Errorf("the origin got %d messages, want %d", len(messages), count)
	}
	return messages, err
}

func (s *stage) snapshot(name string) error {
	ctx, cancel := s.patience()
	defer cancel()
	snapshot, err := s.env.Snapshot(ctx)
	if err != nil {
		return err
	}
	if s.before == nil {
		s.before = make(map[string]testenv.Snapshot)
	}
	s.before[name] = snapshot
	return nil
}

func (s *stage) same(name string) error {
	before, ok := s.before[name]
	if !ok {
		return usage("no snapshot " + name)
	}
	ctx, cancel := s.patience()
	defer cancel()
	now, err := s.env.Snapshot(ctx)
	if err != nil {
		return err
	}
	if diff := before.Diff(now); diff != "" {
		return errors.New("the gateway has changed:\n" + strings.TrimSuffix(diff, "\n"))
	}
	return nil
}

// foreignRan checks that every foreign program saw packets since the last
// check.
func (s *stage) foreignRan() error {
	for i, f := range s.foreign {
		packets, err := f.Ran()
		if err != nil {
			return err
		}
		if packets == 0 {
			return fmt.Errorf("foreign program %d saw no packet", i)
		}
	}
	return nil
}

// releaseForeign detaches the foreign programs that were attached last.
func (s *stage) releaseForeign(text string) error {
	count, err := strconv.Atoi(text)
	if err != nil || count > len(s.foreign) {
		return usage("foreign release COUNT")
	}
	keep := len(s.foreign) - count
	for _, f := range s.foreign[keep:] {
		if err := f.Close(); err != nil {
			return err
		}
	}
	s.foreign = s.foreign[:keep]
	return nil
}

// writeProgram writes a script that is about to be run. Meanwhile nothing is
// started by other stories: a child that begins with the file open makes it busy
// (ETXTBSY).
func writeProgram(path, script string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(script), 0o755)
}
