package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// ErrNoInterface is the class of errors about an interface that does not
// exist.
var ErrNoInterface = errors.New("no such interface")

// Link is an interface.
type Link struct {
	Name      string
	Index     int
	Kind      string // "device", "veth", "vlan", "bridge", "bond", "wireguard" …
	Ethernet  bool   // packets begin with an Ethernet header; false: with the IP header
	Up        bool   // set up by the administrator
	Carrier   bool   // and able to carry packets
	MTU       int    // octets
	Master    string // the bridge, bond or VRF that it is a port of, or ""
	MasterOf  string // the master's kind, or ""
	Parent    string // of a VLAN, macvlan or ipvlan: the interface that it is on, or ""
	XDP       bool   // a program sees its packets before everything else here
	Addresses []netip.Prefix
}

// VRF returns the VRF that the interface is in, or is, or "".
func (l Link) VRF() string {
	switch {
	case l.Kind == "vrf":
		return l.Name
	case l.MasterOf == "vrf":
		return l.Master
	}
	return ""
}

// Links returns all interfaces with their addresses, by index.
func Links() ([]Link, error) {
	found, err := listLinks()
	if err != nil {
		return nil, err
	}
	addresses, err := addressesByLink()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]netlink.Link{}
	for _, l := range found {
		byIndex[l.Attrs().Index] = l
	}
	links := make([]Link, 0, len(found))
	for _, l := range found {
		links = append(links, describe(l, byIndex, addresses[l.Attrs().Index]))
	}
	return links, nil
}

func describe(l netlink.Link, all map[int]netlink.Link, addresses []netip.Prefix) Link {
	a := l.Attrs()
	d := Link{
		Name: a.Name, Index: a.Index, Kind: l.Type(), MTU: a.MTU,
		Ethernet:  a.EncapType == "ether" || a.EncapType == "loopback",
		Up:        a.Flags&net.FlagUp != 0,
		Carrier:   a.Flags&net.FlagRunning != 0,
		Addresses: addresses,
		XDP:       a.Xdp != nil && a.Xdp.Attached,
	}
	if m, known := all[a.MasterIndex]; known {
		d.Master, d.MasterOf = m.Attrs().Name, m.Type()
	}
	// For a veth the same attribute names its peer, in whatever namespace.
	stacked := d.Kind == "vlan" || d.Kind == "macvlan" || d.Kind == "ipvlan"
	if p, known := all[a.ParentIndex]; known && stacked {
		d.Parent = p.Attrs().Name
	}
	return d
}

// Interface returns one interface. The error for a name that does not exist
// is an ErrNoInterface and lists those that do.
func Interface(name string) (Link, error) {
	links, err := Links()
	if err != nil {
		return Link{}, err
	}
	for _, l := range links {
		if l.Name == name {
			return l, nil
		}
	}
	return Link{}, absent(name, links)
}

func absent(name string, links []Link) error {
	names := make([]string, 0, len(links))
	for _, l := range links {
		names = append(names, l.Name)
	}
	return fmt.Errorf("interface %s: %w; there are %s", name, ErrNoInterface, strings.Join(names, ", "))
}

// findLink returns the library's link of that name.
func findLink(name string) (netlink.Link, error) {
	found, err := listLinks()
	if err != nil {
		return nil, err
	}
	for _, l := range found {
		if l.Attrs().Name == name {
			return l, nil
		}
	}
	links, err := Links()
	if err != nil {
		return nil, err
	}
	return nil, absent(name, links)
}

