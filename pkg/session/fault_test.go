package session

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/portreeve/portreeve/pkg/event"
)

// This file cuts, stalls and spoils both legs of every conversation, at each
// octet and at each read and write, and checks the promises: no responsibility
// taken, no truncated mail, honest about doubt. Time is virtual.

var stride = flag.Int("stride", 3, "faults at every n-th octet only")

// fault is what happens to one leg.
type fault struct {
	name   string
	client bool // the client's leg, else the origin's
	apply  func(p *play, l *modelLeg)
	onRead bool // it happens while the leg is read only
	spoils bool // what the client sent is no longer what arrives
}

func (f fault) String() string {
	side := "origin"
	if f.client {
		side = "client"
	}
	return side + " " + f.name
}

func (f fault) leg(p *play) *modelLeg {
	if f.client {
		return p.client.leg
	}
	return p.struck.leg
}

// octetFaults are the ways in which a connection ends after so many octets, in
// one direction and then perhaps in the other.
func octetFaults(client bool, at int) []fault {
	in := func(err error, both, stalled bool) func(*play, *modelLeg) {
		return func(_ *play, l *modelLeg) { l.cutIn, l.cutErr, l.both, l.stalled = at, err, both, stalled }
	}
	out := func(both, stalled bool) func(*play, *modelLeg) {
		return func(_ *play, l *modelLeg) { l.cutOut, l.both, l.stalled = at, both, stalled }
	}
	return []fault{
		{name: "ends its stream", client: client, apply: in(io.EOF, false, false)},
		{name: "closes", client: client, apply: in(io.EOF, true, false)},
		{name: "resets", client: client, apply: in(errReset, true, false)},
		{name: "stalls", client: client, apply: in(nil, false, true)},
		{name: "resets while it is written to", client: client, apply: out(true, false)},
		{name: "is gone one way while it is written to", client: client, apply: out(false, false)},
		{name: "stops reading", client: client, apply: out(false, true)},
	}
}

// TestFaultAtEachOctet lets each fault happen at each octet of each conversation.
func TestFaultAtEachOctet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cases := 0
		for _, c := range bases() {
			whole := c.play()
			whole.run()
			cases += faultsAtOctets(t, c, true, max(whole.client.sent, int(whole.session.ClientOut)))
			cases += faultsAtOctets(t, c, false, max(int(whole.session.OriginIn), int(whole.session.OriginOut)))
		}
		t.Logf("%d cases", cases)
		if cases < 35000 / *stride {
			t.Errorf("only %d cases", cases)
		}
	})
}

func faultsAtOctets(t *testing.T, c base, client bool, length int) (cases int) {
	for at := 0; at <= length; at += *stride {
		for _, f := range octetFaults(client, at) {
			for _, atMost := range []int{0, 1} {
				p := c.play()
				f.apply(p, f.leg(p))
				p.client.leg.atMost, p.origin.leg.atMost = atMost, atMost
				p.run()
				cases++
				if problem := p.promises(f); problem != "" {
					t.Errorf("%s: %s at octet %d, %d octets per read: %s", c.name, f, at, atMost, problem)
				}
			}
		}
	}
	return cases
}

