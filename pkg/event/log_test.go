package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
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
	plainMessage = Message{ // from the gateway's own address
		Flow: someFlow, Origin: someMessage.Origin, Unforged: UnforgedOnLink, Number: 1, Sender: Text("alice@example.com"), Start: someStart, Outcome: Abandoned, Reason: ReasonQuit,
	}
	someSession = Session{
		Flow: someFlow, Origin: someMessage.Origin, Forged: someMessage.Forged, Start: someStart, Duration: time.Second,
		Greeted: time.Millisecond, Greeting: Answer{220, Text("mx ESMTP")}, Hello: Text("client.example"), Extended: true, XClient: Text("NAME=c.example"),
		Offered: smtp.SetOf(smtp.ExtPipelining), Used: smtp.SetOf(smtp.ExtSize), Removed: Text("STARTTLS X-EXPS"),
		Commands: 5, Errors: 1, Messages: 1, Unreached: []Unreached{{netip.MustParseAddrPort("198.51.100.9:25"), TroubleTimeout}}, Refusals: []Tally{{ReasonIndirect, 2}, {ReasonOriginGone, 1}}, ClientIn: 1, ClientOut: 2, OriginIn: 3, OriginOut: 4,
		End: EndOriginGone, Detail: "why", Offence: Text("25 x"), Last: Answer{421, Text("4.4.2 lost")},
		Closing: Answer{421, Text("bye")}, Rewritten: []Rewrite{{Text("571 no"), 554}, {Text("SIZE 9"), 250}},
		Mode: "mirror",
		ClientTLS: &TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", Name: Text("mx.example"), Resumed: true,
			Peer: Verified, PeerName: Text("CN=client.example")},
		OriginTLS: &TLS{Version: "TLS1.2", Cipher: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Group: "CurveP256", Name: Text("origin.example"),
			Peer: DANE, PeerName: Text("CN=origin.example")},
	}

	// What else can become of TLS: it fails, it is carried unseen, it is off.
	failedTLS = Session{
		Flow: someFlow, Start: someStart, Duration: time.Second, End: EndOriginTLS, Mode: "mirror",
		ClientTLS: &TLS{Failure: FailureRefused, Detail: "origin: dane"},
		OriginTLS: &TLS{Name: Text("origin.example"), Failure: FailureDANE, Detail: "no record fits"},
	}
	unseenTLS = Session{
		Flow: someFlow, Start: someStart, Duration: time.Second, End: EndOpaque, Detail: "reset", Mode: "passthrough",
		Opaque: &Opaque{FromClient: 3000, FromOrigin: 5000, Detail: "reset"},
	}
	noTLSAtAll  = Session{Flow: someFlow, Start: someStart, Duration: time.Second, Mode: "off", Unforged: NoReturn}
	someRecords = []*Session{&someSession, &failedTLS, &unseenTLS, &noTLSAtAll}
)

// written returns what a log of some records has.
func written(t *testing.T, format func(io.Writer) *Log) string {
	t.Helper()
	var out bytes.Buffer
	l := format(&out)
	l.Opened(&someFlow)
	l.Message(&someMessage)
	l.Message(&plainMessage)
	for _, s := range someRecords {
		l.Session(s)
	}
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
	if got := written(t, NewJSON); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSchema: the tables of schema.md have every member and every word, and
// none that does not exist.
func TestSchema(t *testing.T) {
	file, err := os.ReadFile("schema.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(file)
	for of, words := range map[string][]string{
		"outcome":  outcomeWords[:],
		"end":      endWords[:],
		"trouble":  troubleWords[:],
		"unforged": unforgedWords[NotUnforged+1:],
		"reason":   reasonWords[NoReason+1:],
		"failure":  failureWords[NoFailure+1:],
		"peer":     verificationWords[:],
		"group":    groupWords[:len(groupWords)-1],
	} {
		same(t, of, tableBelow(t, page, "\n| "+of+" | meaning |"), words)
	}
	members := map[string]map[string]bool{} // of what: which
	text := written(t, NewJSON) + string(jsonFormat{}.lost(nil, someStart, 1))
	for line := range strings.Lines(text) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		note(members, record["event"].(string), record)
	}
	everywhere := tableBelow(t, page, "## Members of every flow's record")
	for _, kind := range []string{"message", "session"} {
		same(t, kind, append(tableBelow(t, page, "## `"+kind+"`"), everywhere...), keys(members[kind]))
	}
	same(t, "lost", append(tableBelow(t, page, "## `lost`"), "event", "time"), keys(members["lost"]))
	same(t, "TLS", tableBelow(t, page, "Members of `client_tls`"), keys(members["client_tls"], members["origin_tls"]))
	for _, inside := range []string{"to", "reply", "opaque", "unreached", "rewritten"} {
		for name := range members[inside] {
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("schema.md does not name %s of %s", name, inside)
			}
		}
	}
}

