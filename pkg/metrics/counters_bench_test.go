package metrics

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/portreeve/portreeve/pkg/flow"
)

// BenchmarkCount is what a session with one message costs.
func BenchmarkCount(b *testing.B) {
	c := someCounters()
	b.ReportAllocs()
	for b.Loop() {
		c.Opened(&someFlow)
		c.Message(&someMessage)
		c.Session(&someSession)
	}
}

// BenchmarkScrape is a scrape of many services, a hundred of which have mail.
func BenchmarkScrape(b *testing.B) {
	services := make([]Served, 10_000)
	for i := range services {
		services[i].Name = fmt.Sprint("service", i)
	}
	c := NewCounters(services)
	for i := range 100 {
		c.Opened(&flow.Flow{Service: services[i].Name})
	}
	h := c.Handler(slog.New(slog.DiscardHandler))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b.ReportMetric(float64(w.Body.Len()), "octets")
	}
}
