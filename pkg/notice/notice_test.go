package notice

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// paper is written by timers, too.
type paper struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// take returns what was written, and forgets it.
func (p *paper) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.text.Reset()
	return p.text.String()
}

// logger writes lines without their time.
func logger(to *paper) (*slog.Logger, *Limit) {
	l := NewLimit(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return slog.New(l), l
}

// expect compares what was written since the last time with lines.
func expect(t *testing.T, out *paper, want ...string) {
	t.Helper()
	all := ""
	if len(want) > 0 {
		all = strings.Join(want, "\n") + "\n"
	}
	if got := out.take(); got != all {
		t.Errorf("written:\n%swant:\n%s", got, all)
	}
}

func repeat(line string, n int) []string {
	return strings.Split(strings.TrimSuffix(strings.Repeat(line+"\n", n), "\n"), "\n")
}

// TestFloodIsCounted: of a flood the first are written, and how many more there
// were once a minute, also when nothing comes after it.
func TestFloodIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out paper
		log, _ := logger(&out)
		for range burst + 312 {
			log.Warn("no origin", "client", "192.0.2.7")
		}
		expect(t, &out, repeat(`level=WARN msg="no origin" client=192.0.2.7`, burst)...)
		time.Sleep(period)
		synctest.Wait()
		expect(t, &out, `level=WARN msg="no origin: … and 312 more in the last minute"`)
		time.Sleep(10 * period)
		synctest.Wait()
		expect(t, &out)
		log.Warn("no origin")
		expect(t, &out, `level=WARN msg="no origin"`)
		time.Sleep(period)
		synctest.Wait()
		expect(t, &out)
	})
}

// TestFloodHidesNoOtherKind: what comes in the middle of a flood is written, whatever
// its level, and counted by itself.
func TestFloodHidesNoOtherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out paper
		log, _ := logger(&out)
		for range burst + 1000 {
			log.Warn("no origin")
		}
		out.take()
		log.With("service", "mx").Error("fault in a session")
		expect(t, &out, `level=ERROR msg="fault in a session" service=mx`)
		for range burst + 1 {
			log.With("service", "mx").Error("fault in a session")
		}
		out.take()
		time.Sleep(period)
		synctest.Wait()
		written := out.take()
		for _, line := range []string{
			`level=WARN msg="no origin: … and 1000 more in the last minute"` + "\n",
			`level=ERROR msg="fault in a session: … and 2 more in the last minute" service=mx` + "\n",
		} {
			if !strings.Contains(written, line) {
				t.Errorf("without %s in\n%s", line, written)
			}
		}
	})
}

// TestFlush: what was left out is told at the program's end, once.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out paper
		log, limit := logger(&out)
		for range burst + 5 {
			log.Warn("cannot accept")
		}
		log.Info("something else")
		out.take()
		limit.Flush()
		expect(t, &out, `level=WARN msg="cannot accept: … and 5 more in the last minute"`)
		limit.Flush()
		time.Sleep(2 * period)
		synctest.Wait()
		expect(t, &out)
	})
}

// TestLevelsAreTheOtherHandlers: what is not written is not counted.
func TestLevelsAreTheOtherHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out paper
		log, limit := logger(&out)
		for range burst + 5 {
			log.Debug("detail")
		}
		limit.Flush()
		expect(t, &out)
	})
}
