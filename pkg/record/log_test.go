package record

import (
	"bytes"
	"crypto/tls"
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

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/protocol"
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
	someMessage = event.Message{
		Flow: someFlow, Origin: netip.MustParseAddrPort("198.51.100.1:25"), Forged: netip.MustParseAddrPort("192.0.2.1:51000"),
		Number: 2, Hello: event.Text("client.example"), Sender: event.Text("alice@example.com"), Declared: 1000, Used: smtp.SetOf(smtp.ExtSize, smtp.ExtDSN),
		EnvID: event.Text("QQ314159"), Dropped: event.Text("X-ONE X-TWO=3"), XClient: event.Text("NAME=c.example"), XForward: event.Text("IDENT=1"), Refused: 1, Accepted: 1, Size: 1234, Start: someStart,
		Recipients: []event.Recipient{
			{Address: event.Text("bob@example.net"), Answer: answer(250, "2.1.5 Ok")},
			{Address: event.Text("carol@example.net"), Answer: answer(550, "5.1.1 no\nsuch user"), Cause: event.Cause{Reason: event.ReasonIndirect, Rule: &protocol.Rule{Key: "smtp.refuse_percent", Place: "/etc/portreeve.yaml:7"}}, Dropped: event.Text("NOTIFY=NEVER")},
		},
		Enveloped: 5 * time.Millisecond, Opened: 10 * time.Millisecond, Content: 20 * time.Millisecond, Total: 30 * time.Millisecond,
		Outcome: event.Unknown, Cause: event.Cause{Reason: event.ReasonOriginGone, Rule: &protocol.Rule{Key: "timeouts", Place: "my own.yaml:7"}}, Client: answer(421, "4.4.2 lost"), Reply: answer(250, "hm"),
	}
	plainMessage = event.Message{ // from the gateway's own address
		Flow: someFlow, Origin: someMessage.Origin, Unforged: event.UnforgedOnLink, Number: 1, Sender: event.Text("alice@example.com"), Start: someStart, Outcome: event.Abandoned, Cause: event.Cause{Reason: event.ReasonQuit},
	}
	someSession = event.Session{
		Flow: someFlow, Origin: someMessage.Origin, Forged: someMessage.Forged, Start: someStart, Duration: time.Second,
		Greeted: time.Millisecond, Greeting: answer(220, "mx ESMTP"), Hello: event.Text("client.example"), Extended: true, XClient: event.Text("NAME=c.example"),
		Offered: smtp.SetOf(smtp.ExtPipelining), Used: smtp.SetOf(smtp.ExtSize), Removed: event.Text("STARTTLS X-EXPS"),
		Commands: 5, Errors: 1, Messages: 1, Unreached: []event.Unreached{{Origin: netip.MustParseAddrPort("198.51.100.9:25"), Trouble: event.TroubleTimeout}},
		Refusals: []event.Tally{{Reason: event.ReasonIndirect, Count: 2}, {Reason: event.ReasonOriginGone, Count: 1}}, ClientIn: 1, ClientOut: 2, OriginIn: 3, OriginOut: 4,
		End: event.EndOriginGone, Detail: "why", Rule: &protocol.Rule{Key: "timeouts", Place: "portreeve.yaml:9"}, Offence: event.Text("25 x"), Last: answer(421, "4.4.2 lost"),
		Slip:    event.Slip{Said: event.Text("FROB \\ \"x\""), Answer: answer(500, "5.5.2 what?"), Cause: event.Cause{Reason: event.ReasonUnknownCommand, Rule: &protocol.Rule{Key: "smtp.commands"}}},
		Closing: answer(421, "bye"), Rewritten: []event.Rewrite{{Reply: event.Text("571 no"), Code: 554}, {Reply: event.Text("SIZE 9"), Code: 250}},
		Mode: "mirror",
		ClientTLS: &event.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", Name: event.Text("mx.example"), Resumed: true,
			Peer: event.Verified, PeerName: event.Text("CN=client.example")},
		OriginTLS: &event.TLS{Version: "TLS1.2", Cipher: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Group: "CurveP256", Name: event.Text("origin.example"),
			Peer: event.DANE, PeerName: event.Text("CN=origin.example")},
	}

	// What else can become of TLS: it fails, it is carried unseen, it is off.
	failedTLS = event.Session{
		Flow: someFlow, Start: someStart, Duration: time.Second, End: event.EndOriginTLS, Mode: "mirror",
		ClientTLS: &event.TLS{Failure: event.FailureRefused, Detail: "origin: dane"},
		OriginTLS: &event.TLS{Name: event.Text("origin.example"), Failure: event.FailureDANE, Detail: "no record fits"},
		Slip:      event.Slip{Said: event.Text("\x16\x03\x01"), Cause: event.Cause{Reason: event.ReasonForeign}},
	}
	unseenTLS = event.Session{
		Flow: someFlow, Start: someStart, Duration: time.Second, End: event.EndOpaque, Detail: "reset", Mode: "passthrough",
		Opaque: &event.Opaque{FromClient: 3000, FromOrigin: 5000, Detail: "reset"},
	}
	noTLSAtAll  = event.Session{Flow: someFlow, Start: someStart, Duration: time.Second, Mode: "off", Unforged: event.NoReturn}
	someRecords = []*event.Session{&someSession, &failedTLS, &unseenTLS, &noTLSAtAll}
)

func answer(code smtp.Code, text string) event.Answer {
	return event.Answer{Code: code, Text: event.Text(text)}
}

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
		"outcome":  event.Words(event.Outcomes),
		"end":      event.Words(event.Ends),
		"trouble":  event.Words(event.Troubles),
		"unforged": event.Words(event.Unforgeds)[event.NotUnforged+1:],
		"reason":   event.Words(event.Reasons)[event.NoReason+1:],
		"failure":  event.Words(event.Failures)[event.NoFailure+1:],
		"peer":     event.Words(event.Verifications),
		"group":    groups(),
	} {
		same(t, of, tableBelow(t, page, "\n| "+of+" | meaning |"), words)
	}
	members := map[string]map[string]bool{} // of what: which
	text := written(t, NewJSON) + string(asJSON.lost(nil, someStart, 1))
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
	for _, inside := range []string{"to", "reply", "opaque", "unreached", "client_offence", "rewritten"} {
		for name := range members[inside] {
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("schema.md does not name %s of %s", name, inside)
			}
		}
	}
}

// groups are those that crypto/tls knows.
func groups() (names []string) {
	for id := range 1 << 16 {
		if name := tls.CurveID(id).String(); !strings.HasPrefix(name, "CurveID(") {
			names = append(names, name)
		}
	}
	return names
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
		buf = asJSON.message(buf[:0], &someMessage)
		buf = asJSON.session(buf, &someSession)
	}
}
