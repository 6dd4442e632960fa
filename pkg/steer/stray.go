package steer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ErrElsewhere says that programs of ours are attached in this network
// namespace, but not pinned where they are looked for.
var ErrElsewhere = errors.New("BPF programs of portreeve are attached here and not pinned")

// Elsewhere returns an ErrElsewhere when a steer_lookup link of this network
// namespace is held by something else than pins at bpffs: another BPF file
// system, or one that is hidden by a mount. Detaching would leave it alive.
// Only CAP_SYS_ADMIN may look; without it the question is not answered.
func Elsewhere(bpffs string) error {
	netns, err := currentNetns()
	if err != nil {
		return err
	}
	s := &Steer{bpffs: bpffs, netns: netns}
	if pinned, err := s.dir().exists(); err != nil || pinned {
		return err
	}
	found := false
	err = eachInKernel(func(all *link.Iterator) bool {
		found = steersHere(all.Link, netns)
		return !found
	})
	switch {
	case found:
		return fmt.Errorf("%w under %s; where an inspector runs, its pins were removed, and it holds the programs: stop it; else name the BPF file system that they were pinned in: --bpffs DIR or PORTREEVE_BPFFS, or the configuration by -c", ErrElsewhere, s.root())
	case err != nil && !errors.Is(err, os.ErrPermission):
		return fmt.Errorf("look for links: %w", err)
	}
	return nil
}

// linkTries is how often a link of the machine is looked at again: while somebody
// creates one, the kernel asks to come back later (EAGAIN).
const linkTries = 200

// eachInKernel calls f with each link of the machine, until that returns false.
func eachInKernel(f func(*link.Iterator) bool) error {
	var last link.ID
	for tries := 0; ; tries++ {
		all := &link.Iterator{ID: last}
		more := true
		for more && all.Next() {
			last, more = all.ID, f(all)
		}
		err := all.Err()
		all.Close()
		if !more {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) || tries == linkTries {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// steersHere reports whether a link is that of our sk_lookup program in a
// network namespace.
func steersHere(l link.Link, netns uint64) bool {
	info, err := l.Info()
	if err != nil || info.NetNs() == nil || uint64(info.NetNs().NetnsInode) != netns {
		return false
	}
	return nameOfProgram(info.Program) == bpfProgSteerLookup
}
