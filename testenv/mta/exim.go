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

// StartEximSender starts Exim as a sender, see scripts/sender-exim: it takes mail on the
// node's 127.0.0.1:25 and sends it to host.
func StartEximSender(ctx context.Context, n *testenv.Node, dir string, host netip.Addr) (*Server, error) {
	s := &Server{Log: filepath.Join(dir, "log", "main"), queue: []string{filepath.Join(dir, "spool", "input")}}
	if err := s.start(ctx, n, dir, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, "scripts/sender-exim", host.String()); err != nil {
		return nil, fmt.Errorf("start exim: %w", err)
	}
	return s, nil
}
