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
	s := &Server{Log: filepath.Join(dir, "log"), Mail: filepath.Join(dir, "mail", "inbox")}
	if err := s.start(ctx, n, dir, addresses, "scripts/origin-postfix", settings...); err != nil {
		return nil, fmt.Errorf("start postfix: %w", err)
	}
	return s, nil
}
