package relay

import (
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/verdict"
	"github.com/portreeve/portreeve/pkg/wording"
	"github.com/portreeve/portreeve/testenv/peer"
)

// door is a policy that decides before the dial, and counts.
type door struct {
	*policy.Plain
	answer policy.Answer
	asked  chan struct{}

	mu           sync.Mutex
	open, closed int
}

func (d *door) Open(*flow.Flow) (policy.Conversation, policy.Answer) {
	d.mu.Lock()
	d.open++
	d.mu.Unlock()
	if d.asked != nil {
		d.asked <- struct{}{}
	}
	return d, d.answer
}

func (d *door) Close() {
	d.mu.Lock()
	d.closed++
	d.mu.Unlock()
}

// behind starts a relay with a policy.
func behind(t *testing.T, d *door) *gate {
	t.Helper()
	d.Plain = policy.New(protocol.Default())
	return start(t, peer.Behaviour{}, func(o *Options) {
		mx := o.Services["mx"]
		mx.Policy = d
		o.Services["mx"] = mx
	})
}

// left checks that every conversation that was opened was closed once, and how many
// connections the origin saw.
func (d *door) left(t *testing.T, g *gate, opened, dialled int, end event.End) {
	t.Helper()
	g.empty()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != opened || d.closed != opened {
		t.Errorf("%d conversations were opened and %d closed, want %d", d.open, d.closed, opened)
	}
	if n := len(g.origin.Sessions()); n != dialled {
		t.Errorf("the origin saw %d connections, want %d", n, dialled)
	}
	if got := g.records.ends; len(got) != opened || got[0] != end {
		t.Errorf("recorded %v, want %s", got, end)
	}
}

// waiting is an answer that nobody has given yet.
func waiting(until time.Duration) (w *policy.Wait, decide func(*verdict.V)) {
	done := make(chan struct{})
	var v *verdict.V
	w = &policy.Wait{Done: done, Answer: func() *verdict.V { return v }, Until: time.Now().Add(until), Late: wording.Broken}
	return w, func(decided *verdict.V) {
		v = decided
		close(done)
	}
}

// atDoor is a client for whom a policy that takes its time has been asked.
func atDoor(t *testing.T, until time.Duration) (d *door, g *gate, c *client, decide func(*verdict.V)) {
	t.Helper()
	w, decide := waiting(until)
	d = &door{answer: policy.Answer{Wait: w}, asked: make(chan struct{}, 1)}
	g = behind(t, d)
	c = g.dial()
	<-d.asked
	return d, g, c, decide
}

func TestRefusedBeforeTheDial(t *testing.T) {
	d := &door{answer: policy.Answer{Verdict: wording.Full}}
	g := behind(t, d)
	c := g.dial()
	c.expect("421 4.3.2 Too many sessions")
	c.expectEnd()
	d.left(t, g, 1, 0, event.EndPolicy)
}

func TestLetInAfterAWhile(t *testing.T) {
	d, g, c, decide := atDoor(t, patience)
	if n := len(g.origin.Sessions()); n > 0 {
		t.Errorf("the origin was dialled while the policy thought")
	}
	decide(nil)
	if _, err := c.Deliver(mail); err != nil {
		t.Error(err)
	}
	c.expectEnd()
	d.left(t, g, 1, 1, event.EndQuit)
}

func TestRefusedAfterAWhile(t *testing.T) {
	d, g, c, decide := atDoor(t, patience)
	decide(wording.Full)
	c.expect("421 4.3.2 Too many sessions")
	d.left(t, g, 1, 0, event.EndPolicy)
}

func TestNobodyDecidesAtTheDoor(t *testing.T) {
	w, _ := waiting(10 * time.Millisecond)
	d := &door{answer: policy.Answer{Wait: w}}
	g := behind(t, d)
	g.dial().expect("421 4.3.0 ")
	d.left(t, g, 1, 0, event.EndPolicy)
}

func TestLeftBeforeTheDoorOpened(t *testing.T) {
	d, g, c, _ := atDoor(t, time.Hour)
	c.conn.Close()
	d.left(t, g, 1, 0, event.EndClientGone)
}

func TestDrainedBeforeTheDoorOpened(t *testing.T) {
	d, g, c, _ := atDoor(t, time.Hour)
	g.relay.draining.Store(true)
	c.expect("421 4.3.2 Service is restarting")
	d.left(t, g, 1, 0, event.EndDraining)
}
