package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Results are what the JSON file holds.
type Results struct {
	Started  time.Time  `json:"started"`
	Machine  Machine    `json:"machine"`
	Sections []*Section `json:"sections,omitempty"`
	Idle     *Idle      `json:"idle,omitempty"`
	TLSIdle  *Idle      `json:"tls_idle,omitempty"`
	Latency  *Latency   `json:"latency,omitempty"`
	Crowd    *Latency   `json:"crowd,omitempty"`
	Connect  *Connect   `json:"connect,omitempty"`
	Counts   []Counts   `json:"counts,omitempty"`
	Packets  []Packets  `json:"packets,omitempty"`
	Aims     []Aim      `json:"aims,omitempty"`
}

// Section is a load and what it cost with each subject.
type Section struct {
	Name     string    `json:"name"`
	Load     Load      `json:"load"`
	Subjects []*Series `json:"subjects"`
	Ratios   []Ratio   `json:"ratios"`
}

// Machine says where it was measured, and what.
type Machine struct {
	Kernel     string            `json:"kernel"`
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	Versions   map[string]string `json:"versions"`
}

// Load says what was sent.
type Load struct {
	Sessions int `json:"sessions"` // in each measurement
	Parallel int `json:"parallel"`
	Rounds   int `json:"rounds"`
	Messages int `json:"messages"` // in each session
	Octets   int `json:"octets"`   // of a message
	Sources  int `json:"sources"`  // client addresses

	Pipelined bool `json:"pipelined,omitempty"`
	Secure    bool `json:"tls,omitempty"`        // on both sides of the subject
	Unseen    bool `json:"tls_unseen,omitempty"` // between client and origin
}

// Measurement is one run of the load through one subject. Times are in
// microseconds of CPU per session, with everything that the session needs: load
// generator and sink are the same for all.
type Measurement struct {
	Sessions int     `json:"sessions"`
	Rate     float64 `json:"sessions_per_second"`
	Own      float64 `json:"own_us"` // of load, subject and origin, which follow, by their control groups
	Load     float64 `json:"load_us"`
	Subject  float64 `json:"subject_us"`
	Origin   float64 `json:"origin_us"`
	Machine  float64 `json:"machine_us"` // of the whole machine, by /proc/stat, which knows hundredths of a second
}

// newMeasurement tells what happened between two views.
func newMeasurement(before, after view, sessions int) Measurement {
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(sessions) }
	return Measurement{
		Sessions: sessions,
		Rate:     float64(sessions) / after.at.Sub(before.at).Seconds(),
		Own:      per(after.load - before.load + after.subject - before.subject + after.origin - before.origin),
		Load:     per(after.load - before.load),
		Subject:  per(after.subject - before.subject),
		Origin:   per(after.origin - before.origin),
		Machine:  per(after.machine - before.machine),
	}
}

// others is the part of the machine's work that was not the benchmark's: other
// programs, and what the kernel did on nobody's account.
func (m Measurement) others() float64 {
	if m.Machine <= m.Own {
		return 0
	}
	return (m.Machine - m.Own) / m.Machine
}

// Series is all that was measured of one subject.
type Series struct {
	Name   string        `json:"name"`
	Rounds []Measurement `json:"rounds"`
	Median Measurement   `json:"median"` // of each figure by itself
	CPU    Spread        `json:"cpu_us"` // of load, subject and origin together
	Others float64       `json:"others"` // greatest part of the CPU that other programs used
}

// Ratio compares two subjects' CPU per session, of load, subject and origin together,
// round by round, and how many sessions they carried in a second.
type Ratio struct {
	Subject string `json:"subject"`
	To      string `json:"to"`
	CPU     Spread `json:"cpu"`
	Rate    Spread `json:"rate"`
}

// Spread is a figure of several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

func spread(figures []float64) Spread {
	return Spread{median(figures), slices.Min(figures), slices.Max(figures)}
}

// Packets is what a BPF program took for packets of one kind of traffic.
type Packets struct {
	Traffic     string  `json:"traffic"`
	Ours        bool    `json:"ours"`
	Program     string  `json:"program"`
	Runs        uint64  `json:"runs"`
	Nanoseconds float64 `json:"ns"`  // per run, with the reading of the clock around it
	Net         float64 `json:"net"` // without what a program that does nothing took beside it
}

// add takes in the measurement of one round.
func (c *Section) add(name string, m Measurement) {
	s := c.find(name)
	if s == nil {
		s = &Series{Name: name}
		c.Subjects = append(c.Subjects, s)
	}
	s.Rounds = append(s.Rounds, m)
}

func (c *Section) find(name string) *Series {
	for _, s := range c.Subjects {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// bases are the subjects that the others are compared with.
var bases = []string{"floor", "haproxy", otherBuild}

// compare computes medians and ratios.
func (c *Section) compare() {
	for _, s := range c.Subjects {
		s.Median = Measurement{
			Sessions: s.Rounds[0].Sessions,
			Rate:     s.median(func(m Measurement) float64 { return m.Rate }),
			Own:      s.median(func(m Measurement) float64 { return m.Own }),
			Load:     s.median(func(m Measurement) float64 { return m.Load }),
			Subject:  s.median(func(m Measurement) float64 { return m.Subject }),
			Origin:   s.median(func(m Measurement) float64 { return m.Origin }),
			Machine:  s.median(func(m Measurement) float64 { return m.Machine }),
		}
		s.CPU = spread(s.figures(func(m Measurement) float64 { return m.Own }))
		s.Others = slices.Max(s.figures(Measurement.others))
	}
	for _, to := range bases {
		base := c.find(to)
		if base == nil {
			continue
		}
		for _, s := range c.Subjects {
			c.Ratios = append(c.Ratios, ratio(s, base))
		}
	}
}

// median returns the median of one figure over the rounds.
func (s *Series) median(of func(Measurement) float64) float64 { return median(s.figures(of)) }

// figures returns one figure of each round.
func (s *Series) figures(of func(Measurement) float64) []float64 {
	figures := make([]float64, len(s.Rounds))
	for i, m := range s.Rounds {
		figures[i] = of(m)
	}
	return figures
}

// ratio compares a subject with another, each round with the same round: what
// disturbs the machine for minutes disturbs both.
func ratio(s, base *Series) Ratio {
	cpu := make([]float64, len(s.Rounds))
	rates := make([]float64, len(s.Rounds))
	for i, m := range s.Rounds {
		cpu[i] = m.Own / base.Rounds[i].Own
		rates[i] = m.Rate / base.Rounds[i].Rate
	}
	return Ratio{s.Name, base.Name, spread(cpu), spread(rates)}
}

// median returns the middle figure, or what is between the two in the middle.
func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// read fills in what the kernel says of the machine.
func (m *Machine) read() error {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	m.Kernel = strings.TrimSpace(string(release))
	m.Processors = runtime.NumCPU()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read the processor's name: %w", err)
	}
	m.Processor = processorName(string(text))
	return nil
}

// processorName finds the name in /proc/cpuinfo. Not every architecture has one.
func processorName(text string) string {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
