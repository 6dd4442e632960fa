package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed floor/relay.c
var relaySource string

// startFloor starts a relay in C that never looks inside: what the same work costs
// at least. It is compiled for each stage anew, which takes less than a second.
func startFloor(ctx context.Context, s *stage) (*serving, error) {
	program, err := compileRelay(ctx, s.env.Dir)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(smtpPort)
	return s.startProxy(ctx, "floor", s.env.Gateway.Command(context.Background(), program,
		s.env.Gateway4.String(), port, s.env.Origin4.String(), port))
}

// compileRelay makes the relay's program in a directory.
func compileRelay(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "relay")
	cc := exec.CommandContext(ctx, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, "-x", "c", "-")
	cc.Stdin = strings.NewReader(relaySource)
	if said, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the relay: %w: %s", err, said)
	}
	return program, nil
}
