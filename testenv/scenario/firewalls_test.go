package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestRealFirewalls tells the stories with firewalld, ufw and fail2ban, from Debian's
// packages, and with rules as Docker writes them.
func TestRealFirewalls(t *testing.T) { tell(t, "testdata/firewalls") }

// missing is what the scripts of packages or systemd would have done, by root.
var missing = map[string]string{
	"firewalld": "mkdir /run/dbus",
	"ufw":       "cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/ufw.conf /etc/ufw/",
	"fail2ban":  "mkdir /run/fail2ban",
}

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
	words := []string{inRoot, args[0], s.work, "sh", "-ec", missing[args[0]] + "; exec sleep infinity"}
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
	failed  int
	failure error         // the last
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
			l.failed, l.failure = l.failed+1, err
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
	return fmt.Sprintf("%s to %s: %d messages, %d failures, %v without a message at most", l.from, l.to, l.done, l.failed, l.longest.Round(time.Millisecond))
}

// end returns which clients' mail stood still.
func (f *flowing) end() error {
	close(f.ending)
	f.working.Wait()
	var stopped []error
	for _, l := range f.lanes {
		if l.longest > longestStop {
			stopped = append(stopped, fmt.Errorf("%s; the last failure: %v", l, l.failure))
		}
	}
	return errors.Join(stopped...)
}

// barring are clients that are banned, and try to get in all the time.
type barring struct {
	cancel context.CancelFunc
	trying sync.WaitGroup
	doors  []*door
}

// door is where one of them tries. Where a firewall drops its own bans for a moment,
// such as ufw while it reloads, the witness shows when: a server that is no business of
// ours, and banned by the same rule.
type door struct {
	from        netip.Addr
	to, witness netip.AddrPort // witness: none if invalid

	mu      sync.Mutex
	tries   int
	answers []answer
	excused []time.Time // when the witness answered
}

// answer is what somebody read who is banned.
type answer struct {
	at   time.Time
	text string
}

// knocks is the time between two tries, and apart how long before or after its witness a
// server may answer.
const (
	knocks = 50 * time.Millisecond
	apart  = 10 * knocks
)

// banned has clients that are banned try all the time; nobody answers.
func banned(s *stage, ts *testscript.TestScript, args []string) error {
	switch {
	case len(args) > 2 && args[0] == "start" && s.barring == nil:
		return s.startBanned(args[1:])
	case len(args) == 1 && args[0] == "stop" && s.barring != nil:
		err := s.barring.end()
		for _, d := range s.barring.doors {
			fmt.Fprintln(ts.Stdout(), d)
		}
		s.barring = nil
		return err
	}
	return usage("banned start FROM ADDR:PORT[=WITNESS:PORT]… | banned stop")
}

// startBanned reads an address, and where it tries to get in, and so on.
func (s *stage) startBanned(words []string) error {
	ctx, cancel := context.WithCancel(s.ctx)
	s.barring = &barring{cancel: cancel}
	var from netip.Addr
	for _, word := range words {
		if next, err := netip.ParseAddr(word); err == nil {
			from = next
			continue
		}
		at, beside, _ := strings.Cut(word, "=")
		to, err := netip.ParseAddrPort(at)
		witness, none := netip.ParseAddrPort(beside)
		if err != nil || beside != "" && none != nil || !from.IsValid() {
			return usage("banned start FROM ADDR:PORT[=WITNESS:PORT]…")
		}
		d := &door{from: from, to: to, witness: witness}
		s.barring.doors = append(s.barring.doors, d)
		s.barring.trying.Go(func() { d.knock(ctx, s) })
	}
	return nil
}

// knock tries every now and then.
func (d *door) knock(ctx context.Context, s *stage) {
	var open sync.WaitGroup
	defer open.Wait()
	for ctx.Err() == nil {
		open.Go(func() { d.note(s.knockOnce(ctx, d.from, d.to)) })
		if d.witness.IsValid() {
			open.Go(func() { d.excuse(s.knockOnce(ctx, d.from, d.witness)) })
		}
		select {
		case <-ctx.Done():
		case <-time.After(knocks):
		}
	}
}

func (d *door) note(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries++
	if text != "" {
		d.answers = append(d.answers, answer{time.Now(), text})
	}
}

func (d *door) excuse(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if text != "" {
		d.excused = append(d.excused, time.Now())
	}
}

// knockOnce says what came of one try; "" for nothing, or a refusal by a firewall.
func (s *stage) knockOnce(ctx context.Context, from netip.Addr, to netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := s.env.Client.Dial(ctx, netip.AddrPortFrom(from, 0), to)
	switch {
	case err == nil:
		conn.Close()
		return "connected"
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return ""
	}
	return err.Error()
}

// end returns who was answered.
func (b *barring) end() error {
	b.cancel()
	b.trying.Wait()
	var failures []error
	for _, d := range b.doors {
		failures = append(failures, d.judge())
	}
	return errors.Join(failures...)
}

// judge looks for answers that the witness does not excuse.
func (d *door) judge() error {
	if d.witness.IsValid() && len(d.excused) == 0 {
		return fmt.Errorf("%s: its witness never answered", d)
	}
	for _, a := range d.answers {
		near := func(t time.Time) bool { return a.at.Sub(t).Abs() <= apart }
		if !slices.ContainsFunc(d.excused, near) {
			return fmt.Errorf("%s: at %s: %s", d, a.at.Format(time.StampMilli), a.text)
		}
	}
	return nil
}

func (d *door) String() string {
	text := fmt.Sprintf("%s to %s: %d tries, %d answers", d.from, d.to, d.tries, len(d.answers))
	if len(d.answers) > 0 {
		text += fmt.Sprintf(" from %s to %s", d.answers[0].at.Format(time.StampMilli), d.answers[len(d.answers)-1].at.Format(time.StampMilli))
	}
	if len(d.excused) > 0 {
		text += fmt.Sprintf("; %s %d from %s to %s", d.witness, len(d.excused), d.excused[0].Format(time.StampMilli), d.excused[len(d.excused)-1].Format(time.StampMilli))
	}
	return text
}
