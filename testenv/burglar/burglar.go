// Package burglar is what somebody would do who has taken a privileged process over
// and wants what another one has in its memory, though it may neither be traced nor its
// files in /proc be opened: he asks the kernel by BPF iterators.
//
// Tests have it try where it must not succeed, and where it must: else that it fails
// would say nothing.
package burglar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

const (
	atOnce  = 256 << 10 // octets that are copied by one call
	overlap = 1 << 10   // of two pieces, so that what is looked for is in one of them

	sleepable = 1 << 4 // BPF_F_SLEEPABLE, linux/bpf.h
	canRead   = 1      // VM_READ, linux/mm.h
)

// Memory reads all that a process has in its memory, and calls f with each piece,
// which is f's until it returns. It returns how many octets there were.
func Memory(pid int, f func(octets []byte)) (read int, err error) {
	areas, err := areasOf(pid)
	if err != nil {
		return 0, err
	}
	c, err := newCopier(pid)
	if err != nil {
		return 0, err
	}
	defer c.close()
	for _, a := range areas {
		for at := a.from; at < a.to; at += atOnce - overlap {
			n := min(atOnce, a.to-at)
			piece, err := c.copy(at, n)
			if err != nil {
				return read, err
			}
			if piece != nil {
				read += len(piece)
				f(piece)
			}
		}
	}
	return read, nil
}

// area is an area of memory that can be read.
type area struct{ from, to uint64 }

// areasOf lists a process's areas by an iterator over the areas of all tasks.
func areasOf(pid int) ([]area, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	id, err := offset(kernel, "task_struct", "pid")
	if err != nil {
		return nil, err
	}
	var of [3]int32
	for i, name := range []string{"vm_start", "vm_end", "vm_flags"} {
		if of[i], err = offset(kernel, "vm_area_struct", name); err != nil {
			return nil, err
		}
	}
	program := append(ofTask(pid, id),
		asm.LoadMem(asm.R8, asm.R6, 16, asm.DWord), // ctx->vma
		asm.JEq.Imm(asm.R8, 0, "end"),
	)
	for i, o := range of {
		program = append(program,
			asm.LoadMem(asm.R1, asm.R8, int16(o), asm.DWord),
			asm.StoreMem(asm.RFP, int16(-24+8*i), asm.R1, asm.DWord))
	}
	program = append(program,
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord), // ctx->meta
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // meta->seq
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.Mov.Imm(asm.R3, 24),
		asm.FnSeqWrite.Call())
	text, err := iterate("task_vma", 0, program)
	if err != nil {
		return nil, err
	}
	return readable(text)
}

// readable reads the triples of beginning, end and flags that the program wrote.
func readable(text []byte) (areas []area, err error) {
	for ; len(text) >= 24; text = text[24:] {
		word := func(i int) uint64 { return binary.NativeEndian.Uint64(text[8*i:]) }
		if word(2)&canRead != 0 {
			areas = append(areas, area{word(0), word(1)})
		}
	}
	if areas == nil {
		return nil, errors.New("burglar: the process has no memory")
	}
	return areas, nil
}

// ofTask is the beginning of a program of an iterator over tasks: R6 is the context, R7
// the task, and the program ends if it is not the one.
func ofTask(pid int, id int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 8, asm.DWord), // ctx->task
		asm.JEq.Imm(asm.R7, 0, "end"),
		asm.LoadMem(asm.R1, asm.R7, int16(id), asm.Word),
		asm.JNE.Imm(asm.R1, int32(pid), "end"),
	}
}

// load loads such a program.
func load(over string, flags uint32, program asm.Instructions) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: over, Flags: flags, License: "GPL",
		Instructions: append(program, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return()),
	})
}

// run lets a loaded program walk, and returns what it writes.
func run(p *ebpf.Program) ([]byte, error) {
	l, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	walk, err := l.Open()
	if err != nil {
		return nil, err
	}
	defer walk.Close()
	return io.ReadAll(walk)
}

func iterate(over string, flags uint32, program asm.Instructions) ([]byte, error) {
	p, err := load(over, flags, program)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return run(p)
}

// copier copies another task's memory into a map.
type copier struct {
	where *ebpf.Map // one order
	page  *ebpf.Map // one piece
	walk  *ebpf.Program
}

// order is what is to be copied, and what came of it.
type order struct{ At, Length, Failed uint64 }

func newCopier(pid int) (c *copier, err error) {
	c = new(copier)
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	array := func(size uint32) (*ebpf.Map, error) {
		return ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	}
	if c.where, err = array(24); err != nil {
		return nil, err
	}
	if c.page, err = array(atOnce); err != nil {
		return nil, err
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	id, err := offset(kernel, "task_struct", "pid")
	if err != nil {
		return nil, err
	}
	program := ofTask(pid, id)
	program = append(program, element(c.where, asm.R8)...)
	program = append(program, element(c.page, asm.R9)...)
	program = append(program,
		asm.LoadMem(asm.R2, asm.R8, 8, asm.DWord),
		asm.JGT.Imm(asm.R2, atOnce, "end"),
		asm.LoadMem(asm.R3, asm.R8, 0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.Mov.Reg(asm.R4, asm.R7),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnCopyFromUserTask.Call(),
		asm.StoreMem(asm.R8, 16, asm.R0, asm.DWord))
	c.walk, err = load("task", sleepable, program)
	return c, err
}

// element loads the one element of a map into a register.
func element(m *ebpf.Map, to asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Reg(to, asm.R0),
	}
}

func (c *copier) close() {
	for _, m := range []*ebpf.Map{c.where, c.page} {
		if m != nil {
			m.Close()
		}
	}
	if c.walk != nil {
		c.walk.Close()
	}
}

// copy copies a piece; nil: it cannot be read.
func (c *copier) copy(at, length uint64) ([]byte, error) {
	const failed = ^uint64(0)
	if err := c.where.Put(uint32(0), order{at, length, failed}); err != nil {
		return nil, err
	}
	if _, err := run(c.walk); err != nil {
		return nil, err
	}
	var came order
	if err := c.where.Lookup(uint32(0), &came); err != nil || came.Failed != 0 {
		return nil, err
	}
	piece, err := c.page.LookupBytes(uint32(0))
	if err != nil {
		return nil, err
	}
	return piece[:length], nil
}

// offset returns where a member of a structure of the kernel is, in octets, be it in
// a structure without a name inside.
func offset(kernel *btf.Spec, structure, member string) (int32, error) {
	var s *btf.Struct
	if err := kernel.TypeByName(structure, &s); err != nil {
		return 0, err
	}
	if at, found := find(s.Members, member); found {
		return int32(at), nil
	}
	return 0, fmt.Errorf("burglar: the kernel's %s has no %s", structure, member)
}

func find(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inside []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inside = t.Members
		case *btf.Union:
			inside = t.Members
		}
		if at, found := find(inside, name); found {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}
