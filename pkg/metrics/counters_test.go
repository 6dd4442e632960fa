package metrics

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/smtp"
)

var (
	configured = netip.MustParseAddrPort("198.51.100.1:25")
	someFlow   = flow.Flow{Service: "mx"}

	someMessage = event.Message{
		Flow: someFlow, Size: 1234, Refused: 1, Accepted: 1, Content: 20 * time.Millisecond, Total: 30 * time.Millisecond,
		Recipients: []event.Recipient{{Answer: event.Answer{Code: 250}}, {Answer: event.Answer{Code: 550}, Cause: event.Cause{Reason: event.ReasonIndirect}}},
		Outcome:    event.Unknown, Cause: event.Cause{Reason: event.ReasonOriginGone}, Client: event.Answer{Code: 421}, Reply: event.Answer{Code: 250},
	}
	someSession = event.Session{
		Flow: someFlow, Duration: time.Second, Greeted: time.Millisecond, Removed: event.Text("STARTTLS X-EXPS"),
		Unreached: []event.Unreached{{Origin: netip.MustParseAddrPort("198.51.100.9:25"), Trouble: event.TroubleTimeout}},
		Commands:  5, ClientIn: 1, ClientOut: 2, OriginIn: 3, OriginOut: 4, End: event.EndOriginGone, Rewritten: make([]event.Rewrite, 2),
		ClientTLS: &event.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", Resumed: true, Peer: event.Verified},
		OriginTLS: &event.TLS{Version: "TLS1.2", Cipher: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Group: "CurveP256", Peer: event.DANE},
	}
)

func someCounters() *Counters {
	return NewCounters([]Served{{Name: "mx", Origins: []netip.AddrPort{configured}}, {Name: "idle"}})
}

// scrape returns what Prometheus reads, without the process's own metrics.
func scrape(t *testing.T, c *Counters) string {
	t.Helper()
	w := httptest.NewRecorder()
	c.Handler(slog.New(slog.NewTextHandler(t.Output(), nil))).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var b strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "portreeve_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// expect looks for lines, which begin after "portreeve_".
func expect(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+page, "\nportreeve_"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, page)
		}
	}
}

func TestCounters(t *testing.T) {
	c := someCounters()
	c.Opened(&someFlow)
	c.Opened(&someFlow)
	m := someMessage
	m.Refused, m.Recipients = 4, append(m.Recipients[:2:2], event.Recipient{Answer: event.Answer{Code: 452}}) // one refused recipient was not kept
	c.Message(&m)
	for _, code := range []smtp.Code{0, 451, 550, 554} {
		c.Message(&event.Message{Flow: someFlow, Reply: event.Answer{Code: code}, Outcome: event.Deferred})
	}
	c.Refused(&someFlow, event.ReasonIndirect)
	c.Refused(&someFlow, event.ReasonIndirect)
	c.Refused(&someFlow, event.NoReason)
	s := someSession
	s.Unreached = append(s.Unreached, event.Unreached{Origin: configured, Trouble: event.TroubleRefused})
	s.Removed = event.Text("STARTTLS X-EXPS starttls !")
	s.Unforged = event.NoReturn
	c.Session(&s)
	expect(t, scrape(t, c),
		`sessions_opened_total{service="mx"} 2`,
		`sessions_live{service="mx"} 1`,
		`sessions_total{end="origin-gone",service="mx"} 1`,
		`sessions_total{end="quit",service="mx"} 0`,
		`sessions_unforged_total{service="mx",unforged="no-return"} 1`,
		`sessions_unforged_total{service="mx",unforged="on-link"} 0`,
		`messages_total{outcome="unknown",service="mx"} 1`,
		`origin_verdicts_total{class="2yz",service="mx"} 1`,
		`origin_verdicts_total{class="4yz",service="mx"} 1`,
		`origin_verdicts_total{class="5yz",service="mx"} 2`,
		`recipients_total{service="mx",verdict="accepted"} 1`,
		`recipients_total{service="mx",verdict="deferred"} 1`,
		`recipients_total{service="mx",verdict="refused"} 3`,
		`refusals_total{reason="indirect-address",service="mx"} 2`,
		`refusals_total{reason="policy",service="mx"} 1`,
		`refusals_total{reason="syntax",service="mx"} 0`,
		`replies_rewritten_total{service="mx"} `+fmt.Sprint(len(s.Rewritten)),
		`keywords_removed_total{keyword="STARTTLS",service="mx"} 2`,
		`keywords_removed_total{keyword="other",service="mx"} 2`,
		`transferred_bytes_total{service="mx",way="client-in"} 1`,
		`transferred_bytes_total{service="mx",way="client-out"} 2`,
		`transferred_bytes_total{service="mx",way="origin-in"} 3`,
		`transferred_bytes_total{service="mx",way="origin-out"} 4`,
		`content_bytes_total{service="mx"} 1234`,
		`commands_total{service="mx"} 5`,
		`origin_unreached_total{origin="198.51.100.1:25",service="mx",trouble="refused"} 1`,
		`greeting_seconds_bucket{service="mx",le="0.001"} 1`,
		`session_seconds_bucket{service="mx",le="0.5"} 0`,
		`session_seconds_bucket{service="mx",le="1"} 1`,
		`session_seconds_sum{service="mx"} 1`,
		`verdict_seconds_bucket{service="mx",le="0.005"} 0`,
		`verdict_seconds_bucket{service="mx",le="0.025"} 1`,
		`verdict_seconds_count{service="mx"} 1`,
	)
}

