package steer

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// goneName begins the name of what a number refers to no more. No interface
// and no service can have a slash in its name.
const goneName = "gone/"

// gone names an interface or a service that is no more, by its number.
func gone(number uint32) string { return goneName + strconv.FormatUint(uint64(number), 10) }

// Gone reports whether the name in an item stands for an interface or a
// service that is no more, and its number.
func Gone(name string) (number uint32, ok bool) {
	digits, ok := strings.CutPrefix(name, goneName)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil
}

// ifaceNames returns the interfaces of the network namespace by index.
func ifaceNames() (map[uint32]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make(map[uint32]string, len(all))
	for _, i := range all {
		names[uint32(i.Index)] = i.Name
	}
	return names, nil
}

// nameOf returns the name of an interface, of one that is no more its number.
func nameOf(names map[uint32]string, index uint32) string {
	if name, found := names[index]; found {
		return name
	}
	return gone(index)
}

// ifaceIndex returns the index of an interface, by its name in an item.
func ifaceIndex(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return uint32(i.Index), nil
}

// hasL2 reports whether packets on an interface begin with an Ethernet header.
// On all others the programs read relative to the IP header, wherever it is: at
// the start (tun, WireGuard, PPP) or behind an outer one (GRE, sit).
func hasL2(name string) (bool, error) {
	kind, err := ifaceType(name)
	return kind == unix.ARPHRD_ETHER, err
}

// ifaceType returns the ARPHRD type of an interface (netdevice(7)).
func ifaceType(name string) (uint16, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("interface %s: open a socket: %w", name, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, req); err != nil {
		return 0, fmt.Errorf("interface %s: read the link type: %w", name, err)
	}
	return req.Uint16(), nil // the family of the hardware address
}
