package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Protocol (RTPROT) marks our routes: nobody else is known to use 25, neither
// iproute2's rt_protos nor a routing daemon.
const Protocol = 25

// TableRoute is a route in some table, as far as it says who uses the table.
type TableRoute struct {
	Family    plan.Family
	Table     uint32
	Type      string       // "local", "unicast", "blackhole" …
	To        netip.Prefix // the default route has 0 bits
	Gateway   netip.Addr   // may be invalid
	Interface string       // may be empty
	Protocol  uint8        // RTPROT number
	Metric    uint32
	Ours      bool
}

// String shows the route much as `ip route` does.
func (r TableRoute) String() string {
	s := fmt.Sprintf("%s %s", r.Type, r.To)
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Interface != "" {
		s += " dev " + r.Interface
	}
	return fmt.Sprintf("%s table %d proto %d", s, r.Table, r.Protocol)
}

// ownRoutes returns our default routes of all tables. What is not ours
// is passed over by a look at the fixed header alone.
func ownRoutes() ([]TableRoute, error) {
	return routes(func(h *nl.RtMsg) bool {
		return h.Protocol == Protocol && (h.Type == unix.RTN_LOCAL || h.Type == unix.RTN_UNICAST) && h.Dst_len == 0
	}, func(r TableRoute) bool { return r.Ours })
}

// InTable returns the routes of a table, ours and others'.
func InTable(table uint32) ([]TableRoute, error) {
	return routes(func(h *nl.RtMsg) bool {
		return uint32(h.Table) == table || table > 255
	}, func(r TableRoute) bool { return r.Table == table })
}

// routes lists the routes whose header and whose whole pass.
func routes(glance func(*nl.RtMsg) bool, keep func(TableRoute) bool) ([]TableRoute, error) {
	names, err := linkNames()
	if err != nil {
		return nil, err
	}
	var all []TableRoute
	for _, f := range families {
		some, err := collect(unix.RTM_GETROUTE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: afOf(f)}}, func(m []byte) (TableRoute, bool) {
			if len(m) < unix.SizeofRtMsg {
				return TableRoute{}, false
			}
			h := nl.DeserializeRtMsg(m)
			if h.Family != afOf(f) || h.Flags&unix.RTM_F_CLONED != 0 || !glance(h) {
				return TableRoute{}, false
			}
			r := parseRoute(h, attributes(m, unix.SizeofRtMsg), names)
			return r, keep(r)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", f, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func parseRoute(h *nl.RtMsg, a map[uint16][]byte, names map[int]string) TableRoute {
	r := TableRoute{
		Family:    familyOf(h.Family),
		Table:     uint32(h.Table),
		Type:      routeType(h.Type),
		To:        prefix(h.Family, a[unix.RTA_DST], h.Dst_len),
		Interface: names[int(number(a[unix.RTA_OIF]))],
		Protocol:  h.Protocol,
		Metric:    number(a[unix.RTA_PRIORITY]),
	}
	if t, long := a[unix.RTA_TABLE]; long {
		r.Table = number(t)
	}
	r.Gateway, _ = netip.AddrFromSlice(a[unix.RTA_GATEWAY])
	local, loop := h.Type == unix.RTN_LOCAL && r.Interface == "lo", h.Type == unix.RTN_UNICAST && r.Interface == plan.LoopLink
	r.Ours = r.Protocol == Protocol && r.To.Bits() == 0 && (local || loop)
	return r
}

// item returns one of our routes as plan knows it.
func (r TableRoute) item() plan.Route {
	i := plan.Route{Family: r.Family, Table: r.Table}
	if r.Interface != "lo" {
		i.Link = r.Interface
	}
	return i
}

// prefix makes a prefix of an address that is absent when it is all zero.
func prefix(af uint8, address []byte, bits uint8) netip.Prefix {
	a, ok := netip.AddrFromSlice(address)
	if !ok {
		a = netip.IPv4Unspecified()
		if af == unix.AF_INET6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(a, int(bits))
}

func routeType(t uint8) string {
	names := map[uint8]string{
		unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast",
		unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole",
		unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
	}
	if n, known := names[t]; known {
		return n
	}
	return fmt.Sprintf("type %d", t)
}

// addRoute makes our default route of a table. It refuses a table that others use:
// their rules would then deliver to us what they meant to route.
func (h *Hand) addRoute(r plan.Route) error {
	if present, err := hasRoute(r); present || err != nil {
		return err
	}
	if !slices.Contains(h.made, r.Table) {
		if err := foreignUse(r); err != nil {
			return err
		}
	}
	route, err := libraryRoute(r, 0)
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		if present, again := hasRoute(r); present && again == nil {
			return nil // somebody was quicker with the same
		}
	}
	return explain(err)
}

// hasRoute reports whether our route is there.
func hasRoute(r plan.Route) (bool, error) {
	have, err := ownRoutes()
	return slices.ContainsFunc(have, func(found TableRoute) bool { return found.item() == r }), err
}

// foreignUse names what others have in our table or lead to it.
func foreignUse(r plan.Route) error {
	inside, err := InTable(r.Table)
	if err != nil {
		return err
	}
	for _, f := range inside {
		if !f.Ours && f.Family == r.Family {
			return fmt.Errorf("routing table %d is used by others, it holds %q: set kernel.table to a free one", r.Table, f)
		}
	}
	rules, err := PolicyRules()
	if err != nil {
		return err
	}
	for _, f := range rules {
		if f.Table == r.Table && f.Family == r.Family && !f.ownShape() {
			return fmt.Errorf("routing table %d is used by others, the rule %q leads to it: set kernel.table to a free one", r.Table, f)
		}
	}
	return nil
}

// removeRoute removes our routes of the table, whatever their metric.
func removeRoute(r plan.Route) error {
	have, err := ownRoutes()
	if err != nil {
		return err
	}
	for _, found := range have {
		if found.item() != r {
			continue
		}
		route, err := libraryRoute(r, found.Metric)
		if err != nil {
			return err
		}
		if err := netlink.RouteDel(route); err != nil && !gone(err) {
			return explain(err)
		}
	}
	return nil
}

// nobodyNext are the next hops on the loop link: nobody needs to have the address
// there, and with one for all destinations the kernel keeps a single neighbour. The
// IPv4 address is the one that RFC 7600 gave for that; the other is link-local.
var nobodyNext = map[plan.Family]netip.Addr{
	plan.IPv4: netip.AddrFrom4([4]byte{192, 0, 0, 8}),
	plan.IPv6: netip.MustParseAddr("fe80::1"),
}

// libraryRoute is the route as the library wants it. The protocol is among
// what the kernel compares when it deletes.
func libraryRoute(r plan.Route, metric uint32) (*netlink.Route, error) {
	name := r.Link
	if name == "" {
		name = "lo"
	}
	l, err := findLink(name)
	if err != nil {
		return nil, err
	}
	bits := 32
	if r.Family == plan.IPv6 {
		bits = 128
	}
	route := &netlink.Route{
		Family:    int(afOf(r.Family)),
		Table:     int(r.Table),
		Protocol:  Protocol,
		LinkIndex: l.Attrs().Index,
		Priority:  int(metric),
		Dst:       &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
	}
	if r.Link == "" {
		route.Type, route.Scope = unix.RTN_LOCAL, netlink.SCOPE_HOST
		return route, nil
	}
	route.Type, route.Scope = unix.RTN_UNICAST, netlink.SCOPE_UNIVERSE
	route.Gw, route.Flags = nobodyNext[r.Family].AsSlice(), int(netlink.FLAG_ONLINK)
	return route, nil
}
