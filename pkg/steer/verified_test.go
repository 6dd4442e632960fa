package steer

import (
	"testing"

	"github.com/cilium/ebpf"

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

func verified(t *testing.T, p *ebpf.Program) (uint32, bool) {
	t.Helper()
	info, err := p.Info()
	must(t, err)
	return info.VerifiedInstructions()
}
