package testenv

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tracepoints of the kernel that a Tally can count at.
const (
	SystemCalls     = "sys_enter"
	ContextSwitches = "sched_switch" // away from one of the account's threads
)

// Tally counts how often the processes of an Account come by a tracepoint. Unlike
// strace it leaves them nearly as fast as they are.
type Tally struct{ counter, program, link int } // descriptors; the link lives as long as its own

// Tally begins to count at a tracepoint.
func (a *Account) Tally(tracepoint string) (*Tally, error) {
	t := &Tally{-1, -1, -1}
	if err := t.begin(a, tracepoint); err != nil {
		t.Close()
		return nil, fmt.Errorf("count %s: %w", tracepoint, err)
	}
	return t, nil
}

func (t *Tally) begin(a *Account, tracepoint string) error {
	id, err := a.id()
	if err != nil {
		return err
	}
	if t.counter, err = newCounter(); err != nil {
		return fmt.Errorf("create map: %w", err)
	}
	count := addOne(t.counter)
	t.program, err = loadProgram(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, "tally", slices.Concat(
		instruction(0x85, 0x00, 0, 80),                    // call get_current_cgroup_id
		instruction(0x18, 0x01, 0, int32(uint32(id))),     // r1 = id
		instruction(0x00, 0x00, 0, int32(uint32(id>>32))), // its upper half
		instruction(0x5d, 0x10, int16(len(count)/8), 0),   // if r0 != r1 skip the counting
		count,
		instruction(0xb7, 0x00, 0, 0), // r0 = 0
		instruction(0x95, 0x00, 0, 0), // exit
	))
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	t.link, err = openTracepoint(tracepoint, t.program)
	return err
}

// openTracepoint attaches a program to a raw tracepoint.
func openTracepoint(name string, program int) (int, error) {
	text := append([]byte(name), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&text[0])
	attr := struct {
		name    uint64
		program uint32
		_       uint32
	}{name: uint64(uintptr(unsafe.Pointer(&text[0]))), program: uint32(program)}
	return bpf(unix.BPF_RAW_TRACEPOINT_OPEN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// Total returns how often it was so far.
func (t *Tally) Total() (uint64, error) {
	n, err := readCounter(t.counter)
	if err != nil {
		return 0, fmt.Errorf("read a tally: %w", err)
	}
	return n, nil
}

// Close ends the counting.
func (t *Tally) Close() error { return closeAll(t.link, t.program, t.counter) }