// stepFaults are what happens at one read or write, for each leg.
func stepFaults(client bool) []fault {
	list := []fault{
		{name: "ends its stream", client: client, apply: func(_ *play, l *modelLeg) { l.cutIn, l.cutErr = 0, io.EOF }},
		{name: "closes", client: client, apply: func(_ *play, l *modelLeg) { l.cutIn, l.cutOut, l.cutErr = 0, 0, io.EOF }},
		{name: "resets", client: client, apply: func(_ *play, l *modelLeg) { l.in, l.cutIn, l.cutOut, l.cutErr = nil, 0, 0, errReset }},
		{name: "stalls", client: client, apply: func(_ *play, l *modelLeg) { l.cutIn, l.cutOut, l.stalled = 0, 0, true }},
		{name: "is late", client: client, apply: func(_ *play, l *modelLeg) { l.late = true }},
		{name: "takes half of a write", client: client, apply: func(_ *play, l *modelLeg) { l.cutOut = 3 }},
	}
	if !client {
		return append(list,
			fault{name: "says garbage", client: client, apply: func(_ *play, l *modelLeg) { l.in = append([]byte("garbage\r\n"), l.in...) }},
			fault{name: "says NUL", client: client, apply: func(_ *play, l *modelLeg) { l.in = append([]byte{0}, l.in...) }},
		)
	}
	// While the session waits for its client, the origin speaks unasked: a reply
	// that came too late, or never was one.
	unasked := func(text string) func(p *play, _ *modelLeg) {
		return func(p *play, _ *modelLeg) { p.origin.leg.in = append(p.origin.leg.in, text...) }
	}
	return append(list,
		fault{name: "sends garbage", client: client, apply: func(_ *play, l *modelLeg) { l.in = append([]byte("\x00\n.\n"), l.in...) }, onRead: true, spoils: true},
		fault{name: "waits while the origin says 250", client: client, apply: unasked("250 message 9\r\n"), onRead: true},
		fault{name: "waits while the origin says 354", client: client, apply: unasked("354 message 9\r\n"), onRead: true},
		fault{name: "waits while the origin says 550", client: client, apply: unasked("550 late\r\n"), onRead: true},
		fault{name: "waits while the origin says 421", client: client, apply: unasked("421 closing\r\n"), onRead: true},
	)
}

// TestFaultAtEachStep lets each fault happen at each read and write of each
// conversation: whatever breaks, a client reads 2yz to its end of data only after
// the origin has said 2yz to the same message, and no end of data is written
// after the client is gone.
func TestFaultAtEachStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cases := 0
		for _, c := range bases() {
			for _, how := range []pace{{}, {atMost: 7}, {dozes: true}} {
				for _, client := range []bool{true, false} {
					for _, f := range stepFaults(client) {
						cases += faultAtSteps(t, c, f, how)
					}
				}
			}
		}
		t.Logf("%d cases", cases)
		if cases < 5000 {
			t.Errorf("only %d cases", cases)
		}
	})
}

// pace is how a conversation comes.
type pace struct {
	atMost int  // octets per read; 0: any number
	dozes  bool // the client is silent now and then
}

func faultAtSteps(t *testing.T, c base, f fault, how pace) (cases int) {
	for step := 0; ; step++ {
		p := c.play()
		l := f.leg(p)
		l.strikeAt, l.onRead, l.strike = step, f.onRead, func(l *modelLeg) { f.apply(p, l) }
		p.client.leg.atMost, p.origin.leg.atMost = how.atMost, how.atMost
		if how.dozes {
			p.runOn(&dozingLeg{modelLeg: p.client.leg})
		} else {
			p.run()
		}
		if l.calls <= step {
			return cases
		}
		cases++
		if problem := p.promises(f); problem != "" {
			t.Errorf("%s: %s at step %d, %+v: %s", c.name, f, step, how, problem)
		}
	}
}

// promises checks what must hold however a conversation went, and returns what
// does not.
func (p *play) promises(f fault) string {
	for _, check := range []func(fault) string{p.counted, p.complete, p.doubt, p.told, p.left} {
		if problem := check(f); problem != "" {
			return problem
		}
	}
	if f.spoils {
		return ""
	}
	return p.contents()
}

