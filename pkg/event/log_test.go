package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/zone"
)

var (
	someFlow = flow.Flow{
		ID: flow.ID{1, 2, 3}, Client: netip.MustParseAddrPort("192.0.2.1:40000"),
		Server: netip.MustParseAddrPort("[2001:db8::1]:25"), Way: flow.Transit, Service: "mx",
		Zone: zone.Zone{Name: "lan", Trust: zone.XCLIENT}, Via: netip.MustParseAddrPort("10.0.0.1:41000"),
	}
	someStart   = time.Date(2026, 11, 22, 18, 9, 0, 123456000, time.UTC)
	someMessage = Message{
		Flow: someFlow, Origin: netip.MustParseAddrPort("198.51.100.1:25"), Forged: netip.MustParseAddrPort("192.0.2.1:51000"),
		Number: 2, Hello: Text("client.example"), Sender: Text("alice@example.com"), Declared: 1000, Used: smtp.SetOf(smtp.ExtSize, smtp.ExtDSN),
		EnvID: Text("QQ314159"), XClient: Text("NAME=c.example"), XForward: Text("IDENT=1"), Refused: 1, Accepted: 1, Size: 1234, Start: someStart,
		Recipients: []Recipient{
			{Text("bob@example.net"), Answer{250, Text("2.1.5 Ok")}, NoReason},
			{Text("carol@example.net"), Answer{550, Text("5.1.1 no\nsuch user")}, ReasonIndirect},
		},
		Enveloped: 5 * time.Millisecond, Opened: 10 * time.Millisecond, Content: 20 * time.Millisecond, Total: 30 * time.Millisecond,
		Outcome: Unknown, Reason: ReasonOriginGone, Client: Answer{421, Text("4.4.2 lost")}, Reply: Answer{250, Text("hm")},
	}
	someSession = Session{
		Flow: someFlow, Origin: someMessage.Origin, Forged: someMessage.Forged, Start: someStart, Duration: time.Second,
		Greeted: time.Millisecond, Greeting: Answer{220, Text("mx ESMTP")}, Hello: Text("client.example"), Extended: true, XClient: Text("NAME=c.example"),
		Offered: smtp.SetOf(smtp.ExtPipelining), Used: smtp.SetOf(smtp.ExtSize), Removed: Text("STARTTLS X-EXPS"),
		Commands: 5, Errors: 1, Messages: 1, Unreached: []Unreached{{netip.MustParseAddrPort("198.51.100.9:25"), TroubleTimeout}}, Refusals: []Tally{{ReasonIndirect, 2}, {ReasonOriginGone, 1}}, ClientIn: 1, ClientOut: 2, OriginIn: 3, OriginOut: 4,
		End: EndOriginGone, Detail: "why", Offence: Text("25 x"), Last: Answer{421, Text("4.4.2 lost")},
		Closing: Answer{421, Text("bye")}, Rewritten: []Rewrite{{Text("571 no"), 554}, {Text("SIZE 9"), 250}},
	}
)

