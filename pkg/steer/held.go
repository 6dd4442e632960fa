package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf/link"
)

// heldLinks are links that an inspector keeps open, by the names of their pins.
type heldLinks map[string]pinnedLink

// Hold opens the links that are pinned now, so that they last as long as the
// inspector: whoever removes their pins, or unmounts the BPF file system, takes
// neither steering nor walls away from under it. A detach ends the links; what was
// ended is let go.
func (i *Inspector) Hold() error { return explain(i.held.follow(i.set.dir)) }

// Unpinned reports whether the pins are gone and the links that are held steer
// on: with this inspector they will end.
func (i *Inspector) Unpinned() bool {
	_, err := os.Stat(i.pinPath())
	return errors.Is(err, fs.ErrNotExist) && i.held.steer()
}

// follow makes them the links that are pinned.
func (h heldLinks) follow(dir pinDir) error {
	pins, err := dir.names(linkPrefix)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, name := range pins {
		l, err := dir.openLink(name)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		if err := h.take(*l); err != nil {
			return err
		}
	}
	return h.letGo(pins)
}

// take takes a link, in place of one that was pinned under its name before.
func (h heldLinks) take(l pinnedLink) error {
	old, held := h[l.name]
	if held && old.info.ID == l.info.ID {
		return l.Close()
	}
	h[l.name] = l
	if held {
		return old.Close()
	}
	return nil
}

// letGo closes links that were ended and have no pin any more: interfaces come and
// go, each with a number of its own. There are two links of netfilter at the most, of
// which the kernel does not say whether they were ended.
func (h heldLinks) letGo(pins []string) error {
	for name, l := range h {
		if slices.Contains(pins, name) || l.program == bpfProgSteerForward {
			continue
		}
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if runs(info) {
			continue
		}
		delete(h, name)
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// steer reports whether one of them still runs its program.
func (h heldLinks) steer() bool {
	for _, l := range h {
		if info, err := l.Info(); err == nil && runs(info) {
			return true
		}
	}
	return false
}

// runs reports whether a link was neither ended nor has lost what it was attached
// to.
func runs(info *link.Info) bool {
	if ns := info.NetNs(); ns != nil {
		return ns.NetnsInode != 0
	}
	tcx := info.TCX()
	return tcx != nil && tcx.Ifindex != 0
}

// close closes them all.
func (h heldLinks) close() error {
	var err error
	for _, l := range h {
		err = errors.Join(err, l.Close())
	}
	return err
}
