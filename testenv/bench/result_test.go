package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/bench/ends"
)

func TestMedian(t *testing.T) {
	for want, figures := range map[float64][]float64{3: {3}, 2.5: {4, 1, 2, 3}, 2: {9, 1, 2}} {
		if got := median(figures); got != want {
			t.Errorf("median of %v is %v, want %v", figures, got, want)
		}
	}
}

func TestMeasurementIsPerSession(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	before := view{start, 10 * time.Second, 5 * time.Second, time.Second, 0}
	after := view{start.Add(2 * time.Second), 13 * time.Second, 6 * time.Second, 2 * time.Second, 200 * time.Millisecond}
	got := newMeasurement(before, after, 1000)
	want := Measurement{Sessions: 1000, Rate: 500, Own: 2200, Load: 1000, Subject: 1000, Origin: 200, Machine: 3000}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := got.others(); got < 0.266 || got > 0.267 {
		t.Errorf("others used %v", got)
	}
}

// A round in which the whole machine was slow must not make a ratio wrong.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := &Section{}
	for _, slow := range []float64{1, 10, 2} {
		r.add("haproxy", Measurement{Own: 100 * slow, Rate: 10 / slow})
		r.add("portreeve", Measurement{Own: 120 * slow, Rate: 5 / slow})
	}
	r.Subjects[1].Rounds[2].Own = 260
	r.compare()
	want := []Ratio{
		{"haproxy", "haproxy", Spread{1, 1, 1}, Spread{1, 1, 1}},
		{"portreeve", "haproxy", Spread{1.2, 1.2, 1.3}, Spread{0.5, 0.5, 0.5}},
	}
	if !slices.Equal(r.Ratios, want) {
		t.Errorf("%+v, want %+v", r.Ratios, want)
	}
	if got := r.find("portreeve"); got.Median.Own != 260 || got.CPU != (Spread{260, 120, 1200}) {
		t.Errorf("%+v", got)
	}
}

func TestTableWarnsOfOthers(t *testing.T) {
	for own, warned := range map[float64]bool{99: false, 80: true} {
		c := &Section{}
		c.add("direct", Measurement{Machine: 100, Own: own})
		c.compare()
		for name, r := range map[string]*Results{
			"sections": {Sections: []*Section{c}},
			"latency":  {Latency: &Latency{Subjects: []*LatencySeries{{Others: c.Subjects[0].Rounds[0].others()}}}},
			"connect":  {Connect: &Connect{Ways: []*ConnectSeries{{Others: c.Subjects[0].Rounds[0].others()}}}},
		} {
			var text strings.Builder
			if err := r.print(&text); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(text.String(), "Something else"); got != warned {
				t.Errorf("%s with %v of 100 our own, warned: %v\n%s", name, own, got, &text)
			}
		}
	}
}

// sample has something of everything.
func sample() *Results {
	small := &Section{Name: "sessions", Load: Load{Sessions: 1600, Parallel: 32, Rounds: 1, Messages: 1, Octets: 4096, Sources: 16}}
	small.add("direct", Measurement{Rate: 4000, Machine: 440, Own: 400, Load: 250, Origin: 150})
	small.add("haproxy", Measurement{Rate: 2000, Machine: 800, Own: 800, Load: 350, Subject: 200, Origin: 250})
	large := &Section{Name: "large", Load: Load{Sessions: 100, Parallel: 8, Rounds: 1, Messages: 1, Octets: tenMegabytes, Sources: 16}}
	large.add("haproxy", Measurement{Rate: 50, Machine: 20000, Own: 20000, Subject: 5000})
	large.add("portreeve", Measurement{Rate: 60, Machine: 15000, Own: 15000, Subject: 6000})
	groups := &Section{Name: "pipelined", Load: Load{Sessions: 1, Parallel: 1, Rounds: 1, Messages: 5, Octets: 4096, Sources: 16, Pipelined: true}}
	groups.add("direct", Measurement{Rate: 100, Machine: 1000, Own: 1000})
	unseen := &Section{Name: "unseen", Load: Load{Sessions: 2, Parallel: 1, Rounds: 1, Messages: 1, Octets: 4096, Sources: 16, Unseen: true}}
	unseen.add("direct", Measurement{Rate: 100, Machine: 1000, Own: 1000})
	idle := &Idle{Sessions: 5000, Rounds: 1}
	idle.add("direct", Memory{Kernel: 10240})
	idle.add("haproxy", Memory{Resident: 4096, All: 40 << 20, Kernel: 20480})
	idle.add("portreeve", Memory{Resident: 6144, All: 45 << 20, Kernel: 20992})
	latency := &Latency{Sessions: 2, Parallel: 1, Rounds: 1, Octets: 4096}
	latency.find("direct").times = []ends.Times{{1000, 1000, 1000, 1000, 1000, 1000, 1000}, {2000, 2000, 2000, 2000, 2000, 2000, 2000}}
	latency.find("portreeve").times = []ends.Times{{2000, 2000, 2000, 2000, 2000, 2000, 9000}}
	for _, c := range []*Section{small, large, groups, unseen} {
		c.compare()
	}
	idle.compare()
	latency.conclude()
	connect := &Connect{Connections: 3, Rounds: 1, Sources: 16}
	connect.find(directWay, false).add([]time.Duration{15000, 14000, 16100}, 0)
	connect.find("portreeve", false).add([]time.Duration{21000, 20000, 19000}, 0)
	connect.find(skipWay, false).add([]time.Duration{18000, 17000, 16500}, 0)
	connect.find("portreeve", true).add([]time.Duration{21000, 20000, 19000}, 0)
	connect.conclude()
	r := &Results{
		Machine:  Machine{Kernel: "6.12", Processor: "a processor", Processors: 2},
		Sections: []*Section{small, large, groups, unseen}, Idle: idle, Latency: latency, Connect: connect,
		Counts:  []Counts{{"direct", 0, 0, 44, 0}, {"portreeve", 101.64, 26, 43.7, 75}},
		Packets: []Packets{{"transit", true, "steer_client", 1000, 99.6, 79.6}, {"forwarded", false, counting, 2000, 20, 0}},
	}
	r.judge()
	return r
}

