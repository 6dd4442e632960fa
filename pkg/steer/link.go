package steer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A link is pinned as link_PROGRAM, or link_PROGRAM_IFINDEX for TC: the name
// says what it ought to run and where, even when its interface is gone.
const (
	linkPrefix = "link_"
	lookupLink = linkPrefix + bpfProgSteerLookup
)

// programNames lists all programs in a fixed order.
func programNames() []string {
	return []string{bpfProgSteerLookup, bpfProgSteerClient, bpfProgSteerClientL3, bpfProgSteerOrigin, bpfProgSteerOriginL3}
}

// OwnProgram reports whether a program is one of ours, whoever pinned it and
// of whatever build; it tells our clsact filters from others of the same name.
// It needs CAP_SYS_ADMIN, as the kernel asks for it to open objects by number.
func OwnProgram(id uint32) bool {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && slices.Contains(programNames(), info.Name)
}

// tcProgram names the TC program of a side, for packets that begin with an
// Ethernet header or with the IP header.
func tcProgram(side plan.Side, l2 bool) (string, error) {
	switch {
	case side == plan.ClientSide && l2:
		return bpfProgSteerClient, nil
	case side == plan.ClientSide:
		return bpfProgSteerClientL3, nil
	case side == plan.OriginSide && l2:
		return bpfProgSteerOrigin, nil
	case side == plan.OriginSide:
		return bpfProgSteerOriginL3, nil
	}
	return "", fmt.Errorf("no TC program is for side %s", side)
}

// sideOf is the side of a TC program.
func sideOf(program string) plan.Side {
	if program == bpfProgSteerClient || program == bpfProgSteerClientL3 {
		return plan.ClientSide
	}
	return plan.OriginSide
}

// linkName is the pin of a TC program's link.
func linkName(program string, ifindex uint32) string {
	return linkPrefix + program + "_" + strconv.FormatUint(uint64(ifindex), 10)
}

// parseLink splits the name of a link's pin; ifindex is 0 for sk_lookup.
func parseLink(name string) (program string, ifindex uint32, ok bool) {
	if name == lookupLink {
		return bpfProgSteerLookup, 0, true
	}
	for _, p := range programNames()[1:] {
		digits, found := strings.CutPrefix(name, linkPrefix+p+"_")
		if !found {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			return p, uint32(n), true
		}
	}
	return "", 0, false
}

// pinnedLink is a link of ours, opened.
type pinnedLink struct {
	link.Link
	info    *link.Info
	name    string // of the pin
	program string // that it ought to run
	ifindex uint32 // that it was attached to; 0 for sk_lookup
}

// alive reports whether the kernel still runs the link's program: the link
// outlives its interface and its network namespace, but does nothing then.
func (l pinnedLink) alive(netns uint64) bool {
	if l.program == bpfProgSteerLookup {
		ns := l.info.NetNs()
		return ns != nil && uint64(ns.NetnsInode) == netns
	}
	tcx := l.info.TCX()
	return tcx != nil && tcx.Ifindex == l.ifindex
}

