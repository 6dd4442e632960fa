package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A link outlives its pin while somebody holds it: an inspector does. The watcher pins again
// what it has seen, but what was attached since its last look it has not. Such a link cannot
// be made a second time, for the kernel takes a program only once at a TCX hook, and it does
// not end by itself. So it is looked for in the kernel, and pinned again or ended. That takes
// CAP_SYS_ADMIN: who does not have it sees the pins alone.

// unpinned are links of ours in this network namespace which are not pinned by their names.
// One that is pinned by the name of what is not yet in use, or is being ended, is among
// them. Those at FORWARD may have been ended, which the kernel does not show.
type unpinned []pinnedLink

func (u unpinned) close() {
	for _, l := range u {
		l.Close()
	}
}

// endIt ends a link that may have ended already.
func endIt(l link.Link) error {
	err := l.Detach()
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOLINK) {
		return nil
	}
	return err
}

// unpinned looks for the links whose pins ought to have a name; "" are all.
func (s *Steer) unpinned(name string) (unpinned, error) {
	f := finder{name: name, netns: s.netns, pinned: map[link.ID]bool{}}
	err := f.know(s.dir())
	if err == nil {
		err = f.look()
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		f.found.close()
		return nil, fmt.Errorf("look for links without a pin: %w", err)
	}
	return f.found, nil
}

// finder looks for links without a pin.
type finder struct {
	name   string // see Steer.unpinned
	netns  uint64
	pinned map[link.ID]bool
	maps   []ebpf.MapID // those that are pinned
	found  unpinned
}

// know reads what is pinned. There may be nothing.
func (f *finder) know(dir pinDir) error {
	set, err := openSet(dir)
	if errors.Is(err, ErrNotAttached) {
		return nil
	}
	if err != nil {
		return err
	}
	defer set.Close()
	for _, m := range set.maps {
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		f.maps = append(f.maps, id)
	}
	err = dir.eachLink(func(l pinnedLink) error {
		f.pinned[l.info.ID] = true
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // unmounted since
	}
	return err
}

// look looks where the links can be: the kernel tells what is at a TCX hook, of the others
// it has but one list.
func (f *finder) look() error {
	program, ifindex, named := parseLink(f.name)
	_, isTC := tcOf(program)
	if isTC {
		return f.atInterface(ifindex)
	}
	if named {
		return f.elsewhere()
	}
	names, err := ifaceNames()
	if err != nil {
		return err
	}
	for ifindex := range names {
		if err := f.atInterface(ifindex); err != nil {
			return err
		}
	}
	return f.elsewhere()
}

// atInterface finds links at the TCX hooks of an interface.
func (f *finder) atInterface(ifindex uint32) error {
	for _, egress := range []bool{false, true} {
		chain, err := chainOf(ifindex, egress)
		if errors.Is(err, unix.ENODEV) {
			return nil // gone since
		}
		if err != nil {
			return err
		}
		for _, at := range chain {
			id, _ := at.LinkID()
			program := nameOfProgram(at.ID)
			t, isTC := tcOf(program)
			if id == 0 || f.pinned[id] || !isTC || t.Egress != egress {
				continue
			}
			l, err := link.NewFromID(id)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has ended
			}
			if err != nil {
				return err
			}
			if err := f.take(l, program, ifindex); err != nil {
				return err
			}
		}
	}
	return nil
}

// elsewhere finds the links of sk_lookup and at FORWARD.
func (f *finder) elsewhere() error {
	var failed error
	err := eachInKernel(func(all *link.Iterator) bool {
		if f.pinned[all.ID] {
			return true
		}
		info, err := all.Link.Info()
		if err != nil {
			return true // of a kind that is none of ours
		}
		switch {
		case info.NetNs() != nil && steersHere(all.Link, f.netns):
			failed = f.take(all.Take(), bpfProgSteerLookup, 0)
		case info.Netfilter() != nil && f.isForward(info.Program):
			failed = f.take(all.Take(), bpfProgSteerForward, uint32(familyOf(info.Netfilter())))
		}
		return failed == nil
	})
	return errors.Join(failed, err)
}

func familyOf(at *link.NetfilterInfo) plan.Family {
	if at.ProtocolFamily == link.NetfilterProtoIPv6 {
		return plan.IPv6
	}
	return plan.IPv4
}

// isForward reports whether a program is ours at FORWARD, in this network namespace: it
// works with the maps that are pinned. Its link does not tell where it is.
func (f *finder) isForward(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name != bpfProgSteerForward {
		return false
	}
	maps, _ := info.MapIDs()
	return slices.ContainsFunc(maps, func(m ebpf.MapID) bool { return slices.Contains(f.maps, m) })
}

// take takes a link that was found, if it is looked for.
func (f *finder) take(l link.Link, program string, number uint32) error {
	name := lookupLink
	if program != bpfProgSteerLookup {
		name = linkName(program, number)
	}
	if f.name != "" && f.name != name {
		return l.Close()
	}
	info, err := l.Info()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	f.found = append(f.found, pinnedLink{l, info, name, program, number})
	return nil
}

// adopt pins a link again that has lost its pin, as it is, and has it run a program. It
// returns 0 where there is none. One at FORWARD is made anew, for it may have ended.
func (s *Steer) adopt(name string, p *ebpf.Program) (link.ID, error) {
	if isForwardLink(name) {
		return 0, nil
	}
	found, err := s.unpinned(name)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	defer found.close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	runsIt := func(l pinnedLink) bool { return l.info.Program == id }
	l := found[max(0, slices.IndexFunc(found, runsIt))]
	if err := s.dir().pinAgain(name, l); err != nil || runsIt(l) {
		return l.info.ID, err
	}
	if err := l.Update(p); err != nil {
		return 0, fmt.Errorf("replace the program of %s: %w", name, err)
	}
	return l.info.ID, nil
}

// endUnpinned ends the links of a name that are not pinned by it, "" are all; but not one
// that was pinned a moment ago: the pin may be lost since.
func (s *Steer) endUnpinned(name string, but link.ID) error {
	found, err := s.unpinned(name)
	if err != nil {
		return err
	}
	defer found.close()
	var failed error
	for _, l := range found {
		if l.info.ID == but {
			continue
		}
		if err := endIt(l.Link); err != nil {
			failed = errors.Join(failed, fmt.Errorf("end %s, which has no pin: %w", l.name, err))
		}
	}
	return failed
}
