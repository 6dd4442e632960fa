package firewalls

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// program is the path of the portreeve under test.
var program string

// gateway is portreeve on the gateway.
type gateway struct {
	testenv.Portreeve
	config string
}

const configuration = `interfaces: {client: [ext0], origin: [dmz0]}
kernel: {netfilter: %s}
limits: {sessions: 1000}
services:
  - name: addressed
    listen: ["%s:25", "[%s]:25"]
    origins: ["%[4]s:25", "[%[5]s]:25"]
    forge: {port: %[6]s}
    fail: %[7]s
  - name: transit
    intercept: ["%[4]s:25", "[%[5]s]:25"]
    forge: {port: %[6]s}
    fail: %[7]s
`

// configure writes the configuration for a ruleset.
func (g *gateway) configure(r *Ruleset, b Book) error {
	g.config = filepath.Join(g.Env.Dir, "portreeve.yaml")
	netfilter, port, fail := "nft", "any", "closed"
	if r.Flavour == IPTablesLegacy {
		netfilter = "legacy"
	}
	if r.Exact {
		port = "exact"
	}
	if r.Open {
		fail = "open"
	}
	text := fmt.Sprintf(configuration, netfilter, b[4].Gateway, b[6].Gateway, b[4].Origin, b[6].Origin, port, fail)
	return os.WriteFile(g.config, []byte(text), 0o644)
}

// attach installs the kernel side.
func (g *gateway) attach(ctx context.Context, r *Ruleset, b Book) error {
	if err := g.configure(r, b); err != nil {
		return err
	}
	return g.again(ctx)
}

// again attaches with the configuration that is there.
func (g *gateway) again(ctx context.Context) error {
	_, err := g.Run(ctx, "attach", "-c", g.config)
	return err
}

// doctor returns its findings. That there are errors is no failure.
func (g *gateway) doctor(ctx context.Context) (findings []Finding, err error) {
	said, failure := g.Run(ctx, "doctor", "-c", g.config, "--json")
	if err := json.Unmarshal([]byte(said), &findings); err != nil {
		return nil, fmt.Errorf("portreeve doctor: %w: %w", err, failure)
	}
	return findings, nil
}

// start starts the inspector and waits until the kernel calls it alive.
func (g *gateway) start(ctx context.Context) error {
	log, err := os.Create(filepath.Join(g.Env.Dir, "run.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := g.Start(g.config, log); err != nil {
		return err
	}
	if err := g.awaitReady(ctx, log.Name()); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("await that the inspector is alive: %w: %s", err, said)
	}
	return nil
}

// awaitReady waits until the inspector says that it is.
func (g *gateway) awaitReady(ctx context.Context, log string) error {
	for {
		said, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if strings.Contains(string(said), "msg=ready") {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
