package main

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/pki"
)

// pair makes the gateway's certificate, once for a stage, and returns its path
// without .pem, .key, or .both, which has the two in one as HAProxy wants it.
func (s *stage) pair() (string, error) {
	path := filepath.Join(s.env.Dir, "gateway")
	if _, err := os.Stat(path + ".pem"); err == nil {
		return path, nil
	}
	p := pki.New("bench").Issue([]string{"gateway.example.org"})
	if _, _, err := p.Write(s.env.Dir, "gateway"); err != nil {
		return "", err
	}
	return path, os.WriteFile(path+".both", append(p.ChainPEM(), p.KeyPEM()...), 0o600)
}

// awaitGreeting waits until a server greets, inside TLS where the section is about
// that.
func (s *stage) awaitGreeting(ctx context.Context, v *server, from *testenv.Node, at netip.AddrPort) error {
	if !s.secure {
		return v.awaitGreeting(ctx, from, at)
	}
	return v.await(ctx, func() bool { return greetsInside(ctx, from, at) })
}

// greetsInside reports whether a server says 220 inside TLS.
func greetsInside(ctx context.Context, from *testenv.Node, at netip.AddrPort) bool {
	conn, err := from.Dial(ctx, netip.AddrPort{}, at)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	inside := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	greeting := make([]byte, 3)
	_, err = io.ReadFull(inside, greeting)
	return err == nil && string(greeting) == "220"
}
