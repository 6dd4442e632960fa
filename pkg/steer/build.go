package steer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// build identifies the compiled object of this build.
var build = sync.OnceValue(func() uint64 {
	sum := sha256.Sum256(_BpfBytes)
	return binary.BigEndian.Uint64(sum[:])
})

// putBuild writes that the pinned programs are of this build; the last step of
// a replacement.
func (s *pinSet) putBuild(forward bool) error {
	v, err := s.settings()
	if err != nil {
		return err
	}
	v.Build, v.Forward = build(), 0
	if forward {
		v.Forward = 1
	}
	if err := s.maps[bpfMapSettings].Put(uint32(0), v); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// isOfBuild reports whether a pinned program is the one that this build has
// under the name, by the kernel's tag. The tag of the netfilter program depends
// on the kernel's types, and that of programs which call functions of the kernel
// on its functions: for those the name has to do, and build.
func isOfBuild(name string, p *ebpf.Program) (bool, error) {
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	spec, err := embedded()
	if err != nil {
		return false, err
	}
	loaded := spec.Programs[name].Copy()
	if name == bpfProgSteerForward || callsKernel(loaded.Instructions) {
		return info.Type == loaded.Type && info.Name == shortName(name), nil
	}
	pointCalls(loaded.Instructions)
	return loaded.Compatible(info) == nil, nil
}

// callsKernel reports whether a program calls functions that are no helpers.
func callsKernel(insns asm.Instructions) bool {
	return slices.ContainsFunc(insns, func(i asm.Instruction) bool { return i.IsKfuncCall() })
}

// shortName is as much of a program's name as the kernel keeps.
func shortName(name string) string { return name[:min(len(name), unix.BPF_OBJ_NAME_LEN-1)] }

// pointCalls writes into calls of functions where those begin, as loading does.
// The library's comparison forgets it (cilium/ebpf v0.22).
func pointCalls(insns asm.Instructions) {
	begins := map[string]asm.RawInstructionOffset{}
	for i := insns.Iterate(); i.Next(); {
		if i.Ins.Symbol() != "" {
			begins[i.Ins.Symbol()] = i.Offset
		}
	}
	for i := insns.Iterate(); i.Next(); {
		if begin, known := begins[i.Ins.Reference()]; known && i.Ins.IsFunctionReference() {
			i.Ins.Constant = int64(begin) - int64(i.Offset) - 1
		}
	}
}
