package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/descriptors"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/metrics"
	"github.com/portreeve/portreeve/pkg/steer"
)

// count makes the counters, where the configuration asks for metrics, and puts
// them beside the records.
func (i *inspector) count() *metrics.Counters {
	if !i.Config.Metrics.Listen.IsValid() {
		return nil
	}
	c := metrics.NewCounters(counted(i.Config.Services))
	c.CountKernel(kernelCounts(i.Steer))
	c.CountRepairs(kernelWatch(i.Steer))
	c.CountForging(i.forging)
	if i.Lost != nil {
		c.CountLost(i.Lost)
	}
	i.Sink = event.Join(i.Sink, c)
	return c
}

// counted are the services as the counters know them.
func counted(services []config.Service) []metrics.Served {
	list := make([]metrics.Served, len(services))
	for n, s := range services {
		list[n] = metrics.Served{Name: s.Name, Origins: s.Origins}
	}
	return list
}

// kernelCounts reads what the programs count. Their reasons begin with the
// program's name. One scrape after the other reads, since each opens all pins.
func kernelCounts(s *steer.Steer) metrics.Kernel {
	var turn sync.Mutex
	return func() ([]metrics.KernelCount, error) {
		turn.Lock()
		defer turn.Unlock()
		counters, err := s.Counters()
		list := make([]metrics.KernelCount, len(counters))
		for n, c := range counters {
			program, _, _ := strings.Cut(c.Reason.String(), "-")
			list[n] = metrics.KernelCount{Program: program, Reason: c.Reason.String(), Count: c.Count}
		}
		return list, err
	}
}

// kernelWatch reads what the watcher has left.
func kernelWatch(s *steer.Steer) func() (metrics.KernelWatch, error) {
	return func() (metrics.KernelWatch, error) {
		w, err := s.Watcher()
		return metrics.KernelWatch{Repairs: w.Repairs, Findings: len(w.Findings), Watched: w.Ever && !w.Silent()}, err
	}
}

// Bounds on what a scraper can hold: it sends a few hundred octets and reads a
// page at once. Each request has a connection of its own, since idle ones would
// keep others out.
const (
	headerTime  = 5 * time.Second
	pageTime    = 30 * time.Second
	headerLimit = 8 << 10
)

// retry is how often an address that cannot be had is tried again.
const retry = time.Second

// exporter serves the counters by HTTP. It is no reason to stop mail: what goes
// wrong is told and tried again.
//
// There is one port and, while a newer inspector takes over, two inspectors. The
// older one keeps it until its last session is over, so that what these count
// is still read; the newer one waits. Were both to listen (SO_REUSEPORT), each
// scrape would meet one of them by chance, and counters that jump between two
// values read as wild growth.
type exporter struct {
	listen string // address and port
	page   http.Handler
	log    *slog.Logger
	retry  time.Duration
}

// run serves until ctx ends.
func (e *exporter) run(ctx context.Context) {
	server := &http.Server{
		Handler:           e.routes(),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       headerTime,
		WriteTimeout:      pageTime,
		MaxHeaderBytes:    headerLimit,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug), // what scrapers do wrong is theirs
	}
	server.SetKeepAlivesEnabled(false)
	defer context.AfterFunc(ctx, func() { server.Close() })()
	for ctx.Err() == nil {
		ln := e.await(ctx)
		if ln == nil {
			return
		}
		e.log.Info("metrics are served", "address", e.listen, "path", metricsPath)
		err := server.Serve(netutil.LimitListener(ln, descriptors.Scrapers))
		if ctx.Err() == nil {
			e.log.Warn("metrics are not served any more, trying again", "address", e.listen, "error", err)
		}
	}
}

const metricsPath = "/metrics"

func (e *exporter) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, e.page)
	return mux
}

// await listens as soon as that is possible; nil: ctx has ended.
func (e *exporter) await(ctx context.Context) net.Listener {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", e.listen)
	if err == nil {
		return ln
	}
	e.log.Warn("metrics cannot be served yet, trying again; mail goes on", "address", e.listen, "error", err)
	ticker := time.NewTicker(e.retry)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if ln, err := new(net.ListenConfig).Listen(ctx, "tcp", e.listen); err == nil {
				return ln
			}
		}
	}
}

// export begins to serve the counters, if there are any, and returns what ends
// that.
func (i *inspector) export(c *metrics.Counters) (stop func()) {
	if c == nil {
		return func() {}
	}
	e := &exporter{listen: i.Config.Metrics.Listen.String(), page: c.Handler(i.crowd), log: i.Log, retry: retry}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}
