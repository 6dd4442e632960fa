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
		"-rounds", "1", "-sessions", "160", "-packets", "160"}, args...)
	o, err := parse(append(args, binary))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEverySubjectIsMeasured(t *testing.T) {
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
		s := r.find(name)
		if s == nil || len(s.Rounds) != 1 {
			t.Fatalf("%s was not measured once: %+v", name, s)
		}
		m := s.Median
		if m.Sessions != 160 || m.Rate <= 0 || m.Machine <= 0 || (m.Subject > 0) != (name != "direct") {
			t.Errorf("%s: %+v", name, m)
		}
		if name != "direct" && r.Machine.Versions[name] == "" {
			t.Errorf("the version of %s is missing", name)
		}
	}
	if len(r.Ratios) != 2*len(names()) {
		t.Errorf("%d ratios", len(r.Ratios))
	}
	checkPackets(t, r.Packets)
	leftNothing(t)
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
	o := testOptions(t, "-only", "portreeve", "-hold")
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

func TestCommandLine(t *testing.T) {
	for _, bad := range [][]string{
		{},
		{"a", "b"},
		{"-only", "sendmail", "x"},
		{"-hold", "x"},
		{"-hold", "-only", "direct,haproxy", "x"},
		{"-rounds", "0", "x"},
		{"-sessions", "-1", "x"},
		{"-parallel", "0", "x"},
		{"-octets", "0", "x"},
		{"-packets", "-1", "x"},
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	o, err := parse([]string{"-short", "-only", "haproxy", "-hold", "bin/x"})
	if err != nil || o.rounds != 2 || !o.hold || !slices.Equal(o.subjects, []string{"haproxy"}) || !filepath.IsAbs(o.binary) {
		t.Errorf("%+v, %v", o, err)
	}
}
