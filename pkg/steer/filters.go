package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Filters puts TC programs into clsact qdiscs, which takes netlink. An item's
// Filter names them.
type Filters interface {
	// Have returns the filters of ours, each with Clsact set.
	Have() ([]plan.TC, error)
	// Runs reports whether a filter of ours, if it is there, runs the program of
	// that number and no other.
	Runs(t plan.TC, program uint32) (bool, error)
	// Add installs a program as a filter, in place of one for the same item.
	Add(t plan.TC, fd int) error
	// Remove removes a filter; absent is success.
	Remove(t plan.TC) error
}

// noFilters are those of a hand that was given none.
type noFilters struct{}

var errNoFilters = errors.New("this command cannot change clsact filters")

func (noFilters) Have() ([]plan.TC, error)           { return nil, nil }
func (noFilters) Runs(plan.TC, uint32) (bool, error) { return false, errNoFilters }
func (noFilters) Add(plan.TC, int) error             { return errNoFilters }
func (noFilters) Remove(plan.TC) error               { return errNoFilters }

// UseFilters makes the hand able to attach TC programs through clsact.
func (s *Steer) UseFilters(f Filters) { s.filters = f }

// haveFilters reads the clsact filters.
func haveFilters(f Filters) ([]plan.TC, error) {
	filters, err := f.Have()
	if err != nil {
		return nil, fmt.Errorf("read clsact filters: %w", err)
	}
	return filters, nil
}

// strayFilters names the clsact filters that do not run the pinned program: they
// have outlived it, or a replacement was interrupted.
func strayFilters(all Filters, set *pinSet) ([]string, error) {
	filters, err := haveFilters(all)
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, f := range filters {
		stray, err := isStray(all, f, set)
		if err != nil {
			return nil, err
		}
		if stray {
			faults = append(faults, fmt.Sprintf("filter %s of %s runs another program", f.Filter(), f.Interface))
		}
	}
	return faults, nil
}

// isStray reports whether a filter runs another program than the pinned one.
func isStray(all Filters, f plan.TC, set *pinSet) (bool, error) {
	name, err := programAt(f)
	if errors.Is(err, unix.ENODEV) {
		return false, nil // gone since
	}
	if err != nil {
		return false, err
	}
	p := set.programs[name]
	if p == nil {
		return false, nil // which is a fault of its own
	}
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	id, _ := info.ID()
	runs, err := all.Runs(f, uint32(id))
	if err != nil {
		return false, fmt.Errorf("read clsact filters: %w", err)
	}
	return !runs, nil
}

// replaceFilters installs new programs in place of all clsact filters of ours.
func replaceFilters(all Filters, programs map[string]*ebpf.Program) error {
	filters, err := haveFilters(all)
	if err != nil {
		return err
	}
	for _, f := range filters {
		name, err := programAt(f)
		if err != nil {
			return err
		}
		if err := all.Add(f, programs[name].FD()); err != nil {
			return err
		}
	}
	return nil
}
