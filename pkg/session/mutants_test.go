//go:build mutants

package session

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var only = flag.String("only", "", "run the mutants whose names have this text in them")

// mutant is the product with one check removed or weakened.
type mutant struct {
	name    string
	file    string
	killers []string // tests, each of which must fail
	old     string
	new     string
}

// TestMutants builds the tests with each mutant that testdata/mutants lists, runs
// those that are named there, and fails for each one of them that does not
// notice. Without a mutant all of them pass. It takes minutes, so it has a build
// tag of its own: see make mutants.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := loadMutants(t)
	checkKillers(t, root, list)
	work := make(chan mutant)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for m := range work {
				m.try(t, root)
			}
		})
	}
	tried := 0
	for _, m := range list {
		if strings.Contains(m.name, *only) {
			work <- m
			tried++
		}
	}
	close(work)
	workers.Wait()
	if *only == "" && tried < 30 {
		t.Errorf("only %d mutants", tried)
	}
	fmt.Printf("%d mutants\n", tried)
}

// loadMutants reads blocks of a name, a file, the tests that notice, lines taken
// out (-) and lines put in (+).
func loadMutants(t *testing.T) (list []mutant) {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		lines := strings.Split(block, "\n")
		if len(lines) < 4 || !strings.HasPrefix(lines[2], "by ") {
			t.Fatalf("testdata/mutants: no mutant:\n%s", block)
		}
		m := mutant{name: lines[0], file: lines[1], killers: strings.Fields(lines[2])[1:]}
		for _, l := range lines[3:] {
			switch l[0] {
			case '-':
				m.old += strings.TrimPrefix(l[1:], " ") + "\n"
			case '+':
				m.new += strings.TrimPrefix(l[1:], " ") + "\n"
			}
		}
		list = append(list, m)
	}
	return list
}

// checkKillers runs every test that is named as it is: one that fails anyway
// proves nothing.
func checkKillers(t *testing.T, root string, list []mutant) {
	t.Helper()
	b := binaries{t: t, root: root, dir: t.TempDir()}
	seen := map[string]bool{}
	for _, m := range list {
		for _, k := range m.killers {
			if seen[k] {
				continue
			}
			seen[k] = true
			if out, ok := b.run(k); !ok || strings.Contains(out, "no tests to run") {
				t.Fatalf("%s does not pass without a mutant:\n%s", k, out)
			}
		}
	}
}

// try runs the tests against the mutant and prints its line of the table.
func (m mutant) try(t *testing.T, root string) {
	start := time.Now()
	b := binaries{t: t, root: root, dir: t.TempDir()}
	if !b.replace(m) {
		return
	}
	verdict := "killed"
	for _, k := range m.killers {
		if out, ok := b.run(k); ok {
			verdict = "ALIVE"
			t.Errorf("%s: %s does not notice: in %s\n%s\nbecame\n%s\n%s", m.name, k, m.file, m.old, m.new, out)
		}
	}
	fmt.Printf("%-7s %-60s %4.1fs  %s\n", verdict, m.name, time.Since(start).Seconds(), strings.Join(m.killers, " "))
}

// drawsAtRandom are the packages whose tests use rapid.
var drawsAtRandom = map[string]bool{"session": true, "smtp": true, "zone": true}

// binaries builds the tests of a package when one of them is first run.
type binaries struct {
	t       *testing.T
	root    string
	dir     string
	overlay string
}

// replace puts the mutant in the place of its file.
func (b *binaries) replace(m mutant) bool {
	file := filepath.Join(b.root, m.file)
	source, err := os.ReadFile(file)
	if err != nil {
		b.t.Errorf("%s: %v", m.name, err)
		return false
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		b.t.Errorf("%s: the mutant is stale, for %s has %d times\n%s", m.name, m.file, n, m.old)
		return false
	}
	changed := filepath.Join(b.dir, "mutant.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		b.t.Error(err)
		return false
	}
	b.overlay = filepath.Join(b.dir, "overlay.json")
	for name, text := range map[string]string{changed: strings.Replace(string(source), m.old, m.new, 1), b.overlay: string(overlay)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			b.t.Error(err)
			return false
		}
	}
	return true
}

// run runs one test, or one dialogue, and reports whether it passes. A test of
// another package has its name in front: smtp.TestX.
func (b *binaries) run(test string) (out string, passes bool) {
	pkg, name, ok := strings.Cut(test, ".")
	if !ok {
		pkg, name = "session", test
	}
	pattern := "^" + name + "$"
	if !strings.HasPrefix(name, "Test") {
		pattern = "^TestDialogues$/^" + name + "$"
	}
	binary := b.build(pkg)
	if binary == "" {
		return "it does not build", true
	}
	cmd := exec.Command(binary, "-test.run", pattern, "-test.timeout=60s")
	if drawsAtRandom[pkg] {
		cmd.Args = append(cmd.Args, "-rapid.nofailfile") // a mutant's failures are no seeds
	}
	cmd.Dir = filepath.Join(b.root, "pkg", pkg)
	text, err := cmd.CombinedOutput()
	return string(text), err == nil
}

func (b *binaries) build(pkg string) string {
	binary := filepath.Join(b.dir, pkg+".test")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-o", binary, "./pkg/"+pkg)
	if b.overlay != "" {
		cmd.Args = append(cmd.Args[:3], append([]string{"-overlay", b.overlay}, cmd.Args[3:]...)...)
	}
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Errorf("%v: %v\n%s", cmd.Args, err, out)
		return ""
	}
	return binary
}
