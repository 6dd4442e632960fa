package steer

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// chainOf returns the programs at a TCX hook of an interface, in their order; none where
// the kernel has no such hooks.
func chainOf(ifindex uint32, egress bool) ([]link.AttachedProgram, error) {
	q, err := link.QueryPrograms(link.QueryOptions{Target: int(ifindex), Attach: hookOf(egress)})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the TCX programs of interface %d: %w", ifindex, err)
	}
	return q.Programs, nil
}

// markBehind marks the items of those TCX links before which programs of others run.
// The programs are those of the links, in the same order; those beside them are ours, too.
func markBehind(items []plan.Item, programs, beside []ebpf.ProgramID) error {
	for n, item := range items {
		t, is := item.(plan.TC)
		if _, isGone := Gone(t.Interface); !is || isGone || t.Clsact {
			continue
		}
		ifindex, err := ifaceIndex(t.Interface)
		if err != nil {
			continue // it has gone since
		}
		chain, err := chainOf(ifindex, t.Egress)
		if err != nil {
			return err
		}
		t.Behind = slices.ContainsFunc(before(chain, programs[n]), func(p link.AttachedProgram) bool {
			return !slices.Contains(programs, p.ID) && !slices.Contains(beside, p.ID)
		})
		items[n] = t
	}
	return nil
}

// before returns the programs that come before one.
func before(chain []link.AttachedProgram, program ebpf.ProgramID) []link.AttachedProgram {
	n := slices.IndexFunc(chain, func(p link.AttachedProgram) bool { return p.ID == program })
	return chain[:max(n, 0)]
}

// toHead puts a TC program before those of others again. The kernel cannot move a
// link, nor attach a program twice: a copy of it goes first, so that no packet passes
// between, and gives way to the pinned program once that is not attached any more.
func (s *Steer) toHead(i plan.TC) error {
	set, err := s.open()
	if err != nil {
		return err
	}
	program, err := programAt(i)
	if err != nil {
		return err
	}
	ifindex, err := ifaceIndex(i.Interface)
	if err != nil {
		return err
	}
	copied, err := set.copyOf(program)
	if err != nil {
		return err
	}
	defer copied.Close()
	name := linkName(program, ifindex)
	aside := s.dir().pin(name + building)
	if err := removePin(aside); err != nil {
		return err
	}
	l, err := attachTCX(ifindex, copied, i.Egress)
	if err != nil {
		return fmt.Errorf("attach a copy before the programs of others: %w", err)
	}
	defer l.Close()
	if err := l.Pin(aside); err != nil {
		return err
	}
	if err := s.dir().removeLink(name); err != nil {
		return err
	}
	if err := os.Rename(aside, s.dir().pin(name)); err != nil {
		return err
	}
	return l.Update(set.programs[program])
}

// copyOf loads a program of ours once more, with the pinned maps.
func (s *pinSet) copyOf(name string) (*ebpf.Program, error) {
	spec, err := loadable()
	if err != nil {
		return nil, err
	}
	only := spec.Copy()
	only.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	coll, err := loadCollection(only, s.maps)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
}
