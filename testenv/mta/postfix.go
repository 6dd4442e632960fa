package mta

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/portreeve/portreeve/testenv"
)

// StartPostfix runs Postfix on port 25 of every address of a node, configured
// by scripts/origin-postfix. dir is a directory of its own; settings are further
// lines of main.cf. It returns when the addresses greet.
func StartPostfix(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, settings ...string) (*Server, error) {
	queue := filepath.Join(dir, "queue")
	s := &Server{
		Log: filepath.Join(dir, "log"), Mail: filepath.Join(dir, "mail", "inbox"),
		queue: []string{filepath.Join(queue, "incoming"), filepath.Join(queue, "active"), filepath.Join(queue, "deferred")},
		trace: []string{"Return-Path", "X-Original-To", "Delivered-To", "Received"},
	}
	if err := s.start(ctx, n, dir, addresses, "scripts/origin-postfix", settings...); err != nil {
		return nil, fmt.Errorf("start postfix: %w", err)
	}
	return s, nil
}