// TestCountersOfTLS: each side by itself, every session in one outcome, and the
// rest for those that had TLS.
func TestCountersOfTLS(t *testing.T) {
	c := someCounters()
	session := func(client, origin *event.TLS, o *event.Opaque) {
		c.Opened(&someFlow)
		c.Session(&event.Session{Flow: someFlow, ClientTLS: client, OriginTLS: origin, Opaque: o})
	}
	session(nil, &event.TLS{Failure: event.FailureDANE, Peer: event.Pinned}, nil)
	session(nil, nil, nil)
	session(nil, &event.TLS{Failure: event.FailureRefused}, &event.Opaque{FromClient: 3, FromOrigin: 5})
	expect(t, scrape(t, c),
		`client_tls_total{outcome="none",service="mx"} 2`,
		`client_tls_total{outcome="opaque",service="mx"} 1`,
		`origin_tls_total{outcome="none",service="mx"} 1`,
		`origin_tls_total{outcome="opaque",service="mx"} 1`, // and not what an earlier STARTTLS had come to
		`origin_tls_total{outcome="refused",service="mx"} 0`,
		`origin_tls_total{outcome="dane",service="mx"} 1`,
		`opaque_bytes_total{service="mx",source="client"} 3`,
		`opaque_bytes_total{service="mx",source="origin"} 5`,
	)
	if page := scrape(t, c); regexp.MustCompile(`_tls_(ciphers|groups|peers|resumed)_total`).MatchString(page) {
		t.Errorf("details of TLS where there was none:\n%s", page)
	}
	session(someSession.ClientTLS, nil, nil)
	if page := scrape(t, c); !strings.Contains(page, "client_tls_peers") || strings.Contains(page, "origin_tls_peers") {
		t.Errorf("not the side that had TLS:\n%s", page)
	}
	session(someSession.ClientTLS, someSession.OriginTLS, nil)
	session(&event.TLS{Version: "TLS1.4", Cipher: "TLS_NEW", Peer: event.Anonymous}, nil, nil)
	expect(t, scrape(t, c),
		`client_tls_total{outcome="TLS1.2",service="mx"} 0`,
		`client_tls_total{outcome="TLS1.3",service="mx"} 2`,
		`client_tls_total{outcome="other",service="mx"} 1`,
		`client_tls_ciphers_total{cipher="TLS_AES_128_GCM_SHA256",service="mx"} 2`,
		`client_tls_ciphers_total{cipher="other",service="mx"} 1`,
		`client_tls_groups_total{group="X25519MLKEM768",service="mx"} 2`,
		`client_tls_groups_total{group="other",service="mx"} 1`,
		`client_tls_peers_total{peer="verified",service="mx"} 2`,
		`client_tls_peers_total{peer="anonymous",service="mx"} 1`,
		`client_tls_resumed_total{service="mx"} 2`,
		`origin_tls_total{outcome="TLS1.2",service="mx"} 1`,
		`origin_tls_ciphers_total{cipher="TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",service="mx"} 1`,
		`origin_tls_ciphers_total{cipher="TLS_AES_128_GCM_SHA256",service="mx"} 0`,
		`origin_tls_groups_total{group="CurveP256",service="mx"} 1`,
		`origin_tls_peers_total{peer="dane",service="mx"} 1`,
		`origin_tls_peers_total{peer="pinned",service="mx"} 0`, // its handshake failed
		`origin_tls_resumed_total{service="mx"} 0`,
	)
}

