package metrics

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/smtp"
)

// metric is one row of metrics.md. Names and labels are stable.
type metric struct {
	name   string
	kind   prometheus.ValueType // Untyped: a histogram
	labels []string
	help   string
	desc   *prometheus.Desc
}

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) *metric {
	name = "portreeve_" + name
	return &metric{name, kind, labels, help, prometheus.NewDesc(name, help, labels, nil)}
}

func counter(name, help string, labels ...string) *metric {
	return newMetric(prometheus.CounterValue, name, help, labels...)
}

func (m *metric) collect(out chan<- prometheus.Metric, n uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(n), labels...)
}

var (
	sessionsOpened = counter("sessions_opened_total", "Sessions that began.", "service")
	sessionsLive   = newMetric(prometheus.GaugeValue, "sessions_live", "Sessions that are open now.", "service")

	originUnreached = counter("origin_unreached_total", "Origins that could not be reached when a session began.", "service", "origin", "trouble")
	originForging   = newMetric(prometheus.GaugeValue, "origin_forging", "Whether the origin of a service that prefers forging sees its clients' addresses (1), or for now the gateway's own (0).", "origin")
	recordsLost     = counter("records_lost_total", "Records of messages and sessions that could not be written.")
	kernelVerdicts  = counter("kernel_verdicts_total", "Verdicts of the kernel side since the attach.", "program", "reason")
	kernelRepairs   = counter("kernel_repairs_total", "Things of the kernel side that the watcher has put back since the attach.")
	kernelFindings  = newMetric(prometheus.GaugeValue, "kernel_findings", "Things of the kernel side that the watcher cannot put back now.")
	kernelWatched   = newMetric(prometheus.GaugeValue, "kernel_watched", "Whether a watcher keeps the kernel side as it was attached (1) or nobody does (0).")

	greetingSeconds = newMetric(prometheus.UntypedValue, "greeting_seconds", "Time from a session's start to the origin's greeting.", "service")
	sessionSeconds  = newMetric(prometheus.UntypedValue, "session_seconds", "Length of the sessions that an origin greeted.", "service")
	verdictSeconds  = newMetric(prometheus.UntypedValue, "verdict_seconds", "Time from the end of data to the origin's reply.", "service")
)

// family is a counter of each service, with a number for each of some words.
type family struct {
	*metric
	words []string
	of    func(n *counts) []atomic.Uint64 // nil: a service that has none yet
}

// families are all of them. Each has the label service and one for its words.
// Nothing is refused for the reasons from event.ReasonQuit on: they are the client's.
var families = slices.Concat(ofServices, ofTLS("client", func(n *counts) *tlsCounts { return &n.clientTLS }),
	ofTLS("origin", func(n *counts) *tlsCounts { return &n.originTLS }))

var ofServices = []family{
	{counter("sessions_total", "Sessions that are over, by why they ended.", "service", "end"),
		event.Words(event.Ends), func(n *counts) []atomic.Uint64 { return n.ended[:] }},
	{counter("messages_total", "Messages that met their end, by what became of them.", "service", "outcome"),
		event.Words(event.Outcomes), func(n *counts) []atomic.Uint64 { return n.messages[:] }},
	{counter("origin_verdicts_total", "What origins said last about a message, by class of the reply.", "service", "class"),
		classWords[:], func(n *counts) []atomic.Uint64 { return n.said[:] }},
	{counter("refusals_total", "Replies of portreeve itself that refused something, by reason.", "service", "reason"),
		event.Words(event.ReasonQuit), func(n *counts) []atomic.Uint64 { return n.refused[:] }},
	{counter("sessions_unforged_total", "Sessions that are over and came to an origin from the gateway's own address although the service forges, by why.", "service", "unforged"),
		event.Words(event.Unforgeds), func(n *counts) []atomic.Uint64 { return n.unforged[:] }},
	{counter("recipients_total", "Recipients of messages, by the reply to RCPT.", "service", "verdict"),
		fateWords[:], func(n *counts) []atomic.Uint64 { return n.rcpts[:] }},
	{counter("keywords_removed_total", "EHLO keywords of origins that clients were not offered.", "service", "keyword"),
		keywordWords(), func(n *counts) []atomic.Uint64 { return n.removed[:] }},
	{counter("replies_rewritten_total", "Replies of origins in whose place clients read something else; each one once in a session.", "service"),
		nil, func(n *counts) []atomic.Uint64 { return n.rewritten[:] }},
	{counter("opaque_bytes_total", "Octets that were carried without being looked at.", "service", "source"),
		opaqueWords[:], func(n *counts) []atomic.Uint64 { return n.opaque[:] }},
	{counter("transferred_bytes_total", "Octets of sessions that are over, by side and direction.", "service", "way"),
		wayWords[:], func(n *counts) []atomic.Uint64 { return n.octets[:] }},
	{counter("content_bytes_total", "Octets of message content that clients sent.", "service"),
		nil, func(n *counts) []atomic.Uint64 { return n.content[:] }},
	{counter("commands_total", "Command lines in sessions that are over.", "service"),
		nil, func(n *counts) []atomic.Uint64 { return n.commands[:] }},
}

// catalogue lists every metric.
func catalogue() []*metric {
	all := []*metric{sessionsOpened, sessionsLive, originUnreached, originForging, recordsLost, kernelVerdicts,
		kernelRepairs, kernelFindings, kernelWatched,
		greetingSeconds, sessionSeconds, verdictSeconds}
	for _, f := range families {
		all = append(all, f.metric)
	}
	return all
}

// collect sends the numbers of one service.
func (f family) collect(out chan<- prometheus.Metric, n *counts, service string) {
	numbers := f.of(n)
	if numbers == nil {
		return
	}
	if f.words == nil {
		f.metric.collect(out, numbers[0].Load(), service)
		return
	}
	for i, word := range f.words {
		if word != "" { // NoReason and NotUnforged are none
			f.metric.collect(out, numbers[i].Load(), service, word)
		}
	}
}

var classWords = [classes]string{
	class2: "2yz",
	class4: "4yz",
	class5: "5yz",
}

var wayWords = [ways]string{
	clientIn:  "client-in",
	clientOut: "client-out",
	originIn:  "origin-in",
	originOut: "origin-out",
}

var fateWords = [fates]string{
	rcptAccepted: "accepted",
	rcptDeferred: "deferred",
	rcptRefused:  "refused",
}

var opaqueWords = [opaqueWays]string{
	opaqueFromClient: "client",
	opaqueFromOrigin: "origin",
}

// keywordWords are the keywords that we know, and one word for all others: what
// an origin may call its extensions has no bound.
func keywordWords() []string {
	words := make([]string, smtp.NumExtensions, smtp.NumExtensions+1)
	for e := range words {
		words[e] = smtp.Extension(e).String()
	}
	return append(words, "other")
}