func jsonLines(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	l := NewJSON(&out)
	l.Opened(&someFlow)
	l.Message(&someMessage)
	l.Session(&someSession)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestJSON holds the schema in place: what is in this file is promised.
func TestJSON(t *testing.T) {
	want, err := os.ReadFile("testdata/records.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := jsonLines(t); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSchema: every member and every word is documented.
func TestSchema(t *testing.T) {
	schema, err := os.ReadFile("schema.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := func(word string) {
		if !strings.Contains(string(schema), "`"+word+"`") {
			t.Errorf("schema.md does not name %s", word)
		}
	}
	for line := range strings.Lines(jsonLines(t)) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for name := range members {
			documented(name)
		}
	}
	for e := range ends {
		documented(e.String())
	}
	for o := range outcomes {
		documented(o.String())
	}
	for tr := range troubles {
		documented(tr.String())
	}
	for r := NoReason + 1; r < Reasons; r++ {
		documented(r.String())
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	l := NewText(&out)
	l.Message(&someMessage)
	l.Session(&someSession)
	l.Close()
	want := `2026-11-22T18:09:00.153456Z message unknown id=0410600000000000 service=mx way=transit client=192.0.2.1:40000 server=[2001:db8::1]:25 zone=lan via=10.0.0.1:41000 origin=198.51.100.1:25 forged=192.0.2.1:51000 from=<alice@example.com> to=<bob@example.net> to=<carol@example.net> size=1234 seconds=0.030 reason="origin-gone" reply="421 4.4.2 lost"
2026-11-22T18:09:01.123456Z session origin-gone id=0410600000000000 service=mx way=transit client=192.0.2.1:40000 server=[2001:db8::1]:25 zone=lan via=10.0.0.1:41000 origin=198.51.100.1:25 helo=client.example xclient="NAME=c.example" unreached="198.51.100.9:25 timeout" messages=1 errors=1 refused=indirect-address*2 refused=origin-gone*1 removed="STARTTLS X-EXPS" seconds=1.000 reason="why" offence="25 x" rewritten="571 no" rewritten="SIZE 9" reply="421 bye"
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// hostile is what a peer may send to get into a log or a terminal.
var hostile = Text("a\r\n{\"event\":\"fake\"}\x00\x1b[2J\x7f\xff\xc2\x9b31m\u202e\u2028\\x\"é")

func TestHostileText(t *testing.T) {
	m := someMessage
	m.Hello, m.Sender, m.EnvID, m.XClient, m.XForward = hostile, hostile, hostile, hostile, hostile
	m.Recipients = []Recipient{{hostile, Answer{250, hostile}, NoReason}}
	m.Client, m.Reply = Answer{250, hostile}, Answer{250, hostile}
	s := someSession
	s.Hello, s.XClient, s.Removed, s.Offence, s.Greeting, s.Last = hostile, hostile, hostile, hostile, Answer{220, hostile}, Answer{421, hostile}
	for name, f := range map[string]format{"json": jsonFormat{}, "text": textFormat{}} {
		line := f.session(f.message(nil, &m), &s)
		if n := bytes.Count(line, []byte("\n")); n != 2 {
			t.Errorf("%s: two records became %d lines: %s", name, n, line)
		}
		for _, r := range strings.ReplaceAll(string(line), "\n", "") {
			if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 {
				t.Errorf("%s: %U in %s", name, r, line)
			}
		}
	}
	line := jsonFormat{}.message(nil, &m)
	var got struct{ From string }
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	want := "a\\x0d\n{\"event\":\"fake\"}\\x00\\x1b[2J\\x7f\\xff\\u009b31m\\u202e\\u2028\\x\"é"
	if got.From != want {
		t.Errorf("got %q, want %q", got.From, want)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte(hostile))
	f.Add([]byte("plain"))
	f.Fuzz(func(t *testing.T, s []byte) {
		quoted := append(appendEscaped([]byte{'"'}, s), '"')
		var decoded string
		if err := json.Unmarshal(quoted, &decoded); err != nil {
			t.Fatalf("%q became %s: %v", s, quoted, err)
		}
		for _, r := range string(quoted) {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q became %q", s, quoted)
			}
		}
	})
}

// stuckWriter blocks until it is let go, and then writes.
type stuckWriter struct {
	letGo chan struct{}
	mu    sync.Mutex
	out   bytes.Buffer
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.letGo
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// TestStuckWriter: a writer that hangs blocks no session and costs bounded
// memory, and what was lost is told.
func TestStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{letGo: make(chan struct{})}
		l := NewJSON(w)
		m := someMessage
		m.Recipients = nil
		m.Sender = bytes.Repeat([]byte("x"), 4096)
		const sent = 3000
		for range sent {
			l.Message(&m)
			time.Sleep(gathering) // virtual
		}
		lost := l.Lost()
		if lost == 0 || len(l.waiting) > maxWaiting+8192 {
			t.Fatalf("%d lost, %d octets waiting", lost, len(l.waiting))
		}
		close(w.letGo)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		text := w.out.String()
		if got := uint64(strings.Count(text, `"event":"message"`)); got+lost != sent {
			t.Errorf("%d written and %d lost of %d", got, lost, sent)
		}
		if !strings.Contains(text, `"event":"lost"`) {
			t.Error("the loss is not in the log")
		}
	})
}

type failingWriter struct{ fail bool }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.fail {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestFailingWriter(t *testing.T) {
	l := NewJSON(&failingWriter{fail: true})
	l.Message(&someMessage)
	l.Session(&someSession)
	if err := l.Close(); err == nil || l.Lost() != 2 {
		t.Errorf("lost %d, error %v", l.Lost(), err)
	}
}

// A pipe that nobody reads does not keep the process from ending.
func TestCloseWithAWriterThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{letGo: make(chan struct{})}
		l := NewJSON(w)
		l.Session(&someSession)
		if err := l.Close(); !errors.Is(err, errStuck) {
			t.Errorf("error %v, want %v", err, errStuck)
		}
		close(w.letGo)
	})
}

func BenchmarkJSON(b *testing.B) {
	buf := make([]byte, 0, 8192)
	b.ReportAllocs()
	for b.Loop() {
		buf = jsonFormat{}.message(buf[:0], &someMessage)
		buf = jsonFormat{}.session(buf, &someSession)
	}
}
