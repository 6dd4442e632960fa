package steer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
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
func onWire(t *testing.T, kind uint16, clsact bool) (*stage, *wireEnd, *ebpf.Map) {
	t.Helper()
	g := newStage(t)
	g.UseFilters(clsactFilters{map[plan.TC]ebpf.ProgramID{}})
	end := newTap(t, "ext0", kind)
	g.add(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: clsact})
	marks, _ := g.attachBehind(clsact)
	return g, end, marks
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

// settle sends the one SYN of a test that counts: when it is counted, all
// before it have been judged.
func (g *stage) settle(end *wireEnd, data []byte) {
	g.Helper()
	end.send(data)
	await(g.T, func() bool { return g.counts()[Reason(bpfReasonREASON_CLIENT_SYN)] == 1 })
}

// Whatever length a frame or packet is cut to, no program reads beyond it, and
// what has no ports is left alone. Program.Run cannot show this: it wants a
// whole IP header.
func TestEveryLengthOnWire(t *testing.T) {
	eachDatapath(t, func(t *testing.T, clsact bool) {
		t.Run("Ethernet", func(t *testing.T) { everyLength(t, unix.IFF_TAP, clsact, ethernet) })
		t.Run("bare", func(t *testing.T) { everyLength(t, unix.IFF_TUN, clsact, bytes.Clone) })
	})
}

func everyLength(t *testing.T, kind uint16, clsact bool, wrap func([]byte) []byte) {
	g, end, marks := onWire(t, kind, clsact)
	for _, w := range worlds {
		for _, to := range []netip.Addr{w.origin, w.closed} {
			whole := wrap(w.fromClient(to, syn).bytes())
			for n := 1; n < len(whole); n++ {
				end.trySend(whole[:n])
			}
		}
	}
	g.settle(end, wrap(world4.fromClient(world4.origin, syn).bytes()))
	if seen := marksSeen(t, marks); !slices.Equal(seen, []uint32{0, clientMark}) {
		t.Errorf("marks %v", seen)
	}
	end.send(wrap(world6.fromClient(world6.closed, syn).bytes()))
	await(t, func() bool { return g.counts()[Reason(bpfReasonREASON_CLIENT_ABSENT_CLOSED)] == 1 })
	if n := g.counts(); len(n) != 2 {
		t.Error(n)
	}
}

// A frame with a VLAN tag is the VLAN interface's; the tag 0 is none.
func TestVLANOnWire(t *testing.T) { eachDatapath(t, vlanOnWire) }

func vlanOnWire(t *testing.T, clsact bool) {
	g, end, marks := onWire(t, unix.IFF_TAP, clsact)
	frame := tagged(world4.fromClient(world4.origin, syn).bytes())
	end.send(frame)
	other := tagged(world4.fromClient(world4.closed, syn).bytes())
	end.send(other)
	if seen := marksSeen(t, marks); !slices.Equal(seen, []uint32{0}) {
		t.Errorf("marks %v", seen)
	}
	binary.BigEndian.PutUint16(frame[14:], 5<<13) // only a priority
	g.settle(end, frame)
	if n := g.counts(); len(n) != 1 {
		t.Error(n)
	}
}

// Headers that do not lie in the linear part of a packet are found all the
// same: a packet socket puts all but the Ethernet header of a large frame into
// pages.
func TestNonLinear(t *testing.T) { eachDatapath(t, nonLinear) }

func nonLinear(t *testing.T, clsact bool) {
	g := newStage(t)
	g.UseFilters(clsactFilters{map[plan.TC]ebpf.ProgramID{}})
	other := newSpace(t)
	wire(t, "ext0", "c0", other)
	setMTU(t, "ext0", 9000)
	g.add(plan.TC{Interface: "ext0", Side: plan.ClientSide, Clsact: clsact})
	g.add(plan.TC{Interface: "ext0", Side: plan.OriginSide, Clsact: clsact})
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
