package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	args = append([]string{"-before", binary, "-scripts", "../../scripts", "-o", filepath.Join(dir, "out", "bench.json"),
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

// results runs the benchmark, and returns what it wrote.
func results(t *testing.T, o options) *Results {
	t.Helper()
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	leftNothing(t)
	text, err := os.ReadFile(o.output)
	if err != nil {
		t.Fatal(err)
	}
	r := &Results{}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEverySubject(t *testing.T) {
	o := testOptions(t, "-sections", "sessions,unseen")
	r := results(t, o)
	for _, name := range names() {
		if name != "direct" && !strings.HasSuffix(name, "-1") && r.Machine.Versions[name] == "" { // one worker is another one's version
			t.Errorf("the version of %s is missing", name)
		}
	}
	o.checkSections(t, r, "sessions", "unseen")
}

func TestCounts(t *testing.T) {
	o := testOptions(t, "-only", "direct,floor,haproxy,nginx,portreeve,postfix", "-sections", "counts", "-sessions", "600", "-octets", "4096")
	o.checkCounts(t, results(t, o).Counts)
}

func TestEverySection(t *testing.T) {
	o := testOptions(t, "-only", "direct,haproxy,portreeve", "-sections", "pipelined,large,tls,idle,tls-idle,latency,crowd,connect,packets")
	r := results(t, o)
	o.checkSections(t, r, "pipelined", "large", "tls")
	o.checkIdle(t, "idle", r.Idle)
	o.checkIdle(t, "tls-idle", r.TLSIdle)
	o.checkLatency(t, "latency", r.Latency)
	o.checkLatency(t, "crowd", r.Crowd)
	checkConnect(t, r.Connect)
	checkPackets(t, r.Packets)
	if len(r.Aims) != 8 {
		t.Errorf("aims: %+v", r.Aims)
	}
}

// among returns the subjects that a section must have measured, and no more.
func (o options) among(section string) []string {
	return slices.DeleteFunc(participants(section), func(name string) bool { return !slices.Contains(o.subjects, name) })
}

func (o options) checkSections(t *testing.T, r *Results, want ...string) {
	t.Helper()
	var measured []string
	for _, c := range r.Sections {
		measured = append(measured, c.Name)
		o.checkSection(t, c)
	}
	if !slices.Equal(measured, want) {
		t.Errorf("sections %q, want %q", measured, want)
	}
}

// participants returns the subjects that take part in a section.
func participants(section string) []string {
	switch section {
	case "tls", "tls-idle":
		return []string{"before", "direct", "haproxy", "haproxy-1", "nginx", "nginx-1", "portreeve"}
	case "unseen", "idle", "crowd":
		return []string{"before", "direct", "floor", "haproxy", "haproxy-1", "nginx", "nginx-1", "portreeve"}
	}
	return []string{"before", "direct", "floor", "haproxy", "haproxy-1", "nginx", "nginx-1", "portreeve", "postfix"}
}

func (o options) checkSection(t *testing.T, c *Section) {
	t.Helper()
	for _, name := range o.among(c.Name) {
		s := c.find(name)
		if s == nil || len(s.Rounds) != 1 {
			t.Fatalf("%s: %s was not measured once: %+v", c.Name, name, s)
		}
		m := s.Median
		if m.Sessions != 160 || m.Rate <= 0 || m.Load <= 0 || m.Origin <= 0 || (m.Subject > 0) != (name != "direct") {
			t.Errorf("%s: %s: %+v", c.Name, name, m)
		}
	}
	if n := len(o.among(c.Name)); len(c.Subjects) != n || len(c.Ratios) != len(c.compared())*n || len(c.compared()) < 1 {
		t.Errorf("%s: %d subjects and %d ratios to %q", c.Name, len(c.Subjects), len(c.Ratios), c.compared())
	}
}

func (o options) checkIdle(t *testing.T, section string, i *Idle) {
	t.Helper()
	if want := o.among(section); len(i.Subjects) != len(want) {
		t.Errorf("%s of %d subjects, want %q", section, len(i.Subjects), want)
	}
	for _, name := range o.among(section) {
		s := i.find(name)
		if s == nil || len(s.Rounds) != 1 || (s.Median.All > 0) != (name != "direct") {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := i.find("portreeve"); s != nil && s.Median.Resident <= 0 {
		t.Errorf("sessions without memory: %+v", s.Median)
	}
}

func (o options) checkLatency(t *testing.T, section string, l *Latency) {
	t.Helper()
	if want := o.among(section); len(l.Subjects) != len(want) {
		t.Errorf("%s of %d subjects, want %q", section, len(l.Subjects), want)
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

// bar is the most that a session may take of portreeve, one at a time: these do not
// depend on how busy the machine is. Who crosses one of them has made every session dearer:
// lower it when they have become cheaper.
var bar = Counts{SystemCalls: 110, ContextSwitches: 35, Packets: 45, Allocations: 85}

// checkCounts holds portreeve to the bar, and the others to what everybody takes.
func (o options) checkCounts(t *testing.T, all []Counts) {
	t.Helper()
	if want := o.among("counts"); len(all) != len(want) {
		t.Errorf("counts of %d subjects, want %q", len(all), want)
	}
	for _, c := range all {
		t.Logf("%+v", c)
		ours := c.Subject == "portreeve"
		switch {
		case ours && (c.SystemCalls > bar.SystemCalls || c.ContextSwitches > bar.ContextSwitches || c.Packets > bar.Packets || c.Allocations > bar.Allocations):
			t.Errorf("a session takes %+v, more than %+v", c, bar)
		case (c.SystemCalls > 10) != (c.Subject != "direct"), (c.ContextSwitches > 1) != (c.Subject != "direct"),
			c.Packets < 30, (c.Allocations > 10) != ours:
			t.Errorf("not counted: %+v", c)
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
		if len(children(t, "smtp-source")) > 0 {
			return
		}
	}
}

// children returns the command lines of our descendants, or of those of one name.
func children(t *testing.T, name string) (found []string) {
	t.Helper()
	for next := []string{strconv.Itoa(os.Getpid())}; len(next) > 0; next = next[1:] {
		// pgrep says 1 where there is none. It is a child of ours itself, and does not list itself.
		said, _ := exec.Command("pgrep", "--parent", next[0]).Output()
		for pid := range strings.FieldsSeq(string(said)) {
			next = append(next, pid)
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if name == "" || strings.TrimSpace(string(comm)) == name {
				found = append(found, pid+": "+string(line))
			}
		}
	}
	return found
}

// leftNothing checks that no namespace, file or process of ours is left.
func leftNothing(t *testing.T) {
	t.Helper()
	prefix := fmt.Sprintf("portreeve-%d-*", os.Getpid())
	for _, dir := range []string{"/run/netns", os.TempDir(), "/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, prefix)); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	if left := children(t, ""); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
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
		{"-only", "before", "x"},
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
	if o, err := parse([]string{"-before", "bin/y", "bin/x"}); err != nil || !slices.Equal(o.subjects, names()) || !filepath.IsAbs(o.before) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse([]string{"bin/x"}); err != nil || slices.Contains(o.subjects, otherBuild) || len(o.subjects) != len(names())-1 {
		t.Errorf("%+v, %v", o, err)
	}
	want := o.sections[0].short
	want.sessions = 7
	if got := o.work(o.sections[0]); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
