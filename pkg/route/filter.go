package route

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// kinds are the filters that we have. Identity is name and program, never
// priority or handle: two programs that chose the same numbers have deleted each
// other's filters before.
var kinds = []plan.TC{
	{Side: plan.ClientSide, Clsact: true},
	{Side: plan.OriginSide, Clsact: true},
	{Side: plan.OriginSide, Clsact: true, Egress: true},
	{Side: plan.LoopSide, Clsact: true, Egress: true},
}

// hookOf returns the hook of a filter, as the parent that clsact gives it.
func hookOf(t plan.TC) uint32 {
	if t.Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

const (
	// firstPriority is the first that we try, the very first of a hook: a filter
	// before ours could end the chain, or change the mark.
	firstPriority = 1
	// filterHandle tells our filter from others of a priority.
	filterHandle = 0x25
)

// Filters attaches BPF programs to interfaces as direct-action
// filters of their clsact qdisc. It is safe for concurrent use.
type Filters struct {
	ours func(program uint32) bool
}

// NewFilters returns Filters that take a filter of our name for ours if its
// program is: ours is asked with the kernel's number of the program. A nil
// ours accepts every program.
func NewFilters(ours func(program uint32) bool) *Filters {
	if ours == nil {
		ours = func(uint32) bool { return true }
	}
	return &Filters{ours}
}

// filter is a TC filter, as far as it tells whose it is.
type filter struct {
	index    int // of the interface
	priority uint16
	protocol uint16
	handle   uint32
	kind     string
	name     string // of a BPF filter
	program  uint32 // of a BPF filter: the kernel's number
	direct   bool   // of a BPF filter: the program decides by its return value
}

// Have returns our filters on all interfaces.
func (f *Filters) Have() ([]plan.TC, error) {
	names, err := linkNames()
	if err != nil {
		return nil, err
	}
	withQdisc, err := qdiscs()
	if err != nil {
		return nil, err
	}
	var have []plan.TC
	for index := range withQdisc {
		if names[index] == "" {
			continue
		}
		for _, kind := range kinds {
			found, err := filtersAt(index, hookOf(kind))
			if err != nil {
				return nil, err
			}
			if len(f.own(found, kind)) > 0 {
				kind.Interface = names[index]
				have = append(have, kind)
			}
		}
	}
	return have, nil
}

// Ahead returns the filters of others that see an interface's packets before
// ours do, in words. Empty where none of ours is there.
func (f *Filters) Ahead(iface string) ([]string, error) {
	l, err := findLink(iface)
	if errors.Is(err, ErrNoInterface) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ahead []string
	for hook, parent := range map[string]uint32{"ingress": netlink.HANDLE_MIN_INGRESS, "egress": netlink.HANDLE_MIN_EGRESS} {
		found, err := filtersAt(l.Attrs().Index, parent)
		if err != nil {
			return nil, err
		}
		first := uint16(0)
		for _, kind := range kinds {
			for _, one := range f.own(found, kind) {
				if first == 0 || one.priority < first {
					first = one.priority
				}
			}
		}
		for _, one := range found {
			if one.handle != 0 && one.priority < first {
				ahead = append(ahead, fmt.Sprintf("tc filter dev %s %s pref %d %s %s", iface, hook, one.priority, one.kind, one.name))
			}
		}
	}
	return ahead, nil
}

// Runs reports whether our filter runs a program, by the kernel's number, and no
// other of ours is beside it, as an interrupted Add leaves. It does where there is
// none.
func (f *Filters) Runs(t plan.TC, program uint32) (bool, error) {
	own, err := f.find(t)
	return !slices.ContainsFunc(own, func(one filter) bool { return one.program != program }), err
}

// find returns our filters for an item; none where the interface is gone.
func (f *Filters) find(t plan.TC) ([]filter, error) {
	l, err := findLink(t.Interface)
	if errors.Is(err, ErrNoInterface) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := filtersAt(l.Attrs().Index, hookOf(t))
	return f.own(found, t), err
}

// own returns our filters for an item.
func (f *Filters) own(found []filter, t plan.TC) []filter {
	var own []filter
	for _, one := range found {
		if one.kind == "bpf" && one.direct && one.name == t.Filter() && f.ours(one.program) {
			own = append(own, one)
		}
	}
	return own
}

// Add attaches the program fd. Another program of ours for the item is taken
// away after the new one is in place, so that no packet passes between. The qdisc
// must exist.
func (f *Filters) Add(t plan.TC, fd int) error {
	l, err := findLink(t.Interface)
	if err != nil {
		return err
	}
	if err := hasHook(l, t); err != nil {
		return err
	}
	program, err := programOf(fd)
	if err != nil {
		return err
	}
	found, err := filtersAt(l.Attrs().Index, hookOf(t))
	if err != nil {
		return err
	}
	var old []filter
	for _, one := range f.own(found, t) {
		if one.program == program {
			return nil
		}
		old = append(old, one)
	}
	if err := attach(l, hookOf(t), fd, t.Filter(), freePriority(found)); err != nil {
		return fmt.Errorf("filter %s on %s: %w", t.Filter(), t.Interface, explain(err))
	}
	return detachAll(l, hookOf(t), old)
}

// hasHook refuses the egress of the old ingress qdisc: the kernel would put the
// filter at the ingress instead, and say nothing.
func hasHook(l netlink.Link, t plan.TC) error {
	if !t.Egress {
		return nil
	}
	found, err := qdiscs()
	if err != nil || found[l.Attrs().Index] != "ingress" {
		return err
	}
	return fmt.Errorf("the qdisc ingress on %[1]s has no egress, where the wall is to stand; move its filters to a qdisc clsact (tc qdisc del dev %[1]s ingress, then tc qdisc add dev %[1]s clsact)", t.Interface)
}

// Remove takes our filter away. Absent, or an interface that is gone, is a
// success.
func (f *Filters) Remove(t plan.TC) error {
	l, err := findLink(t.Interface)
	if errors.Is(err, ErrNoInterface) {
		return nil
	}
	if err != nil {
		return err
	}
	own, err := f.find(t)
	if err != nil {
		return err
	}
	return detachAll(l, hookOf(t), own)
}

func attach(l netlink.Link, hook uint32, fd int, name string, priority uint16) error {
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  filterAttrs(l, hook, filter{priority: priority, handle: filterHandle, protocol: unix.ETH_P_ALL}),
		Fd:           fd,
		Name:         name,
		DirectAction: true,
	})
}

