package layers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureNamesWhatIsThere: each file, directory and pattern that ARCHITECTURE.md
// names in code quotes exists, from the root or in the package that its paragraph is
// about.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for n, line := range strings.Split(string(text), "\n") {
		for _, q := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			name := q[1]
			if !isPath.MatchString(name) {
				continue
			}
			found++
			if !exists(name) {
				t.Errorf("ARCHITECTURE.md:%d: there is no %s", n+1, name)
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d paths found", found)
	}
}

// isPath matches what is meant to be one: a directory of the tree, or a file of a kind
// that the tree has.
var isPath = regexp.MustCompile(`^(?:(?:cmd|bpf|pkg|deploy|scripts|testenv)/[\w./*<>-]*|[\w./*-]+\.(?:go|c|h|md|txt|txtar|yaml|sh|proto))$`)

func exists(name string) bool {
	name = strings.ReplaceAll(name, "<verb>", "*")
	for _, at := range []string{name, "bpf/" + name, "pkg/*/" + name, "testenv/" + name, "testenv/*/" + name} {
		if found, _ := filepath.Glob(filepath.Join(root, at)); len(found) > 0 {
			return true
		}
	}
	return false
}
