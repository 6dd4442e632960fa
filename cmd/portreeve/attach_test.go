package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/testenv"
)

// What an older inspector has needed is not removed while a newer one makes
// ready: that is in no plan of the one in between.
func TestSettleLeavesWhatAnHeirHasMade(t *testing.T) {
	n := testenv.ForTest(t)
	read := func(service string) (*env, *config.Config) {
		t.Helper()
		e := &env{stdout: io.Discard, stderr: io.Discard, environ: []string{"PORTREEVE_BPFFS=" + n.BPFFS, "PORTREEVE_RUN_DIR=" + n.RunDir}}
		e.file.value = filepath.Join(t.TempDir(), "portreeve.yaml")
		text := "interfaces: {client: [ext0], origin: [dmz0]}\nservices: [{name: " + service + ", listen: \"172.16.40.1:25\", origins: \"172.16.20.254:25\"}]\n"
		if err := os.WriteFile(e.file.value, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := e.load()
		if err != nil {
			t.Fatal(err)
		}
		return e, c
	}
	e, between := read("mx")
	heir, coming := read("mail")
	err := n.Gateway.Enter(func() error {
		if _, err := e.install(t.Context(), between, apply.Given{}, manner{}); err != nil {
			return err
		}
		if err := heir.prepare(t.Context(), coming); err != nil {
			return err
		}
		for _, there := range []bool{true, false} {
			done, err := e.settle(between, apply.Given{}, func() (bool, error) { return there, nil })
			if err != nil || done == there {
				t.Errorf("heir there: %v; done: %v, %v", there, done, err)
			}
			changes, err := e.install(t.Context(), between, apply.Given{}, manner{dryRun: true})
			if err != nil || (len(changes) > 0) != there {
				t.Errorf("heir there: %v; what is not of the plan: %v, %v", there, changes, err)
			}
		}
		if _, err := heir.install(t.Context(), coming, apply.Given{}, manner{letMailStop: true}); err != nil {
			return err
		}
		if done, err := e.settle(between, apply.Given{}, func() (bool, error) { return false, nil }); !done || !errors.Is(err, errOverruled) {
			t.Errorf("settled over another attach: %t, %v", done, err)
		}
		if changes, err := heir.install(t.Context(), coming, apply.Given{}, manner{dryRun: true}); err != nil || len(changes) > 0 {
			t.Errorf("settling changed what was attached since: %v, %v", changes, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of two inspectors that take over at once the newer one counts, whichever comes to the
// lock first: the older one would be led connections when it is about to end.
func TestMoveGivesWayToANewerInspector(t *testing.T) {
	n := testenv.ForTest(t)
	k := keeping(t, n)
	err := n.Gateway.Enter(func() error {
		var both [2]*daemon.Presence
		for i := range both {
			p, err := daemon.Appear()
			if err != nil {
				return err
			}
			defer p.Close()
			both[i] = p
		}
		older, newer := both[0], both[1]
		if err := k.prepare(t.Context(), k.config); err != nil {
			return err
		}
		for _, p := range both { // the older one first, which is how it goes mostly
			if _, err := k.move(k.config, k.given, p); err != nil {
				t.Errorf("inspector %d: %v", p.Number(), err)
			}
		}
		if _, err := k.move(k.config, k.given, older); !errors.Is(err, daemon.ErrReplaced) {
			t.Errorf("the older one behind it: %v", err)
		}
		newer.Close()
		if _, err := k.move(k.config, k.given, older); err != nil {
			t.Errorf("the older one when the newer one is gone: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// says calls a function when something is written.
type says func()

func (s says) Write(text []byte) (int, error) { s(); return len(text), nil }

// What attach warns of is looked for before it takes the lock, and the wait for that ends with
// a signal.
func TestAttachWarnsBeforeItTakesTheLock(t *testing.T) {
	n := testenv.ForTest(t)
	k := keeping(t, n)
	text := "interfaces: {client: [ext0], origin: [dmz0]}\nservices: [{name: mx, intercept: \"172.16.20.254:25\", origins: \"172.16.20.254:25\"}]\n"
	if err := os.WriteFile(k.file.value, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := n.Gateway.Enter(func() error {
		for _, words := range []string{"link add unlisted type veth peer name its-peer", "address add 10.7.0.1/24 dev unlisted", "link set unlisted up"} {
			if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		path, err := statePath(n.RunDir)
		if err != nil {
			return err
		}
		lock, err := apply.Acquire(t.Context(), path+".lock", 0)
		if err != nil {
			return err
		}
		defer lock.Release()
		ctx, cancel := context.WithCancel(t.Context())
		warned := false
		k.env.stderr = says(func() { warned = true; cancel() })
		if err := attach(ctx, k.env, manner{}); !errors.Is(err, apply.ErrLocked) {
			t.Errorf("while another has the lock: %v", err)
		}
		if !warned {
			t.Error("it has not warned")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Settling leaves the run directory as the watcher can work with it: where that was wiped it
// waits for what the watcher writes there, and where the configuration alone is gone it
// writes that.
func TestSettleInAWipedRunDirectory(t *testing.T) {
	n := testenv.ForTest(t)
	k := keeping(t, n)
	none := func() (bool, error) { return false, nil }
	err := n.Gateway.Enter(func() error {
		if _, err := k.move(k.config, k.given, daemon.Known(0)); err != nil {
			return err
		}
		path, err := statePath(n.RunDir)
		if err != nil {
			return err
		}
		journal, err := os.ReadFile(path + ".journal")
		if err != nil {
			return err
		}
		if err := os.RemoveAll(n.RunDir); err != nil {
			return err
		}
		if done, err := k.settle(k.config, k.given, none); done || err != nil {
			t.Errorf("settled where nobody knows who has made what: %t, %v", done, err)
		}
		if _, err := os.Stat(path + ".journal"); err == nil {
			t.Error("a journal was written that lacks what others may share")
		}
		if err := errors.Join(os.MkdirAll(n.RunDir, 0o700), os.WriteFile(path+".journal", journal, 0o600)); err != nil {
			return err
		}
		if done, err := k.settle(k.config, k.given, none); !done || err != nil {
			t.Errorf("settled: %t, %v", done, err)
		}
		k.remembers("after it was settled", true, false)
		return detach(t.Context(), k.env, false)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// keptBy is a verb's environment in a test network, which remembers things there.
type keptBy struct {
	*env
	t      *testing.T
	stderr *bytes.Buffer
	config *config.Config
	given  apply.Given
}

// keeping returns one with settings of every source.
func keeping(t *testing.T, n *testenv.Env) *keptBy {
	t.Helper()
	k := &keptBy{t: t, stderr: new(bytes.Buffer)}
	k.env = &env{stdout: io.Discard, stderr: k.stderr, environ: []string{"HOME=/root", "PORTREEVE_BPFFS=" + n.BPFFS, "PORTREEVE_RUN_DIR=/nowhere", "PORTREEVE_HEARTBEAT=7s"}}
	command := &cobra.Command{}
	k.addSetting(command, "run-dir", "kernel.run_dir", "")
	if err := command.PersistentFlags().Set("run-dir", n.RunDir); err != nil {
		t.Fatal(err)
	}
	k.file.value = filepath.Join(n.Dir, "portreeve.yaml")
	if err := os.WriteFile(k.file.value, config.Minimal, 0o600); err != nil {
		t.Fatal(err)
	}
	k.given = apply.Given{
		Name:      k.file.value,
		Data:      config.Minimal,
		Environ:   k.environ[1:],
		Overrides: []config.Override{{Key: "kernel.run_dir", Value: n.RunDir, Source: "--run-dir"}},
	}
	var err error
	if k.config, err = k.given.Config(); err != nil {
		t.Fatal(err)
	}
	return k
}

// remembers expects a memory of what was given, or of nothing.
func (k *keptBy) remembers(when string, something, detaching bool) {
	k.t.Helper()
	path, err := statePath(k.config.Kernel.RunDir)
	if err != nil {
		k.t.Fatal(err)
	}
	m := apply.NewMemory(path)
	g, kept, err := m.Given()
	if err != nil || kept != something {
		k.t.Errorf("%s: kept %v, %v", when, kept, err)
	} else if diff := cmp.Diff(k.given, g); kept && diff != "" {
		k.t.Errorf("%s: %s", when, diff)
	}
	if is, err := m.Detaching(); err != nil || is != detaching {
		k.t.Errorf("%s: detaching %v, %v", when, is, err)
	}
}

// Who keeps the kernel side learns from attach of what it was made, and that it is to
// be kept no more from a detach, before anything is removed.
func TestAttachIsRemembered(t *testing.T) {
	n := testenv.ForTest(t)
	k := keeping(t, n)
	err := n.Gateway.Enter(func() error {
		k.remembers("before", false, false)
		if err := attach(k.t.Context(), k.env, manner{dryRun: true}); err != nil {
			return err
		}
		k.remembers("after a dry run", false, false)
		if err := k.prepare(k.t.Context(), k.config); err != nil {
			return err
		}
		k.remembers("before connections are led anywhere", false, false)
		if _, err := k.move(k.config, k.given, daemon.Known(0)); err != nil {
			return err
		}
		k.remembers("after run --attach", true, false)
		if err := detach(k.t.Context(), k.env, true); err != nil {
			return err
		}
		k.remembers("after a dry detach", true, false)
		if err := detach(k.t.Context(), k.env, false); err != nil {
			return err
		}
		k.remembers("after detach", false, false)
		if err := attach(k.t.Context(), k.env, manner{}); err != nil {
			return err
		}
		k.remembers("after attach", true, false)
		return detach(k.t.Context(), k.env, false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.RunDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("detach has left the run directory: %v", err)
	}
}

// An attach of which nothing can be written down is one all the same. What was written
// before is gone.
func TestAttachThatCannotBeRemembered(t *testing.T) {
	n := testenv.ForTest(t)
	k := keeping(t, n)
	err := n.Gateway.Enter(func() error {
		if err := attach(k.t.Context(), k.env, manner{}); err != nil {
			return err
		}
		path, err := statePath(k.config.Kernel.RunDir)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(path+".config.new/in the way", 0o700); err != nil {
			return err
		}
		if err := attach(k.t.Context(), k.env, manner{}); err != nil {
			return err
		}
		k.remembers("while it cannot be written", false, false)
		if !strings.Contains(k.stderr.String(), "warning: remember the configuration: ") {
			t.Errorf("it says: %s", k.stderr)
		}
		if changes, err := k.install(k.t.Context(), k.config, k.given, manner{dryRun: true}); err != nil || len(changes) > 0 {
			t.Errorf("not attached: %v, %v", changes, err)
		}
		if err := os.RemoveAll(path + ".config.new"); err != nil {
			return err
		}
		return detach(k.t.Context(), k.env, false)
	})
	if err != nil {
		t.Fatal(err)
	}
}
