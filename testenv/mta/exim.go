package mta

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/portreeve/portreeve/testenv"
)

// StartExim is StartPostfix for Exim and scripts/origin-exim; settings are lines
// of the main section of its configuration.
func StartExim(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, settings ...string) (*Server, error) {
	s := &Server{
		Log: filepath.Join(dir, "log", "main"), Mail: filepath.Join(dir, "mail", "inbox"),
		queue: []string{filepath.Join(dir, "spool", "input")},
		trace: []string{"Return-path", "Envelope-to", "Delivery-date", "Received"},
	}
	if err := s.start(ctx, n, dir, addresses, "scripts/origin-exim", settings...); err != nil {
		return nil, fmt.Errorf("start exim: %w", err)
	}
	return s, nil
}
