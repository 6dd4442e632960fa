package mta

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/portreeve/portreeve/testenv"
)

// StartOpenSMTPD is StartPostfix for OpenSMTPD and scripts/origin-opensmtpd;
// settings are lines of smtpd.conf.
func StartOpenSMTPD(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, settings ...string) (*Server, error) {
	queue := filepath.Join(dir, "queue")
	s := &Server{
		Log: filepath.Join(dir, "log"), Mail: filepath.Join(dir, "mail", "inbox"),
		queue: []string{filepath.Join(queue, "incoming"), filepath.Join(queue, "queue")},
		trace: []string{"Return-Path", "Delivered-To", "Received"},
	}
	if err := s.start(ctx, n, dir, addresses, "scripts/origin-opensmtpd", settings...); err != nil {
		return nil, fmt.Errorf("start opensmtpd: %w", err)
	}
	return s, nil
}
