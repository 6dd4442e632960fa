package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/testenv/peer"
)

// drain starts to drain and returns where its result will be.
func (g *gate) drain(ctx context.Context) <-chan int {
	result := make(chan int, 1)
	go func() { result <- g.relay.Drain(ctx) }()
	return result
}

func TestDrainWithoutSessions(t *testing.T) {
	g := start(t, peer.Behaviour{})
	if left := g.relay.Drain(t.Context()); left != 0 {
		t.Errorf("%d sessions cut", left)
	}
}

// A session may wait for its client's next command for minutes.
func TestDrainInterruptsWaits(t *testing.T) {
	g := start(t, peer.Behaviour{})
	ours, _ := pair(t)
	c := g.relay.adopt(ours, flow.Flow{})
	g.relay.live.add(c)
	waited := make(chan error, 1)
	go func() {
		_, err := c.client.Read(make([]byte, 1))
		waited <- err
	}()
	left := g.drain(t.Context())
	select {
	case err := <-waited:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the wait ended with %v, want %v", err, os.ErrDeadlineExceeded)
		}
	case <-time.After(patience):
		t.Fatal("the wait was not interrupted")
	}
	if !g.relay.draining.Load() {
		t.Error("interrupted before it could see why")
	}
	g.relay.live.remove(c)
	if n := <-left; n != 0 {
		t.Errorf("%d sessions cut", n)
	}
}

// An origin that answers just when the sessions are cut is not served any more.
func TestCutBeforeTheOriginAnswered(t *testing.T) {
	g := start(t, peer.Behaviour{}, notForging)
	ours, theirs := pair(t)
	c := g.relay.adopt(ours, flow.Flow{Service: "mx"})
	c.sever()
	if err := c.reach(g.relay.opts.Services["mx"].Dialer); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]*net.TCPConn{"origin": c.origin.TCPConn, "client": ours} {
		if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to the %s: %v, want %v", name, err, net.ErrClosed)
		}
	}
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("client read %v, want a reset", err)
	}
	g.await(over)
}

func TestDrainEndsIdleSessions(t *testing.T) {
	g := start(t, peer.Behaviour{})
	clients := []*client{g.open(), g.open(), g.open()}
	left := g.drain(t.Context())
	for _, c := range clients {
		c.expect("421 4.3.2 ")
		c.expectEnd()
		c.conn.Close()
	}
	if n := <-left; n != 0 {
		t.Errorf("%d sessions cut", n)
	}
	for _, end := range g.records.ends {
		if end != event.EndDraining {
			t.Errorf("recorded %v", end)
		}
	}
}

func TestDrainLetsATransactionFinish(t *testing.T) {
	g := start(t, peer.Behaviour{})
	c := g.open()
	if err := c.Envelope(mail); err != nil {
		t.Fatal(err)
	}
	idle := g.open()
	left := g.drain(t.Context())
	idle.expect("421 4.3.2 ") // so the drain has begun
	idle.conn.Close()
	if err := c.Write(mail.Content + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	c.expect("250 2.0.0 ")
	c.expect("421 4.3.2 ")
	c.expectEnd()
	c.conn.Close()
	if n := <-left; n != 0 {
		t.Errorf("%d sessions cut", n)
	}
	if seen := g.await(over); len(seen[0].Messages) != 1 {
		t.Errorf("origin saw %+v", seen[0])
	}
}

func TestDrainDeadlineCutsWithoutCommit(t *testing.T) {
	g := start(t, peer.Behaviour{})
	c := g.open()
	if err := c.Envelope(mail); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(mail.Content); err != nil {
		t.Fatal(err)
	}
	// Once the origin has what the client sent, the session waits for the client.
	g.await(func(s []peer.Session) bool { return len(s) == 1 && s[0].Content == mail.Content })
	ctx, cancel := context.WithCancel(t.Context())
	left := g.drain(ctx)
	cancel()
	if n := <-left; n != 1 {
		t.Errorf("%d sessions cut, want 1", n)
	}
	c.expect("421 4.3.2 ")
	c.expectEnd()
	if seen := g.await(over)[0]; len(seen.Messages) != 0 {
		t.Errorf("origin took %+v", seen.Messages)
	}
	if !slices.Equal(g.records.messages, []event.Outcome{event.Deferred}) || !slices.Equal(g.records.ends, []event.End{event.EndCut}) {
		t.Errorf("recorded %v, %v", g.records.messages, g.records.ends)
	}
}

// After the end of data nobody knows what the origin did: the client must try
// again, and the record says so.
func TestDrainDeadlineAfterEndOfDataIsUnknown(t *testing.T) {
	g := start(t, peer.Behaviour{Replies: map[string]string{".": ""}})
	c := g.open()
	if err := c.Envelope(mail); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(mail.Content + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	g.await(func(s []peer.Session) bool { return len(s) == 1 && len(s[0].Messages) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := g.relay.Drain(ctx); n != 1 {
		t.Errorf("%d sessions cut, want 1", n)
	}
	c.expect("421 4.3.2 ")
	c.expectEnd()
	if !slices.Equal(g.records.messages, []event.Outcome{event.Unknown}) || !slices.Equal(g.records.ends, []event.End{event.EndCut}) {
		t.Errorf("recorded %v, %v", g.records.messages, g.records.ends)
	}
}

func TestDrainDeadlineEndsADial(t *testing.T) {
	dialling := make(chan struct{})
	var origin netip.AddrPort
	g := start(t, peer.Behaviour{}, func(o *Options) {
		d := o.Services["mx"].Dialer
		d.Local = func(netip.Addr) bool { close(dialling); return false }
		origin = d.Origins[0]
	})
	silence(t, origin)
	c := g.dial()
	<-dialling
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := g.relay.Drain(ctx); n != 1 {
		t.Errorf("%d sessions cut, want 1", n)
	}
	if reply, err := c.Reply(); err == nil && !strings.HasPrefix(reply.Raw, "421 ") {
		t.Errorf("client read %q", reply.Raw)
	}
	g.empty()
}

// silence drops what is sent to an address until the end of the test.
func silence(t *testing.T, to netip.AddrPort) {
	t.Helper()
	run := func(action string) {
		rule := []string{"-w", action, "INPUT", "-p", "tcp", "--syn", "--dport", strconv.Itoa(int(to.Port())), "-j", "DROP"}
		if out, err := exec.Command("iptables", rule...).CombinedOutput(); err != nil {
			t.Errorf("iptables %v: %v: %s", rule, err, out)
		}
	}
	run("-A")
	t.Cleanup(func() { run("-D") })
}

// pair returns both ends of a connection.
func pair(t testing.TB) (ours, theirs *net.TCPConn) {
	t.Helper()
	theirs, ours = pipe(t)
	theirs.SetDeadline(time.Now().Add(patience))
	return ours, theirs
}