// linkNames returns the names of interfaces by index.
func linkNames() (map[int]string, error) {
	found, err := listLinks()
	names := make(map[int]string, len(found))
	for _, l := range found {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, err
}

func listLinks() ([]netlink.Link, error) {
	found, err := settled(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return found, nil
}

// LocalAddrs returns the gateway's own addresses, loopback and link-local
// ones among them, without zones, sorted.
func LocalAddrs() ([]netip.Addr, error) {
	byLink, err := addressesByLink()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, prefixes := range byLink {
		for _, p := range prefixes {
			all = append(all, p.Addr())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), nil
}

func addressesByLink() (map[int][]netip.Prefix, error) {
	found, err := settled(func() ([]netlink.Addr, error) {
		return netlink.AddrList(nil, netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byLink := map[int][]netip.Prefix{}
	for _, a := range found {
		if a.IPNet == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		byLink[a.LinkIndex] = append(byLink[a.LinkIndex], netip.PrefixFrom(addr.Unmap(), bits))
	}
	return byLink, nil
}

// Path is the way that a packet would take.
type Path struct {
	Type      string     // "unicast", "local", "blackhole" …
	Interface string     // out of which it goes, may be empty
	Gateway   netip.Addr // invalid: the destination is on the link
	Source    netip.Addr // that the kernel would choose, may be invalid
	Table     uint32
}

// Query asks for a path. To is required.
type Query struct {
	To   netip.Addr
	From netip.Addr // without In, an address of the gateway's own
	In   string     // the interface that it comes in by; empty: it is sent from here
	Mark uint32
}

// RouteGet returns the path of a packet, as `ip route get` does.
func RouteGet(q Query) (Path, error) {
	o := &netlink.RouteGetOptions{Iif: q.In, Mark: q.Mark}
	if q.From.IsValid() {
		o.SrcAddr = q.From.AsSlice()
	}
	if q.In != "" {
		if _, err := findLink(q.In); err != nil {
			return Path{}, err
		}
	}
	found, err := netlink.RouteGetWithOptions(q.To.AsSlice(), o)
	if err != nil {
		return Path{}, fmt.Errorf("route to %s: %s: %w", q.To, because(err), err)
	}
	if len(found) == 0 {
		return Path{}, fmt.Errorf("route to %s: the kernel names none", q.To)
	}
	names, err := linkNames()
	if err != nil {
		return Path{}, err
	}
	r := found[0]
	p := Path{Type: routeType(uint8(r.Type)), Interface: names[r.LinkIndex], Table: uint32(r.Table)}
	p.Gateway, _ = netip.AddrFromSlice(r.Gw)
	p.Source, _ = netip.AddrFromSlice(r.Src)
	p.Gateway, p.Source = p.Gateway.Unmap(), p.Source.Unmap()
	return p, nil
}

// because says what the kernel means by refusing to name a path.
func because(err error) string {
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return "there is none"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "it is of type unreachable"
	case errors.Is(err, unix.EACCES):
		return "it is of type prohibit"
	case errors.Is(err, unix.EINVAL):
		return "it is of type blackhole, or the source is not an address of this machine"
	}
	return "the kernel names none"
}

// mainTable is where ordinary routes are.
const mainTable = 254

// HasDefault reports whether the main table has a default route that leads
// somewhere.
func HasDefault(f plan.Family) (bool, error) {
	all, err := InTable(mainTable)
	return slices.ContainsFunc(all, func(r TableRoute) bool {
		return r.Family == f && r.To.Bits() == 0 && r.Type == "unicast"
	}), err
}

// Neighbour returns the state of an address on an interface's link:
// "reachable", "stale", "failed" …, or "" when the kernel knows nothing of it.
func Neighbour(name string, addr netip.Addr) (string, error) {
	l, err := findLink(name)
	if err != nil {
		return "", err
	}
	found, err := settled(func() ([]netlink.Neigh, error) {
		return netlink.NeighList(l.Attrs().Index, int(afOf(plan.FamilyOf(addr))))
	})
	if err != nil {
		return "", fmt.Errorf("list neighbours on %s: %w", name, err)
	}
	for _, n := range found {
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == addr.Unmap() {
			return neighbourState(n.State), nil
		}
	}
	return "", nil
}

func neighbourState(s int) string {
	for _, known := range []struct {
		bit  int
		word string
	}{
		{netlink.NUD_PERMANENT, "permanent"}, {netlink.NUD_NOARP, "noarp"},
		{netlink.NUD_REACHABLE, "reachable"}, {netlink.NUD_STALE, "stale"},
		{netlink.NUD_DELAY, "delay"}, {netlink.NUD_PROBE, "probe"},
		{netlink.NUD_FAILED, "failed"}, {netlink.NUD_INCOMPLETE, "incomplete"},
	} {
		if s&known.bit != 0 {
			return known.word
		}
	}
	return "none"
}
