// Command kernels runs the data-path tests on the kernels that Debian ships and
// on the one of this machine: `make test-kernels`.
//
// It owns what is below .build/kernels: the unpacked kernel packages, the
// static test binaries and the logs. It installs nothing and loads nothing into
// this machine's kernel. A guest is a kernel in QEMU without KVM and an
// initramfs that holds this tree, the test binaries and the tools of this
// machine that tests call; nothing in it comes from the network but the kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the command line can say.
type options struct {
	limit    time.Duration // for one kernel, with its boot
	packages []string      // below the root of the tree; empty: all with data-path tests
	pattern  string        // of the tests to run, as go test -run takes it
	only     []string      // names of machines; empty: all
}

func main() {
	runtime.LockOSThread() // a guest dies with the thread that started it, see boot
	// `go run` hands no signal on but what the terminal sends to both of us. When
	// it is killed we end too.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "kernels: ask for a signal at our parent's end: %v\n", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "kernels: %v\n", err)
		os.Exit(1)
	}
}

// command reads the arguments, runs the tests on each machine and prints the
// table.
func command(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("run the data-path tests: they make network namespaces: run this as root")
	}
	space, err := openSpace(ctx)
	if err != nil {
		return err
	}
	defer space.close()
	suite, err := buildSuite(ctx, space, o)
	if err != nil {
		return err
	}
	reports, err := runAll(ctx, o, space, suite)
	if err != nil {
		return err
	}
	printTable(os.Stdout, reports)
	return verdict(reports)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	flags.DurationVar(&o.limit, "limit", time.Hour, "how long one kernel may take")
	packages := flags.String("packages", "", "run the tests of these packages alone: pkg/steer,pkg/route")
	flags.StringVar(&o.pattern, "run", "", "run the tests alone that match, as with go test")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: kernels [-limit DURATION] [-packages LIST] [-run PATTERN] [%s]...\n", strings.Join(machineNames(), "|"))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *packages != "" {
		o.packages = strings.Split(*packages, ",")
	}
	o.only = flags.Args()
	for _, name := range o.only {
		if !slices.Contains(machineNames(), name) {
			return o, fmt.Errorf("no kernel is called %q: there are %s", name, strings.Join(machineNames(), ", "))
		}
	}
	return o, nil
}

// runAll runs the suite on each machine in turn: two at once would only make
// each other late.
func runAll(ctx context.Context, o options, space *space, suite *suite) ([]*report, error) {
	var reports []*report
	for _, m := range machines() {
		if len(o.only) > 0 && !slices.Contains(o.only, m.name) {
			continue
		}
		r := runOn(ctx, o, m, space, suite)
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("run the tests on kernel %s: %w", m.name, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// runOn runs the suite on one machine and judges what came back.
func runOn(ctx context.Context, o options, m machine, space *space, suite *suite) *report {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within %v (-limit)", o.limit))
	defer cancel()
	r := &report{machine: m.name}
	begun := time.Now()
	if err := m.run(ctx, space, suite, r); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		r.complain("%v", err)
	}
	r.took = time.Since(begun)
	r.judge(suite)
	return r
}

// verdict is nil when every report is clean.
func verdict(reports []*report) error {
	var bad []string
	for _, r := range reports {
		if len(r.problems) > 0 {
			bad = append(bad, r.machine)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("the tests failed on %s; complete output: %s/*.log", strings.Join(bad, ", "), spaceDir)
	}
	return nil
}
