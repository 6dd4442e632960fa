package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const modulePath = "github.com/portreeve/portreeve"

// hands are the packages that touch the kernel. The tests of a package that
// links one of them, itself or by way of others, are data-path tests.
var hands = []string{"pkg/steer", "pkg/route", "pkg/netfilter", "pkg/sockopt", "testenv", "testenv/alone"}

// elsewhere are packages whose tests build programs with the go command, or start mail
// servers, of which a guest has Postfix alone; what they do to the kernel, others do too.
var elsewhere = []string{"testenv/bench", "testenv/demo", "testenv/differential", "testenv/mta"}

// leftOut are tests with programs that a guest does not have: Prometheus is 300
// MB, and that, HAProxy and TLS are no kernel's affair. Chaos has a limit of ten seconds
// that is a real machine's. Firewalls want Python, and what they ask of the kernel, rules
// do that other tests write.
const leftOut = "^Test(Monitored|Balanced|TLS|TLSPeers|Chaos|RealFirewalls)$"

// ownFlags are those that a package's tests have besides. 20,000 SYNs on each of
// the eight kinds of link take an emulated kernel some five minutes; 50,000 took
// eight, and showed no more.
var ownFlags = map[string]string{"testenv/clothes": "-packets=20000"}

// packageTimeout bounds one test binary, so that a test that hangs shows its
// goroutines before the guest's time is up.
const packageTimeout = 40 * time.Minute

//go:embed allowed-skips
var allowedSkipsFile string

// suite is what runs on each kernel.
type suite struct {
	packages []string // paths below the root of the tree, in the order of running
	binaries string   // directory of PACKAGE.test, portreeve and the file "list": a package and flags of its own a line
	pattern  string   // of the tests to run; empty: all
	allowed  []allowedSkip
}

// buildSuite compiles the tests of the packages, or of all that have data-path
// tests if none is named. They are static, since a guest has other libraries.
func buildSuite(ctx context.Context, space *space, o options) (*suite, error) {
	s := &suite{
		packages: o.packages,
		binaries: filepath.Join(space.dir, "tests"),
		pattern:  o.pattern,
	}
	var err error
	if s.allowed, err = parseAllowedSkips(allowedSkipsFile); err != nil {
		return nil, err
	}
	if len(o.packages) == 0 {
		if s.packages, err = findPackages(ctx, space.root); err != nil {
			return nil, err
		}
	}
	if err := compile(ctx, space.root, "cmd/portreeve", filepath.Join(s.binaries, "portreeve"), "build"); err != nil {
		return nil, err
	}
	for _, p := range s.packages {
		if err := compile(ctx, space.root, p, filepath.Join(s.binaries, p+".test"), "test", "-c"); err != nil {
			return nil, err
		}
	}
	var list strings.Builder
	for _, p := range s.packages {
		fmt.Fprintln(&list, p, ownFlags[p])
	}
	return s, os.WriteFile(filepath.Join(s.binaries, "list"), []byte(list.String()), 0o644)
}

// flags are those of each test binary. An emulated kernel is some twenty times
// slower than a real one: tests that repeat themselves take fewer rounds.
func (s *suite) flags() []string {
	return []string{"-test.short", "-test.timeout=" + packageTimeout.String(), "-test.run=" + s.pattern, "-test.skip=" + leftOut}
}

// runs says whether a test is sure to be among those that run.
func (s *suite) runs(t test) bool {
	return s.pattern == "" && slices.Contains(s.packages, t.pkg)
}

// findPackages lists the packages whose tests link one of the hands.
func findPackages(ctx context.Context, root string) ([]string, error) {
	list, err := outputIn(ctx, root, "go", "list", "-test", "-json=ImportPath,Deps", "./...")
	if err != nil {
		return nil, err
	}
	var found []string
	decoder := json.NewDecoder(strings.NewReader(list))
	for {
		var p struct {
			ImportPath string
			Deps       []string
		}
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the output of go list: %w", err)
		}
		// X.test is the test binary of X.
		of, ok := strings.CutSuffix(p.ImportPath, ".test")
		of = strings.TrimPrefix(of, modulePath+"/")
		if ok && linksHand(p.Deps) && !slices.Contains(elsewhere, of) {
			found = append(found, of)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("find the data-path tests: no package has any")
	}
	return found, nil
}

// linksHand says whether the dependencies of a test binary contain a hand. One
// that was compiled anew for the test is listed as "X [X.test]".
func linksHand(deps []string) bool {
	return slices.ContainsFunc(deps, func(dep string) bool {
		dep, _, _ = strings.Cut(dep, " ")
		return slices.Contains(hands, strings.TrimPrefix(dep, modulePath+"/"))
	})
}

// compile makes a program from a package, with a verb of the go command.
func compile(ctx context.Context, root, pkg, binary string, verb ...string) error {
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return err
	}
	args := append(verb, "-ldflags", "-s -w", "-o", binary, "./"+pkg)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w: %s", pkg, err, out)
	}
	return nil
}
