package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// forwardPriorities are where the wall at FORWARD stands: before the rules of
// iptables and nftables, so that none of theirs keeps a packet from it. The
// kernel gives a priority to one hook only, whosever; a newer program takes the
// next that is free.
var forwardPriorities = [...]int32{-301, -302, -303, -304}

// forwardLink is the pin of a family's link at FORWARD.
func forwardLink(f plan.Family) string { return linkName(bpfProgSteerForward, uint32(f)) }

func (s *Steer) addForward(set *pinSet, i plan.Forward) error {
	p := set.programs[bpfProgSteerForward]
	if p == nil {
		return errors.New("the pinned programs are of a kernel without netfilter links; run portreeve detach, then attach")
	}
	return s.pinOnce(forwardLink(i.Family), p, func() (link.Link, error) { return attachForward(i.Family, p) })
}

// attachForward attaches to the network namespace of the calling thread.
func attachForward(f plan.Family, p *ebpf.Program) (link.Link, error) {
	family := link.NetfilterProtoIPv4
	if f == plan.IPv6 {
		family = link.NetfilterProtoIPv6
	}
	var taken error
	for _, priority := range forwardPriorities {
		l, err := attachAt(family, priority, p)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach to FORWARD of %s: %w", f, err)
		}
		taken = err
	}
	return nil, fmt.Errorf("attach to FORWARD of %s at one of the priorities %d: %w", f, forwardPriorities, taken)
}

func attachAt(family link.NetfilterProtocolFamily, priority int32, p *ebpf.Program) (link.Link, error) {
	return link.AttachNetfilter(link.NetfilterOptions{
		Program: p, ProtocolFamily: family, Hook: link.NetfilterInetForward, Priority: priority,
	})
}

// stands reports whether a link at FORWARD was not ended, which the kernel does not show. It
// gives the place of one that was to another; the same program stands there for the trial.
func stands(l pinnedLink, p *ebpf.Program) bool {
	at := l.info.Netfilter()
	if at == nil || p == nil {
		return false
	}
	trial, err := attachAt(at.ProtocolFamily, at.Priority, p)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	trial.Close()
	return false
}

// replaceForward puts another program in place of the one that a link at
// FORWARD runs, which the kernel cannot do in one step: the new link stands
// before the old one is ended.
func (s *Steer) replaceForward(l pinnedLink, p *ebpf.Program) error {
	next, err := attachForward(plan.Family(l.number), p)
	if err != nil {
		return err
	}
	defer next.Close()
	if err := s.dir().removeLink(l.name); err != nil {
		return errors.Join(err, next.Detach())
	}
	return next.Pin(s.dir().pin(l.name))
}

// NFLinksSupported reports whether the wall at FORWARD can be a netfilter
// link, by trying. An error means that the trial could not tell.
func NFLinksSupported() (bool, error) {
	err := tryNetfilter()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, explain(err)
}

// tryNetfilter loads a program of the type, and looks for what ours calls.
func tryNetfilter() error {
	err := load(&ebpf.ProgramSpec{
		Name: "steer_probe", Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if errors.Is(err, unix.EINVAL) { // a program type that the kernel does not know
		return fmt.Errorf("no netfilter programs: %w", ebpf.ErrNotSupported)
	}
	if err != nil {
		return err
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("no type information of the kernel (CONFIG_DEBUG_INFO_BTF): %w", errors.Join(ebpf.ErrNotSupported, err))
	}
	if _, err := types.AnyTypeByName("bpf_dynptr_from_skb"); err != nil {
		return fmt.Errorf("netfilter programs cannot read packets: %w", errors.Join(ebpf.ErrNotSupported, err))
	}
	return nil
}

// loadable returns what of the compiled objects this kernel takes.
func loadable() (*ebpf.CollectionSpec, error) {
	all, err := embedded()
	if err != nil {
		return nil, err
	}
	has, err := NFLinksSupported()
	if err != nil {
		return nil, err
	}
	spec := all.Copy()
	if !has {
		delete(spec.Programs, bpfProgSteerForward)
	}
	return spec, nil
}

// MatchPath returns where the program is pinned that a rule in FORWARD asks
// where the kernel has no netfilter links, for the network namespace of the
// calling thread.
func MatchPath(bpffs string) (string, error) {
	netns, err := currentNetns()
	if err != nil {
		return "", err
	}
	s := &Steer{bpffs: bpffs, netns: netns}
	return s.dir().pin(bpfProgSteerForwardMatch), nil
}
