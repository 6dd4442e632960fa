package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/testenv"
)

// killConfig uses every kind of item that there is.
const killConfig = `interfaces: {client: [ext0], origin: [dmz0]}
kernel: {datapath: %s}
services:
  - name: mx
    listen: ["172.16.40.1:25", "[fd00:40::1]:25"]
    intercept: ["172.16.20.254:25", "[fd00:20::fe]:25"]
    origins: ["172.16.20.254:25", "[fd00:20::fe]:25"]
  - name: subs
    listen: ["172.16.40.1:587"]
    origins: ["172.16.20.254:587"]
    fail: open
`

// TestKilledAtEachStep kills attach and detach at one system call after the
// other and expects detach to leave the gateway as it was. strace sends the
// signal at the entry of the call: what the call would have done is not done,
// what came before it is.
//
// write is the journal's intent before each item and the talk with iptables,
// sendto and sendmsg are netlink, by us or by an iptables that is ours and dies
// in our place. strace counts the calls of each thread for itself, and how they
// are spread over threads differs from run to run: a stride is well below a
// third of the calls that there are.
func TestKilledAtEachStep(t *testing.T) {
	for _, c := range []struct {
		verb, calls string
		datapath    string // that is forced: older kernels need rules and filters in the place of links
		stride      int    // every step of a kind that there are few of
		short       int    // stride of go test -short
	}{
		{"attach", "write", "auto", 4, 40},
		{"attach", "bpf", "auto", 11, 30},
		{"attach", "sendto,sendmsg", "auto", 11, 44},
		{"attach", "mkdirat,renameat,unlinkat", "auto", 1, 1},
		{"attach", "sendto,sendmsg", "clsact", 19, 80},
		{"detach", "write", "auto", 7, 35},
		{"detach", "bpf", "auto", 19, 60},
		{"detach", "sendto,sendmsg", "auto", 13, 44},
		{"detach", "mkdirat,renameat,unlinkat", "auto", 1, 8},
		{"detach", "sendto,sendmsg", "clsact", 23, 80},
	} {
		if testing.Short() {
			c.stride = c.short
		}
		name := c.verb + " at " + c.calls
		if c.datapath != "auto" {
			name += " with " + c.datapath
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKiller(t, c.verb, c.calls, c.datapath)
			steps := 0
			for n := 1; k.killAt(n); n += c.stride {
				steps++
			}
			if steps < 3 {
				t.Errorf("%s was killed at %d steps only", c.verb, steps)
			}
		})
	}
}

// killer kills portreeve in a network of its own.
type killer struct {
	t           *testing.T
	env         *testenv.Env
	config      string
	verb, calls string
	before      testenv.Snapshot
}

func newKiller(t *testing.T, verb, calls, datapath string) *killer {
	t.Helper()
	env := testenv.ForTest(t)
	k := &killer{t: t, env: env, verb: verb, calls: calls, config: filepath.Join(env.Dir, "portreeve.yaml")}
	if err := os.WriteFile(k.config, fmt.Appendf(nil, killConfig, datapath), 0o644); err != nil {
		t.Fatal(err)
	}
	k.before = k.snapshot()
	return k
}

func (k *killer) snapshot() testenv.Snapshot {
	k.t.Helper()
	s, err := k.env.Snapshot(context.Background())
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}

// killAt kills the verb at its nth call, repairs by detach, and reports
// whether there was an nth call.
func (k *killer) killAt(n int) bool {
	k.t.Helper()
	if k.verb == "detach" {
		k.run(k.command("attach", "-c", k.config))
	}
	args := []string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + k.calls,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", k.calls, n), binary, k.verb}
	if k.verb == "attach" {
		args = append(args, "-c", k.config)
	}
	killed := k.environ(k.env.Gateway.Command(k.t.Context(), "strace", args...)).Run()
	if killed != nil && !errors.As(killed, new(*exec.ExitError)) {
		k.t.Fatal(killed)
	}
	k.run(k.command("detach"))
	if diff := k.before.Diff(k.snapshot()); diff != "" {
		k.t.Fatalf("%s killed at call %d of %s, then detach: %s", k.verb, n, k.calls, diff)
	}
	return killed != nil
}

// command prepares portreeve on the gateway.
func (k *killer) command(args ...string) *exec.Cmd {
	return k.environ(k.env.Gateway.Command(k.t.Context(), binary, args...))
}

// environ gives portreeve its directories. With one processor, the runtime
// spreads the calls over fewer threads; strace counts in each by itself.
func (k *killer) environ(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(append(os.Environ(), k.env.Environ()...), "GOMAXPROCS=1")
	return cmd
}

func (k *killer) run(cmd *exec.Cmd) {
	k.t.Helper()
	if output, err := cmd.CombinedOutput(); err != nil {
		k.t.Fatalf("%s: %v: %s", strings.Join(cmd.Args[3:], " "), err, output)
	}
}
