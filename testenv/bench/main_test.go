package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv/bench/ends"
)

// testOptions are those of a run that takes seconds, with a portreeve that is
// built from this tree.
func testOptions(t *testing.T, args ...string) options {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "portreeve")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/portreeve").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	args = append([]string{"-scripts", "../../scripts", "-o", filepath.Join(dir, "out", "bench.json"),
		"-rounds", "1", "-sessions", "160", "-octets", "100000"}, args...)
	o, err := parse(append(args, binary))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestMain(m *testing.M) {
	ends.Main()
	os.Exit(m.Run())
}

func TestEverySectionMeasuresEverySubjectThatTakesPart(t *testing.T) {
	o := testOptions(t)
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.output)
	if err != nil {
		t.Fatal(err)
	}
	r := &Results{}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	for _, name := range names() {
		if name != "direct" && r.Machine.Versions[name] == "" {
			t.Errorf("the version of %s is missing", name)
		}
	}
	var measured []string
	for _, c := range r.Sections {
		measured = append(measured, c.Name)
		checkSection(t, c)
	}
	if want := []string{"sessions", "pipelined", "large", "tls", "unseen"}; !slices.Equal(measured, want) {
		t.Errorf("sections %q, want %q", measured, want)
	}
	checkIdle(t, "idle", r.Idle)
	checkIdle(t, "tls-idle", r.TLSIdle)
	checkLatency(t, r.Latency)
	checkConnect(t, r.Connect)
	checkPackets(t, r.Packets)
	if len(r.Aims) != 10 {
		t.Errorf("aims: %+v", r.Aims)
	}
	leftNothing(t)
}

// participants returns the subjects that a section must have measured, and no more.
func participants(section string) []string {
	switch section {
	case "tls", "tls-idle":
		return []string{"direct", "haproxy", "nginx", "portreeve"}
	case "unseen", "idle":
		return []string{"direct", "floor", "haproxy", "nginx", "portreeve"}
	}
	return []string{"direct", "floor", "haproxy", "nginx", "portreeve", "postfix"}
}

func checkSection(t *testing.T, c *Section) {
	t.Helper()
	for _, name := range participants(c.Name) {
		s := c.find(name)
		if s == nil || len(s.Rounds) != 1 {
			t.Fatalf("%s: %s was not measured once: %+v", c.Name, name, s)
		}
		m := s.Median
		if m.Sessions != 160 || m.Rate <= 0 || m.Machine <= 0 || (m.Subject > 0) != (name != "direct") {
			t.Errorf("%s: %s: %+v", c.Name, name, m)
		}
	}
	if n := len(participants(c.Name)); len(c.Subjects) != n || len(c.Ratios) != 2*n {
		t.Errorf("%s: %d subjects and %d ratios", c.Name, len(c.Subjects), len(c.Ratios))
	}
}

func checkIdle(t *testing.T, section string, i *Idle) {
	t.Helper()
	if want := participants(section); len(i.Subjects) != len(want) {
		t.Errorf("%s of %d subjects, want %q", section, len(i.Subjects), want)
	}
	for _, name := range participants(section) {
		s := i.find(name)
		if s == nil || len(s.Rounds) != 1 || (s.Median.All > 0) != (name != "direct") {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := i.find("portreeve"); s != nil && s.Median.Resident <= 0 {
		t.Errorf("sessions without memory: %+v", s.Median)
	}
}

func checkLatency(t *testing.T, l *Latency) {
	t.Helper()
	if want := participants("latency"); len(l.Subjects) != len(want) {
		t.Errorf("latency of %d subjects, want %q", len(l.Subjects), want)
	}
	for _, s := range l.Subjects {
		for _, q := range append(s.Steps, s.Whole) {
			if q.Median <= 0 || q.P99 < q.Median || q.Name == "" {
				t.Errorf("%s: %+v", s.Name, q)
			}
		}
		if len(s.Steps) != ends.Steps {
			t.Errorf("%s: %d steps", s.Name, len(s.Steps))
		}
	}
}

// checkConnect checks that every way was measured without and with a rule that
// tracks. That each was the way that it is named after, the section checks itself.
func checkConnect(t *testing.T, c *Connect) {
	t.Helper()
	if len(c.Ways) != 2*len(ways) {
		t.Errorf("%d ways of %d", len(c.Ways), 2*len(ways))
	}
	for _, s := range c.Ways {
		if s.P10 <= 0 || s.Median < s.P10 || s.P90 < s.Median || len(s.Rounds) != 1 {
			t.Errorf("%s: %+v", s, s)
		}
		if (s.Direct == nil) != (s.Name == directWay) || (s.Skip == nil) != (s.Name == skipWay) {
			t.Errorf("%s: compared with direct %v, with skip %v", s, s.Direct, s.Skip)
		}
	}
}

// checkPackets checks that every program met the packets that it must meet.
func checkPackets(t *testing.T, all []Packets) {
	t.Helper()
	met := make(map[string][]string)
	for _, p := range all {
		if p.Nanoseconds <= 0 {
			t.Errorf("%+v", p)
		}
		met[p.Traffic] = append(met[p.Traffic], p.Program)
	}
	everywhere := []string{counting, "steer_client", "steer_origin"}
	for traffic, programs := range map[string][]string{
		"addressed":                           append(everywhere, "steer_lookup"),
		"transit":                             append(everywhere, "steer_lookup"),
		"forwarded, a port that nobody bound": everywhere,
		"to the gateway, a port that nobody bound": {counting, "steer_client", "steer_lookup"},
	} {
		for _, program := range programs {
			if !slices.Contains(met[traffic], program) {
				t.Errorf("%s did not run for packets %s, only %q", program, traffic, met[traffic])
			}
		}
	}
}

func TestInterruptedWhileHolding(t *testing.T) {
	o := testOptions(t, "-only", "portreeve", "-sections", "sessions", "-hold")
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o) }()
	awaitLoad(t, ended)
	interrupt()
	<-ended
	leftNothing(t)
}

