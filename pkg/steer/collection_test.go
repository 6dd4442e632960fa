package steer

import (
	"testing"

	"github.com/cilium/ebpf"
)

// Programs load on a kernel without its functions, and are the programs of this build
// all the same.
func TestWithoutKernelFunctions(t *testing.T) {
	spec, err := loadable()
	must(t, err)
	calling := 0
	for _, p := range spec.Programs {
		if withoutCalls(p) {
			calling++
		}
	}
	if calling == 0 {
		t.Fatal("no program calls functions of the kernel")
	}
	coll, err := ebpf.NewCollection(spec)
	must(t, err)
	defer coll.Close()
	for name, p := range coll.Programs {
		if ours, err := isOfBuild(name, p); err != nil || !ours {
			t.Errorf("%s: %t %v", name, ours, err)
		}
	}
}
