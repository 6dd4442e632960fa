package session

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/wording"
)

// steadyLeg is a client that sends the same message again and again, one turn
// per read, or the origin that takes it. It allocates nothing.
type steadyLeg struct {
	turns   [][]byte // the client's, in a circle
	at      int
	rounds  int // that are left
	reply   []byte
	data    bool
	calls   int // reads and writes
	writeBy time.Time
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
	case passed(l.writeBy):
		return 0, os.ErrDeadlineExceeded
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

func (l *steadyLeg) SetReadDeadline(time.Time) error    { return nil }
func (l *steadyLeg) SetWriteDeadline(t time.Time) error { l.writeBy = t; return nil }
func (l *steadyLeg) Pending() (int, error)              { return 0, nil }

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
		{"a rest", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx"}},
		{"a rest after a large group", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", `C>| "` + strings.Repeat(`VRFY a\r\n`, 300) + `"`}},
		{"next command", 0, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", "C> MAIL FROM:<a@b>", "O> 250 ok"}},
		{"rest of a command", 0, []string{"O> 220 mx", `C>| "NOOP ` + half + `"`}},
		{"command after a large group", 0, []string{"O> 220 mx", "C> EHLO c", "O> 250 mx", `C>| "` + strings.Repeat(`VRFY a\r\n`, 300) + `"`}},
		{"reply", 0, []string{"O> 220 mx", "C> EHLO c"}},
		{"rest of a long reply", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", `O>| "250-` + half + `"`}},
		{"replies of a group", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250 PIPELINING\r\n"`, `C>| "NOOP\r\nNOOP\r\n"`, "O> 250 ok"}},
		{"content", 2 * time.Second, append(toData(), `C>| "`+half+`\r\n."`)},
		{"rest of refused content", 2 * time.Second, append(toData(), `C>| "a\n`+half+`\r\n."`)},
		{"between chunks", 2 * time.Second, []string{"O> 220 mx", "C> EHLO c", `O>| "250-mx\r\n250 CHUNKING\r\n"`, "C> MAIL FROM:<a@b>", "O> 250 ok", "C> RCPT TO:<a@b>", "O> 250 ok",
			`C>| "BDAT 3\r\nabc"`, "O> 354 go"}},
		{"verdict", 2 * time.Second, append(toData(), `C>| "`+half+`\r\n.\r\n"`)},
		{"command after a message", 0, append(toData(), `C>| "`+half+`\r\n.\r\n"`, "O> 250 ok")},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(0)
				defer s.leave()
				x := open(Options{}, s.client)
				x.origin.init(s.origin)
				go func() { s.outcome <- carry(x.outcome(x.run())) }()
				s.started = true
				synctest.Wait()
				for _, step := range c.steps {
					if err := s.step(step); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(c.after) // virtual
				synctest.Wait()
				rests := strings.HasPrefix(c.name, "a rest")
				for name, held := range map[string]bool{
					"a page for the client": x.client.page != nil, "a block for the client": x.client.block != nil,
					"a page for the origin": x.origin.page != nil, "a block for the origin": x.origin.block != nil,
					"something to read into": rests && (x.client.buf != nil || x.origin.buf != nil),
					"room for a message":     rests && x.letter != nil,
					"gathered content":       x.letter != nil && x.batch.block != nil,
					"replies":                x.out.page != nil, "commands": x.fwd.page != nil, "a group": x.group != nil && x.group.idle(),
				} {
					if held {
						t.Errorf("it holds %s", name)
					}
				}
			})
		})
	}
}

// TestLedgerForgets: a group that goes back to the pool names nothing of its
// session, whether its commands were answered or not.
func TestLedgerForgets(t *testing.T) {
	for name, done := range map[string]func(x *session){
		"settled":   func(x *session) { x.settle() },
		"broken up": func(x *session) { x.park() },
	} {
		x := open(Options{}, newMemoryLeg())
		x.group = new(group)
		l := &x.ledger
		l.add(entry{own: wording.NoVerify})
		l.add(entry{own: wording.Help})
		done(x)
		if *l != (ledger{}) {
			t.Errorf("%s: %v", name, l.entries[:2])
		}
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
	sent  int
	heap  *heapSink
}

// measured is how much a flood sends between two looks at the heap.
const measured = 1 << 20

func (l *floodLeg) Read(p []byte) (int, error) {
	if l.rest == "" {
		l.rest = l.next()
	}
	if l.rest == "" || l.sent >= l.limit {
		return 0, io.EOF
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	if l.heap != nil && l.sent/measured != (l.sent+n)/measured {
		l.heap.measure()
	}
	l.sent += n
	return n, nil
}

func (l *floodLeg) Write(p []byte) (int, error)      { return len(p), nil }
func (l *floodLeg) SetReadDeadline(time.Time) error  { return nil }
func (l *floodLeg) SetWriteDeadline(time.Time) error { return nil }
func (l *floodLeg) Pending() (int, error)            { return 0, nil }

// heapSink measures what lives while a session runs and when it ends.
type heapSink struct {
	event.Sink
	live uint64
}

func (h *heapSink) Message(*event.Message) { h.measure() }
func (h *heapSink) Session(*event.Session) { h.measure() }

func (h *heapSink) measure() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.live = max(h.live, m.HeapAlloc)
}

// flood is what both peers send: some steps, and then something without end.
type flood struct {
	name           string
	client, origin []string // once each
	more, replies  string   // again and again; nothing: silence
}

// floods have a client or an origin that wants our memory.
func floods() []flood {
	mail := []string{"EHLO c\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<a@b>\r\n"}
	ok := []string{"220 mx\r\n", "250-mx\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 BINARYMIME\r\n", "250 a\r\n", "250 b\r\n", "354 go\r\n"}
	long := func(n int) string { return strings.Repeat("x", n) }
	longReply := "250 " + long(2000) + "\r\n"
	return []flood{
		{"recipients and replies", mail[:2], ok[:3], "RCPT TO:<" + long(200) + "@" + long(200) + ">\r\n", longReply},
		{"refused recipients", mail[:2], ok[:3], "RCPT TO:<" + long(200) + "@" + long(200) + ">\r\n", "550 " + long(2000) + "\r\n"},
		{"endless reply", mail[:1], ok[:1], "", "250-" + long(500) + "\r\n"},
		{"endless line of a reply", mail[:1], ok[:1], "", long(4096)},
		{"endless list of keywords", mail[:1], ok[:1], "", "250-X-" + long(60) + "\r\n"},
		{"endless greeting", nil, nil, "", "220-" + long(100) + "\r\n"},
		{"endless command", nil, ok[:1], long(4096), ""},
		{"endless commands", mail[:1], ok[:2], strings.Repeat("NOOP\r\n", 1000), longReply},
		{"endless transactions", mail[:1], ok[:2], "MAIL FROM:<" + long(200) + "@b>\r\nRCPT TO:<a@b>\r\nRSET\r\n", longReply},
		{"endless verbs", mail[:1], ok[:2], strings.Repeat("EHLO "+long(200)+"\r\n", 100), longReply},
		{"endless line of content", append(mail, "DATA\r\n"), ok, long(4096), ""},
		{"endless content", append(mail, "DATA\r\n"), ok, long(900) + "\r\n", ""},
		{"endless refused content", append(mail, "DATA\r\n", "a\nb\r\n"), ok, long(900) + "\r\n", ""},
		{"endless dots", append(mail, "DATA\r\n"), ok, "..\r\n", ""},
		{"chunks of one octet", mail, ok, strings.Repeat("BDAT 1\r\nx", 100), ""},
		{"chunks of none", mail, ok, strings.Repeat("BDAT 0\r\n", 100), ""},
		{"one large chunk", append(mail, "BDAT 9999999999 LAST\r\n"), ok, long(900) + "\r\n", ""},
		{"one large binary chunk", append([]string{mail[0], "MAIL FROM:<a@b> BODY=BINARYMIME\r\n"}, mail[2], "BDAT 9999999999 LAST\r\n"), ok[:4], long(4096), "250 chunk\r\n"},
		{"endless chunk that is refused", append(mail[:1:1], "BDAT 9999999999\r\n"), ok[:2], long(4096), ""},
	}
}

// TestBoundedMemory: whatever is sent, a session stays below 1 MiB.
func TestBoundedMemory(t *testing.T) {
	const much = 4 << 20
	for _, f := range floods() {
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		h := &heapSink{Sink: event.Discard}
		Run(Options{Sink: h}, &floodLeg{next: oneByOne(f.client, f.more), limit: much, heap: h}, &floodLeg{next: oneByOne(f.origin, f.replies), limit: much, heap: h})
		if h.live > before.HeapAlloc+1<<20 {
			t.Errorf("%s: %d KiB", f.name, (h.live-before.HeapAlloc)>>10)
		}
	}
}

// oneByOne says each text once, and then more again and again.
func oneByOne(once []string, more string) func() string {
	return func() string {
		if len(once) == 0 {
			return more
		}
		text := once[0]
		once = once[1:]
		return text
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
