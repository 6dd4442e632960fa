package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// spaceDir is where everything is kept, below the root of the tree.
const spaceDir = ".build/kernels"

// space is the directory of this command, locked against a second one.
type space struct {
	root string // of the tree, absolute
	dir  string // spaceDir, absolute
	temp string // vanishes with the command
	lock *os.File
}

// openSpace finds the tree, waits for the lock and removes what a killed
// predecessor left.
func openSpace(ctx context.Context) (*space, error) {
	root, err := output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	s := &space{root: strings.TrimSpace(root)}
	s.dir = filepath.Join(s.root, spaceDir)
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make room for the kernels: %w", err)
	}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	stale, err := filepath.Glob(filepath.Join(s.dir, "temp-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove what an earlier run left: %w", err)
		}
	}
	s.temp, err = os.MkdirTemp(s.dir, "temp-")
	return s, err
}

// acquire takes the lock, which ends with the process.
func (s *space) acquire() (err error) {
	s.lock, err = os.OpenFile(filepath.Join(s.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock %s: %w", s.dir, err)
	}
	err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: another run is at it: wait for its end", s.dir)
	}
	return err
}

// close removes what need not stay.
func (s *space) close() {
	if err := os.RemoveAll(s.temp); err != nil {
		fmt.Fprintf(os.Stderr, "kernels: remove temporary files: %v\n", err)
	}
	s.lock.Close()
}

// output runs a program and returns what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputIn(ctx, "", name, args...)
}

// outputIn is output with a working directory.
func outputIn(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
