package testenv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Packet is a TCP segment as it passed an interface. Of a fragmented one only
// the first fragment is seen as a segment.
type Packet struct {
	From, To netip.AddrPort
	SYN, ACK bool
	FIN, RST bool
	Fragment bool // the first of several IPv4 fragments
	Size     int  // of the IP packet, in octets
	TTL      int  // or hop limit; every router on the way took one off
}

// Capture sees what passes an interface of a node, in both directions, from
// the moment that it was opened.
type Capture struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	packets []Packet
	more    chan struct{} // closed and replaced when packets grows
	err     error
}

// Capture opens a packet socket on a device of the node.
func (n *Node) Capture(device string) (*Capture, error) {
	c := &Capture{done: make(chan struct{}), more: make(chan struct{})}
	err := n.Enter(func() (err error) {
		c.file, err = packetSocket(device)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s of %s: %w", device, n.Role, err)
	}
	go c.read()
	return c, nil
}

// packetSocket opens a socket that delivers IP packets without their link
// headers.
func packetSocket(device string) (*os.File, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing before bind names the device.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "capture"), nil
}

// Close ends the capture.
func (c *Capture) Close() error {
	err := c.file.Close()
	<-c.done
	return err
}

func (c *Capture) read() {
	defer close(c.done)
	buffer := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(buffer)
		if err != nil {
			c.fail(err)
			return
		}
		if p, ok := parsePacket(buffer[:n]); ok {
			c.add(p)
		}
	}
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.more)
}

func (c *Capture) add(p Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, p)
	close(c.more)
	c.more = make(chan struct{})
}

// Packets returns what has been seen so far, in order.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Packet(nil), c.packets...)
}

// Await returns the first packet, seen already or to come, that match takes.
func (c *Capture) Await(ctx context.Context, match func(Packet) bool) (Packet, error) {
	for seen := 0; ; {
		c.mu.Lock()
		fresh, more, err := c.packets[seen:], c.more, c.err
		c.mu.Unlock()
		for _, p := range fresh {
			if match(p) {
				return p, nil
			}
		}
		seen += len(fresh)
		if err != nil {
			return Packet{}, fmt.Errorf("await a packet: %w", err)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Packet{}, fmt.Errorf("await a packet: %w; %d others were seen", context.Cause(ctx), seen)
		}
	}
}

// Opening reports whether the packet is the first of a connection.
func (p Packet) Opening() bool { return p.SYN && !p.ACK }

// errNotTCP marks packets that parsePacket passes over.
var errNotTCP = errors.New("not a TCP segment")

// parsePacket reads an IPv4 or IPv6 packet without extension headers.
func parsePacket(b []byte) (Packet, bool) {
	p, segment, err := parseIP(b)
	if err != nil || len(segment) < 20 {
		return Packet{}, false
	}
	p.From = netip.AddrPortFrom(p.From.Addr(), binary.BigEndian.Uint16(segment))
	p.To = netip.AddrPortFrom(p.To.Addr(), binary.BigEndian.Uint16(segment[2:]))
	flags := segment[13]
	p.FIN, p.SYN, p.RST, p.ACK = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&16 != 0
	return p, true
}

// parseIP returns the addresses and the TCP segment of a packet.
func parseIP(b []byte) (Packet, []byte, error) {
	if len(b) < 20 {
		return Packet{}, nil, errNotTCP
	}
	p := Packet{Size: len(b)}
	if b[0]>>4 == 6 {
		if len(b) < 40 || b[6] != unix.IPPROTO_TCP {
			return Packet{}, nil, errNotTCP
		}
		p.TTL = int(b[7])
		p.From = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), 0)
		p.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), 0)
		return p, b[40:], nil
	}
	header := int(b[0]&15) * 4
	fragment := binary.BigEndian.Uint16(b[6:])
	if b[0]>>4 != 4 || len(b) < header || b[9] != unix.IPPROTO_TCP || fragment&0x1fff != 0 {
		return Packet{}, nil, errNotTCP
	}
	p.Fragment = fragment&0x2000 != 0
	p.TTL = int(b[8])
	p.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0)
	p.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), 0)
	return p, b[header:], nil
}
