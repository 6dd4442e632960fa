package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The smallest configurations that do the work; all else is the default.
const (
	addressedConfig = `interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    listen: ["%[1]s:%[2]d"]
    origins: ["%[3]s:%[2]d"]
`
	bothWaysConfig = addressedConfig + `    intercept: ["%[3]s:%[2]d"]
`
	transitConfig = `interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    intercept: ["%[3]s:%[2]d"]
`
	countedConfig = addressedConfig + `metrics: {listen: "127.0.0.1:9125"}
`
	skipConfig = transitConfig + `kernel: {forward_rules: skip}
`
	secureConfig = addressedConfig + `    tls:
      certificates: [{chain: %[4]s.pem, key: %[4]s.key}]
      client: {implicit: true}
      origin: {implicit: true}
`
)

// startPortreeve starts the portreeve that is to be measured.
func startPortreeve(ctx context.Context, s *stage) (*serving, error) {
	return s.startBuild(ctx, s.options.binary)
}

// startOtherBuild starts the one that it is compared with.
func startOtherBuild(ctx context.Context, s *stage) (*serving, error) {
	return s.startBuild(ctx, s.options.before)
}

func (s *stage) startBuild(ctx context.Context, binary string) (*serving, error) {
	s.binary, s.metered = binary, s.counted
	switch {
	case s.secure:
		return s.startInspector(ctx, s.env.Gateway4, secureConfig)
	case s.counted:
		return s.startInspector(ctx, s.env.Gateway4, countedConfig)
	case s.connect:
		return s.startInspector(ctx, s.env.Origin4, transitConfig)
	}
	return s.startInspector(ctx, s.env.Gateway4, addressedConfig)
}

// startInspector attaches and runs portreeve with a configuration, and waits
// until it carries a session that is addressed to at. Its records go to a file,
// as to a log on disk.
func (s *stage) startInspector(ctx context.Context, at netip.Addr, format string) (*serving, error) {
	config, err := s.writeConfig("portreeve.yaml", format, 0)
	if err != nil {
		return nil, err
	}
	if said, err := s.portreeve(ctx, "attach", "-c", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("portreeve attach: %w: %s", err, said)
	}
	records, err := os.Create(s.records())
	if err != nil {
		return nil, err
	}
	defer records.Close()
	cmd := s.portreeve(context.Background(), "run", "-c", config)
	cmd.Stdout = records
	inspector, err := s.serve(s.accounts.subject, "portreeve", cmd)
	if err != nil {
		return nil, err
	}
	target := netip.AddrPortFrom(at, smtpPort)
	count := s.carried
	if s.unseen {
		count = s.tunnelled
	}
	return &serving{target: target, pid: inspector.cmd.Process.Pid, stop: inspector.terminate, count: count},
		s.awaitGreeting(ctx, inspector, s.env.Client, target)
}

// portreeve prepares a command on the gateway.
func (s *stage) portreeve(ctx context.Context, args ...string) *exec.Cmd {
	cmd := s.env.Gateway.Command(ctx, s.binary, args...)
	cmd.Env = append(os.Environ(), s.env.Environ()...)
	return cmd
}

func (s *stage) records() string { return filepath.Join(s.env.Dir, "portreeve.records") }

// carried counts the messages that portreeve's records call accepted and
// forged.
func (s *stage) carried() (int, error) {
	return countLines(s.records(), `"outcome":"accepted"`, `"forged":"`)
}

// tunnelled counts the messages of sessions that portreeve's records call forged,
// and carried without being looked at.
func (s *stage) tunnelled() (int, error) {
	sessions, err := countLines(s.records(), `"end":"opaque"`, `"forged":"`)
	return sessions * s.messages, err
}

// countLines counts the lines of a file that hold all of some texts.
func countLines(file string, all ...string) (n int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n, nil
}
