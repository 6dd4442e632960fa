package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Kept are the pinned objects of a network namespace, held open so that they can be
// pinned again: somebody may remove the pins, or unmount the BPF file system. It is
// not safe for concurrent use.
type Kept struct {
	steer   *Steer
	objects map[string]keptObject // by the names of their pins
}

// keptObject is a map, a program or a link that has no pin of its own in this process.
type keptObject struct {
	id     uint64
	pin    func(path string) error
	closes func() error
	ended  func() bool // nil: it has no end of its own
}

// NewKept returns what keeps the objects of a hand's network namespace; nothing yet.
func NewKept(s *Steer) *Kept { return &Kept{steer: s, objects: map[string]keptObject{}} }

// Use makes the pins of another hand those that are followed. What is kept and not pinned
// there is lost, so that Restore pins it.
func (k *Kept) Use(s *Steer) { k.steer = s }

// Close lets all go.
func (k *Kept) Close() error {
	var err error
	for name, o := range k.objects {
		err = errors.Join(err, o.closes())
		delete(k.objects, name)
	}
	return err
}

// Follow holds what is pinned now, and lets go what was ended or replaced. What is lost it
// goes on holding: pins may be removed, or their file system unmounted, between any look
// for what is lost and this. Close is for what was detached.
func (k *Kept) Follow() error {
	dir := k.steer.dir()
	pins, err := dir.names("")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	found := map[string]keptObject{}
	for _, name := range pins {
		if strings.HasSuffix(name, building) || strings.HasSuffix(name, ending) {
			continue
		}
		o, err := openKept(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is lost since it was listed
		}
		if err != nil {
			return errors.Join(fmt.Errorf("keep %s: %w", name, err), (&Kept{objects: found}).Close())
		}
		found[name] = o
	}
	old := k.objects
	k.objects = found
	if !replaced(old, found) {
		keepLost(old, found)
	}
	return (&Kept{objects: old}).Close()
}

// replaced reports whether maps or programs are others than before: somebody has attached
// anew, and what is not pinned any more is not lost. Links come and go with interfaces.
func replaced(old, now map[string]keptObject) bool {
	for name, o := range now {
		_, _, isLink := parseLink(name)
		if was, kept := old[name]; kept && !isLink && was.id != o.id {
			return true
		}
	}
	return false
}

// keepLost moves what is lost from what was kept to what is kept now.
func keepLost(old, now map[string]keptObject) {
	var lost, perhaps []string
	for name, o := range old {
		if _, pinned := now[name]; !pinned {
			lost, perhaps = o.sort(name, lost, perhaps)
		}
	}
	if len(lost) == 0 {
		return
	}
	for _, name := range append(lost, perhaps...) {
		now[name] = old[name]
		delete(old, name)
	}
}

// sort adds an object without a pin to those that are lost, or that are lost with others.
// The pin of a link which was ended was removed with it. The kernel does not say that of
// links at FORWARD, so these are lost only with others: by itself each can be made anew.
func (o keptObject) sort(name string, lost, perhaps []string) (_, _ []string) {
	switch {
	case isForwardLink(name):
		perhaps = append(perhaps, name)
	case o.ended == nil || !o.ended():
		lost = append(lost, name)
	}
	return lost, perhaps
}

// openKept opens a pin, as an object that this process can pin once more.
func openKept(dir pinDir, name string) (keptObject, error) {
	if _, _, isLink := parseLink(name); isLink {
		return openKeptLink(dir, name)
	}
	if strings.HasPrefix(name, "steer_") {
		p, err := ebpf.LoadPinnedProgram(dir.pin(name), nil)
		if err != nil {
			return keptObject{}, err
		}
		defer p.Close()
		return keptClone(p.Clone())
	}
	m, err := ebpf.LoadPinnedMap(dir.pin(name), nil)
	if err != nil {
		return keptObject{}, err
	}
	defer m.Close()
	return keptClone(m.Clone())
}

