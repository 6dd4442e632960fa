package testenv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flood sends SYNs from a node, each from another address and port, and never
// answers what comes back. The addresses are those that follow first; what
// routes packets must take them for the node's.
func (n *Node) Flood(first netip.Addr, to netip.AddrPort, count int) error {
	return n.Enter(func() error {
		family, peer := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.Addr().AsSlice())})
		if to.Addr().Is6() {
			family, peer = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16()}
		}
		// The packet is given with its IP header (IPPROTO_RAW): anybody's source.
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("flood: %w", err)
		}
		defer unix.Close(fd)
		from := first
		for i := range count {
			if i%100 == 0 {
				from = first
			}
			err := unix.Sendto(fd, syn(netip.AddrPortFrom(from, uint16(1024+i)), to), 0, peer)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("flood: SYN %d from %s: %w", i, from, err)
			}
			from = from.Next()
		}
		return nil
	})
}

// syn is a TCP SYN with its IP header.
func syn(from, to netip.AddrPort) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1) // sequence number
	tcp[12], tcp[13] = 5<<4, 0x02          // header length, SYN
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(tcp[16:], checksum(addresses, []byte{0, unix.IPPROTO_TCP, 0, byte(len(tcp))}, tcp))
	if to.Addr().Is6() {
		ip := []byte{6 << 4, 0, 0, 0, 0, byte(len(tcp)), unix.IPPROTO_TCP, 64}
		return append(append(ip, addresses...), tcp...)
	}
	ip := []byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}
	return append(append(ip, addresses...), tcp...) // the kernel fills in its checksum
}

// checksum is that of RFC 1071, of parts of even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