// awaitLoad waits until a client of the load runs.
func awaitLoad(t *testing.T, ended <-chan error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			t.Fatalf("ended by itself: %v", err)
		case <-tick.C:
		}
		all, err := readProcesses()
		if err != nil {
			t.Fatal(err)
		}
		for pid := range all {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if string(name) == "smtp-source\n" && descends(all, pid, os.Getpid()) {
				return
			}
		}
	}
}

func descends(all processes, pid, from int) bool {
	for pid != 0 && pid != from {
		pid = all[pid].parent
	}
	return pid == from
}

// leftNothing checks that no namespace, file or process of ours is left.
func leftNothing(t *testing.T) {
	t.Helper()
	prefix := fmt.Sprintf("portreeve-%d-*", os.Getpid())
	for _, dir := range []string{"/run/netns", os.TempDir()} {
		if left, _ := filepath.Glob(filepath.Join(dir, prefix)); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	all, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for pid, p := range all {
		if p.parent == os.Getpid() {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			t.Errorf("process %d is left: %q", pid, name)
		}
	}
}

func TestWhoTakesPart(t *testing.T) {
	o := options{subjects: names()}
	for _, s := range allSections() {
		if got := o.inRound(s.full, 0); s.name != "connect" && s.name != "packets" && !slices.Equal(got, participants(s.name)) {
			t.Errorf("%s: %q, want %q", s.name, got, participants(s.name))
		}
	}
	if many := (work{messages: 1, parallel: 500}); takesPart("postfix", many) || !takesPart("floor", many) {
		t.Error("500 at once are for who needs no process for each")
	}
	o.subjects = []string{"postfix"}
	for _, name := range []string{"tls", "idle"} {
		chosen, err := choose(name)
		if err != nil {
			t.Fatal(err)
		}
		s, r := chosen[0], &Results{}
		if err := s.measure(t.Context(), &o, s.full, r); err != nil || len(r.Sections) > 0 || r.Idle != nil {
			t.Errorf("%s without anybody: %+v, %v", name, r, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, bad := range [][]string{
		{},
		{"a", "b"},
		{"-only", "sendmail", "x"},
		{"-sections", "small", "x"},
		{"-hold", "x"},
		{"-hold", "-only", "direct,haproxy", "-sections", "idle", "x"},
		{"-hold", "-only", "direct", "x"},
		{"-hold", "-only", "floor", "-sections", "tls", "x"},
		{"-rounds", "-1", "x"},
		{"-sessions", "-1", "x"},
		{"-parallel", "-1", "x"},
		{"-octets", "-1", "x"},
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	o, err := parse([]string{"-short", "-only", "haproxy", "-sections", "idle", "-hold", "-sessions", "7", "-octets", "9", "bin/x"})
	if err != nil || !o.hold || !slices.Equal(o.subjects, []string{"haproxy"}) || !filepath.IsAbs(o.binary) {
		t.Fatalf("%+v, %v", o, err)
	}
	want := o.sections[0].short
	want.sessions = 7
	if got := o.work(o.sections[0]); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
