package route

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// alias marks the link that we made; `ip link` shows it.
const alias = "portreeve"

// The ends also bear addresses by which they are known before they have their alias,
// which the kernel takes only for a link that exists. They are locally administered
// ("prvt"); nobody asks for them, and each gateway has the same.
var (
	loopAddress = net.HardwareAddr{0x02, 0x70, 0x72, 0x76, 0x74, 0x00}
	peerAddress = net.HardwareAddr{0x02, 0x70, 0x72, 0x76, 0x74, 0x01}
)

// loopMTU is the most that a veth takes: nothing that FORWARD lets pass is too large.
const loopMTU = 65535

// ownLinks returns the links that we made, with what is wrong with them.
func ownLinks() ([]plan.Link, error) {
	found, err := listLinks()
	if err != nil {
		return nil, err
	}
	var own []plan.Link
	for _, l := range found {
		if isOwn(l) && l.Attrs().Name != plan.LoopPeer {
			own = append(own, plan.Link{Name: plan.LoopLink, Fault: faultOf(l)})
		}
	}
	return own, nil
}

// isOwn reports whether we made a link. An alias anybody may write: it counts for our
// names alone, where somebody has changed the address.
func isOwn(l netlink.Link) bool {
	a := l.Attrs()
	named := a.Alias == alias && (a.Name == plan.LoopLink || a.Name == plan.LoopPeer)
	return l.Type() == "veth" && (named || slices.Equal(a.HardwareAddr, loopAddress) || slices.Equal(a.HardwareAddr, peerAddress))
}

// faultOf says why a link of ours carries nothing, "" where it does.
func faultOf(l netlink.Link) string {
	a := l.Attrs()
	switch {
	case a.Name != plan.LoopLink:
		return "it was renamed"
	case a.Flags&net.FlagUp == 0:
		return "it is down"
	case a.RawFlags&unix.IFF_LOWER_UP == 0:
		return "its other end is down"
	case a.RawFlags&unix.IFF_NOARP == 0:
		return "it asks for neighbours"
	case a.MTU != loopMTU:
		return "its MTU was changed"
	case a.MasterIndex != 0:
		return "it is a port of another interface"
	}
	return ""
}

// addLink makes our link, or mends one that carries nothing. It is made anew only where
// that does not help: what hung on it, such as a program that cannot be attached while the
// BPF file system is unmounted, would be gone with it, see plan.Diff.
func addLink(want plan.Link) error {
	whole, err := isWhole(want)
	if whole || err != nil {
		return err
	}
	if mendLink() == nil {
		if whole, err := isWhole(want); whole || err != nil {
			return err
		}
	}
	return makeLink(want)
}

// isWhole reports whether our link is as it is wanted.
func isWhole(want plan.Link) (bool, error) {
	own, err := ownLinks()
	return len(own) == 1 && own[0] == want, err
}

// errNotMended says that our link has to be made anew.
var errNotMended = errors.New("it cannot be mended")

// mendLink gives both ends of our link back what was taken from them.
func mendLink() error {
	found, err := listLinks()
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(l netlink.Link) bool { return !isOwn(l) })
	if len(found) != 2 || found[0].Attrs().ParentIndex != found[1].Attrs().Index {
		return errNotMended // not two ends, or not of one link
	}
	for _, name := range []string{plan.LoopPeer, plan.LoopLink} {
		i := slices.IndexFunc(found, func(l netlink.Link) bool { return slices.Equal(l.Attrs().HardwareAddr, addressOf(name)) })
		if i < 0 {
			return errNotMended // which end is this?
		}
		if err := mendEnd(found[i], name); err != nil {
			return err
		}
	}
	return nil
}

// addressOf is by what an end is known.
func addressOf(name string) net.HardwareAddr {
	if name == plan.LoopPeer {
		return peerAddress
	}
	return loopAddress
}

// mendEnd mends one end.
func mendEnd(l netlink.Link, name string) error {
	a := l.Attrs()
	if a.Name != name { // which it takes only while it is down
		if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, name)); err != nil {
			return err
		}
	}
	if a.MasterIndex != 0 {
		if err := netlink.LinkSetNoMaster(l); err != nil {
			return err
		}
	}
	if a.MTU != loopMTU {
		if err := netlink.LinkSetMTU(l, loopMTU); err != nil {
			return err
		}
	}
	return setUp(name)
}

// makeLink makes our link in place of what is there of it.
func makeLink(want plan.Link) error {
	if err := removeLinks(); err != nil {
		return err
	}
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: plan.LoopPeer, PeerMTU: loopMTU, PeerHardwareAddr: peerAddress}
	pair.Name, pair.MTU, pair.HardwareAddr = want.Name, loopMTU, loopAddress
	if err := netlink.LinkAdd(pair); errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("an interface of another has the name %s or %s: rename it: %w", want.Name, plan.LoopPeer, err)
	} else if err != nil {
		return fmt.Errorf("make %s: %w", want, explain(err))
	}
	for _, name := range []string{plan.LoopPeer, want.Name} {
		if err := setUp(name); err != nil {
			return errors.Join(fmt.Errorf("set up %s: %w", name, explain(err)), removeLinks())
		}
	}
	return nil
}

// setUp makes one end ready: ours to see, silent, without addresses, up.
func setUp(name string) error {
	l, err := findLink(name)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return netlink.LinkSetAlias(l, alias) },
		func() error { return netlink.LinkSetARPOff(l) },
		func() error { return withoutAddress(l) },
		func() error { return netlink.LinkSetUp(l) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// noAddress is IN6_ADDR_GEN_MODE_NONE.
const noAddress = 1

// withoutAddress keeps the kernel from giving a link an IPv6 address of its own
// (IFLA_INET6_ADDR_GEN_MODE, none). Without IPv6 there is nothing to keep it from.
func withoutAddress(l netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(l.Attrs().Index)
	req.AddData(header)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(noAddress))
	req.AddData(families)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// removeLinks removes all that we made; with one end goes the other, and with them
// routes and filters.
func removeLinks() error {
	found, err := listLinks()
	if err != nil {
		return err
	}
	for _, l := range found {
		if !isOwn(l) {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !gone(err) {
			return fmt.Errorf("remove %s: %w", l.Attrs().Name, explain(err))
		}
	}
	return nil
}

// Forwards returns the families of which the kernel forwards what comes in by an
// interface; false where there is no such interface.
func Forwards(name string) ([]plan.Family, bool) {
	var families []plan.Family
	v4, there := forwarding("ipv4", name)
	if v4 {
		families = append(families, plan.IPv4)
	}
	if v6, _ := forwarding("ipv6", "all"); v6 {
		families = append(families, plan.IPv6)
	}
	return families, there
}

// forwarding reads a setting of the calling thread's network namespace, and reports
// whether there is one.
func forwarding(family, name string) (on, there bool) {
	value, err := os.ReadFile(filepath.Join("/proc/sys/net", family, "conf", name, "forwarding"))
	return strings.TrimSpace(string(value)) == "1", err == nil
}