// detachAll deletes filters that were just found to be ours. Each is looked
// at once more: the kernel deletes by number, and the number may have passed
// to somebody else.
func detachAll(l netlink.Link, hook uint32, all []filter) error {
	for _, one := range all {
		now, err := filtersAt(l.Attrs().Index, hook)
		if err != nil {
			return err
		}
		if !contains(now, one) {
			continue
		}
		err = netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: filterAttrs(l, hook, one)})
		if err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("filter %s: %w", one.name, explain(err))
		}
	}
	return nil
}

func contains(all []filter, one filter) bool {
	for _, f := range all {
		if f == one {
			return true
		}
	}
	return false
}

func filterAttrs(l netlink.Link, hook uint32, f filter) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index,
		Parent:    hook,
		Priority:  f.priority,
		Protocol:  f.protocol,
		Handle:    f.handle,
	}
}

// freePriority returns one that no filter has: those of one priority must be
// of one kind.
func freePriority(found []filter) uint16 {
	used := map[uint16]bool{}
	for _, f := range found {
		used[f.priority] = true
	}
	p := uint16(firstPriority)
	for used[p] {
		p++
	}
	return p
}

// filtersAt returns everybody's filters at a hook of an interface. One without
// details counts too, for removeQdisc.
func filtersAt(index int, parent uint32) ([]filter, error) {
	body := &nl.TcMsg{Ifindex: int32(index), Parent: parent}
	all, err := collect(unix.RTM_GETTFILTER, body, func(m []byte) (filter, bool) {
		if len(m) < nl.SizeofTcMsg {
			return filter{}, false
		}
		return parseFilter(nl.DeserializeTcMsg(m), attributes(m, nl.SizeofTcMsg)), true
	})
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	return all, nil
}

func parseFilter(h *nl.TcMsg, a map[uint16][]byte) filter {
	priority, protocol := netlink.MajorMinor(h.Info)
	f := filter{
		index: int(h.Ifindex), priority: priority, protocol: nl.Swap16(protocol),
		handle: h.Handle, kind: text(a[nl.TCA_KIND]),
	}
	if f.kind == "bpf" {
		o := attributes(a[nl.TCA_OPTIONS], 0)
		f.name = text(o[nl.TCA_BPF_NAME])
		f.program = number(o[nl.TCA_BPF_ID])
		f.direct = number(o[nl.TCA_BPF_FLAGS])&nl.TCA_BPF_FLAG_ACT_DIRECT != 0
	}
	return f
}

var programLine = regexp.MustCompile(`(?m)^prog_id:\s*(\d+)$`)

// programOf returns the kernel's number of a program, from what /proc says
// of its descriptor.
func programOf(fd int) (uint32, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("program of descriptor %d: %w", fd, err)
	}
	m := programLine.FindSubmatch(info)
	if m == nil {
		return 0, fmt.Errorf("descriptor %d is not a BPF program", fd)
	}
	n, err := strconv.ParseUint(string(m[1]), 10, 32)
	return uint32(n), err
}
