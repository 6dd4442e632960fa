package testenv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ForeignTCX is a TCX program of somebody else at the ingress of a device: it
// counts packets and lets them go on. It is there to be left alone.
type ForeignTCX struct {
	counter, program, link int // descriptors; the link lives as long as its own
	counted                uint64
}

// HasTCX reports whether programs can be attached by TCX links: from kernel 6.6.
func HasTCX() (bool, error) {
	attr := queryAttr{target: loopbackIndex, attachType: bpfTCXIngress}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask whether the kernel has TCX: %w", err)
	}
	return true, nil
}

// loopbackIndex is the interface index of lo in every network namespace.
const loopbackIndex = 1

// AttachForeignTCX attaches the program behind those that are there. It needs
// kernel 6.6.
func (n *Node) AttachForeignTCX(device string) (*ForeignTCX, error) {
	f := &ForeignTCX{counter: -1, program: -1, link: -1}
	err := n.Enter(func() error { return f.attach(device) })
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("attach a foreign tcx program to %s of %s: %w", device, n.Role, err)
	}
	return f, nil
}

func (f *ForeignTCX) attach(device string) (err error) {
	if f.counter, err = newCounter(); err != nil {
		return fmt.Errorf("create map: %w", err)
	}
	if f.program, err = loadCounting(f.counter); err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	return f.hook(device)
}

// hook attaches the program behind the others at the ingress of a device.
func (f *ForeignTCX) hook(device string) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	attr := struct {
		program, target, attachType, flags uint32
		relative, _                        uint32
		revision                           uint64
	}{program: uint32(f.program), target: uint32(link.Index), attachType: bpfTCXIngress}
	f.link, err = bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// newCounter makes an array map of one 64-bit value.
func newCounter() (int, error) {
	attr := struct{ mapType, keySize, valueSize, maxEntries uint32 }{unix.BPF_MAP_TYPE_ARRAY, 4, 8, 1}
	return bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// instruction encodes one eBPF instruction.
func instruction(op, registers byte, offset int16, immediate int32) []byte {
	b := []byte{op, registers}
	b = binary.NativeEndian.AppendUint16(b, uint16(offset))
	return binary.NativeEndian.AppendUint32(b, uint32(immediate))
}

// addOne is the part of a program that adds 1 to the value of a map.
func addOne(counter int) []byte {
	return slices.Concat(
		instruction(0x62, 0x0a, -4, 0),             // *(u32 *)(r10 - 4) = 0
		instruction(0xbf, 0xa2, 0, 0),              // r2 = r10
		instruction(0x07, 0x02, 0, -4),             // r2 += -4
		instruction(0x18, 0x11, 0, int32(counter)), // r1 = map
		instruction(0x00, 0x00, 0, 0),              // its upper half
		instruction(0x85, 0x00, 0, 1),              // call map_lookup_elem
		instruction(0x15, 0x00, 2, 0),              // if r0 == 0 skip two
		instruction(0xb7, 0x01, 0, 1),              // r1 = 1
		instruction(0xdb, 0x10, 0, 0),              // lock *(u64 *)r0 += r1
	)
}

// loadCounting loads a TC classifier that counts and returns -1: the next program
// decides.
func loadCounting(counter int) (int, error) {
	return loadProgram(unix.BPF_PROG_TYPE_SCHED_CLS, "foreign", slices.Concat(
		addOne(counter),
		instruction(0xb7, 0x00, 0, -1), // r0 = -1
		instruction(0x95, 0x00, 0, 0),  // exit
	))
}

// loadProgram loads a program of a kind.
func loadProgram(kind uint32, name string, code []byte) (int, error) {
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	attr := struct {
		programType, count  uint32
		code, license       uint64
		logLevel, logSize   uint32
		log                 uint64
		kernelVersion, flag uint32
		name                [16]byte
	}{
		programType: kind, count: uint32(len(code) / 8),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:15], name)
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// Packets returns how many packets have passed the program.
func (f *ForeignTCX) Packets() (uint64, error) {
	packets, err := readCounter(f.counter)
	if err != nil {
		return 0, fmt.Errorf("read the foreign program's counter: %w", err)
	}
	return packets, nil
}

// readCounter reads the value of a map of newCounter.
func readCounter(counter int) (uint64, error) {
	var key uint32
	var value uint64
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&key)
	pin.Pin(&value)
	attr := struct {
		fd, _             uint32
		key, value, flags uint64
	}{fd: uint32(counter), key: uint64(uintptr(unsafe.Pointer(&key))), value: uint64(uintptr(unsafe.Pointer(&value)))}
	_, err := bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return value, err
}

// Ran returns how many packets have passed the program since the last call.
func (f *ForeignTCX) Ran() (uint64, error) {
	packets, err := f.Packets()
	ran := packets - f.counted
	f.counted = packets
	return ran, err
}

// Close detaches the program.
func (f *ForeignTCX) Close() error { return closeAll(f.link, f.program, f.counter) }

// closeAll closes the descriptors that are some.
func closeAll(fds ...int) error {
	var failures []error
	for _, fd := range fds {
		if fd >= 0 {
			failures = append(failures, unix.Close(fd))
		}
	}
	return errors.Join(failures...)
}
