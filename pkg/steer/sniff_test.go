package steer

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sniffer reads the IP packets that pass an interface.
type sniffer struct {
	t  *testing.T
	fd int
}

func sniff(t *testing.T, name string) *sniffer {
	t.Helper()
	i, err := net.InterfaceByName(name)
	must(t, err)
	all := swapPort(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	return &sniffer{t, fd}
}

// await returns the next packet that matches.
func (s *sniffer) await(match func([]byte) bool) []byte {
	s.t.Helper()
	buffer := make([]byte, 1<<16)
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		must(s.t, err)
		if n == 0 {
			s.t.Fatal("no such packet")
		}
		n, _, err = unix.Recvfrom(s.fd, buffer, 0)
		must(s.t, err)
		if n > 40 && match(buffer[:n]) {
			return append([]byte(nil), buffer[:n]...)
		}
	}
}
