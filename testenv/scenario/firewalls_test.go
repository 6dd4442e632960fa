package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestRealFirewalls tells the stories with firewalld, ufw and fail2ban, from Debian's
// packages, and with rules as Docker writes them.
func TestRealFirewalls(t *testing.T) { tell(t, "testdata/firewalls") }

// runtimeDirectories are what systemd makes for the services.
const runtimeDirectories = "/run/dbus /run/fail2ban"

// installed has the packages of a root on the gateway, with these programs of theirs
// for exec and start. They share one file system, which lasts as long as the story.
func installed(s *stage, ts *testscript.TestScript, args []string) error {
	if err := atLeast(2, args, "installed ROOT PROGRAM…"); err != nil {
		return err
	}
	inRoot, err := filepath.Abs("../../scripts/in-root")
	if err != nil {
		return err
	}
	name := "root " + args[0]
	words := []string{inRoot, args[0], s.work, "sh", "-c", "mkdir -p " + runtimeDirectories + "; exec sleep infinity"}
	if err := s.start(name, s.env.Gateway, words, os.Environ()); err != nil {
		return err
	}
	pid, err := s.inside(s.processes[name])
	if err != nil {
		return err
	}
	for _, program := range args[1:] {
		script := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d --mount --pid --root --wdns=%s env PATH=/usr/sbin:/usr/bin %s \"$@\"\n", pid, s.work, program)
		if err := writeProgram(filepath.Join(s.work, ".bin", program), script); err != nil {
			return err
		}
	}
	return nil
}

// inside waits until in-root has made the root, and returns the process there.
func (s *stage) inside(p *process) (pid int, err error) {
	err = s.await(func() bool {
		out, _ := exec.Command("pgrep", "--parent", strconv.Itoa(p.cmd.Process.Pid), "--exact", "sleep").Output()
		pid, err = strconv.Atoi(strings.TrimSpace(string(out)))
		return err == nil
	})
	return pid, err
}

// longestStop is how long the mail of a client may stand still while others change
// the gateway, and nobody helps.
const longestStop = 10 * time.Second

// flowing is mail of clients that try again where a delivery fails, as senders do.
type flowing struct {
	ending  chan struct{}
	working sync.WaitGroup
	lanes   []*lane
}

// lane is the mail of one client.
type lane struct {
	from    netip.Addr
	to      netip.AddrPort
	done    int
	failed  []error
	longest time.Duration // from one message to the next
}

// flow sends mail all the time.
func flow(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "flow start ADDR:PORT… | flow stop"
	switch {
	case len(args) > 1 && args[0] == "start" && s.flowing == nil:
		return s.startFlow(args[1:])
	case len(args) == 1 && args[0] == "stop" && s.flowing != nil:
		err := s.flowing.end()
		for _, l := range s.flowing.lanes {
			fmt.Fprintf(ts.Stdout(), "%s\n", l)
		}
		s.flowing = nil
		return err
	}
	return usage(text)
}

// startFlow starts two clients for each server.
func (s *stage) startFlow(servers []string) error {
	f := &flowing{ending: make(chan struct{})}
	for i, text := range servers {
		to, err := netip.ParseAddrPort(text)
		if err != nil {
			return usage("flow start ADDR:PORT…")
		}
		clients := s.env.MoreClients
		if to.Addr().Is6() {
			clients = s.env.MoreClients6
		}
		for _, from := range clients[2*i+1 : 2*i+3] { // the first is banned here and there
			f.lanes = append(f.lanes, &lane{from: from, to: to})
		}
	}
	for _, l := range f.lanes {
		f.working.Go(func() { l.run(s, f.ending) })
	}
	s.flowing = f
	return nil
}

// run sends one message after the other, until the end is asked for and one more is
// delivered.
func (l *lane) run(s *stage, ending chan struct{}) {
	last := time.Now()
	for asked := false; ; {
		_, err := s.deliver(netip.AddrPortFrom(l.from, 0), l.to, letter)
		gap := time.Since(last)
		l.longest = max(l.longest, gap)
		if err != nil {
			l.failed = append(l.failed, err)
		} else {
			l.done++
			last = time.Now()
		}
		if asked && (err == nil || gap > longestStop) {
			return
		}
		select {
		case <-ending:
			asked = true
		case <-time.After(10 * pause):
		}
	}
}

func (l *lane) String() string {
	return fmt.Sprintf("%s to %s: %d messages, %d failures, %v without a message at most", l.from, l.to, l.done, len(l.failed), l.longest.Round(time.Millisecond))
}

// end returns which clients' mail stood still.
func (f *flowing) end() error {
	close(f.ending)
	f.working.Wait()
	var stopped []error
	for _, l := range f.lanes {
		if l.longest > longestStop {
			stopped = append(stopped, fmt.Errorf("%s; %w", l, errors.Join(l.failed...)))
		}
	}
	return errors.Join(stopped...)
}

// barring are clients that try to get in all the time.
type barring struct {
	cancel context.CancelFunc
	trying sync.WaitGroup

	mu      sync.Mutex
	tries   int
	answers []string
}

// knocks is the time between two tries of one who is banned.
const knocks = 50 * time.Millisecond

// banned has clients that are banned try all the time; nobody answers.
func banned(s *stage, ts *testscript.TestScript, args []string) error {
	switch {
	case len(args) > 2 && args[0] == "start" && s.barring == nil:
		return s.startBanned(args[1:])
	case len(args) == 1 && args[0] == "stop" && s.barring != nil:
		err := s.barring.end()
		fmt.Fprintf(ts.Stdout(), "%d tries\n", s.barring.tries)
		s.barring = nil
		return err
	}
	return usage("banned start FROM ADDR:PORT… [FROM ADDR:PORT…]… | banned stop")
}

// startBanned reads an address, and where it tries to get in.
func (s *stage) startBanned(words []string) error {
	ctx, cancel := context.WithCancel(s.ctx)
	s.barring = &barring{cancel: cancel}
	var from netip.Addr
	for _, word := range words {
		if next, err := netip.ParseAddr(word); err == nil {
			from = next
			continue
		}
		to, err := netip.ParseAddrPort(word)
		if err != nil || !from.IsValid() {
			return usage("banned start FROM ADDR:PORT… [FROM ADDR:PORT…]…")
		}
		client := from
		s.barring.trying.Go(func() { s.barring.knock(ctx, s, client, to) })
	}
	return nil
}

// end returns who was answered.
func (b *barring) end() error {
	b.cancel()
	b.trying.Wait()
	if len(b.answers) > 0 {
		return fmt.Errorf("%d answers, the first are\n%s", len(b.answers), strings.Join(b.answers[:min(len(b.answers), 10)], "\n"))
	}
	return nil
}

// knock sends a SYN every now and then.
func (b *barring) knock(ctx context.Context, s *stage, from netip.Addr, to netip.AddrPort) {
	began := time.Now()
	for ctx.Err() == nil {
		b.trying.Go(func() {
			at := time.Since(began)
			if answer := s.knockOnce(ctx, from, to); answer != "" {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.answers = append(b.answers, fmt.Sprintf("%s to %s after %v: %s", from, to, at.Round(time.Millisecond), answer))
			}
		})
		b.mu.Lock()
		b.tries++
		b.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(knocks):
		}
	}
}

// knockOnce says what came of one try; "" for nothing.
func (s *stage) knockOnce(ctx context.Context, from netip.Addr, to netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := s.env.Client.Dial(ctx, netip.AddrPortFrom(from, 0), to)
	switch {
	case err == nil:
		conn.Close()
		return "connected"
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return ""
	}
	return err.Error()
}
