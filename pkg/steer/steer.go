// Package steer owns the life of the BPF objects that bring connections to
// the inspector: the maps and programs compiled from bpf/, their pins, the
// sk_lookup link, and the links of the TC and netfilter programs, of which some steer
// and some are walls.
//
// A [Steer] is one of the hands of apply: it says what the kernel holds and
// carries out single changes to it. An [Inspector] is the running daemon's
// side: it puts listeners into the kernel, keeps the heartbeat, and holds the links
// lest somebody removes their pins. A [Kept] is the watcher's: it holds all objects, and
// pins them again; its [Notes] are in the kernel too. All act in the network namespace of
// the calling thread, and each namespace has a pin directory of its own:
// <bpffs>/portreeve/<inode of the namespace>.
//
// Links of ours that have lost their pins, and that somebody holds, are found in the
// kernel: they are pinned again, or ended.
//
// The kernel is the only state; nothing is remembered in files. The package
// never touches what portreeve did not create, and never speaks netlink: clsact
// filters are put in place by a [Filters].
package steer

import (
	"errors"
	"fmt"

	"github.com/portreeve/portreeve/pkg/plan"
)

// ErrNotAttached says that the network namespace has no pin directory.
var ErrNotAttached = errors.New("nothing is attached in this network namespace; run portreeve attach")

// Steer reads and changes the BPF objects of one network namespace. It is not
// safe for concurrent use; processes are kept apart by apply's lock.
type Steer struct {
	bpffs   string
	netns   uint64 // inode
	filters Filters
	set     *pinSet // what is pinned; opened by the first change, see open
}

// New returns the hand for the network namespace of the calling thread. The
// directory bpffs must be a mounted BPF file system.
func New(bpffs string) (*Steer, error) {
	if err := checkBPFFS(bpffs); err != nil {
		return nil, err
	}
	netns, err := currentNetns()
	if err != nil {
		return nil, err
	}
	return &Steer{bpffs: bpffs, netns: netns, filters: noFilters{}}, nil
}

// Name returns the hand's name in messages.
func (s *Steer) Name() string { return "steer" }

// Owns reports whether items of a kind are this hand's.
func (s *Steer) Owns(k plan.Kind) bool {
	switch k {
	case plan.KindObjects, plan.KindSettings, plan.KindService, plan.KindOrigin,
		plan.KindRole, plan.KindBinding, plan.KindLookup, plan.KindTC, plan.KindForward:
		return true
	}
	return false
}

// Close closes what was opened. What is pinned stays.
func (s *Steer) Close() error {
	if s.set == nil {
		return nil
	}
	err := s.set.Close()
	s.set = nil
	return err
}

// open returns the pinned objects for a change.
func (s *Steer) open() (*pinSet, error) {
	if s.set != nil {
		return s.set, nil
	}
	set, err := openSet(s.dir())
	if err != nil {
		return nil, err
	}
	if err := set.complete(); err != nil {
		set.Close()
		return nil, err
	}
	s.set = set
	return set, nil
}

// Have returns what the kernel holds of ours. It works on damaged state too:
// what cannot be read is left out, and the Objects item says what is wrong.
func (s *Steer) Have() ([]plan.Item, error) {
	if err := s.Close(); err != nil {
		return nil, err
	}
	items, err := s.havePinned()
	if err != nil {
		return nil, explain(err)
	}
	filters, err := haveFilters(s.filters)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		items = append(items, f)
	}
	return items, nil
}

// havePinned reads what hangs on the pin directory.
func (s *Steer) havePinned() ([]plan.Item, error) {
	objects, found, err := s.haveObjects()
	if err != nil || !found {
		return nil, err
	}
	items := []plan.Item{objects}
	set, err := openSet(s.dir())
	if errors.Is(err, ErrNotAttached) {
		return items, nil // unfinished: only the directory for building is there
	}
	if err != nil {
		return nil, err
	}
	defer set.Close()
	if set.checkABI() != nil { // the maps cannot be read, and go with the objects
		links, err := s.haveLinks(set)
		return append(items, links...), err
	}
	readers := []func(*pinSet) ([]plan.Item, error){haveSettings, haveServices, haveOrigins, haveRoles, haveBindings, s.haveLinks}
	for _, have := range readers {
		found, err := have(set)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	return items, nil
}

// Add brings an item into the kernel. One that is there already is brought to
// the item's state.
func (s *Steer) Add(item plan.Item) error {
	return explain(s.add(item))
}

// Replace brings an item from one state to another, without a moment in
// which it is gone.
func (s *Steer) Replace(old, item plan.Item) error {
	if o, ok := item.(plan.Objects); ok {
		return explain(s.replaceObjects(o))
	}
	if was, ok := old.(plan.TC); ok && was.Behind {
		if was.Unpinned {
			if err := s.add(item); err != nil {
				return explain(err)
			}
		}
		return explain(s.toHead(item.(plan.TC)))
	}
	return explain(s.add(item))
}

// Remove takes an item out of the kernel; absent is success. Where pins are
// damaged an entry of a map stays until Objects, with which all of them go, are
// removed: nothing else can be done with damaged pins.
func (s *Steer) Remove(item plan.Item) error {
	err := s.remove(item)
	if errors.Is(err, ErrNotAttached) || errors.As(err, new(errDamaged)) {
		return nil
	}
	return explain(err)
}

func (s *Steer) add(item plan.Item) error {
	switch i := item.(type) {
	case plan.Objects:
		return s.addObjects()
	case plan.TC:
		return s.addTC(i)
	}
	set, err := s.open()
	if err != nil {
		return err
	}
	switch i := item.(type) {
	case plan.Settings:
		return set.putSettings(i)
	case plan.Service:
		return set.putService(i)
	case plan.Origin:
		return set.putOrigin(i)
	case plan.Role:
		return set.putRole(i)
	case plan.Binding:
		return set.putBinding(i)
	case plan.Loop:
		return set.putLoop(i)
	case plan.Lookup:
		return s.addLookup(set)
	case plan.Forward:
		return s.addForward(set, i)
	}
	return fmt.Errorf("%T is not an item of steer", item)
}

func (s *Steer) remove(item plan.Item) error {
	switch i := item.(type) {
	case plan.Objects:
		return s.removeObjects()
	case plan.Lookup:
		return s.removeLink(lookupLink)
	case plan.Forward:
		return s.removeLink(forwardLink(i.Family))
	case plan.TC:
		return s.removeTC(i)
	}
	set, err := s.open()
	if err != nil {
		return err
	}
	switch i := item.(type) {
	case plan.Settings:
		return set.putSettings(plan.Settings{})
	case plan.Loop:
		return set.putLoop(plan.Loop{})
	case plan.Service:
		return set.removeService(i)
	case plan.Origin:
		return set.removeOrigin(i)
	case plan.Role:
		return set.removeRole(i)
	case plan.Binding:
		return set.removeBinding(i)
	}
	return fmt.Errorf("%T is not an item of steer", item)
}
