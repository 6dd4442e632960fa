package event

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
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
	r.MustRegister(c.metrics(), collectors.NewBuildInfoCollector(), collectors.NewGoCollector(),
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

// metrics turns Counters into what client_golang collects. The numbers are read
// from them with each scrape: nothing is kept twice.
type metrics struct{ c *Counters }

func (c *Counters) metrics() prometheus.Collector { return metrics{c} }

// Describe names every metric, so that the registry finds two of one name.
func (m metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range catalogue() {
		out <- d.desc
	}
}

// Collect reads the numbers.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	for _, name := range slices.Sorted(maps.Keys(m.c.services)) {
		m.c.services[name].collect(out, name)
	}
	if m.c.unknown.opened.Load() > 0 {
		m.c.unknown.collect(out, "")
	}
	if m.c.lost != nil {
		recordsLost.collect(out, m.c.lost())
	}
	if m.c.kernel != nil {
		m.kernel(out)
	}
	if m.c.watch != nil {
		m.watch(out)
	}
	if m.c.forging != nil {
		m.forging(out)
	}
}

func (m metrics) watch(out chan<- prometheus.Metric) {
	w, err := m.c.watch()
	if err != nil {
		out <- prometheus.NewInvalidMetric(kernelRepairs.desc, err)
		return
	}
	watched := uint64(0)
	if w.Watched {
		watched = 1
	}
	kernelRepairs.collect(out, w.Repairs)
	kernelFindings.collect(out, uint64(w.Findings))
	kernelWatched.collect(out, watched)
}

func (m metrics) forging(out chan<- prometheus.Metric) {
	for _, f := range m.c.forging() {
		var works uint64 = 1
		if f.Broken {
			works = 0
		}
		originForging.collect(out, works, f.Origin.String())
	}
}

func (m metrics) kernel(out chan<- prometheus.Metric) {
	counts, err := m.c.kernel()
	if err != nil {
		out <- prometheus.NewInvalidMetric(kernelVerdicts.desc, fmt.Errorf("read the kernel's counters: %w", err))
	}
	for _, k := range counts {
		kernelVerdicts.collect(out, k.Count, k.Program, k.Reason)
	}
}

// collect sends the numbers of one service. One that had no session yet has only
// one: there may be ten thousand.
func (n *counts) collect(out chan<- prometheus.Metric, service string) {
	opened := n.opened.Load()
	sessionsOpened.collect(out, opened, service)
	if opened == 0 {
		return
	}
	sessionsLive.collect(out, n.live(), service)
	n.collectTroubles(out, service)
	for _, f := range families {
		f.collect(out, n, service)
	}
	for _, h := range []struct {
		m *metric
		h *histogram
	}{{greetingSeconds, &n.greeting}, {sessionSeconds, &n.duration}, {verdictSeconds, &n.verdict}} {
		count, sum, upTo := h.h.read()
		out <- prometheus.MustNewConstHistogram(h.m.desc, count, sum, upTo, service)
	}
}

// collectTroubles sends what was amiss with a service's origins.
func (n *counts) collectTroubles(out chan<- prometheus.Metric, service string) {
	for origin, f := range n.origins {
		f.collect(out, service, origin.String())
	}
	if len(n.origins) == 0 {
		n.transparent.collect(out, service, "transparent")
	}
}

func (f *failures) collect(out chan<- prometheus.Metric, service, origin string) {
	for t := range troubles {
		originUnreached.collect(out, f[t].Load(), service, origin, t.String())
	}
}
