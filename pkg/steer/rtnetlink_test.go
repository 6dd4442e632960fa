package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A small rtnetlink client, so that the tests need no other program and run
// in an initramfs (rtnetlink(7)).

// message is a netlink message under construction.
type message struct{ b []byte }

func newMessage(kind, flags uint16, body ...byte) *message {
	m := &message{make([]byte, unix.SizeofNlMsghdr)}
	binary.NativeEndian.PutUint16(m.b[4:], kind)
	binary.NativeEndian.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m.b = append(m.b, body...)
	return m
}

// attr appends an attribute.
func (m *message) attr(kind uint16, value []byte) *message {
	end := m.nest(kind)
	m.b = append(m.b, value...)
	end()
	for len(m.b)%unix.NLA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
	return m
}

// nest begins an attribute that holds what is appended until end is called.
func (m *message) nest(kind uint16) (end func()) {
	start := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(m.b[start+2:], kind)
	return func() { binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start)) }
}

func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// send sends a message in the network namespace of the calling thread, and
// returns the kernel's answer.
func (m *message) send() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	if err := unix.Sendto(fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	if _, _, err := unix.Recvfrom(fd, answer, 0); err != nil {
		return err
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

const createFlags = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// newAddress adds an address, without duplicate address detection.
func newAddress(a netip.Addr, bits int, ifindex uint32) error {
	body := append([]byte{family(a), byte(bits), unix.IFA_F_NODAD, 0}, word(ifindex)...)
	m := newMessage(unix.RTM_NEWADDR, createFlags, body...)
	m.attr(unix.IFA_LOCAL, a.AsSlice()).attr(unix.IFA_ADDRESS, a.AsSlice())
	if err := m.send(); err != nil {
		return fmt.Errorf("add address %s: %w", a, err)
	}
	return nil
}

// linkBody is struct ifinfomsg.
func linkBody(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

// vethPeer is the attribute that describes the other end (linux/veth.h).
const vethPeer = 1

// newVeth makes a pair of interfaces, down: a here, b in another network
// namespace.
func newVeth(a, b string, netns int) error {
	m := newMessage(unix.RTM_NEWLINK, createFlags, linkBody(0)...)
	m.attr(unix.IFLA_IFNAME, []byte(a+"\x00"))
	info := m.nest(unix.IFLA_LINKINFO)
	m.attr(unix.IFLA_INFO_KIND, []byte("veth"))
	data := m.nest(unix.IFLA_INFO_DATA)
	peer := m.nest(vethPeer)
	m.b = append(m.b, linkBody(0)...)
	m.attr(unix.IFLA_IFNAME, []byte(b+"\x00"))
	m.attr(unix.IFLA_NET_NS_FD, word(uint32(netns)))
	peer()
	data()
	info()
	if err := m.send(); err != nil {
		return fmt.Errorf("make %s and %s: %w", a, b, err)
	}
	return nil
}

// Attributes of tunnels (linux/if_tunnel.h).
const (
	tunLocal  = 2
	tunRemote = 3
	greLocal  = 6
	greRemote = 7
)

// newTunnel makes a tunnel of a kind ("gre", "ipip" …) between two addresses, down.
// EOPNOTSUPP means that the kernel does not have it.
func newTunnel(name, kind string, local, remote netip.Addr) error {
	here, there := uint16(tunLocal), uint16(tunRemote)
	if kind == "gre" || kind == "ip6gre" {
		here, there = greLocal, greRemote
	}
	m := newMessage(unix.RTM_NEWLINK, createFlags, linkBody(0)...)
	m.attr(unix.IFLA_IFNAME, []byte(name+"\x00"))
	info := m.nest(unix.IFLA_LINKINFO)
	m.attr(unix.IFLA_INFO_KIND, []byte(kind))
	for len(m.b)%unix.NLA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
	data := m.nest(unix.IFLA_INFO_DATA)
	m.attr(here, local.AsSlice()).attr(there, remote.AsSlice())
	data()
	info()
	if err := m.send(); err != nil {
		return fmt.Errorf("make %s %s: %w", kind, name, err)
	}
	return nil
}

// deleteLink deletes an interface.
func deleteLink(index uint32) error {
	if err := newMessage(unix.RTM_DELLINK, 0, linkBody(index)...).send(); err != nil {
		return fmt.Errorf("delete interface %d: %w", index, err)
	}
	return nil
}

// defaultRoute is struct rtmsg of a default route.
func defaultRoute(family byte, table byte, kind byte) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[4], b[5], b[6], b[7] = family, table, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, kind
	return b
}

// newDefaultRoute routes everything through a gateway.
func newDefaultRoute(via netip.Addr) error {
	m := newMessage(unix.RTM_NEWROUTE, createFlags, defaultRoute(family(via), unix.RT_TABLE_MAIN, unix.RTN_UNICAST)...)
	if err := m.attr(unix.RTA_GATEWAY, via.AsSlice()).send(); err != nil {
		return fmt.Errorf("route via %s: %w", via, err)
	}
	return nil
}

// Numbers of routes that wrap packets (linux/lwtunnel.h).
const (
	encapBPF   = 6
	encapXmit  = 3
	encapProg  = 1
	encapLabel = 2
)

// newWrappingRoute routes an address through an interface, by a program that may
// put its packets into others (LWT).
func newWrappingRoute(to netip.Addr, ifindex uint32, program int) error {
	body := defaultRoute(family(to), unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
	body[1], body[6] = byte(to.BitLen()), unix.RT_SCOPE_LINK
	m := newMessage(unix.RTM_NEWROUTE, createFlags, body...)
	m.attr(unix.RTA_DST, to.AsSlice()).attr(unix.RTA_OIF, word(ifindex))
	m.attr(unix.RTA_ENCAP_TYPE, binary.NativeEndian.AppendUint16(nil, encapBPF))
	encap := m.nest(unix.RTA_ENCAP)
	xmit := m.nest(encapXmit)
	m.attr(encapProg, word(uint32(program))).attr(encapLabel, []byte("wrap\x00"))
	xmit()
	encap()
	if err := m.send(); err != nil {
		return fmt.Errorf("wrapping route to %s: %w", to, err)
	}
	return nil
}

// newLocalRoute makes everything in a table local.
func newLocalRoute(family, table byte) error {
	body := defaultRoute(family, table, unix.RTN_LOCAL)
	if family == unix.AF_INET {
		body[6] = unix.RT_SCOPE_HOST
	}
	if err := newMessage(unix.RTM_NEWROUTE, createFlags, body...).attr(unix.RTA_OIF, word(1)).send(); err != nil {
		return fmt.Errorf("local route in table %d: %w", table, err)
	}
	return nil
}

// newLinkRoute sends everything in a table out by an interface.
func newLinkRoute(family, table byte, ifindex uint32) error {
	body := defaultRoute(family, table, unix.RTN_UNICAST)
	body[6] = unix.RT_SCOPE_LINK
	if err := newMessage(unix.RTM_NEWROUTE, createFlags, body...).attr(unix.RTA_OIF, word(ifindex)).send(); err != nil {
		return fmt.Errorf("route by interface %d in table %d: %w", ifindex, table, err)
	}
	return nil
}

// newMarkRule looks packets of an interface with a mark up in a table
// (struct fib_rule_hdr has the shape of struct rtmsg).
func newMarkRule(family byte, iif string, mark uint32, table byte) error {
	body := defaultRoute(family, table, unix.FR_ACT_TO_TBL)
	body[5], body[6] = 0, 0
	m := newMessage(unix.RTM_NEWRULE, createFlags, body...)
	m.attr(unix.FRA_IIFNAME, []byte(iif+"\x00")).attr(unix.FRA_FWMARK, word(mark)).attr(unix.FRA_FWMASK, word(mark))
	m.attr(unix.FRA_PRIORITY, word(100))
	if err := m.send(); err != nil {
		return fmt.Errorf("rule for %s: %w", iif, err)
	}
	return nil
}

// Numbers of traffic control (linux/pkt_sched.h, linux/pkt_cls.h, tc-bpf(8)).
const (
	clsactHandle  = 0xffff0000
	clsactParent  = 0xfffffff1
	ingressParent = 0xfffffff2
	egressParent  = 0xfffffff3
	bpfFd         = 6
	bpfName       = 7
	bpfFlags      = 8
	bpfDirect     = 1
)

// tcBody is struct tcmsg.
func tcBody(ifindex, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 20)
	for _, v := range []uint32{ifindex, handle, parent, info} {
		b = append(b, word(v)...)
	}
	return b
}

// newClsact gives an interface its clsact qdisc.
func newClsact(ifindex uint32) error {
	m := newMessage(unix.RTM_NEWQDISC, createFlags, tcBody(ifindex, clsactHandle, clsactParent, 0)...)
	if err := m.attr(unix.TCA_KIND, []byte("clsact\x00")).send(); err != nil {
		return fmt.Errorf("add the clsact qdisc: %w", err)
	}
	return nil
}

// filterBody names the filter of a priority, for all protocols.
func filterBody(ifindex, parent, priority uint32) []byte {
	return tcBody(ifindex, 1, parent, priority<<16|uint32(swapPort(unix.ETH_P_ALL)))
}

// putFilter makes a program the filter of a priority, or replaces it.
func putFilter(ifindex, parent, priority uint32, fd int, name string) error {
	m := newMessage(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, filterBody(ifindex, parent, priority)...)
	m.attr(unix.TCA_KIND, []byte("bpf\x00"))
	options := m.nest(unix.TCA_OPTIONS)
	m.attr(bpfFd, word(uint32(fd))).attr(bpfName, []byte(name+"\x00")).attr(bpfFlags, word(bpfDirect))
	options()
	if err := m.send(); err != nil {
		return fmt.Errorf("add filter %s: %w", name, err)
	}
	return nil
}

// deleteFilter deletes the filter of a priority.
func deleteFilter(ifindex, parent, priority uint32) error {
	m := newMessage(unix.RTM_DELTFILTER, 0, filterBody(ifindex, parent, priority)...)
	if err := m.attr(unix.TCA_KIND, []byte("bpf\x00")).send(); err != nil {
		return fmt.Errorf("delete filter: %w", err)
	}
	return nil
}

// clsactFilters are steer's filters in these tests; the product's are
// pkg/route's.
type clsactFilters struct{ have map[plan.TC]ebpf.ProgramID }

func (f clsactFilters) Runs(t plan.TC, program uint32) (bool, error) {
	return uint32(f.have[t]) == program, nil
}

func (f clsactFilters) Have() (all []plan.TC, _ error) {
	return slices.Collect(maps.Keys(f.have)), nil
}

func (f clsactFilters) Add(t plan.TC, fd int) error {
	ifindex, err := ifaceIndex(t.Interface)
	if err != nil {
		return err
	}
	if err := newClsact(ifindex); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if f.have[t], err = programID(fd); err != nil {
		return err
	}
	return putFilter(ifindex, parentOf(t), uint32(t.Side), fd, t.Filter())
}

func (f clsactFilters) Remove(t plan.TC) error {
	ifindex, err := ifaceIndex(t.Interface)
	if err != nil || f.have[t] == 0 {
		return err
	}
	delete(f.have, t)
	return deleteFilter(ifindex, parentOf(t), uint32(t.Side))
}

func parentOf(t plan.TC) uint32 {
	if t.Egress {
		return egressParent
	}
	return ingressParent
}
