//go:build mutants

package session

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutant is the product with one check removed or weakened.
type mutant struct {
	name string
	file string
	old  string
	new  string
}

// TestMutants runs the tests of smtp and session, or those of another package that
// a mutant is in, against each mutant that testdata/mutants lists, and fails for each one that they do not notice. It
// takes minutes, so it has a build tag of its own: go test -tags mutants.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := loadMutants(t)
	if len(list) < 30 {
		t.Errorf("only %d mutants", len(list))
	}
	for _, m := range list {
		t.Run(m.name, func(t *testing.T) {
			if survives(t, root, m) {
				t.Errorf("no test notices: in %s\n%s\nbecame\n%s", m.file, m.old, m.new)
			}
		})
	}
}

// loadMutants reads blocks of a name, a file, lines taken out (-) and lines put
// in (+).
func loadMutants(t *testing.T) (list []mutant) {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		lines := strings.Split(block, "\n")
		m := mutant{name: lines[0], file: lines[1]}
		for _, l := range lines[2:] {
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

// survives reports whether the tests pass with the mutant in place of the file.
func survives(t *testing.T, root string, m mutant) bool {
	t.Helper()
	file := filepath.Join(root, m.file)
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s has %d times\n%s", m.file, n, m.old)
	}
	changed := filepath.Join(t.TempDir(), "mutant.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	plan := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(plan, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	packages := []string{"./pkg/smtp", "./pkg/session"}
	if own := "./" + filepath.Dir(m.file); !slices.Contains(packages, own) {
		packages = []string{own}
	}
	cmd := exec.Command("go", append([]string{"test", "-count=1", "-timeout=60s", "-overlay", plan}, packages...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "[build failed]") || strings.Contains(string(out), "setup failed") {
		t.Fatal(fmt.Errorf("the mutant does not build: %w\n%s", err, out))
	}
	return err == nil
}
