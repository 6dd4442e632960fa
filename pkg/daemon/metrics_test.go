package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/descriptors"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/record"
)

// notes is a log that can be waited for.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// await waits until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// export runs an exporter of a page that says who it is.
func export(t *testing.T, listen, name string) (log *notes, stop func()) {
	t.Helper()
	log = new(notes)
	e := &exporter{listen: listen, log: slog.New(slog.NewTextHandler(log, nil)), retry: 5 * time.Millisecond,
		page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.run(ctx)
	}()
	return log, func() {
		cancel()
		<-ended
	}
}

// exported returns the address of an exporter that serves.
func exported(t *testing.T) string {
	t.Helper()
	addr := freePort(t)
	_, stop := export(t, addr, "page")
	t.Cleanup(stop)
	await(t, "the page", func() bool { status, _ := get("http://" + addr + "/metrics"); return status == 200 })
	return addr
}

// get returns the status and body of a page, 0 when nobody answers.
func get(url string) (int, string) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// freePort returns an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestMetricsWaitForTheirPort: the older inspector keeps the port until it ends,
// and the newer one has it from then on.
func TestMetricsWaitForTheirPort(t *testing.T) {
	addr := freePort(t)
	_, stopOlder := export(t, addr, "older")
	await(t, "the older", func() bool { _, body := get("http://" + addr + "/metrics"); return body == "older" })
	log, stopNewer := export(t, addr, "newer")
	defer stopNewer()
	await(t, "a warning", func() bool { return strings.Contains(log.String(), "cannot be served yet") })
	if _, body := get("http://" + addr + "/metrics"); body != "older" {
		t.Errorf("two listen at once: %s", body)
	}
	stopOlder()
	await(t, "the newer", func() bool { _, body := get("http://" + addr + "/metrics"); return body == "newer" })
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}

// TestMetricsEndWhileTheyWait: an inspector that never got the port ends all the
// same.
func TestMetricsEndWhileTheyWait(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	log, stop := export(t, ln.Addr().String(), "never")
	await(t, "a warning", func() bool { return strings.Contains(log.String(), "cannot be served yet") })
	stop()
}

// TestMetricsServeOnePage and nothing else, to those who only read.
func TestMetricsServeOnePage(t *testing.T) {
	addr := exported(t)
	if status, body := get("http://" + addr + "/"); status != 404 {
		t.Errorf("/: %d %s", status, body)
	}
	if status, body := get("http://" + addr + "/debug/pprof/"); status != 404 {
		t.Errorf("pprof: %d %s", status, body)
	}
	r, err := http.Post("http://"+addr+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", r.Status)
	}
}

// TestMetricsBoundScrapers: connections beyond the bound wait, whatever those
// before them do or do not send.
func TestMetricsBoundScrapers(t *testing.T) {
	addr := exported(t)
	for range descriptors.Scrapers {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d octets of connection %d", n, descriptors.Scrapers+1)
	}
	c.SetReadDeadline(time.Now().Add(headerTime + 20*time.Second)) // those that say nothing are closed by then
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the last connection is never served: %v", err)
	}
}

// TestCountersOnlyWhenAsked: without metrics nothing is counted, with them beside
// the records.
func TestCountersOnlyWhenAsked(t *testing.T) {
	c := config.Default()
	i := &inspector{Options: Options{Config: &c, Sink: event.Discard}}
	if i.count() != nil || i.Sink != event.Discard {
		t.Error("counters that nobody asked for")
	}
	asked, err := config.Parse("test.yaml", config.Minimal, []string{"PORTREEVE_METRICS_LISTEN=127.0.0.1:9125"})
	if err != nil {
		t.Fatal(err)
	}
	records := record.NewJSON(io.Discard)
	defer records.Close()
	i = &inspector{Options: Options{Config: asked, Sink: records}}
	if i.count() == nil {
		t.Fatal("no counters")
	}
	i.Sink.Opened(&flow.Flow{Service: asked.Services[0].Name})
}

// TestIdleScrapersKeepNobodyOut: who has been answered holds no connection.
func TestIdleScrapersKeepNobodyOut(t *testing.T) {
	addr := exported(t)
	for range descriptors.Scrapers {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatalf("an answered connection stays open: %v", err)
		}
	}
	if status, body := get("http://" + addr + "/metrics"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}
