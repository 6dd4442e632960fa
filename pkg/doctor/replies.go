package doctor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watch sees by which interface replies to some addresses come in, before any rule
// can drop them.
type watch struct {
	socket int
	stop   chan struct{}
	done   sync.WaitGroup
	seen   map[netip.Addr]string
}

// glance is how long the watch waits for a packet before it looks whether to go on.
const glance = 50 * time.Millisecond

// watchFor begins a watch for packets to any of the addresses.
func watchFor(addresses []netip.Addr) (*watch, error) {
	protocol := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("watch what comes in: %w", err)
	}
	w := &watch{socket: socket, stop: make(chan struct{}), seen: map[netip.Addr]string{}}
	wanted := map[netip.Addr]bool{}
	for _, a := range addresses {
		wanted[a] = true
	}
	w.done.Add(1)
	go w.run(wanted)
	return w, nil
}

func (w *watch) run(wanted map[netip.Addr]bool) {
	defer w.done.Done()
	packet := make([]byte, 64)
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		unix.Poll([]unix.PollFd{{Fd: int32(w.socket), Events: unix.POLLIN}}, int(glance.Milliseconds()))
		n, from, err := unix.Recvfrom(w.socket, packet, 0)
		link, is := from.(*unix.SockaddrLinklayer)
		if err != nil || !is || link.Pkttype == unix.PACKET_OUTGOING || link.Pkttype == unix.PACKET_OTHERHOST {
			continue
		}
		to := destination(packet[:n])
		if !wanted[to] {
			continue
		}
		// The last one counts: a VLAN, bridge or macvlan hands it up.
		if i, err := net.InterfaceByIndex(link.Ifindex); err == nil && i.Name != "lo" {
			w.seen[to] = i.Name
		}
	}
}

// destination reads where a packet of TCP goes. Other answers are no replies.
func destination(packet []byte) netip.Addr {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4 && packet[9] == unix.IPPROTO_TCP:
		return netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 40 && packet[0]>>4 == 6 && packet[6] == unix.IPPROTO_TCP:
		return netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return netip.Addr{}
}

// end ends the watch and returns what was seen.
func (w *watch) end() map[netip.Addr]string {
	close(w.stop)
	w.done.Wait()
	unix.Close(w.socket)
	return w.seen
}
