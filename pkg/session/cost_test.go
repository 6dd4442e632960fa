package session

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// steadyLeg is a client that sends the same message again and again, one turn
// per read, or the origin that takes it. It allocates nothing.
type steadyLeg struct {
	turns  [][]byte // the client's, in a circle
	at     int
	rounds int // that are left
	reply  []byte
	data   bool
	calls  int // reads and writes
}

func (l *steadyLeg) Read(p []byte) (int, error) {
	l.calls++
	if l.turns == nil {
		n := copy(p, l.reply)
		l.reply = l.reply[n:]
		return n, nil
	}
	if l.rounds == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.turns[l.at])
	if l.at++; l.at == len(l.turns) {
		l.at = 1 // EHLO is said once
		l.rounds--
	}
	return n, nil
}

var (
	ok250     = []byte("250 2.0.0 Ok\r\n")
	ok354     = []byte("354 End data with <CR><LF>.<CR><LF>\r\n")
	okBatch   = []byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n")
	okEHLO    = []byte(fullEHLO)
	okGreet   = []byte("220 mx ESMTP\r\n")
	endOfData = []byte("\r\n.\r\n")
)

func (l *steadyLeg) Write(p []byte) (int, error) {
	l.calls++
	switch {
	case l.turns != nil:
	case l.data:
		if bytes.HasSuffix(p, endOfData) {
			l.data, l.reply = false, ok250
		}
	case p[0] == 'E':
		l.reply = okEHLO
	case p[0] == 'D':
		l.data, l.reply = true, ok354
	case bytes.Count(p, []byte("\r\n")) == 3:
		l.reply = okBatch
	default:
		l.reply = ok250
	}
	return len(p), nil
}

func (l *steadyLeg) SetReadDeadline(time.Time) error  { return nil }
func (l *steadyLeg) SetWriteDeadline(time.Time) error { return nil }
func (l *steadyLeg) Pending() (int, error)            { return 0, nil }

var steadyMessage = strings.Repeat(strings.Repeat("x", 76)+"\r\n", 52) + ".\r\n"

func stepByStep() [][]byte {
	return [][]byte{
		[]byte("EHLO client.example\r\n"), []byte("MAIL FROM:<a@client.example> SIZE=4096 BODY=8BITMIME\r\n"),
		[]byte("RCPT TO:<b@mx.example> NOTIFY=FAILURE\r\n"), []byte("RCPT TO:<c@mx.example>\r\n"), []byte("DATA\r\n"), []byte(steadyMessage),
	}
}

func inGroups() [][]byte {
	return [][]byte{
		[]byte("EHLO client.example\r\n"),
		[]byte("MAIL FROM:<a@client.example> SIZE=4096\r\nRCPT TO:<b@mx.example>\r\nRCPT TO:<c@mx.example>\r\nDATA\r\n"), []byte(steadyMessage),
	}
}

// converse runs a session of so many messages.
func converse(t testing.TB, turns [][]byte, messages int) (client, origin *steadyLeg) {
	client = &steadyLeg{turns: turns, rounds: messages}
	origin = &steadyLeg{reply: okGreet}
	o := Run(Options{Flow: flow.Flow{Service: "mx"}}, client, origin)
	if o.Record.Messages != messages || o.End != event.EndClientGone {
		t.Fatalf("%d of %d messages, %s", o.Record.Messages, messages, o.End)
	}
	return client, origin
}

// TestNoAllocations: a message costs no allocation; a session costs a few.
func TestNoAllocations(t *testing.T) {
	for name, turns := range map[string][][]byte{"step by step": stepByStep(), "in groups": inGroups()} {
		one := testing.AllocsPerRun(50, func() { converse(t, turns, 1) })
		many := testing.AllocsPerRun(50, func() { converse(t, turns, 101) })
		if perMessage := (many - one) / 100; perMessage > allocationsPerMessage {
			t.Errorf("%s: %.2f allocations per message", name, perMessage)
		}
		if one > 6+allocationsPerMessage { // of which the test's own make three
			t.Errorf("%s: %.0f allocations per session", name, one)
		}
	}
}

// TestCalls: reads and writes of a message on both legs. Fewer is hardly
// possible; a change here changes what the gateway costs.
func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name           string
		turns          [][]byte
		client, origin int
	}{
		{"step by step", stepByStep(), 10, 10},
		{"in groups", inGroups(), 4, 6},
	} {
		client1, origin1 := converse(t, c.turns, 1)
		client2, origin2 := converse(t, c.turns, 2)
		client, origin := client2.calls-client1.calls, origin2.calls-origin1.calls
		if client != c.client || origin != c.origin {
			t.Errorf("%s: %d calls on the client leg, %d on the origin leg", c.name, client, origin)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for name, turns := range map[string][][]byte{"steps": stepByStep(), "groups": inGroups()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				converse(b, turns, 1)
			}
		})
	}
}