func TestTable(t *testing.T) {
	var text strings.Builder
	if err := sample().print(&text); err != nil {
		t.Fatal(err)
	}
	const want = `
Linux 6.12, 2 × a processor

1 × 1600 sessions with one message of 4096 octets, 32 at once, from 16 addresses

         sessions/s  CPU µs/session             load  subject  origin  machine  others  × haproxy  
direct   4000        400             (400–400)  250   0        150     440      9 %     0.50       (0.50–0.50)
haproxy  2000        800             (800–800)  350   200      250     800      0 %                

1 × 100 sessions with one message of 10000000 octets, 8 at once, from 16 addresses

           MB/s  CPU ms/GB               load  subject  origin  machine  others  × haproxy  
haproxy    500   2000       (2000–2000)  0     500      0       2000     0 %                
portreeve  600   1500       (1500–1500)  0     600      0       1500     0 %     0.75       (0.75–0.75)

1 × 1 session with 5 messages of 4096 octets, pipelined, 1 at once, from 16 addresses

        messages/s  CPU µs/message             load  subject  origin  machine  others
direct  500         200             (200–200)  0     0        0       200      0 %

1 × 2 sessions with one message of 4096 octets, TLS carried unseen, 1 at once, from 16 addresses

        sessions/s  CPU µs/session               load  subject  origin  machine  others
direct  100         1000            (1000–1000)  0     0        0       1000     0 %

Medians; in parentheses the least and the most of all rounds. CPU is that of load, subject and
origin by their control groups; machine is what /proc/stat says of everything, and others the
greatest part of that which is nobody's of the three. portreeve's records go to a file.

1 × 5000 sessions that are idle after EHLO

           resident KiB/session  × haproxy               resident MiB in all  kernel KiB/session  of it the subject's
direct     0.0                                           0.0                  10.0                
haproxy    4.0                                           40.0                 20.0                10.0
portreeve  6.0                   1.50       (1.50–1.50)  45.0                 20.5                10.5

The kernel's memory is that of all slabs of the machine.

1 × 2 sessions with one message of 4096 octets, 1 at once: µs, median / 99 %

           session  added  greeting  EHLO   MAIL   RCPT   DATA   content  QUIT
direct     10 / 14  +0     2 / 2     2 / 2  2 / 2  2 / 2  2 / 2  2 / 2    2 / 2
portreeve  21 / 21  +10    2 / 2     2 / 2  2 / 2  2 / 2  2 / 2  2 / 2    9 / 9

1 × 3 connections to the origin's address, one at a time, from 16 addresses: µs of connect(2)

                                10 %  median  90 %  beyond direct                  beyond skip  
direct                          14.0  15.0    16.1                                 -2.0         (-2.0 to -2.0)
portreeve                       19.0  20.0    21.0  +5.0           (+5.0 to +5.0)  +3.0         (+3.0 to +3.0)
portreeve, forward_rules: skip  16.5  17.0    18.0  +2.0           (+2.0 to +2.0)               
portreeve, tracked              19.0  20.0    21.0                                              

Differences are of the medians of the same round; behind them the least and the most of all rounds.
Tracked: the gateway has a rule -m conntrack --ctstate INVALID -j DROP in FORWARD.

per session, one at a time  system calls  context switches  packets  allocations
direct                      0.0           0.0               44.0     
portreeve                   101.6         26.0              43.7     75.0

packets              program       runs  ns/run  of it its own
ours: transit        steer_client  1000  100     80
not ours: forwarded  (nothing)     2000  20      0

The kernel's statistics of BPF programs count their own reading of the clock: what a program
that does nothing takes by them is no cost of the others.

portreeve                                   aim    measured
throughput of large messages, × haproxy     ≥ 1    1.20
resident KiB per idle session               ≤ 10   6.00
the same, × haproxy                         ≤ 1    1.50
µs of connect(2) by way of FORWARD          ≤ 5    3.00
ns of steering per packet that is not ours  ≤ 60   0.00
ns of steering per packet of ours           ≤ 170  79.60
`
	if got := text.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestQuantiles(t *testing.T) {
	var all []ends.Times
	for n := range 200 { // 1 to 200 µs, the greatest first
		all = append(all, ends.Times{ends.MAIL: time.Duration(200-n) * time.Microsecond})
	}
	if got, want := quantiles("all", all, ends.Times.Whole), (Quantiles{"all", 100.5, 198}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := quantiles("one", all[:1], ends.Times.Whole); got.Median != 200 || got.P99 != 200 {
		t.Errorf("%+v", got)
	}
}

// A round in which the whole machine was slow must not make a difference wrong.
func TestDifferencesAreOfTheSameRound(t *testing.T) {
	c := &Connect{}
	for _, slow := range []time.Duration{0, 100, 1} {
		c.find(skipWay, true).add([]time.Duration{(10 + slow) * time.Microsecond}, 0)
		c.find("portreeve", true).add([]time.Duration{(14 + slow) * time.Microsecond}, 0)
	}
	c.conclude()
	s := c.find("portreeve", true)
	if s.Direct != nil || s.Skip == nil || *s.Skip != (Spread{4, 4, 4}) {
		t.Errorf("beyond direct %v, beyond skip %v", s.Direct, s.Skip)
	}
}

func TestCountersOfStatus(t *testing.T) {
	got, err := counters([]byte(`{"attached":true,"counters":[{"reason":"client-syn","count":7,"meaning":"x"}]}`))
	if want := map[string]uint64{"client-syn": 7}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := counters([]byte("not attached\n")); err == nil {
		t.Error("what is no JSON was read")
	}
}

func TestCostPerPacket(t *testing.T) {
	r := &Results{Packets: []Packets{
		{"transit", true, counting, 30, 70, 0}, {"transit", true, "steer_client", 10, 90, 20},
		{"transit", true, "steer_lookup", 2, 170, 100}, {"transit", true, "steer_origin", 30, 80, 10},
		{"transit", true, "steer_loop", 2, 150, 80}, {"transit", true, "steer_wall", 30, 75, 5},
		{"forwarded", false, "steer_client", 10, 90, 20}, {"elsewhere", false, "steer_client", 10, 90, 25},
	}}
	r.judge()
	var got []float64
	for _, a := range r.Aims {
		got = append(got, a.Measured)
	}
	if want := []float64{25, (10*20 + 2*100 + 30*10 + 2*80 + 30*5) / 38.}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestKibibytes(t *testing.T) {
	const text = "56473000-7ffd rw [rollup]\nRss:                1224 kB\nPss: 1 kB\n"
	if n, err := kibibytes([]byte(text), "Rss:"); n != 1224<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := kibibytes([]byte(text), "Slab:"); err == nil {
		t.Error("a line that is not there was found")
	}
}

func TestProcessorName(t *testing.T) {
	if got := processorName("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n"); got != "Some CPU @ 2 GHz" {
		t.Errorf("got %q", got)
	}
}

func TestTallyOfPackets(t *testing.T) {
	runs := func(n uint64, each time.Duration) testenv.RunStats {
		return testenv.RunStats{Runs: n, Time: time.Duration(n) * each}
	}
	before := map[string]testenv.RunStats{"steer_client": runs(5, 1000), "steer_lookup": runs(7, 1000)}
	after := map[string]testenv.RunStats{
		counting:       runs(1000, 50),
		"steer_client": {Runs: 1005, Time: 5*1000 + 1000*120},
		"steer_lookup": {Runs: 16, Time: 16 * 1000}, // of the warming alone
	}
	got := tally(traffic{name: "transit", ours: true}, before, after, 100)
	want := []Packets{{"transit", true, counting, 1000, 50, 0}, {"transit", true, "steer_client", 1000, 120, 70}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
