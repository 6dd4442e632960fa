package clothes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv"
)

// program is the path of the portreeve under test.
var program string

// gateway is portreeve on the gateway.
type gateway struct {
	testenv.Portreeve
	config string
}

// setup is how portreeve is configured.
type setup struct {
	fail      string // of the service
	netfilter string // kernel.netfilter
	client    string // the interface that clients come in by
	origin    string // the interface towards the origin
}

const configuration = `interfaces: {client: [%s], origin: [%s]}
kernel: {heartbeat: %s, netfilter: %s}
services:
  - name: mx
    intercept: ["%s:25", "[%s]:25"]
    fail: %s
`

// attach installs the kernel side of a setup.
func (g *gateway) attach(ctx context.Context, s setup) error {
	g.config = filepath.Join(g.Env.Dir, "portreeve.yaml")
	heartbeat := "500ms" // as short as can be: each play waits for it
	if inGuest {
		heartbeat = "5s"
	}
	text := fmt.Sprintf(configuration, s.client, s.origin, heartbeat, s.netfilter, g.Env.Origin4, g.Env.Origin6, s.fail)
	if err := os.WriteFile(g.config, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := g.Run(ctx, "attach", "-c", g.config)
	return err
}

// start starts the inspector and waits until the kernel calls it alive.
func (g *gateway) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(g.Env.Dir, "run.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := g.Start(g.config, log); err != nil {
		return err
	}
	if err := g.await(ctx, "alive"); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// hang stops the inspector and waits until the kernel calls it hung.
func (g *gateway) hang(ctx context.Context) error {
	if err := g.Inspector.Process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	return g.await(ctx, "hung")
}

// die kills the inspector, and the kernel notices.
func (g *gateway) die(ctx context.Context) error {
	if err := g.Kill(); err != nil {
		return err
	}
	return g.await(ctx, "absent")
}

// await waits until the kernel's idea of the inspector is the one given.
func (g *gateway) await(ctx context.Context, state string) error {
	for {
		said, err := g.Run(ctx, "status", "--json")
		var report struct{ Inspector struct{ State string } }
		if failure := json.Unmarshal([]byte(said), &report); failure != nil {
			return fmt.Errorf("await that the inspector is %s: %w: %w", state, failure, err)
		}
		if report.Inspector.State == state {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("await that the inspector is %s: it is %s: %w", state, report.Inspector.State, context.Cause(ctx))
		}
	}
}

// wall is a set of things that keep SYNs out, and how somebody who is not portreeve
// takes it away: by ending links, filters and rules that are not his.
type wall struct {
	name     string
	side     string   // where its program is: DEVICE ingress or egress
	pins     string   // pattern of names below portreeve's directory of the BPF file system
	commands []string // on the gateway, for what else belongs to it
}

// Wall one judges what clients send, wall two what goes to origins.
var (
	wallOne = wall{name: "wall one", side: "CLIENT ingress", pins: "link_steer_client*"}
	wallTwo = wall{name: "wall two", side: "ORIGIN egress", pins: "link_steer_wall*"}
)

// remove takes a wall away and waits until it is gone; there being nothing to take
// is an error.
func (w *wall) remove(ctx context.Context, e *testenv.Env, client, origin string) error {
	device, side, _ := strings.Cut(strings.NewReplacer("CLIENT", client, "ORIGIN", origin).Replace(w.side), " ")
	pins, err := filepath.Glob(filepath.Join(e.BPFFS, "portreeve", "*", w.pins))
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if err := testenv.EndLink(pin); err != nil { // an inspector that lives holds it, too
			return fmt.Errorf("remove %s: %w", w.name, err)
		}
	}
	if len(pins) == 0 {
		err = w.removeFilters(ctx, e, device, side)
	} else {
		err = w.gone(ctx, e, device+" tcx "+side+":")
	}
	for _, command := range w.commands {
		words := strings.Fields(command)
		_, failure := e.Gateway.Run(ctx, words[0], words[1:]...)
		err = errors.Join(err, failure)
	}
	return err
}

// gone waits until no program is attached any more: the kernel detaches a link
// whose pin was removed in the background.
func (w *wall) gone(ctx context.Context, e *testenv.Env, where string) error {
	for {
		list, err := e.Gateway.Programs()
		if err != nil {
			return err
		}
		if !strings.Contains(list, where) {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("remove %s: it stays: %s: %w", w.name, list, context.Cause(ctx))
		}
	}
}

// removeFilters removes filters of the clsact qdisc.
func (w *wall) removeFilters(ctx context.Context, e *testenv.Env, device, side string) error {
	shown, err := e.Gateway.Run(ctx, "tc", "filter", "show", "dev", device, side)
	if err != nil {
		return err
	}
	if !strings.Contains(shown, "bpf") {
		return fmt.Errorf("remove %s: it is not there: no pin %s, no filter at %s %s", w.name, w.pins, device, side)
	}
	_, err = e.Gateway.Run(ctx, "tc", "filter", "delete", "dev", device, side)
	return err
}
