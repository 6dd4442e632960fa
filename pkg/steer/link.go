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

// A link is pinned as link_PROGRAM, as link_PROGRAM_IFINDEX for TC, and as
// link_PROGRAM_VERSION of IP for netfilter: the name says what it ought to run
// and where, even when its interface is gone.
const (
	linkPrefix = "link_"
	lookupLink = linkPrefix + bpfProgSteerLookup
)

// programNames lists all programs in a fixed order. The one of the netfilter
// links is not loaded where the kernel has none.
func programNames() []string {
	return []string{
		bpfProgSteerLookup, bpfProgSteerClient, bpfProgSteerClientL3, bpfProgSteerOrigin, bpfProgSteerOriginL3,
		bpfProgSteerWall, bpfProgSteerWallL3, bpfProgSteerLoop, bpfProgSteerForward, bpfProgSteerForwardMatch,
	}
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

// tcPrograms are the TC programs by what they are for, first the one for packets
// that begin with an Ethernet header, then the one for all others.
var tcPrograms = map[plan.TC][2]string{
	{Side: plan.ClientSide}:               {bpfProgSteerClient, bpfProgSteerClientL3},
	{Side: plan.OriginSide}:               {bpfProgSteerOrigin, bpfProgSteerOriginL3},
	{Side: plan.OriginSide, Egress: true}: {bpfProgSteerWall, bpfProgSteerWallL3},
	{Side: plan.LoopSide, Egress: true}:   {bpfProgSteerLoop, bpfProgSteerLoop}, // our own link is Ethernet
}

// tcProgram names the TC program for an item, whatever its interface and the
// way in which it is attached.
func tcProgram(t plan.TC, l2 bool) (string, error) {
	programs, found := tcPrograms[plan.TC{Side: t.Side, Egress: t.Egress}]
	switch {
	case !found:
		return "", fmt.Errorf("no TC program is for %s", t)
	case l2:
		return programs[0], nil
	}
	return programs[1], nil
}

// programAt names the TC program for an item by what its interface is.
func programAt(t plan.TC) (string, error) {
	l2, err := hasL2(t.Interface)
	if err != nil {
		return "", err
	}
	return tcProgram(t, l2)
}

// tcOf returns the item of a TC program, without its interface; false for
// another program.
func tcOf(program string) (plan.TC, bool) {
	for t, programs := range tcPrograms {
		if slices.Contains(programs[:], program) {
			return t, true
		}
	}
	return plan.TC{}, false
}

// linkName is the pin of a TC program's link.
func linkName(program string, ifindex uint32) string {
	return linkPrefix + program + "_" + strconv.FormatUint(uint64(ifindex), 10)
}

// parseLink splits the name of a link's pin. The number is the interface's, for
// netfilter the version of IP, and 0 for sk_lookup.
func parseLink(name string) (program string, number uint32, ok bool) {
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
	number  uint32 // of the interface that it was attached to, see parseLink
}

// alive reports whether the kernel still runs the link's program: the link
// outlives its interface and its network namespace, but does nothing then.
func (l pinnedLink) alive(netns uint64) bool {
	if l.program == bpfProgSteerLookup {
		ns := l.info.NetNs()
		return ns != nil && uint64(ns.NetnsInode) == netns
	}
	if l.program == bpfProgSteerForward {
		return l.info.Netfilter() != nil // it keeps its network namespace alive, so that is ours
	}
	tcx := l.info.TCX()
	return tcx != nil && tcx.Ifindex == l.number
}

// item is what the link is in a plan; false for one that does nothing here: a
// sk_lookup link left by a network namespace whose inode came to be ours.
func (l pinnedLink) item(netns uint64, names map[uint32]string) (plan.Item, bool) {
	alive := l.alive(netns)
	switch t, isTC := tcOf(l.program); {
	case isTC && alive:
		t.Interface = nameOf(names, l.number)
		return t, true
	case isTC: // its interface is gone: it can be removed
		t.Interface = gone(l.number)
		return t, true
	case l.program == bpfProgSteerForward:
		return plan.Forward{Family: plan.Family(l.number)}, alive
	}
	return plan.Lookup{}, alive
}

// haveLinks reads the links.
func (s *Steer) haveLinks(set *pinSet) ([]plan.Item, error) {
	names, err := ifaceNames()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	var programs, beside []ebpf.ProgramID
	err = s.dir().eachLink(func(l pinnedLink) error {
		if item, does := l.item(s.netns, names); does {
			items, programs = append(items, item), append(programs, l.info.Program)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	without, err := s.unpinned("")
	if err != nil {
		return nil, err
	}
	defer without.close()
	for _, l := range without {
		item, does := l.item(s.netns, names)
		if !does {
			continue
		}
		n := slices.IndexFunc(items, func(i plan.Item) bool { return i.Kind() == item.Kind() && i.Key() == item.Key() })
		if l.program == bpfProgSteerForward && (n >= 0 || !stands(l, set.programs[l.program])) {
			continue
		}
		if n < 0 {
			n, items, programs = len(items), append(items, item), append(programs, l.info.Program)
		}
		items[n], beside = unpin(items[n]), append(beside, l.info.Program)
	}
	return items, markBehind(items, programs, beside)
}

// unpin says of an item that there is a link without a pin.
func unpin(item plan.Item) plan.Item {
	switch i := item.(type) {
	case plan.TC:
		i.Unpinned = true
		return i
	case plan.Lookup:
		i.Unpinned = true
		return i
	case plan.Forward:
		i.Unpinned = true
		return i
	}
	return item
}

// pinOnce sees to it that one link of a name is attached and pinned. One that is at work
// already stays; others beside it are ended.
func (s *Steer) pinOnce(name string, p *ebpf.Program, attach func() (link.Link, error)) error {
	id, err := s.pinnedAs(name)
	if err == nil && id == 0 {
		id, err = s.pinAnother(name, p, attach)
	}
	if err != nil {
		return err
	}
	return errors.Join(s.endUnpinned(name, id), s.dir().endLink(name+ending), removePin(s.dir().pin(name+building)))
}

// pinnedAs returns the living link that is pinned by a name; 0 for none.
func (s *Steer) pinnedAs(name string) (link.ID, error) {
	l, err := s.dir().openLink(name)
	if err != nil || l == nil {
		return 0, err
	}
	defer l.Close()
	if !l.alive(s.netns) {
		return 0, nil
	}
	return l.info.ID, nil
}

// pinAnother pins a link in place of one that does nothing, or is not there.
func (s *Steer) pinAnother(name string, p *ebpf.Program, attach func() (link.Link, error)) (link.ID, error) {
	if err := removePin(s.dir().pin(name)); err != nil {
		return 0, err
	}
	adopted, err := s.adopt(name, p)
	if adopted != 0 || err != nil {
		return adopted, err
	}
	if err := s.dir().endLink(name + ending); err != nil {
		return 0, err
	}
	l, err := attach()
	if err != nil {
		return 0, err
	}
	defer l.Close() // what is pinned stays attached
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	return info.ID, s.dir().pinLink(name, l)
}

func (s *Steer) addLookup(set *pinSet) error {
	return s.pinOnce(lookupLink, set.programs[bpfProgSteerLookup], func() (link.Link, error) {
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

// addTC attaches a TC program, before those that are there: one before ours
// could end the chain, or change what we look at.
func (s *Steer) addTC(i plan.TC) error {
	set, err := s.open()
	if err != nil {
		return err
	}
	name, err := programAt(i)
	if err != nil {
		return err
	}
	if i.Clsact {
		return s.filters.Add(i, set.programs[name].FD())
	}
	ifindex, err := ifaceIndex(i.Interface)
	if err != nil {
		return err
	}
	return s.pinOnce(linkName(name, ifindex), set.programs[name], func() (link.Link, error) {
		return attachTCX(ifindex, set.programs[name], i.Egress)
	})
}

// hookOf is the TCX hook of a direction.
func hookOf(egress bool) ebpf.AttachType {
	if egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func attachTCX(ifindex uint32, p *ebpf.Program, egress bool) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{Interface: int(ifindex), Program: p, Attach: hookOf(egress), Anchor: link.Head()})
}

// removeLink ends a link, with its pin and without.
func (s *Steer) removeLink(name string) error {
	return errors.Join(s.dir().removeLink(name), s.endUnpinned(name, 0))
}

// removeTC ends a TCX link, or removes a filter.
func (s *Steer) removeTC(i plan.TC) error {
	if i.Clsact {
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
		name, err := tcProgram(i, l2)
		failed = errors.Join(failed, err, s.removeLink(linkName(name, index)))
	}
	return failed
}