// eachLink calls f for each pinned link. A pin that is no link of ours is left
// out: removing the directory removes it too.
func (s *Steer) eachLink(f func(pinnedLink) error) error {
	pins, err := names(s.dir(), linkPrefix)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, name := range pins {
		l, err := s.openLink(name)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		err = f(*l)
		l.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// openLink opens the pin of a link; nil if it is none of ours.
func (s *Steer) openLink(name string) (*pinnedLink, error) {
	program, ifindex, ok := parseLink(name)
	if !ok {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(s.pin(name), nil)
	if isDenied(err) {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if err != nil {
		return nil, nil
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return &pinnedLink{l, info, name, program, ifindex}, nil
}

// haveLinks reads the links. A dead sk_lookup link, left by a network
// namespace whose inode came to be ours, is none; a TCX link whose interface
// is gone is one that can be removed.
func (s *Steer) haveLinks(*pinSet) ([]plan.Item, error) {
	names, err := ifaceNames()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	err = s.eachLink(func(l pinnedLink) error {
		alive := l.alive(s.netns)
		switch {
		case l.program != bpfProgSteerLookup && alive:
			items = append(items, plan.TC{Interface: nameOf(names, l.ifindex), Side: sideOf(l.program)})
		case l.program != bpfProgSteerLookup:
			items = append(items, plan.TC{Interface: gone(l.ifindex), Side: sideOf(l.program)})
		case alive:
			items = append(items, plan.Lookup{})
		}
		return nil
	})
	return items, err
}

// pinOnce makes a link and pins it, unless a living one is pinned.
func (s *Steer) pinOnce(name string, attach func() (link.Link, error)) error {
	old, err := s.openLink(name)
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Close()
		if old.alive(s.netns) {
			return nil
		}
	}
	if err := removePin(s.pin(name)); err != nil {
		return err
	}
	l, err := attach()
	if err != nil {
		return err
	}
	defer l.Close() // what is pinned stays attached
	if err := l.Pin(s.pin(name)); err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	return nil
}

func (s *Steer) addLookup(set *pinSet) error {
	return s.pinOnce(lookupLink, func() (link.Link, error) {
		netns, err := os.Open(threadNetns)
		if err != nil {
			return nil, err
		}
		defer netns.Close()
		l, err := link.AttachNetNs(int(netns.Fd()), set.programs[bpfProgSteerLookup])
		if err != nil {
			return nil, fmt.Errorf("attach sk_lookup to the network namespace: %w", err)
		}
		return l, nil
	})
}

// addTC attaches a TC program, behind those that are there: theirs come first.
func (s *Steer) addTC(i plan.TC) error {
	set, err := s.open()
	if err != nil {
		return err
	}
	l2, err := hasL2(i.Interface)
	if err != nil {
		return err
	}
	name, err := tcProgram(i.Side, l2)
	if err != nil {
		return err
	}
	if i.Clsact {
		return s.addFilter(i, set.programs[name])
	}
	ifindex, err := ifaceIndex(i.Interface)
	if err != nil {
		return err
	}
	return s.pinOnce(linkName(name, ifindex), func() (link.Link, error) {
		return attachTCX(ifindex, set.programs[name])
	})
}

func attachTCX(ifindex uint32, p *ebpf.Program) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{
		Interface: int(ifindex),
		Program:   p,
		Attach:    ebpf.AttachTCXIngress,
		Anchor:    link.Tail(),
	})
}

var errNoFilters = errors.New("this command cannot change clsact filters")

func (s *Steer) addFilter(i plan.TC, p *ebpf.Program) error {
	if s.filters == nil {
		return errNoFilters
	}
	return s.filters.Add(i, p.FD(), filterName(i.Side))
}

// filterName is the name of a side's filter in clsact.
func filterName(side plan.Side) string { return "portreeve_" + side.String() }

// replaceFilters installs new programs in place of all clsact filters of ours.
func (s *Steer) replaceFilters(programs map[string]*ebpf.Program) error {
	if s.filters == nil {
		return nil
	}
	filters, err := s.filters.Have()
	if err != nil {
		return fmt.Errorf("read clsact filters: %w", err)
	}
	for _, f := range filters {
		l2, err := hasL2(f.Interface)
		if err != nil {
			return err
		}
		name, err := tcProgram(f.Side, l2)
		if err != nil {
			return err
		}
		if err := s.filters.Add(f, programs[name].FD(), filterName(f.Side)); err != nil {
			return err
		}
	}
	return nil
}

// removeTC removes the pin of a TCX link, and with it the link.
func (s *Steer) removeTC(i plan.TC) error {
	if i.Clsact {
		if s.filters == nil {
			return errNoFilters
		}
		return s.filters.Remove(i)
	}
	index, isGone := Gone(i.Interface)
	if !isGone {
		var err error
		if index, err = ifaceIndex(i.Interface); err != nil {
			return nil // it shows as a link of an interface that is gone from now on
		}
	}
	var failed error
	for _, l2 := range []bool{true, false} {
		name, err := tcProgram(i.Side, l2)
		failed = errors.Join(failed, err, removePin(s.pin(linkName(name, index))))
	}
	return failed
}
