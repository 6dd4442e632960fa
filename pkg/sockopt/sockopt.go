// Package sockopt sets the few socket options that a transparent gateway
// needs, each by its name in the kernel's manual.
//
// It is the only place of raw setsockopt calls. It never makes, binds or closes
// a socket: accept and forward call it from the Control hook of the standard
// library's listener and dialer. Every error is an *Error, which names the
// option and, where the kernel refused it, the capability that is missing.
package sockopt

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Transparent lets a socket of the given address's family bind to and answer
// for addresses that are not the gateway's (IP_TRANSPARENT, ip(7);
// IPV6_TRANSPARENT). Accepted connections inherit it. It needs CAP_NET_ADMIN or
// CAP_NET_RAW.
func Transparent(fd uintptr, family netip.Addr) error {
	if family.Unmap().Is4() {
		return set(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT", "CAP_NET_RAW or CAP_NET_ADMIN")
	}
	return set(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT", "CAP_NET_RAW or CAP_NET_ADMIN")
}

// BindAddressNoPort makes bind to port 0 reserve the address alone; connect then
// chooses a port that is free for this destination, so that one client address
// is not limited to one range of ports for all origins together (ip(7), Linux
// 4.2). It serves IPv6 sockets too, under the same level and name.
func BindAddressNoPort(fd uintptr) error {
	return set(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1, "IP_BIND_ADDRESS_NO_PORT", "")
}

// ReuseAddr lets a socket bind a port that connections to other destinations,
// or past connections in TIME_WAIT, hold (SO_REUSEADDR, socket(7)).
func ReuseAddr(fd uintptr) error {
	return set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR", "")
}

// Mark puts a firewall mark on every packet that the socket sends (SO_MARK,
// socket(7)). Accepted connections inherit it. It needs CAP_NET_ADMIN, or
// CAP_NET_RAW since Linux 5.17.
func Mark(fd uintptr, mark uint32) error {
	return set(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark), "SO_MARK", "CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17")
}

// set sets one option of the type int.
func set(fd uintptr, level, option, value int, name, needs string) error {
	if err := unix.SetsockoptInt(int(fd), level, option, value); err != nil {
		return &Error{Option: name, Needs: needs, Err: err}
	}
	return nil
}
