package testenv

import (
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Meddling is what a program of somebody else does to packets; TCX unless said.
type Meddling string

const (
	Ends      Meddling = "ends"      // stands first and lets each packet go on, past all programs behind it
	Unmarks   Meddling = "unmarks"   // stands last and clears the mark
	Redirects Meddling = "redirects" // stands first and sends each packet out by dmz0, past routing and netfilter
	Sees      Meddling = "sees"      // an XDP program, which lets each packet pass
)

// bpfBefore puts a program before all others (BPF_F_BEFORE without one to be
// relative to).
const bpfBefore = 1 << 3

// Meddle attaches a program at the ingress of a device of the node; it stays
// until the node ends or release is called. It needs kernel 6.6.
func (n *Node) Meddle(device string, what Meddling) (release func() error, err error) {
	var link int
	err = n.Enter(func() (err error) {
		link, err = meddle(device, what)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach a program that %s to %s of %s: %w", what, device, n.Role, err)
	}
	return func() error { return unix.Close(link) }, nil
}

func meddle(device string, what Meddling) (link int, err error) {
	at, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	kind, hook := uint32(unix.BPF_PROG_TYPE_SCHED_CLS), uint32(bpfTCXIngress)
	if what == Sees {
		kind, hook = unix.BPF_PROG_TYPE_XDP, unix.BPF_XDP
	}
	code, flags, err := meddling(what)
	if err != nil {
		return 0, err
	}
	program, err := loadProgram(kind, string(what), code)
	if err != nil {
		return 0, fmt.Errorf("load program: %w", err)
	}
	defer unix.Close(program) // the link holds it
	attr := struct {
		program, target, attachType, flags uint32
		relative, _                        uint32
		revision                           uint64
	}{program: uint32(program), target: uint32(at.Index), attachType: hook, flags: flags}
	return bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// EndLink ends a BPF link by its pin, whoever else holds it, and removes the pin.
// Not all kinds of links can be ended.
func EndLink(pin string) error {
	link, err := openPin(pin)
	if err != nil {
		return fmt.Errorf("open %s: %w", pin, err)
	}
	defer unix.Close(link)
	end := struct{ fd uint32 }{uint32(link)}
	if _, err := bpf(unix.BPF_LINK_DETACH, unsafe.Pointer(&end), unsafe.Sizeof(end)); err != nil {
		return fmt.Errorf("end %s: %w", pin, err)
	}
	return os.Remove(pin)
}

// meddling returns a program, and where it stands among others.
func meddling(what Meddling) (code []byte, flags uint32, err error) {
	var parts [][]byte
	switch what {
	case Ends:
		flags = bpfBefore
		parts = [][]byte{
			instruction(0xb7, 0x00, 0, 0), // r0 = TCX_PASS
		}
	case Unmarks:
		parts = [][]byte{
			instruction(0xb7, 0x02, 0, 0),  // r2 = 0
			instruction(0x63, 0x21, 8, 0),  // skb->mark = r2
			instruction(0xb7, 0x00, 0, -1), // r0 = TCX_NEXT
		}
	case Redirects:
		out, err := net.InterfaceByName("dmz0")
		if err != nil {
			return nil, 0, err
		}
		flags = bpfBefore
		parts = [][]byte{
			instruction(0xb7, 0x01, 0, int32(out.Index)), // r1 = dmz0
			instruction(0xb7, 0x02, 0, 0),                // r2, r3, r4 = 0
			instruction(0xb7, 0x03, 0, 0),
			instruction(0xb7, 0x04, 0, 0),
			instruction(0x85, 0x00, 0, 152), // call redirect_neigh
		}
	case Sees:
		parts = [][]byte{
			instruction(0xb7, 0x00, 0, 2), // r0 = XDP_PASS
		}
	default:
		return nil, 0, fmt.Errorf("no program %q", what)
	}
	for _, p := range append(parts, instruction(0x95, 0x00, 0, 0)) { // exit
		code = append(code, p...)
	}
	return code, flags, nil
}
