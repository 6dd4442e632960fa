package steer

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// loadCollection loads programs, with maps that are there already. Where the kernel does not offer
// them its functions, or not to us, they are loaded without: calls return 0.
func loadCollection(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) (*ebpf.Collection, error) {
	options := ebpf.CollectionOptions{MapReplacements: maps}
	coll, err := ebpf.NewCollectionWithOptions(spec, options)
	if err == nil {
		return coll, nil
	}
	without := spec.Copy()
	called := false
	for _, p := range without.Programs {
		called = withoutCalls(p) || called
	}
	if !called {
		return nil, loadError(err)
	}
	coll, again := ebpf.NewCollectionWithOptions(without, options)
	if again != nil {
		return nil, loadError(again)
	}
	return coll, nil
}

// withoutCalls puts 0 in the place of what functions of the kernel return, and reports
// whether there were calls. The netfilter program cannot do without.
func withoutCalls(p *ebpf.ProgramSpec) (called bool) {
	for i, ins := range p.Instructions {
		if p.Type == ebpf.Netfilter || !ins.IsKfuncCall() {
			continue
		}
		called = true
		p.Instructions[i] = asm.Mov.Imm(asm.R0, 0).WithSymbol(ins.Symbol()).WithSource(ins.Source())
	}
	return called
}
