package netfilter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// tallied puts scripts in place of the iptables commands, which count what they are asked.
// It returns what they were asked since.
func tallied(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	for _, base := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		for _, name := range []string{base, base + "-restore"} {
			path, err := lookPath(name)
			if err != nil {
				t.Fatal(err)
			}
			script := "#!/bin/sh\necho \"" + name + " $*\" >>" + asked + "\nexec " + path + " \"$@\"\n"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		data, _ := os.ReadFile(asked)
		os.Remove(asked)
		return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	}
}

// allOf carries changes out as apply does, those together that can be.
func allOf(t *testing.T, h *Hand, changes []plan.Change) {
	t.Helper()
	for len(changes) > 0 {
		var together []plan.Item
		op := changes[0].Op
		for len(changes) > 0 && changes[0].Op == op && h.Together(op, changes[0].Item) {
			together, changes = append(together, changes[0].Item), changes[1:]
		}
		if together == nil {
			run(t, h, changes[:1])
			changes = changes[1:]
		} else if err := h.All(op, together); err != nil {
			t.Fatal(err)
		}
	}
}

// What is made together is what is made one by one, in the same order, and it is removed
// together, beside the rules of an administrator.
func TestAllIsAsOneByOne(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		var shown []string
		for _, carry := range []func(*testing.T, *Hand, []plan.Change){run, allOf} {
			t.Run("", func(t *testing.T) {
				isolate(t)
				sh(t, foreign)
				h := New()
				changes := plan.Diff(nil, everything(legacy))
				carry(t, h, changes)
				carry(t, h, changes) // what is there stays as it is
				save := ""
				for _, c := range []string{"iptables", "ip6tables"} {
					for _, table := range []string{"raw", "mangle", "nat", "filter"} {
						save += sh(t, c+map[bool]string{false: "-nft", true: "-legacy"}[legacy]+" -t "+table+" -S")
					}
				}
				shown = append(shown, save)
				carry(t, h, plan.Diff(own(have(t, h)), nil))
				if left := own(have(t, h)); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
		if diff := cmp.Diff(shown[0], shown[1]); diff != "" {
			t.Errorf("legacy %t (-one by one +together):\n%s", legacy, diff)
		}
	}
}

// A watcher that puts all rules back starts a handful of processes, and none to see that
// all is as it was: on a busy machine each of them takes long.
func TestFewProcesses(t *testing.T) {
	isolate(t)
	asked := tallied(t)
	h := New()
	allOf(t, h, plan.Diff(nil, everything(false)))
	if all := asked(); len(all) > 4 { // two of them ask for the version
		t.Errorf("%d processes to make all: %s", len(all), strings.Join(all, "\n"))
	}
	have(t, h)
	asked()
	sh(t, "nft add table inet another")
	if have(t, h); len(asked()) > 0 {
		t.Error("a process is started to see what was seen before")
	}
	sh(t, "nft flush chain ip raw PORTREEVE-PREROUTING; nft add rule ip filter PORTREEVE-INPUT counter accept")
	want := text(have(t, New()))
	asked()
	if diff := cmp.Diff(want, text(have(t, h))); diff != "" {
		t.Error(diff)
	}
	if all := asked(); len(all) != 1 {
		t.Errorf("%d processes to see one chain: %s", len(all), strings.Join(all, "\n"))
	}
	allOf(t, h, plan.Diff(have(t, h), everything(false)))
	if diff := cmp.Diff(text(have(t, New())), text(have(t, h))); diff != "" {
		t.Error(diff)
	}

	// Where all was flushed in the middle of it, that is seen at once.
	sh(t, "nft flush ruleset")
	asked()
	var rules []plan.Item
	for _, i := range everything(false) {
		if h.Together(plan.Add, i) {
			rules = append(rules, i)
		}
	}
	if err := h.All(plan.Add, rules); !errors.Is(err, errOutrun) {
		t.Errorf("rules without chains: %v", err)
	}
	for _, i := range rules {
		if err := h.Add(i); !errors.Is(err, errOutrun) {
			t.Errorf("%s without its chain: %v", i, err)
		}
	}
	if all := asked(); len(all) > 0 {
		t.Errorf("%d processes for rules that have no chain: %s", len(all), strings.Join(all, "\n"))
	}
}
