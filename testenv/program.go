package testenv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Main runs a package's tests, which find the path of the portreeve under test in
// program.
func Main(m *testing.M, program *string) {
	path, remove, err := provide()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer remove()
	*program = path
	m.Run()
}

// provide returns the path of the portreeve under test and what removes it
// again. It is built from the tree, unless PORTREEVE_TEST_BINARY names one: the
// guests of testenv/kernels have no Go.
func provide() (path string, remove func(), err error) {
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

// Environ are the entries of the environment by which portreeve stays inside e.
func (e *Env) Environ() []string {
	return []string{"PORTREEVE_BPFFS=" + e.BPFFS, "PORTREEVE_RUN_DIR=" + e.RunDir}
}

// Portreeve is the program under test on the gateway. Of the caller's environment it
// sees PATH alone.
type Portreeve struct {
	Env       *Env
	Program   string    // its path
	Inspector *exec.Cmd // that Start has started; nil: there is none
}

// Command prepares a command.
func (p *Portreeve) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := p.Env.Gateway.Command(ctx, p.Program, args...)
	cmd.Env = append(p.Env.Environ(), "PATH="+os.Getenv("PATH"))
	return cmd
}

// Run runs a command and returns what it wrote to standard output. What it wrote to
// standard error is part of the error.
func (p *Portreeve) Run(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := p.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("portreeve %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Start starts the inspector, which writes what it has to say to a file.
func (p *Portreeve) Start(config string, log *os.File) error {
	cmd := p.Command(context.Background(), "run", "-c", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.Inspector = cmd
	return nil
}

// Kill kills the inspector, if there is one, and waits until it is gone.
func (p *Portreeve) Kill() error {
	if p.Inspector == nil {
		return nil
	}
	err := p.Inspector.Process.Kill()
	p.Inspector.Wait() // it was killed
	p.Inspector = nil
	return err
}

// Detach removes the kernel side, and ends the inspector if there is one.
func (p *Portreeve) Detach(ctx context.Context) error {
	if err := p.Kill(); err != nil {
		return err
	}
	_, err := p.Run(ctx, "detach")
	return err
}
