package route

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// filterNames are the names of our filters. Identity is name and program,
// never priority or handle: two programs that chose the same numbers have
// deleted each other's filters before.
var filterNames = map[plan.Side]string{
	plan.ClientSide: "portreeve_client",
	plan.OriginSide: "portreeve_origin",
}

const (
	// firstPriority is the first that we try. It lies behind the small
	// numbers that people write and before those that the kernel gives out,
	// from 49152 downwards.
	firstPriority = 2525
	// filterHandle tells our filter from others of a priority.
	filterHandle = 0x25
)

// Filters attaches BPF programs to the ingress of interfaces as direct-action
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
		found, err := filtersAt(index, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return nil, err
		}
		for side, name := range filterNames {
			if len(f.own(found, name)) > 0 && names[index] != "" {
				have = append(have, plan.TC{Interface: names[index], Side: side, Clsact: true})
			}
		}
	}
	return have, nil
}

// own returns our filters of a name.
func (f *Filters) own(found []filter, name string) []filter {
	var own []filter
	for _, one := range found {
		if one.kind == "bpf" && one.direct && one.name == name && f.ours(one.program) {
			own = append(own, one)
		}
	}
	return own
}

// Add attaches the program fd. The filter's name is fixed by the side, and
// name must be it. Another program of ours of that name is taken away after the
// new one is in place, so that no packet passes between. The qdisc must exist.
func (f *Filters) Add(t plan.TC, fd int, name string) error {
	if name != filterNames[t.Side] {
		return fmt.Errorf("filter of the %s side is called %q, not %q", t.Side, filterNames[t.Side], name)
	}
	l, err := findLink(t.Interface)
	if err != nil {
		return err
	}
	program, err := programOf(fd)
	if err != nil {
		return err
	}
	found, err := filtersAt(l.Attrs().Index, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return err
	}
	var old []filter
	for _, one := range f.own(found, name) {
		if one.program == program {
			return nil
		}
		old = append(old, one)
	}
	if err := attach(l, fd, name, freePriority(found)); err != nil {
		return fmt.Errorf("filter %s on %s: %w", name, t.Interface, explain(err))
	}
	return detachAll(l, old)
}

// Remove takes our filter of the side away. Absent, or an interface that is
// gone, is a success.
func (f *Filters) Remove(t plan.TC) error {
	l, err := findLink(t.Interface)
	if errors.Is(err, ErrNoInterface) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := filtersAt(l.Attrs().Index, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return err
	}
	return detachAll(l, f.own(found, filterNames[t.Side]))
}

func attach(l netlink.Link, fd int, name string, priority uint16) error {
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  filterAttrs(l, filter{priority: priority, handle: filterHandle, protocol: unix.ETH_P_ALL}),
		Fd:           fd,
		Name:         name,
		DirectAction: true,
	})
}

// detachAll deletes filters that were just found to be ours. Each is looked
// at once more: the kernel deletes by number, and the number may have passed
// to somebody else.
func detachAll(l netlink.Link, all []filter) error {
	for _, one := range all {
		now, err := filtersAt(l.Attrs().Index, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return err
		}
		if !contains(now, one) {
			continue
		}
		err = netlink.FilterDel(&netlink.BpfFilter{FilterAttrs: filterAttrs(l, one)})
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

func filterAttrs(l netlink.Link, f filter) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index,
		Parent:    netlink.HANDLE_MIN_INGRESS,
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
