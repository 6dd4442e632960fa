package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

// lockWait is how long a verb that changes the kernel side waits for another.
const lockWait = 10 * time.Second

// noWait is for one who comes again.
const noWait = 0

// kernelSide is what the verbs about the kernel work with: the hands of this
// network namespace, the journal of what they made, and what is remembered of why.
type kernelSide struct {
	steer  *steer.Steer // nil where there is no BPF file system
	runner *apply.Runner
	memory apply.Memory
	lock   *apply.Lock // nil for a verb that only looks
	state  string      // the files of this network namespace, without their endings
}

// openKernel opens the kernel side to look at it. With change it is locked
// against other runners first. When ctx ends, nothing is waited for, and no change of a
// plan is begun.
func openKernel(ctx context.Context, k config.Kernel, change bool) (*kernelSide, error) {
	return openKernelWith(ctx, netfilter.New().Until(ctx), k, change, lockWait)
}

// openKernelWith is openKernel with a hand on the packet filter that may know it
// already, and with the time to wait for the lock.
func openKernelWith(ctx context.Context, filters *netfilter.Hand, k config.Kernel, change bool, wait time.Duration) (*kernelSide, error) {
	state, err := statePath(k.RunDir)
	if err != nil {
		return nil, err
	}
	s := &kernelSide{memory: apply.NewMemory(state), state: state}
	if change {
		if s.lock, err = apply.Acquire(ctx, state+".lock", wait); err != nil {
			return nil, err
		}
	}
	journal, err := apply.OpenJournal(state + ".journal")
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.runner = &apply.Runner{Journal: journal, Halt: func() error { return halted(ctx) }, Hands: []apply.Hand{
		route.New(route.Options{Tables: append(made(journal), k.Table, k.LoopTable), Made: made(journal)}),
		filters,
	}}
	return s, nil
}

// useSteer adds the hand that needs a BPF file system.
func (s *kernelSide) useSteer(bpffs string) error {
	hand, err := steer.New(bpffs)
	if err != nil {
		return err
	}
	hand.UseFilters(filters())
	s.steer = hand
	s.runner.Hands = append(s.runner.Hands, hand)
	return nil
}

// filters attaches TC programs where the kernel has no TCX. A filter is ours
// if its program is, or was loaded from one of our pins.
func filters() steer.Filters { return route.NewFilters(steer.OwnProgram) }

func (s *kernelSide) close() error {
	var err error
	if s.steer != nil {
		err = s.steer.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	return err
}

// statePath is where the files of this network namespace are, without
// their endings. The name is the namespace's cookie (Linux 5.14), which is
// never given to another: an inode is, and what one namespace's journal says
// we made there would be taken away from the next, whoever made it.
func statePath(runDir string) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return filepath.Join(runDir, strconv.FormatUint(cookie, 10)), nil
}

// made are the routing tables that hold rules and routes of ours, as the journal says. A
// rule may be there whose route is gone.
func made(j *apply.Journal) (known []uint32) {
	for _, i := range j.Items() {
		switch i := i.(type) {
		case plan.Route:
			known = append(known, i.Table)
		case plan.Rule:
			known = append(known, i.Table)
		}
	}
	return known
}

// facts asks the machine what a plan depends on.
func facts(c *config.Config) (plan.Facts, error) {
	f, err := features(c)
	if err != nil {
		return f, err
	}
	return f, refresh(&f)
}

// features are the facts that stay as they are while the machine runs.
func features(c *config.Config) (f plan.Facts, err error) {
	if f.TCX, err = steer.TCXSupported(); err != nil {
		return f, fmt.Errorf("try TCX links: %w", err)
	}
	if f.NFLinks, err = steer.NFLinksSupported(); err != nil {
		return f, fmt.Errorf("try netfilter links: %w", err)
	}
	if f.Match, err = steer.MatchPath(c.Kernel.BPFFS); err != nil {
		return f, err
	}
	f.Legacy, err = legacy(c.Kernel.Netfilter)
	return f, err
}

// refresh reads the facts that change: interfaces, addresses, what is forwarded.
func refresh(f *plan.Facts) error {
	links, err := route.Links()
	if err != nil {
		return err
	}
	f.Interfaces, f.VRFs, f.Forwarding = nil, map[string]string{}, map[string][]plan.Family{}
	for _, l := range links {
		f.Interfaces = append(f.Interfaces, l.Name)
		if families, known := route.Forwards(l.Name); known {
			f.Forwarding[l.Name] = families
		}
		if vrf := l.VRF(); vrf != "" {
			f.VRFs[l.Name] = vrf
		}
	}
	f.Local, err = route.LocalAddrs()
	return err
}

// legacy tells the flavour of iptables that our chains belong in.
func legacy(n config.Netfilter) (bool, error) {
	if n == config.NetfilterAuto {
		return netfilter.Legacy()
	}
	return n == config.NetfilterLegacy, nil
}

// wanted turns a configuration into the plan for this machine, with what there is
// to warn of. What does not fit the machine is an error.
func wanted(c *config.Config) ([]plan.Item, finding.List, error) {
	f, err := facts(c)
	if err != nil {
		return nil, nil, err
	}
	findings := plan.Judge(c, f)
	if findings.Failed() {
		return nil, nil, findings
	}
	return plan.Build(c, f), findings, nil
}

// warn prints findings that keep nothing from being done.
func (e *env) warn(findings finding.List) {
	for _, w := range findings {
		fmt.Fprintf(e.stderr, "portreeve: %s: %s\n", w.Severity, w)
	}
}
