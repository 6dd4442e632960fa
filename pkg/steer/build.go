package steer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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
// on the kernel's types, so for that one the name has to do, and build.
func isOfBuild(name string, p *ebpf.Program) (bool, error) {
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	if name == bpfProgSteerForward {
		return info.Type == ebpf.Netfilter && info.Name == name, nil
	}
	spec, err := embedded()
	if err != nil {
		return false, err
	}
	loaded := spec.Programs[name].Copy()
	pointCalls(loaded.Instructions)
	return loaded.Compatible(info) == nil, nil
}

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
