// Package metrics counts what happens to flows, and shows it to Prometheus.
//
// It owns the counters, their names, labels and words (metrics.md), and the page that
// they are read from; it is the one door to Prometheus's library. Counters are an
// event.Sink beside the one that writes records. It never listens, keeps nothing that
// a peer chose, and makes no session wait. daemon makes the counters, tells them where
// to read what others count, and serves the page.
package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Kernel returns what the kernel side has counted so far.
type Kernel func() ([]KernelCount, error)

// KernelCount is how often a program of the kernel side met a reason.
type KernelCount struct {
	Program string // "lookup", "client" or "origin"
	Reason  string // "client-syn"
	Count   uint64
}

// CountKernel adds what the kernel side counts; it is read with each scrape.
// Call it before Handler.
func (c *Counters) CountKernel(k Kernel) { c.kernel = k }

// CountLost adds the number of records that could not be written. Call it
// before Handler.
func (c *Counters) CountLost(records func() uint64) { c.lost = records }

// OriginForging says how an origin of a service that prefers forging is dialled.
type OriginForging struct {
	Origin netip.AddrPort
	Broken bool // it sees the gateway's own address for now
}

// KernelWatch is what the process has left that keeps the kernel side as it was attached.
type KernelWatch struct {
	Repairs  uint64
	Findings int
	Watched  bool // it looks
}

// CountRepairs adds what the watcher of the kernel side does; it is read with each
// scrape. Call it before Handler.
func (c *Counters) CountRepairs(read func() (KernelWatch, error)) { c.watch = read }

// CountForging adds the origins whose clients may be served from the gateway's own
// address; they are read with each scrape. Call it before Handler.
func (c *Counters) CountForging(origins func() []OriginForging) { c.forging = origins }

// scrapes is how many requests are answered at once: two Prometheus servers and
// a curious operator. Each costs memory by the number of services.
const scrapes = 4

// scrapeLimit is after how long a scrape is given up; Prometheus waits ten
// seconds unless it is told otherwise.
const scrapeLimit = 10 * time.Second

// Handler returns the page that Prometheus scrapes, in its text format or in
// OpenMetrics. What cannot be read is told to log and left out.
func (c *Counters) Handler(log *slog.Logger) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{c}, collectors.NewBuildInfoCollector(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            complaint{log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapes,
		Timeout:             scrapeLimit,
		EnableOpenMetrics:   true,
	})
}

// complaint hands what promhttp complains of to the daemon's log.
type complaint struct{ log *slog.Logger }

func (c complaint) Println(v ...any) { c.log.Warn("metrics are incomplete", "error", fmt.Sprint(v...)) }
