package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// clean is the output of a machine on which all is well.
const clean = `
@kernels release 6.1.0-56-cloud-amd64

@kernels data-path clsact

@kernels package pkg/a
~=== RUN   TestOne
~--- PASS: TestOne (0.00s)
a line left open~--- PASS: TestTwo/sub (1.00s)
~--- SKIP: TestOld (0.00s)

@kernels exit pkg/a 0

@kernels package pkg/b
~--- PASS: TestThree (0.00s)

@kernels exit pkg/b 0

@kernels end 2 0
`

// ask is the suite that clean is the output of.
func ask(t *testing.T) *suite {
	t.Helper()
	allowed, err := parseAllowedSkips("<6.6 pkg/a TestOld the kernel is old\n>=6.6 pkg/a TestOne it is new\n")
	if err != nil {
		t.Fatal(err)
	}
	return &suite{packages: []string{"pkg/a", "pkg/b"}, allowed: allowed}
}

// read makes a report of output, in which ~ stands for 0x16.
func read(output string) *report {
	r := &report{}
	lines := &lineWriter{each: r.readLine}
	lines.Write([]byte(strings.ReplaceAll(output, "~", "\x16")))
	lines.flush()
	return r
}

func TestCleanReport(t *testing.T) {
	r := read(clean)
	r.judge(ask(t))
	if len(r.problems) > 0 {
		t.Errorf("%q", r.problems)
	}
	if len(r.passed) != 3 || len(r.failed) != 0 || len(r.skipped) != 1 {
		t.Errorf("passed %v, failed %v, skipped %v", r.passed, r.failed, r.skipped)
	}
	if r.dataPath != "clsact" || r.release != "6.1.0-56-cloud-amd64" {
		t.Errorf("data path %q, release %q", r.dataPath, r.release)
	}
}

func TestReportProblems(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string // what is different from clean
		want     []string
	}{
		"a test failed": {"--- PASS: TestOne", "--- FAIL: TestOne", []string{"pkg/a TestOne failed"}},
		"a package failed": {"exit pkg/b 0\n\n@kernels end 2 0", "exit pkg/b 2\n\n@kernels end 1 1",
			[]string{"pkg/b ended with exit code 2"}},
		"no test": {"~--- PASS: TestThree (0.00s)\n", "testing: warning: no tests to run\n", []string{"pkg/b passed no test"}},
		"the machine died": {"@kernels exit pkg/b 0\n\n@kernels end 2 0\n", "",
			[]string{"the end of the tests was not reached", "pkg/b did not come to its end"}},
		"output was lost": {"@kernels exit pkg/b 0\n", "", []string{
			"run-tests.sh counted 2 packages passed and 0 failed, its output shows 1 and 0", "pkg/b did not come to its end"}},
		"a skip that nobody allowed": {"--- PASS: TestThree", "--- SKIP: TestThree",
			[]string{"pkg/b passed no test", "pkg/b TestThree skipped itself, and allowed-skips does not say that it may"}},
		"a skip allowed on other kernels": {"--- PASS: TestOne", "--- SKIP: TestOne",
			[]string{"pkg/a TestOne skipped itself, and allowed-skips does not say that it may"}},
		"a skip that did not happen": {"--- SKIP: TestOld", "--- PASS: TestOld",
			[]string{"pkg/a TestOld did not skip itself, but allowed-skips says that it does: the kernel is old"}},
		"another data path": {"data-path clsact", "data-path tcx",
			[]string{`the data path is "tcx", want "clsact" on kernel 6.1.0-56-cloud-amd64`}},
		"no data path": {"@kernels data-path clsact\n", "", []string{"no data path was found"}},
		"another word": {"@kernels data-path", "@kernels datapath", []string{
			`run-tests.sh said ["datapath" "clsact"], which nobody understands`, "no data path was found"}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(clean, c.old) {
				t.Fatalf("%q is not in the output", c.old)
			}
			r := read(strings.Replace(clean, c.old, c.new, 1))
			r.judge(ask(t))
			if diff := cmp.Diff(c.want, r.problems); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnusedPermissionsCountInACompleteSuite(t *testing.T) {
	s := ask(t)
	s.pattern = "TestThree"
	r := read(strings.Replace(clean, "--- SKIP", "--- PASS", 1))
	r.judge(s)
	if len(r.problems) > 0 {
		t.Errorf("%q", r.problems)
	}
}

func TestReadConsole(t *testing.T) {
	r := &report{}
	r.readConsole("mtrr: your CPUs had inconsistent settings\nWARNING: CPU: 1 PID: 7 at net/core/filter.c:1 f+0x1\n")
	if diff := cmp.Diff([]string{"the kernel said: WARNING: CPU: 1 PID: 7 at net/core/filter.c:1 f+0x1"}, r.problems); diff != "" {
		t.Error(diff)
	}
}

func TestPrintTable(t *testing.T) {
	bad := read(strings.Replace(clean, "@kernels end 2 0", "", 1))
	bad.machine = "6.1"
	bad.judge(ask(t))
	var out strings.Builder
	printTable(&out, []*report{{machine: "host"}, bad})
	want := `
MACHINE  KERNEL                DATA PATH  PACKAGES  PASSED  FAILED  SKIPPED  TIME  VERDICT
host     -                     -          0         0       0       0        0s    ok
6.1      6.1.0-56-cloud-amd64  clsact     2         3       0       1        0s    FAILED
6.1: the end of the tests was not reached
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAllowedSkips(t *testing.T) {
	if _, err := parseAllowedSkips(allowedSkipsFile); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"any pkg/a TestOne", "=6.6 pkg/a TestOne why", "<6 pkg/a TestOne why", "6.6 pkg/a TestOne why"} {
		if _, err := parseAllowedSkips(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	for _, c := range []struct {
		kernels, release string
		want             bool
	}{
		{"any", "6.18.44", true},
		{"<6.6", "6.1.0-56-cloud-amd64", true},
		{"<6.6", "6.12.117+deb12-cloud-amd64", false},
		{"<6.6", "6.6.0", false},
		{">=6.6", "6.6.0", true},
		{">=6.6", "7.0-rc1", true},
		{">=6.6", "5.19", false},
	} {
		if got := (allowedSkip{kernels: c.kernels}).on(c.release); got != c.want {
			t.Errorf("%s on %s: %t", c.kernels, c.release, got)
		}
	}
}
