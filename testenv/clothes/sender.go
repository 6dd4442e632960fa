package clothes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sender puts frames on a link, past the sender's own network stack.
type Sender interface {
	// Send sends the frames from one number on.
	Send(t *Tailor, from int) error
	Close() error
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	sent uint32
	_    [4]byte
}

// PacketSender sends by a packet socket, many frames in a system call.
type PacketSender struct {
	fd       int
	ethernet bool
	messages [512]mmsghdr
	vectors  [512]unix.Iovec
	v4, v6   unix.RawSockaddrLinklayer
}

// NewPacketSender opens a packet socket on a device of the calling thread's network
// namespace.
func NewPacketSender(device string, ethernet bool) (*PacketSender, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("open a sender: %w", err)
	}
	// Protocol 0: it receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a sender: %w", err)
	}
	s := &PacketSender{fd: fd, ethernet: ethernet}
	s.v4, s.v6 = linkAddress(link.Index, unix.ETH_P_IP), linkAddress(link.Index, unix.ETH_P_IPV6)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open a sender: bind to %s: %w", device, err)
	}
	return s, nil
}

func linkAddress(index int, protocol uint16) unix.RawSockaddrLinklayer {
	return unix.RawSockaddrLinklayer{
		Family: unix.AF_PACKET, Ifindex: int32(index), Protocol: binary.NativeEndian.Uint16([]byte{byte(protocol >> 8), byte(protocol)}),
	}
}

// Send implements Sender.
func (s *PacketSender) Send(t *Tailor, from int) error {
	for from < t.Len() {
		n := min(len(s.messages), t.Len()-from)
		if err := s.batch(t, from, n); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// batch sends n frames.
func (s *PacketSender) batch(t *Tailor, from, n int) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(s)
	pin.Pin(&t.arena[0])
	for i := range n {
		b := t.Frame(from + i)
		s.vectors[i].Base = &b[0]
		s.vectors[i].SetLen(len(b))
		m := &s.messages[i].Msghdr
		m.Iov = &s.vectors[i]
		m.SetIovlen(1)
		s.address(m, b)
	}
	for done := 0; done < n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[done])), uintptr(n-done), 0, 0, 0)
		switch {
		case errno == unix.EINTR || errno == unix.ENOBUFS: // a queue on the way was full: what went missing is sent again
			continue
		case errno != 0:
			return fmt.Errorf("send frame %x: %w", t.Frame(from+done), errno)
		}
		done += int(sent)
	}
	return nil
}

// address names the protocol of a packet on a link whose frames do not say it.
func (s *PacketSender) address(m *unix.Msghdr, packet []byte) {
	if s.ethernet {
		return
	}
	m.Name = (*byte)(unsafe.Pointer(&s.v4))
	if packet[0]>>4 == 6 {
		m.Name = (*byte)(unsafe.Pointer(&s.v6))
	}
	m.Namelen = unix.SizeofSockaddrLinklayer
}

// Close ends the sender.
func (s *PacketSender) Close() error { return unix.Close(s.fd) }

// Tun is the far end of a TUN device: what is written comes in by the device, and
// what leaves by it is read.
type Tun struct{ file *os.File }

// NewTun makes a TUN device in the calling thread's network namespace. It lives as
// long as its Tun.
func NewTun(device string) (*Tun, error) {
	fd, err := openTun()
	if err != nil {
		return nil, fmt.Errorf("make the TUN device %s: %w", device, err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make the TUN device %s: %w", device, err)
	}
	return &Tun{os.NewFile(uintptr(fd), device)}, nil
}

// openTun opens the device, whose node is missing where no udev runs; opening a node
// of its number makes the kernel load the module.
func openTun() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	dir, err := os.MkdirTemp("", "portreeve-tun-")
	if err != nil {
		return -1, err
	}
	defer os.RemoveAll(dir)
	node := dir + "/tun"
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		return -1, err
	}
	return unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Send implements Sender. The device refuses what is no IP packet at all.
func (d *Tun) Send(t *Tailor, from int) error {
	for ; from < t.Len(); from++ {
		if _, err := d.file.Write(t.Frame(from)); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("send packet %x: %w", t.Frame(from), err)
		}
	}
	return nil
}

// Pump carries what leaves by one device to another, but for what goes to the SYNs'
// sources: nobody is there. It ends with the devices.
func (d *Tun) Pump(to *Tun) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := d.file.Read(buffer)
		if err != nil {
			return
		}
		if !toSource(buffer[:n]) {
			to.file.Write(buffer[:n]) // a full device loses packets, as any
		}
	}
}

// Close removes the device.
func (d *Tun) Close() error { return d.file.Close() }

// toSource says whether a packet goes to the source of a SYN.
func toSource(b []byte) bool {
	_, ok := serialOf(b, true)
	return ok
}
