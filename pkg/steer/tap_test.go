package steer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// wireEnd is the other end of a tun or tap interface: what is written to it
// comes in at the interface.
type wireEnd struct {
	t  *testing.T
	fd int
}

// newTap makes an interface of Ethernet frames, or of IP packets with
// IFF_TUN, that is up.
func newTap(t *testing.T, name string, kind uint16) *wireEnd {
	t.Helper()
	fd, err := openTun(t)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	req, err := unix.NewIfreq(name)
	must(t, err)
	req.SetUint16(kind | unix.IFF_NO_PI)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	up(t, name)
	return &wireEnd{t, fd}
}

// openTun opens the device, whose node is missing where no udev runs; opening
// a node of its number makes the kernel load the module.
func openTun(t *testing.T) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	node := filepath.Join(t.TempDir(), "tun")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		return 0, err
	}
	return unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
}

// send lets a frame or packet come in.
func (w *wireEnd) send(data []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, data); err != nil {
		w.t.Fatalf("send %x: %v", data, err)
	}
}

// trySend lets one come in that the kernel may refuse for its length.
func (w *wireEnd) trySend(data []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, data); err != nil && !errors.Is(err, unix.EINVAL) {
		w.t.Fatalf("send %x: %v", data, err)
	}
}

// onWire is a stage with the client program on a tap or tun interface, and a
// program behind it that notes which marks it sees.
func onWire(t *testing.T, kind uint16) (*stage, *wireEnd, *ebpf.Map) {
	t.Helper()
	g := newStage(t)
	end := newTap(t, "ext0", kind)
	g.add(plan.TC{Interface: "ext0", Side: clientSide})
	marks, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	must(t, err)
	t.Cleanup(func() { marks.Close() })
	p, err := ebpf.NewProgram(markCounter(marks))
	must(t, err)
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachTCX(link.TCXOptions{Interface: int(index(t, "ext0")), Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return g, end, marks
}

// wantNoTCXOnWire is what these tests show on kernels without TCX links.
func wantNoTCXOnWire(t *testing.T) {
	t.Helper()
	g := &triangle{stage: newStage(t)}
	newTap(t, "ext0", unix.IFF_TAP)
	g.wantNoTCX()
}

// marksSeen are the marks of the packets that came past our program.
func marksSeen(t *testing.T, marks *ebpf.Map) (seen []uint32) {
	t.Helper()
	var mark uint32
	var one uint64
	entries := marks.Iterate()
	for entries.Next(&mark, &one) {
		seen = append(seen, mark)
	}
	must(t, entries.Err())
	slices.Sort(seen)
	return seen
}

// settle sends a SYN and waits until it is counted: all before it are judged.
func (g *stage) settle(end *wireEnd, data []byte, n uint64) {
	g.Helper()
	end.send(data)
	await(g.T, func() bool { return g.counts()[Reason(bpfReasonREASON_CLIENT_SYN)] == n })
}

// Whatever length a frame or packet is cut to, no program reads beyond it, and
// what has no ports is left alone. Program.Run cannot show this: it wants a
// whole IP header.
func TestEveryLengthOnWire(t *testing.T) {
	if !hasTCX(t) {
		wantNoTCXOnWire(t)
		return
	}
	for _, kind := range []uint16{unix.IFF_TAP, unix.IFF_TUN} {
		t.Run(map[uint16]string{unix.IFF_TAP: "Ethernet", unix.IFF_TUN: "without Ethernet"}[kind], func(t *testing.T) {
			g, end, marks := onWire(t, kind)
			var syns uint64
			for _, w := range worlds {
				packet := w.fromClient(w.origin, syn).bytes()
				closed := w.fromClient(w.closed, syn).bytes()
				if kind == unix.IFF_TAP {
					packet, closed = ethernet(packet), ethernet(closed)
				}
				for n := 1; n < len(packet); n++ {
					end.trySend(packet[:n])
					end.trySend(closed[:n])
				}
				if seen := marksSeen(t, marks); syns == 0 && !slices.Equal(seen, []uint32{0}) {
					t.Errorf("%s: marks %v", w.name(), seen)
				}
				syns++
				g.settle(end, packet, syns)
			}
			if n := g.counts(); len(n) != 1 {
				t.Error(n)
			}
			if seen := marksSeen(t, marks); !slices.Equal(seen, []uint32{0, clientMark}) {
				t.Errorf("marks %v", seen)
			}
		})
	}
}

// A frame with a VLAN tag is the VLAN interface's; the tag 0 is none.
func TestVLANOnWire(t *testing.T) {
	if !hasTCX(t) {
		wantNoTCXOnWire(t)
		return
	}
	g, end, marks := onWire(t, unix.IFF_TAP)
	frame := tagged(world4.fromClient(world4.origin, syn).bytes())
	end.send(frame)
	other := tagged(world4.fromClient(world4.closed, syn).bytes())
	end.send(other)
	if seen := marksSeen(t, marks); !slices.Equal(seen, []uint32{0}) {
		t.Errorf("marks %v", seen)
	}
	binary.BigEndian.PutUint16(frame[14:], 5<<13) // only a priority
	g.settle(end, frame, 1)
	if n := g.counts(); len(n) != 1 {
		t.Error(n)
	}
}

// Headers that do not lie in the linear part of a packet are found all the
// same: a packet socket puts all but the Ethernet header of a large frame into
// pages.
func TestNonLinear(t *testing.T) {
	if !hasTCX(t) {
		wantNoTCXOnWire(t)
		return
	}
	g := newStage(t)
	other := newSpace(t)
	wire(t, "ext0", "c0", other)
	setMTU(t, "ext0", 9000)
	g.add(plan.TC{Interface: "ext0", Side: clientSide})
	g.add(plan.TC{Interface: "ext0", Side: originSide})
	for n, w := range worlds {
		forged, _ := connect(t, w.client, w.origin, originMark)
		large := make([]byte, 6000)
		fresh := w.fromClient(w.origin, syn)
		fresh.payload = append(fresh.payload, large...)
		known := segment(at(w.origin, smtpPort), addrPort(forged.LocalAddr()), ack)
		known.payload = append(known.payload, large...)
		if w.client.Is4() {
			known.options = bytes.Repeat([]byte{1}, 8)
		} else {
			known.headers = []header{option(extHop, 1)}
		}
		other.do(func() {
			setMTU(t, "c0", 9000)
			transmit(t, "c0", ethernet(fresh.bytes()))
			transmit(t, "c0", ethernet(known.bytes()))
		})
		await(t, func() bool {
			have := g.counts()
			return have[Reason(bpfReasonREASON_CLIENT_SYN)] == uint64(n+1) && have[Reason(bpfReasonREASON_ORIGIN_SOCKET)] == uint64(n+1)
		})
	}
}

func setMTU(t *testing.T, name string, mtu uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	must(t, err)
	req.SetUint32(mtu)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req))
}

// transmit sends a frame out by an interface.
func transmit(t *testing.T, name string, frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(index(t, name))}))
}