// TestFailuresOfTLSAreCounted, each by its own word.
func TestFailuresOfTLSAreCounted(t *testing.T) {
	for f := event.NoFailure + 1; f < event.Failures; f++ {
		c := someCounters()
		c.Opened(&someFlow)
		c.Session(&event.Session{Flow: someFlow, ClientTLS: &event.TLS{Failure: f}, OriginTLS: &event.TLS{Failure: f}})
		page := scrape(t, c)
		for _, side := range []string{"client", "origin"} {
			expect(t, page, fmt.Sprintf(`%s_tls_total{outcome=%q,service="mx"} 1`, side, f))
			if n := strings.Count(page, "_"+side+"_tls_total{"); n != int(tlsOutcomes) {
				t.Errorf("%d outcomes of %d", n, tlsOutcomes)
			}
		}
	}
}

// TestWordsOfCryptoTLS: what crypto/tls agrees on with its defaults is never
// counted as other, and has the word that records give it.
func TestWordsOfCryptoTLS(t *testing.T) {
	var ciphers, groups, versions []string
	for _, suite := range tls.CipherSuites() {
		ciphers = append(ciphers, suite.Name)
	}
	for id := range 1 << 16 {
		if name := tls.CurveID(id).String(); !strings.HasPrefix(name, "CurveID(") {
			groups = append(groups, name)
		}
	}
	for v := uint16(tls.VersionTLS12); !strings.HasPrefix(tls.VersionName(v), "0x"); v++ { // lower ones are never spoken
		versions = append(versions, strings.ReplaceAll(tls.VersionName(v), " ", ""))
	}
	same(t, "cipher", cipherWords[:], append(ciphers, "other"))
	same(t, "group", groupWords[:], append(groups, "other"))
	same(t, "version", versionWords[:], append(versions, "other"))
}

// TestLiveIsNeverNegative: an end too many is no number of sessions.
func TestLiveIsNeverNegative(t *testing.T) {
	c := someCounters()
	c.Opened(&someFlow)
	c.Session(&someSession)
	c.Session(&someSession)
	expect(t, scrape(t, c), `sessions_live{service="mx"} 0`)
}

// TestIdleServiceHasFewSeries: ten thousand services without mail are cheap.
func TestIdleServiceHasFewSeries(t *testing.T) {
	c := someCounters()
	page := scrape(t, c)
	expect(t, page, `sessions_opened_total{service="idle"} 0`)
	if n := strings.Count(page, `service="idle"`); n != 1 {
		t.Errorf("%d series of an idle service", n)
	}
}

// TestPeersMakeNoSeries: whatever clients and origins send, no label is of their
// making and the number of series stays.
func TestPeersMakeNoSeries(t *testing.T) {
	c := someCounters()
	f := flow.Flow{Service: "idle"}
	c.Opened(&f)
	c.Session(&event.Session{Flow: f, ClientTLS: someSession.ClientTLS, OriginTLS: someSession.OriginTLS})
	before := strings.Count(scrape(t, c), "\n")
	for i := range 100 {
		f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i+1))
		odd := event.Text(fmt.Sprintf("X-ODD%d \x00\"%d", i, i))
		c.Opened(&f)
		c.Message(&event.Message{Flow: f, Hello: odd, Sender: odd, EnvID: odd, Outcome: event.Outcome(i % int(event.Outcomes)), Recipients: []event.Recipient{{Address: odd}},
			Content: 1, Total: 2, Reply: event.Answer{Code: 250, Text: odd}})
		c.Refused(&f, event.Reason(i%int(event.Reasons)))
		peer := event.TLS{Version: string(odd), Cipher: string(odd), Group: string(odd), Name: odd, PeerName: odd, Detail: string(odd),
			Resumed: true, Peer: event.Verification(i % int(event.Verifications)), Failure: event.Failure(i % int(event.Failures))}
		c.Session(&event.Session{Flow: f, Hello: odd, Removed: odd, Offence: odd, End: event.End(i % int(event.Ends)), Detail: string(odd), Greeted: 1,
			ClientTLS: &peer, OriginTLS: &peer, Mode: string(odd),
			Unreached: []event.Unreached{{Origin: f.Client, Trouble: event.TroubleLoop}}, Refusals: []event.Tally{{Reason: event.Reason(i % int(event.Reasons)), Count: 1}}})
	}
	page := scrape(t, c)
	if n := strings.Count(page, "\n"); n != before || strings.Contains(page, "ODD") {
		t.Errorf("%d series became %d:\n%s", before, n, page)
	}
	expect(t, page, `origin_unreached_total{origin="transparent",service="idle",trouble="loop"} 100`, `sessions_live{service="idle"} 0`)
}

// TestUnknownService: what a replaced configuration leaves is counted, under no
// service.
func TestUnknownService(t *testing.T) {
	c := someCounters()
	c.Opened(&flow.Flow{Service: "gone"})
	expect(t, scrape(t, c), `sessions_opened_total{service=""} 1`)
}