// counted: client, origin and records agree on how many messages were taken.
func (p *play) counted(fault) string {
	taken, said := p.taken(), p.said()
	accepted, unknown := p.recorded(event.Accepted), p.recorded(event.Unknown)
	switch {
	case said > taken:
		return fmt.Sprintf("the client was told of %d messages, the origin took %d", said, taken)
	case said > accepted:
		return fmt.Sprintf("the client was told of %d messages, the records of %d", said, accepted)
	case taken > accepted+unknown:
		return fmt.Sprintf("the origin took %d messages, the records tell of %d and perhaps %d", taken, accepted, unknown)
	case accepted > taken:
		return fmt.Sprintf("the records tell of %d messages, the origin took %d", accepted, taken)
	case p.ends != 1:
		return fmt.Sprintf("%d records of one session", p.ends)
	}
	return ""
}

func (p *play) recorded(o event.Outcome) (n int) {
	for _, r := range p.records {
		if r.outcome == o {
			n++
		}
	}
	return n
}

// complete: the origin has no message whose end the client did not send, and what
// it has begun looks broken.
func (p *play) complete(f fault) string {
	for _, m := range p.origin.messages {
		if strings.Contains(m.content, "evil") || strings.Contains(m.sender, "evil") {
			return fmt.Sprintf("the origin has %q", m)
		}
	}
	switch sent := p.sentCompletely(); {
	case len(p.origin.messages) > sent && !f.spoils:
		return fmt.Sprintf("the origin has %d messages, the client sent %d", len(p.origin.messages), sent)
	case len(p.origin.faults) > 0:
		return fmt.Sprintf("the origin complains: %q", p.origin.faults)
	case p.origin.content && p.outcome.Origin != Abort:
		return "the origin leg ends gracefully inside content"
	case p.origin.chunks != "" && p.outcome.Origin != Abort:
		return "the origin leg ends gracefully between chunks"
	case p.client.leg.timeless || p.origin.leg.timeless:
		return "the session waits without a deadline"
	}
	return ""
}

// doubt: a message that the origin may have is one record, and 421.
func (p *play) doubt(f fault) string {
	unknown := p.recorded(event.Unknown)
	switch {
	case unknown > 1:
		return fmt.Sprintf("%d messages in doubt", unknown)
	case unknown == 0 || f.client:
		return ""
	case len(p.client.replies) == 0 || !strings.HasPrefix(p.client.replies[len(p.client.replies)-1], "421"):
		return fmt.Sprintf("in doubt, the client was told %q", p.client.replies)
	}
	return ""
}

// told: a client that is there is told why its session ended.
func (p *play) told(f fault) string {
	if f.client || slices.Contains([]event.End{event.EndQuit, event.EndClientGone}, p.outcome.End) {
		return ""
	}
	if last := p.client.replies; len(last) == 0 || last[len(last)-1][0] < '4' {
		return fmt.Sprintf("%s, and the client was told %q", p.outcome.End, last)
	}
	return ""
}

// left: the leg that another one took the place of is gone, and had no message.
func (p *play) left(fault) string {
	switch first := p.first; {
	case first == nil:
		return ""
	case !first.leg.aborted:
		return "the first leg to the origin is still there"
	case len(first.messages) > 0 || first.sender != "":
		return fmt.Sprintf("over the first leg the origin has %q and %q", first.sender, first.messages)
	}
	return ""
}

// sentCompletely counts the messages whose end of data the session has read.
func (p *play) sentCompletely() int {
	var stream string
	for _, t := range p.turns[:len(p.turns)-len(p.client.turns)] {
		stream += t.send
	}
	stream = stream[:min(len(stream), p.client.leg.delivered)]
	if p.chunked != nil {
		return strings.Count(stream, p.chunked.end)
	}
	return strings.Count(stream, "\r\n.\r\n")
}

// contents: what arrived is what was sent, octet for octet.
func (p *play) contents() string {
	for _, m := range p.origin.messages {
		if p.chunked != nil && m.content == p.chunked.content {
			continue
		}
		found := false
		for _, t := range p.turns {
			found = found || strings.HasPrefix(t.send, m.content+".\r\n")
		}
		if !found {
			return fmt.Sprintf("the origin has content %q", m.content)
		}
	}
	return ""
}