// note notes the members of an object, and of those that are in it.
func note(members map[string]map[string]bool, of string, object map[string]any) {
	if members[of] == nil {
		members[of] = map[string]bool{}
	}
	for name, value := range object {
		members[of][name] = true
		list, _ := value.([]any)
		for _, v := range append(list, value) {
			if inner, is := v.(map[string]any); is {
				note(members, name, inner)
			}
		}
	}
}

func keys(sets ...map[string]bool) []string {
	all := map[string]bool{}
	for _, s := range sets {
		maps.Copy(all, s)
	}
	return slices.Collect(maps.Keys(all))
}

// same compares the words of a table with those that there are.
func same(t *testing.T, of string, documented, real []string) {
	t.Helper()
	documented, real = slices.Clone(documented), slices.Clone(real)
	slices.Sort(documented)
	slices.Sort(real)
	if !slices.Equal(documented, real) {
		t.Errorf("%s: documented are\n%q, there are\n%q", of, documented, real)
	}
}

// tableBelow returns the words in the first column of the first table below a
// place in a page.
func tableBelow(t *testing.T, page, place string) (words []string) {
	t.Helper()
	_, below, found := strings.Cut(page, place)
	_, rows, table := strings.Cut(below, "|---|")
	if !found || !table {
		t.Fatalf("no table below %q", place)
	}
	_, rows, _ = strings.Cut(rows, "\n")
	for row := range strings.Lines(rows) {
		if !strings.HasPrefix(row, "|") {
			break
		}
		for _, word := range quoted.FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			words = append(words, word[1])
		}
	}
	return words
}

var quoted = regexp.MustCompile("`([^`]+)`")

func TestText(t *testing.T) {
	want, err := os.ReadFile("testdata/records.text")
	if err != nil {
		t.Fatal(err)
	}
	if got := written(t, NewText); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// hostile is what a peer may send to get into a log or a terminal.
var hostile = Text("a\r\n{\"event\":\"fake\"}\x00\x1b[2J\x7f\xff\xc2\x9b31m\u202e\u2028\\x\"é")

// hostileRecords have it wherever a peer has a say.
func hostileRecords() (m Message, s Session) {
	m = someMessage
	m.Hello, m.Sender, m.EnvID, m.XClient, m.XForward = hostile, hostile, hostile, hostile, hostile
	m.Recipients = []Recipient{{hostile, Answer{250, hostile}, NoReason}}
	m.Client, m.Reply = Answer{250, hostile}, Answer{250, hostile}
	s = someSession
	s.Hello, s.XClient, s.Removed, s.Offence, s.Detail = hostile, hostile, hostile, hostile, string(hostile)
	s.Greeting, s.Last, s.Closing, s.Rewritten = Answer{220, hostile}, Answer{421, hostile}, Answer{421, hostile}, []Rewrite{{hostile, 250}}
	s.Opaque = &Opaque{Detail: string(hostile)}
	s.ClientTLS = &TLS{Version: "TLS1.3", Name: hostile, PeerName: hostile}
	s.OriginTLS = &TLS{Failure: FailureName, Name: hostile, PeerName: hostile, Detail: string(hostile)}
	return m, s
}

func TestHostileText(t *testing.T) {
	m, s := hostileRecords()
	for _, f := range []struct {
		name   string
		format format
		shown  int // how often, in the message, the session and its TLS; some are in JSON only
	}{{"json", jsonFormat{}, 9 + 10 + 5}, {"text", textFormat{}, 3 + 7 + 5}} {
		line := f.format.session(f.format.message(nil, &m), &s)
		if n := bytes.Count(line, []byte("\n")); n != 2 {
			t.Errorf("%s: two records became %d lines: %s", f.name, n, line)
		}
		if n := bytes.Count(line, appendEscaped(nil, hostile)); n != f.shown {
			t.Errorf("%s: escaped %d times and not %d: %s", f.name, n, f.shown, line)
		}
		for _, r := range strings.ReplaceAll(string(line), "\n", "") {
			if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 {
				t.Errorf("%s: %U in %s", f.name, r, line)
			}
		}
	}
}

// TestHostileTextInJSON: a reader gets back what was sent, escaped.
func TestHostileTextInJSON(t *testing.T) {
	type side struct {
		SNI      string
		PeerName string `json:"peer_name"`
		Detail   string
	}
	var got struct {
		From   string
		Client side `json:"client_tls"`
		Origin side `json:"origin_tls"`
	}
	m, s := hostileRecords()
	for _, line := range [][]byte{jsonFormat{}.message(nil, &m), jsonFormat{}.session(nil, &s)} {
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	want := "a\\x0d\n{\"event\":\"fake\"}\\x00\\x1b[2J\\x7f\\xff\\u009b31m\\u202e\\u2028\\x\"é"
	for _, read := range []string{got.From, got.Client.SNI, got.Client.PeerName, got.Origin.SNI, got.Origin.PeerName, got.Origin.Detail} {
		if read != want {
			t.Errorf("got %q, want %q", read, want)
		}
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