func TestCountersAllocateNothing(t *testing.T) {
	c := someCounters()
	n := testing.AllocsPerRun(100, func() {
		c.Opened(&someFlow)
		c.Refused(&someFlow, event.ReasonIndirect)
		c.Message(&someMessage)
		c.Session(&someSession)
	})
	if n != 0 {
		t.Errorf("%v allocations per session", n)
	}
}

func TestKernelCounts(t *testing.T) {
	c := someCounters()
	counts := []KernelCount{{"client", "client-syn", 7}, {"lookup", "lookup-bypass", 1 << 40}}
	var broken error
	c.CountKernel(func() ([]KernelCount, error) { return counts, broken })
	c.CountLost(func() uint64 { return 3 })
	c.CountRepairs(func() (KernelWatch, error) { return KernelWatch{Repairs: 12, Findings: 2, Watched: true}, broken })
	c.CountForging(func() []OriginForging {
		return []OriginForging{{configured, false}, {netip.MustParseAddrPort("[2001:db8::1]:25"), true}}
	})
	expect(t, scrape(t, c), `records_lost_total 3`, `kernel_repairs_total 12`, `kernel_findings 2`, `kernel_watched 1`,
		`origin_forging{origin="198.51.100.1:25"} 1`, `origin_forging{origin="[2001:db8::1]:25"} 0`,
		`kernel_verdicts_total{program="client",reason="client-syn"} 7`,
		`kernel_verdicts_total{program="lookup",reason="lookup-bypass"} 1.099511627776e+12`)
	counts, broken = nil, errors.New("not attached")
	page := scrape(t, c)
	expect(t, page, `sessions_opened_total{service="mx"} 0`) // the rest is there all the same
	if strings.Contains(page, "kernel") {
		t.Error("kernel counters in spite of an error")
	}
}

// TestMetricsDocumented holds metrics.md to the metrics that there are, and both
// to each other's words.
func TestMetricsDocumented(t *testing.T) {
	page, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range catalogue() {
		known[m.name] = true
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "` "
		}
		row := fmt.Sprintf("| `%s` | %s | %s| %s |\n", m.name, kindWord(m), labels, m.help)
		if !strings.Contains(string(page), row) {
			t.Errorf("metrics.md lacks the row\n%s", row)
		}
	}
	for _, name := range regexp.MustCompile("portreeve_[a-z_]+").FindAllString(string(page), -1) {
		if !known[name] {
			t.Errorf("metrics.md has %s, which does not exist", name)
		}
	}
	for label, words := range map[string][]string{
		"`verdict`": fateWords[:], "`way`": wayWords[:], "`class`": classWords[:], "`source`": opaqueWords[:],
		"`cipher`": cipherWords[:], "`group`": groupWords[:], "`peer`": event.Words(event.Verifications),
		"`trouble`":        event.Words(event.Troubles),
		"`unforged`":       event.Words(event.Unforgeds)[event.NotUnforged+1:],
		"`outcome` of TLS": append([]string{tlsWords[noTLS], tlsWords[tlsOpaque]}, versionWords[:]...),
	} {
		same(t, label, wordsOf(t, string(page), label), words)
	}
}

// wordsOf returns what the table of labels says of one.
func wordsOf(t *testing.T, page, label string) (words []string) {
	t.Helper()
	_, row, found := strings.Cut(page, "\n| "+label+" | ")
	if !found {
		t.Fatalf("metrics.md does not explain %s", label)
	}
	row, _, _ = strings.Cut(row, " |\n")
	for _, word := range quoted.FindAllStringSubmatch(row, -1) {
		words = append(words, word[1])
	}
	return words
}

var quoted = regexp.MustCompile("`([^`]+)`")

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

func kindWord(m *metric) string {
	switch m.kind {
	case prometheus.CounterValue:
		return "counter"
	case prometheus.GaugeValue:
		return "gauge"
	}
	return "histogram"
}

// TestCollectIsConsistent: the strictest registry finds every metric described,
// of one type and once, and Prometheus's rules of names find no fault.
func TestCollectIsConsistent(t *testing.T) {
	c := someCounters()
	c.Opened(&someFlow)
	c.Session(&someSession)
	c.CountKernel(func() ([]KernelCount, error) { return []KernelCount{{"client", "client-syn", 7}}, nil })
	c.CountLost(func() uint64 { return 0 })
	c.CountRepairs(func() (KernelWatch, error) { return KernelWatch{}, nil })
	c.CountForging(func() []OriginForging { return []OriginForging{{Origin: configured}} })
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{c})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(catalogue()) {
		t.Errorf("%d metrics of %d", len(families), len(catalogue()))
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}
