package steer

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Feature is something that the kernel side needs or can use.
type Feature struct {
	Name   string // what it is
	Kernel string // the release that brought it: "5.17"
	Needed bool   // nothing works without it
	Err    error  // nil: it is there; else what trying it gave
}

// Missing reports whether the kernel lacks the feature, as opposed to a trial
// that failed for another reason, such as missing privileges.
func (f Feature) Missing() bool { return errors.Is(f.Err, ebpf.ErrNotSupported) }

// Probe tries every feature for real, and leaves nothing behind.
func Probe() []Feature {
	return []Feature{
		{"sk_lookup programs", "5.9", true, explain(trySkLookup())},
		{"sk_lookup by interface", "5.17", true, explain(trySkLookupInterface())},
		{"SOCKMAP of listeners", "5.9", true, explain(trySockmap())},
		{"TC classifier programs", "5.2", true, explain(tryClassifier())},
		{"TCX links", "6.6", false, explain(tryTCX())},
		{"netfilter links", "6.4", false, explain(tryNetfilter())},
	}
}

// TCXSupported reports whether TC programs can be attached by TCX links, by
// trying. An error means that the trial could not tell.
func TCXSupported() (bool, error) {
	err := tryTCX()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, explain(err)
}

// load loads a program and drops it again.
func load(spec *ebpf.ProgramSpec) error {
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	return p.Close()
}

func trySkLookup() error {
	return load(&ebpf.ProgramSpec{
		Name: "steer_probe", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
}

// ingressIfindex is the offset of the field in struct bpf_sk_lookup.
const ingressIfindex = 64

// trySkLookupInterface loads a program that reads a field which older kernels
// do not have; their verifier refuses it.
func trySkLookupInterface() error {
	if err := trySkLookup(); err != nil {
		return err
	}
	err := load(&ebpf.ProgramSpec{
		Name: "steer_probe", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R0, asm.R1, ingressIfindex, asm.Word),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		},
	})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) && errors.Is(err, unix.EACCES) {
		return fmt.Errorf("sk_lookup programs do not see the interface: %w", ebpf.ErrNotSupported)
	}
	return err
}

func trySockmap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "steer_probe", Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	return m.Close()
}

// classifier is a program that leaves every packet alone.
func classifier() *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: "steer_probe", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	}
}

func tryClassifier() error { return load(classifier()) }

// tryTCX attaches to an interface that cannot exist: a kernel with TCX says
// just that.
func tryTCX() error {
	p, err := ebpf.NewProgram(classifier())
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := attachTCX(math.MaxInt32, p, false)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(errors.New("interface 2147483647 exists"), l.Close())
}
