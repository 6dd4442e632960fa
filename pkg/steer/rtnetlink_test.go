package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
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
