package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	failures []error
	changed  chan struct{}
}

func load(s *stage, ts *testscript.TestScript, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "start" && s.load == nil:
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usage("load start ADDR:PORT")
		}
		s.startLoad(to)
		return nil
	case len(args) == 2 && args[0] == "more" && s.load != nil:
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return usage("load more COUNT")
		}
		return s.load.more(s, count)
	case len(args) == 1 && args[0] == "stop" && s.load != nil:
		err := s.load.end()
		fmt.Fprintf(ts.Stdout(), "%d messages\n", s.load.done)
		s.load = nil
		return err
	}
	return usage("load start ADDR:PORT | load more COUNT | load stop")
}

func (s *stage) startLoad(to netip.AddrPort) {
	ctx, cancel := context.WithCancel(s.ctx)
	l := &loading{cancel: cancel, changed: make(chan struct{})}
	for _, from := range s.env.MoreClients[:workers] {
		l.working.Add(1)
		go func() {
			defer l.working.Done()
			l.work(ctx, s, from, to)
		}()
	}
	s.load = l
}

// work sends messages from one address until the load is stopped.
func (l *loading) work(ctx context.Context, s *stage, from netip.Addr, to netip.AddrPort) {
	m := peer.Message{From: "a@example.net", To: []string{"b@example.org"}, Content: "Subject: load\r\n\r\n1\r\n"}
	for ctx.Err() == nil {
		_, err := s.deliver(netip.AddrPortFrom(from, 0), to, m)
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