// TestIdleHoldsNothing: a session that waits has no buffer of a pool, whatever
// it waits for.
func TestIdleHoldsNothing(t *testing.T) {
	half := strings.Repeat("x", 400)
	for _, c := range []struct {
		name  string
		after time.Duration // how long it may keep its buffers
		steps []string
	}{
		{"greeting", 0, nil},
		{"first command", 0, []string{"O> 220 mx"}},
		{"next command", 0, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", "C> MAIL FROM:<a@b>", "O> 250 ok"}},
		{"rest of a command", 0, []string{"O> 220 mx", `C>| "NOOP ` + half + `"`}},
		{"command after a large group", 0, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", `C>| "` + strings.Repeat(`VRFY a\r\n`, 300) + `"`}},
		{"reply", 0, []string{"O> 220 mx", "C> EHLO c"}},
		{"rest of a long reply", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", `O>| "250-` + half + `"`}},
		{"replies of a group", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250 PIPELINING\r\n"`, `C>| "NOOP\r\nNOOP\r\n"`, "O> 250 ok"}},
		{"content", 2 * time.Second, append(toData(), `C>| "`+half+`\r\n."`)},
		{"rest of refused content", 2 * time.Second, append(toData(), `C>| "a\n`+half+`\r\n."`)},
		{"verdict", 2 * time.Second, append(toData(), `C>| "`+half+`\r\n.\r\n"`)},
		{"command after a message", 0, append(toData(), `C>| "`+half+`\r\n.\r\n"`, "O> 250 ok")},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(0)
				defer s.leave()
				x := open(Options{}, s.client)
				x.origin.init(s.origin)
				go func() { s.outcome <- x.finish(x.run()) }()
				s.started = true
				synctest.Wait()
				for _, step := range c.steps {
					if err := s.step(step); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(c.after) // virtual
				synctest.Wait()
				for name, held := range map[string]bool{
					"a page for the client": x.client.page != nil, "a block for the client": x.client.block != nil,
					"a page for the origin": x.origin.page != nil, "a block for the origin": x.origin.block != nil,
					"replies": x.out.page != nil, "commands": x.fwd.page != nil, "a group": x.group != nil && x.group.idle(),
				} {
					if held {
						t.Errorf("it holds %s", name)
					}
				}
			})
		})
	}
}

func toData() []string {
	return []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", "C> MAIL FROM:<a@b>", "O> 250 ok", "C> RCPT TO:<a@b>", "O> 250 ok", "C> DATA", "O> 354 go"}
}

// floodLeg is a peer that sends without end and never looks at what it gets.
type floodLeg struct {
	next  func() string
	rest  string
	limit int // octets until it hangs up
}

func (l *floodLeg) Read(p []byte) (int, error) {
	if l.rest == "" {
		l.rest = l.next()
	}
	if l.rest == "" || l.limit <= 0 {
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	l.limit -= n
	return n, nil
}

func (l *floodLeg) Write(p []byte) (int, error)      { return len(p), nil }
func (l *floodLeg) SetReadDeadline(time.Time) error  { return nil }
func (l *floodLeg) SetWriteDeadline(time.Time) error { return nil }
func (l *floodLeg) Pending() (int, error)            { return 0, nil }

// heapSink measures what lives when the session ends.
type heapSink struct{ live uint64 }

func (h *heapSink) Opened(*flow.Flow)                {}
func (h *heapSink) Refused(*flow.Flow, event.Reason) {}
func (h *heapSink) Message(*event.Message)           { h.measure() }
func (h *heapSink) Session(*event.Session)           { h.measure() }

func (h *heapSink) measure() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.live = max(h.live, m.HeapAlloc)
}

// TestBoundedMemory: whatever is sent, a session stays below 1 MiB.
func TestBoundedMemory(t *testing.T) {
	recipients := 0
	manyRecipients := func() string {
		recipients++
		switch recipients {
		case 1:
			return "EHLO c\r\n"
		case 2:
			return "MAIL FROM:<a@b>\r\n"
		}
		return fmt.Sprintf("RCPT TO:<%s%d@%s>\r\n", strings.Repeat("l", 200), recipients, strings.Repeat("d", 200))
	}
	longReply := func() string { return "250 " + strings.Repeat("t", 2000) + "\r\n" }
	greeted := false
	endlessReply := func() string {
		if !greeted {
			greeted = true
			return "220 mx\r\n"
		}
		return "250-" + strings.Repeat("t", 500) + "\r\n"
	}
	silence := func() string { return "" }
	const much = 8 << 20
	for name, legs := range map[string][2]func() string{
		"recipients and replies": {manyRecipients, firstThen("220 mx\r\n", longReply)},
		"endless reply":          {firstThen("EHLO c\r\n", silence), endlessReply},
		"endless command":        {func() string { return strings.Repeat("x", 4096) }, firstThen("220 mx\r\n", silence)},
		"endless greeting":       {silence, func() string { return "220-" + strings.Repeat("g", 100) + "\r\n" }},
		"endless commands":       {func() string { return strings.Repeat("NOOP\r\n", 1000) }, firstThen("220 mx\r\n", longReply)},
	} {
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		h := &heapSink{}
		Run(Options{Sink: h}, &floodLeg{next: legs[0], limit: much}, &floodLeg{next: legs[1], limit: much})
		if h.live > before.HeapAlloc+1<<20 {
			t.Errorf("%s: %d KiB", name, (h.live-before.HeapAlloc)>>10)
		}
	}
}

func firstThen(first string, then func() string) func() string {
	done := false
	return func() string {
		if !done {
			done = true
			return first
		}
		return then()
	}
}