// keptClone keeps a program or map without a pin.
func keptClone[Info interface{ ID() (ID, bool) }, ID ~uint32](o interface {
	Info() (Info, error)
	Pin(path string) error
	Close() error
}, err error) (keptObject, error) {
	if err != nil {
		return keptObject{}, err
	}
	info, err := o.Info()
	if err != nil {
		return keptObject{}, errors.Join(err, o.Close())
	}
	id, _ := info.ID()
	return keptObject{id: uint64(id), pin: o.Pin, closes: o.Close}, nil
}

func openKeptLink(dir pinDir, name string) (keptObject, error) {
	l, err := link.LoadPinnedLink(dir.pin(name), nil)
	if err != nil {
		return keptObject{}, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return keptObject{}, err
	}
	clone, err := link.NewFromID(info.ID)
	if err != nil {
		return keptObject{}, err
	}
	return keptObject{id: uint64(info.ID), pin: clone.Pin, closes: clone.Close, ended: func() bool {
		now, err := clone.Info()
		return err != nil || !runs(now)
	}}, nil
}

// isForwardLink reports whether a pin is that of a link at FORWARD.
func isForwardLink(name string) bool {
	program, _, _ := parseLink(name)
	return program == bpfProgSteerForward
}

// Lost names the pins that are gone, of objects that are kept.
func (k *Kept) Lost() []string {
	var lost, perhaps []string
	for name, o := range k.objects {
		if _, err := os.Lstat(k.steer.dir().pin(name)); errors.Is(err, fs.ErrNotExist) {
			lost, perhaps = o.sort(name, lost, perhaps)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return append(lost, perhaps...)
}

// Restore pins what is kept and lost again, and returns the names. It changes nothing
// where other objects are pinned by now: somebody has attached anew. The caller holds
// the lock of apply.
func (k *Kept) Restore() ([]string, error) {
	lost := k.Lost()
	if len(lost) == 0 {
		return nil, nil
	}
	if err := checkBPFFS(k.steer.bpffs); err != nil {
		return nil, err
	}
	if renewed, err := k.renewed(); renewed || err != nil {
		return nil, err
	}
	if err := k.steer.Close(); err != nil {
		return nil, err
	}
	if there, err := k.steer.dir().exists(); err != nil {
		return nil, err
	} else if !there {
		if err := k.restoreAll(); err != nil {
			return nil, err
		}
		return lost, k.Follow()
	}
	for _, name := range lost {
		if err := k.objects[name].pin(k.steer.dir().pin(name)); err != nil {
			return nil, fmt.Errorf("pin %s again: %w", name, err)
		}
	}
	return lost, k.Follow()
}

// renewed reports whether what is pinned is not what is kept, see replaced.
func (k *Kept) renewed() (bool, error) {
	now := &Kept{objects: map[string]keptObject{}}
	for name := range k.objects {
		o, err := openKept(k.steer.dir(), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, errors.Join(fmt.Errorf("read %s: %w", name, err), now.Close())
		}
		now.objects[name] = o
	}
	return replaced(k.objects, now.objects), now.Close()
}

// restoreAll makes the pin directory anew, in one step.
func (k *Kept) restoreAll() error {
	if err := k.steer.makeRoot(); err != nil {
		return err
	}
	aside := k.steer.dir().aside()
	if err := errors.Join(aside.removeAll(), k.steer.dir().removeAll()); err != nil {
		return err
	}
	if err := os.Mkdir(string(aside), 0o700); err != nil {
		return err
	}
	for name, o := range k.objects {
		if o.ended != nil && o.ended() && !isForwardLink(name) {
			continue
		}
		if err := o.pin(aside.pin(name)); err != nil {
			return errors.Join(fmt.Errorf("pin %s again: %w", name, err), aside.removeAll())
		}
	}
	return os.Rename(string(aside), string(k.steer.dir()))
}
