package steer

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/portreeve/portreeve/pkg/plan"
)

// most is how many instructions the verifier may follow in a program of ours: a
// quarter of what the kernel allows (BPF_COMPLEXITY_LIMIT_INSNS), since kernels
// differ in how they prune.
const most = 250_000

// TestVerified prints how long each program took the verifier of this kernel.
func TestVerified(t *testing.T) {
	s, _ := sandbox(t)
	must(t, s.Add(plan.Objects{}))
	set, err := s.open()
	must(t, err)
	for _, name := range programNames() {
		p := set.programs[name]
		if p == nil {
			continue // TestNFLinks says on which kernels that is right
		}
		insns, known := verified(t, p)
		t.Logf("%-20s %6d instructions followed", name, insns)
		if !known || insns == 0 || insns > most {
			t.Errorf("%s: %d instructions, want at most %d", name, insns, most)
		}
	}
}

// TestForwardCalls holds the programs in FORWARD to what their types may call on
// every kernel. A call that is never reached counts as well: whether the verifier
// sees that differs between kernels, and one that does not loads nothing.
func TestForwardCalls(t *testing.T) {
	may := []asm.BuiltinFunc{asm.FnMapLookupElem, asm.FnKtimeGetNs}
	spec, err := loadBpf()
	must(t, err)
	for name, more := range map[string][]asm.BuiltinFunc{
		bpfProgSteerForward:      {asm.FnProbeReadKernel, asm.FnDynptrRead},
		bpfProgSteerForwardMatch: {asm.FnSkbLoadBytes, asm.FnSkbLoadBytesRelative},
	} {
		for _, ins := range spec.Programs[name].Instructions {
			called := asm.BuiltinFunc(ins.Constant)
			if ins.IsBuiltinCall() && !slices.Contains(may, called) && !slices.Contains(more, called) {
				t.Errorf("%s calls %s", name, called)
			}
		}
	}
}

func verified(t *testing.T, p *ebpf.Program) (uint32, bool) {
	t.Helper()
	info, err := p.Info()
	must(t, err)
	return info.VerifiedInstructions()
}
