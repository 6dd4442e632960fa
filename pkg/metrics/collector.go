package metrics

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portreeve/portreeve/pkg/event"
)

// collector turns Counters into what client_golang collects. The numbers are read
// from them with each scrape: nothing is kept twice.
type collector struct{ *Counters }

// Describe names every metric, so that the registry finds two of one name.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range catalogue() {
		out <- d.desc
	}
}

// Collect reads the numbers.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		c.services[name].collect(out, name)
	}
	if c.unknown.opened.Load() > 0 {
		c.unknown.collect(out, "")
	}
	if c.lost != nil {
		recordsLost.collect(out, c.lost())
	}
	if c.kernel != nil {
		c.collectKernel(out)
	}
	if c.watch != nil {
		c.collectWatch(out)
	}
	if c.forging != nil {
		c.collectForging(out)
	}
}

func (c collector) collectWatch(out chan<- prometheus.Metric) {
	w, err := c.watch()
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

func (c collector) collectForging(out chan<- prometheus.Metric) {
	for _, f := range c.forging() {
		var works uint64 = 1
		if f.Broken {
			works = 0
		}
		originForging.collect(out, works, f.Origin.String())
	}
}

func (c collector) collectKernel(out chan<- prometheus.Metric) {
	counts, err := c.kernel()
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
	for t := range event.Troubles {
		originUnreached.collect(out, f[t].Load(), service, origin, t.String())
	}
}
