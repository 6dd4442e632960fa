package relay

import (
	"context"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/testenv/peer"
)

// awaitRest waits until the only session has no goroutine any more, for the nth
// time.
func (g *gate) awaitRest(n int) {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for g.relay.tidy.begun() != n || g.relay.resting.Asleep() != 1 {
		if time.Now().After(deadline) {
			g.t.Fatal("the session does not rest")
		}
		time.Sleep(time.Millisecond)
	}
}

// begun returns how many rests there were.
func (t *tidy) begun() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// A session that rests must meet everything that one with a goroutine would.
func TestRest(t *testing.T) {
	for name, end := range map[string]func(g *gate, c *client){
		"client speaks": func(_ *gate, c *client) {
			c.Write("NOOP\r\nQUIT\r\n")
			c.expect("250")
			c.expect("221")
			c.expectEnd()
		},
		"client rests again": func(g *gate, c *client) {
			c.Write("NO")
			g.awaitRest(2)
			c.Write("OP\r\n")
			c.expect("250")
			g.awaitRest(3)
			c.Write("QUIT\r\n")
			c.expect("221")
			c.expectEnd()
		},
		"client hangs up": func(_ *gate, c *client) { c.conn.Close() },
		"drain": func(g *gate, c *client) {
			left := g.drain(g.t.Context())
			c.expect("421 4.3.2")
			c.expectEnd()
			if n := <-left; n != 0 {
				g.t.Errorf("%d sessions cut", n)
			}
		},
		"cut": func(g *gate, c *client) {
			c.Write("MAIL FROM:<a@example.net>\r\n") // so that draining alone does not end it
			c.expect("250")
			g.awaitRest(2)
			ctx, cancel := context.WithCancel(g.t.Context())
			cancel()
			if n := g.relay.Drain(ctx); n != 1 {
				g.t.Errorf("%d sessions cut", n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each has to wait for its session's patience
			g := start(t, peer.Behaviour{})
			c := g.open()
			g.awaitRest(1)
			end(g, c)
			g.empty()
		})
	}
}

// TestDrainWhileGoingToRest: an interrupt may come when the session has looked
// whether it drains, and does not sleep yet.
func TestDrainWhileGoingToRest(t *testing.T) {
	g := start(t, peer.Behaviour{}, notForging)
	ours, theirs := pair(t)
	c := g.relay.adopt(ours, flow.Flow{Service: "mx"})
	g.relay.live.add(c)
	if err := c.reach(g.relay.opts.Services["mx"].Dialer); err != nil {
		t.Fatal(err)
	}
	_, rest := session.Begin(session.Options{}, c.client, c.origin)
	if rest == nil {
		t.Fatal("it does not rest")
	}
	g.relay.draining.Store(true)
	c.interrupt()
	c.carryOn(session.Outcome{}, rest)
	for deadline := time.Now().Add(patience); g.relay.resting.Asleep() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing woke it")
		}
	}
	theirs.Close()
	g.empty()
}
