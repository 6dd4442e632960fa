package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what one machine made of the suite. It is filled line by line and
// judged at the end.
type report struct {
	machine  string // name
	release  string // of the kernel that ran, as uname -r says
	dataPath string // "tcx" or "clsact", see data-path.sh
	passed   []test
	failed   []test
	skipped  []test
	exits    map[string]int // exit code of the test binary of a package
	ended    bool           // the end marker came
	took     time.Duration
	problems []string // what is wrong, a sentence each; empty: the machine passed

	current string // the package that runs
}

// test names a test or subtest.
type test struct{ pkg, name string }

func (t test) String() string { return t.pkg + " " + t.name }

func (r *report) complain(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// marker opens a line that run-tests.sh says itself.
const marker = "@kernels "

// outcome matches the end of a test. In the mode test2json the octet 0x16
// precedes it, even where a test left its last line open.
var outcome = regexp.MustCompile(`\x16--- (PASS|FAIL|SKIP): (\S+) \(`)

// readLine takes in one line of output.
func (r *report) readLine(line string) {
	if words, ok := strings.CutPrefix(line, marker); ok {
		r.readMarker(strings.Fields(words))
		return
	}
	for _, match := range outcome.FindAllStringSubmatch(line, -1) {
		t := test{r.current, match[2]}
		switch match[1] {
		case "PASS":
			r.passed = append(r.passed, t)
		case "FAIL":
			r.failed = append(r.failed, t)
		case "SKIP":
			r.skipped = append(r.skipped, t)
		}
	}
}

// readMarker takes in what run-tests.sh says.
func (r *report) readMarker(words []string) {
	switch {
	case len(words) == 2 && words[0] == "release":
		r.release = words[1]
	case len(words) > 0 && words[0] == "data-path":
		r.readDataPath(strings.Join(words[1:], " "))
	case len(words) == 2 && words[0] == "package":
		r.current = words[1]
	case len(words) == 3 && words[0] == "exit":
		r.readExit(words[1], words[2])
	case len(words) == 3 && words[0] == "end":
		r.readEnd(words[1], words[2])
	default:
		r.complain("run-tests.sh said %q, which nobody understands", words)
	}
}

// readDataPath takes in what data-path.sh found, which is the whole of its
// output when it failed.
func (r *report) readDataPath(found string) {
	want := "tcx"
	if kernelBelow(r.release, "6.6") {
		want = "clsact"
	}
	if found != want {
		r.complain("the data path is %q, want %q on kernel %s", found, want, r.release)
	}
	r.dataPath = found
}

func (r *report) readExit(pkg, code string) {
	n, err := strconv.Atoi(code)
	if err != nil {
		r.complain("%s ended with %q, which is no exit code", pkg, code)
		n = -1
	}
	if r.exits == nil {
		r.exits = make(map[string]int)
	}
	r.exits[pkg] = n
}

// readEnd takes in the end marker and compares it with what was read before, so
// that lost output is noticed.
func (r *report) readEnd(passed, failed string) {
	r.ended = true
	good := 0
	for _, code := range r.exits {
		if code == 0 {
			good++
		}
	}
	if passed != strconv.Itoa(good) || failed != strconv.Itoa(len(r.exits)-good) {
		r.complain("run-tests.sh counted %s packages passed and %s failed, its output shows %d and %d",
			passed, failed, good, len(r.exits)-good)
	}
}

// kernelTrouble matches what a kernel prints when it finds a mistake in itself,
// or when a program of ours led it into one.
var kernelTrouble = regexp.MustCompile(`WARNING: |BUG: |Oops|general protection|Kernel panic|unregister_netdevice: waiting|segfault at`)

// readConsole takes in what a guest's kernel said.
func (r *report) readConsole(said string) {
	for line := range strings.Lines(said) {
		if kernelTrouble.MatchString(line) {
			r.complain("the kernel said: %s", strings.TrimSpace(line))
		}
	}
}

// judge adds the problems that the report as a whole shows.
func (r *report) judge(suite *suite) {
	if !r.ended {
		r.complain("the end of the tests was not reached")
	}
	if r.dataPath == "" {
		r.complain("no data path was found")
	}
	for _, t := range r.failed {
		r.complain("%s failed", t)
	}
	for _, p := range suite.packages {
		r.judgePackage(p)
	}
	r.judgeSkips(suite)
}

func (r *report) judgePackage(pkg string) {
	code, ran := r.exits[pkg]
	of := func(t test) bool { return t.pkg == pkg }
	switch {
	case !ran:
		r.complain("%s did not come to its end", pkg)
	case code != 0:
		r.complain("%s ended with exit code %d", pkg, code)
	case !slices.ContainsFunc(r.passed, of):
		r.complain("%s passed no test", pkg)
	}
}

// judgeSkips complains of skips that nobody allowed and of permissions that
// nobody used.
func (r *report) judgeSkips(suite *suite) {
	used := make(map[test]bool)
	for _, t := range r.skipped {
		permits := func(a allowedSkip) bool { return a.test == t && a.on(r.release) }
		if !slices.ContainsFunc(suite.allowed, permits) {
			r.complain("%s skipped itself, and allowed-skips does not say that it may", t)
			continue
		}
		used[t] = true
	}
	for _, a := range suite.allowed {
		if r.ended && suite.runs(a.test) && a.on(r.release) && !used[a.test] {
			r.complain("%s did not skip itself, but allowed-skips says that it does: %s", a.test, a.reason)
		}
	}
}

// display says how a line of the tests is shown to a reader, if at all: their
// lines and results, without the notes on what begins and goes on.
func display(line string) (string, bool) {
	line = strings.ReplaceAll(line, "\x16", "")
	bare := strings.TrimSpace(line)
	return line, bare != "" && bare != "PASS" && !strings.HasPrefix(bare, "=== ")
}

// printTable prints the result for each kernel, then what is wrong.
func printTable(w io.Writer, reports []*report) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nMACHINE\tKERNEL\tDATA PATH\tPACKAGES\tPASSED\tFAILED\tSKIPPED\tTIME\tVERDICT")
	for _, r := range reports {
		word := "ok"
		if len(r.problems) > 0 {
			word = "FAILED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%v\t%s\n", r.machine, orNone(r.release), orNone(r.dataPath),
			len(r.exits), len(r.passed), len(r.failed), len(r.skipped), r.took.Round(time.Second), word)
	}
	table.Flush()
	for _, r := range reports {
		for _, p := range r.problems {
			fmt.Fprintf(w, "%s: %s\n", r.machine, p)
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
