package scenario

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv/peer"
)

// workers is how many clients a load has, each with a source address of its
// own; pause is what lies between two messages of one client. It bounds the
// ports of an address that are in TIME_WAIT, 60 s each, to 12,000 of the 28,000
// that the kernel hands out, however fast the machine is.
const (
	workers = 8
	pause   = 5 * time.Millisecond
)

// loading is a load in progress: clients that send one message after the
// other, each in a session of its own, until one fails or the end is asked for.
type loading struct {
	cancel  context.CancelFunc
	working sync.WaitGroup

	mu       sync.Mutex
	done     int
	shown    map[string]int // handshakes, by the subject of the certificate
	failures []error
	changed  chan struct{}
}

func load(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "load start ADDR:PORT | load start tls CAFILE NAME ADDR:PORT… | load more COUNT | load stop"
	switch {
	case len(args) == 2 && args[0] == "start" && s.load == nil:
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usage(text)
		}
		s.startLoad(to)
		return nil
	case len(args) > 4 && args[0] == "start" && args[1] == "tls" && s.load == nil:
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[2])))
		return s.startSecureLoad(&tls.Config{RootCAs: roots, ServerName: args[3]}, args[4:])
	case len(args) == 2 && args[0] == "more" && s.load != nil:
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return usage(text)
		}
		return s.load.more(s, count)
	case len(args) == 1 && args[0] == "stop" && s.load != nil:
		err := s.load.end()
		s.load.report(ts.Stdout())
		s.load = nil
		return err
	}
	return usage(text)
}

// report prints what was done.
func (l *loading) report(w io.Writer) {
	fmt.Fprintf(w, "%d messages\n", l.done)
	for _, subject := range slices.Sorted(maps.Keys(l.shown)) {
		fmt.Fprintf(w, "%d times shown %s\n", l.shown[subject], subject)
	}
}

func (s *stage) startLoad(to netip.AddrPort) {
	l, ctx := s.newLoad()
	for _, from := range s.env.MoreClients[:workers] {
		l.working.Go(func() { l.work(ctx, s, from, to) })
	}
}

func (s *stage) newLoad() (*loading, context.Context) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.load = &loading{cancel: cancel, changed: make(chan struct{}), shown: make(map[string]int)}
	return s.load, ctx
}

// startSecureLoad sends to several servers inside TLS: to each, some clients
// make a new session for each message, and some send all in one.
func (s *stage) startSecureLoad(config *tls.Config, servers []string) error {
	var targets []netip.AddrPort
	for _, text := range servers {
		to, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		targets = append(targets, to)
	}
	l, ctx := s.newLoad()
	for i, from := range s.env.MoreClients[:workers] {
		for _, to := range targets {
			l.working.Go(func() { l.workInside(ctx, s, from, to, config, i%2 == 0) })
		}
	}
	return nil
}

// workInside sends messages inside TLS until the load is stopped.
func (l *loading) workInside(ctx context.Context, s *stage, from netip.Addr, to netip.AddrPort, config *tls.Config, hold bool) {
	var client *peer.Client
	var err error
	for ctx.Err() == nil && err == nil {
		if client == nil {
			if client, err = s.secureClient(from, to, config, false); err != nil {
				break
			}
			l.show(client)
		}
		if err = client.Accepted(letter); err == nil && !hold {
			err = client.Quit()
			client = nil
		}
		if err == nil {
			l.count(nil)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if err == nil && client != nil {
		err = client.Quit()
	}
	if err != nil {
		l.count(fmt.Errorf("from %s to %s: %w", from, to, err))
	}
}

// show counts a handshake.
func (l *loading) show(client *peer.Client) {
	state, _ := client.TLS()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown[state.PeerCertificates[0].Subject.CommonName]++
}

// letter is a load's message.
var letter = peer.Message{From: "a@example.net", To: []string{"b@example.org"}, Content: "Subject: load\r\n\r\n1\r\n"}

// work sends messages from one address until the load is stopped.
func (l *loading) work(ctx context.Context, s *stage, from netip.Addr, to netip.AddrPort) {
	for ctx.Err() == nil {
		_, err := s.deliver(netip.AddrPortFrom(from, 0), to, letter)
		l.count(err)
		if err != nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (l *loading) count(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.done++
	} else {
		l.failures = append(l.failures, err)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// more waits until further messages are delivered.
func (l *loading) more(s *stage, count int) error {
	ctx, cancel := s.patience()
	defer cancel()
	l.mu.Lock()
	goal := l.done + count
	l.mu.Unlock()
	for {
		l.mu.Lock()
		done, failures, changed := l.done, l.failures, l.changed
		l.mu.Unlock()
		if len(failures) > 0 {
			return errors.Join(failures...)
		}
		if done >= goal {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages are delivered", done, goal)
		}
	}
}

// end stops the load after the messages that are on their way and returns
// what failed in it.
func (l *loading) end() error {
	l.cancel()
	l.working.Wait()
	return errors.Join(l.failures...)
}
