package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Program returns the path of the portreeve under test and what removes it
// again. It is built from the tree, unless PORTREEVE_TEST_BINARY names one: the
// guests of testenv/kernels have no Go.
func Program() (path string, remove func(), err error) {
	if path = os.Getenv("PORTREEVE_TEST_BINARY"); path != "" {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "portreeve-program-")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "portreeve")
	build := exec.Command("go", "build", "-o", path, "github.com/portreeve/portreeve/cmd/portreeve")
	if output, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("build portreeve: %w\n%s", err, bytes.TrimSpace(output))
	}
	return path, func() { os.RemoveAll(dir) }, nil
}
