package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attach types of enum bpf_attach_type, linux/bpf.h.
const (
	bpfSKLookup   = 36
	bpfTCXIngress = 46 // kernel 6.6
	bpfTCXEgress  = 47
)

// bpf makes a bpf(2) call; attr is a pointer to its attributes. The tests'
// view of BPF has to be independent of the library that the product uses.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// queryAttr is the part of union bpf_attr for BPF_PROG_QUERY.
type queryAttr struct {
	target      uint32 // interface index, or descriptor of a network namespace
	attachType  uint32
	queryFlags  uint32
	attachFlags uint32
	programs    uint64 // pointer to []uint32
	count       uint32
	_           uint32
	progFlags   uint64
	links       uint64 // pointer to []uint32
	linkFlags   uint64
	revision    uint64
}

// openPin opens what is pinned at a path.
func openPin(path string) (fd int, err error) {
	name := append([]byte(path), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&name[0])
	attr := struct {
		path      uint64
		fd, flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(&name[0])))}
	return bpf(unix.BPF_OBJ_GET, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// Programs lists the BPF programs attached to the node's network namespace, a line
// for each: where ("sk_lookup", "ext0 tcx ingress"), number, name and link. clsact
// filters are not among them.
func (n *Node) Programs() (list string, err error) {
	err = n.Enter(func() (err error) {
		list, err = attachments()
		return err
	})
	return list, err
}

// attachments lists the BPF programs attached to the network namespace of the
// calling thread: sk_lookup programs, and TCX programs of each device, in the
// order in which they run.
func attachments() (string, error) {
	var list strings.Builder
	namespace, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return "", err
	}
	defer namespace.Close()
	if err := query(&list, "sk_lookup", uint32(namespace.Fd()), bpfSKLookup); err != nil {
		return "", err
	}
	devices, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		if err := query(&list, d.Name+" tcx ingress", uint32(d.Index), bpfTCXIngress); err != nil {
			return "", err
		}
		if err := query(&list, d.Name+" tcx egress", uint32(d.Index), bpfTCXEgress); err != nil {
			return "", err
		}
	}
	return list.String(), nil
}

// query writes a line for each program attached to a target.
func query(list *strings.Builder, where string, target, attachType uint32) error {
	var programs, links [64]uint32
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&programs)
	pin.Pin(&links)
	attr := queryAttr{
		target: target, attachType: attachType, count: uint32(len(programs)),
		programs: uint64(uintptr(unsafe.Pointer(&programs))),
	}
	size := unsafe.Sizeof(attr)
	if attachType != bpfSKLookup {
		attr.links = uint64(uintptr(unsafe.Pointer(&links)))
	}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), size)
	if errors.Is(err, unix.EINVAL) && attachType != bpfSKLookup {
		return nil // before kernel 6.6 nothing can be attached there
	}
	if err != nil {
		return fmt.Errorf("query bpf programs of %s: %w", where, err)
	}
	for i := range attr.count {
		name, err := programName(programs[i])
		if err != nil {
			return err
		}
		fmt.Fprintf(list, "%s: program %d %s link %d\n", where, programs[i], name, links[i])
	}
	return nil
}

// programName returns the name of a loaded program.
func programName(id uint32) (string, error) {
	byID := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if err != nil {
		return "", fmt.Errorf("open bpf program %d: %w", id, err)
	}
	defer unix.Close(fd)
	var info [80]byte // struct bpf_prog_info up to its name
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := struct {
		fd, length uint32
		info       uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return "", fmt.Errorf("describe bpf program %d: %w", id, err)
	}
	name, _, _ := bytes.Cut(info[64:], []byte{0})
	return string(name), nil
}
