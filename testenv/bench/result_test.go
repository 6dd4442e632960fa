package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
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
	before := view{start, 10 * time.Second, 5 * time.Second, time.Second}
	after := view{start.Add(2 * time.Second), 13 * time.Second, 7 * time.Second, 2 * time.Second}
	got := newMeasurement(before, after, 1000)
	want := Measurement{Sessions: 1000, Rate: 500, Machine: 3000, Own: 2000, Subject: 1000}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A round in which the whole machine was slow must not make a ratio wrong.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := &Results{}
	for _, slow := range []float64{1, 10, 2} {
		r.add("haproxy", Measurement{Machine: 100 * slow, Own: 90 * slow})
		r.add("portreeve", Measurement{Machine: 120 * slow, Own: 108 * slow})
	}
	r.Subjects[1].Rounds[2].Machine = 260
	r.compare()
	want := []Ratio{{"haproxy", "haproxy", 1, 1, 1, 1}, {"portreeve", "haproxy", 1.2, 1.2, 1.3, 1.2}}
	if !slices.Equal(r.Ratios, want) {
		t.Errorf("%+v, want %+v", r.Ratios, want)
	}
	if got := r.find("portreeve").Median.Machine; got != 260 {
		t.Errorf("median %v, want 260", got)
	}
}

func TestTableWarnsOfOthers(t *testing.T) {
	for own, warned := range map[float64]bool{99: false, 80: true} {
		r := &Results{}
		r.add("direct", Measurement{Machine: 100, Own: own})
		r.compare()
		var text strings.Builder
		if err := r.print(&text); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(text.String(), "Something else"); got != warned {
			t.Errorf("with %v of 100 our own, warned: %v\n%s", own, got, &text)
		}
	}
}

func TestTable(t *testing.T) {
	r := &Results{
		Load:    Load{Sessions: 1600, Parallel: 32, Rounds: 1, Octets: 4096, Sources: 16},
		Machine: Machine{Kernel: "6.12", Processor: "a processor", Processors: 2},
		Packets: []Packets{{"transit", true, "steer_client", 1000, 99.6, 79.6}, {"forwarded", false, counting, 2000, 20, 0}},
	}
	r.add("direct", Measurement{Rate: 4000, Machine: 400, Own: 400})
	r.add("haproxy", Measurement{Rate: 2000, Machine: 800, Own: 800, Subject: 200})
	r.compare()
	var text strings.Builder
	if err := r.print(&text); err != nil {
		t.Fatal(err)
	}
	const want = `
1 × 1600 sessions with one message of 4096 octets, 32 at once, from 16 addresses
Linux 6.12, 2 × a processor

         sessions/s  CPU/session  of it its own  × haproxy               × direct  
direct   4000        400 µs       0 µs           0.50       (0.50–0.50)            
haproxy  2000        800 µs       200 µs                                 2.00      (2.00–2.00)

Medians; behind the ratios the least and the most of all rounds. CPU is that of the whole
machine, with load and origin. portreeve's records go to a file.

packets              program       runs  ns/run  of it its own
ours: transit        steer_client  1000  100     80
not ours: forwarded  (nothing)     2000  20      0

The kernel's statistics of BPF programs count their own reading of the clock: what a program
that does nothing takes by them is no cost of the others.
`
	if got := text.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
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
