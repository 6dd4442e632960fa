package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// pinDir is the directory with the pins of a network namespace: maps, programs, and
// links by the names that linkName gives them.
type pinDir string

// pin is the path of a pin.
func (d pinDir) pin(name string) string { return filepath.Join(string(d), name) }

// aside is where objects are built before they are this directory.
func (d pinDir) aside() pinDir { return d + building }

// exists reports whether the directory exists.
func (d pinDir) exists() (bool, error) {
	st, err := os.Lstat(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return st.IsDir(), nil
}

// removeAll removes the directory with all pins; absent is success.
func (d pinDir) removeAll() error { return os.RemoveAll(string(d)) }

// names returns the pins that begin with a prefix.
func (d pinDir) names(prefix string) ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// replace makes a program the pinned one of a name, in one step.
func (d pinDir) replace(name string, p *ebpf.Program) error {
	aside := d.pin(name + building)
	if err := removePin(aside); err != nil {
		return err
	}
	if err := p.Pin(aside); err != nil {
		return err
	}
	return os.Rename(aside, d.pin(name))
}

// eachLink calls f for each pinned link. A pin that is no link of ours is left
// out: removing the directory removes it too.
func (d pinDir) eachLink(f func(pinnedLink) error) error {
	pins, err := d.names(linkPrefix)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, name := range pins {
		l, err := d.openLink(name)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		err = f(*l)
		l.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// openLink opens the pin of a link; nil if it is none of ours.
func (d pinDir) openLink(name string) (*pinnedLink, error) {
	program, number, ok := parseLink(name)
	if !ok {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(d.pin(name), nil)
	if isDenied(err) {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if err != nil {
		return nil, nil
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return &pinnedLink{l, info, name, program, number}, nil
}

// ending is the ending of the pin of a link that is being ended. One that was
// ended at FORWARD does not show it, and would pass for a wall that stands.
const ending = "_end"

// removeLink ends a link and removes its pin: an inspector that runs holds it
// as well, and without an end it would go on. What a crash leaves of that has
// another name, and is finished by the next change of the link.
func (d pinDir) removeLink(name string) error {
	if strings.HasSuffix(name, ending) {
		return d.endLink(name)
	}
	if err := d.endLink(name + ending); err != nil {
		return err
	}
	if err := os.Rename(d.pin(name), d.pin(name+ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.endLink(name + ending)
}

// endLink ends a link whose pin bears the ending, and removes that.
func (d pinDir) endLink(name string) error {
	if _, _, ours := parseLink(strings.TrimSuffix(name, ending)); !ours {
		return removePin(d.pin(name))
	}
	l, err := link.LoadPinnedLink(d.pin(name), nil)
	if isDenied(err) {
		return fmt.Errorf("open %s: %w", name, err)
	}
	if err == nil {
		defer l.Close()
		if err := endIt(l); err != nil {
			return fmt.Errorf("end %s: %w", name, err)
		}
	}
	return removePin(d.pin(name))
}

// pinLink pins a link. Somebody else may have done so a moment ago, where the lock was lost.
func (d pinDir) pinLink(name string, l link.Link) error {
	failed := l.Pin(d.pin(name))
	if failed == nil {
		return nil
	}
	failed = fmt.Errorf("pin %s: %w", name, failed)
	if !errors.Is(failed, fs.ErrExist) {
		return failed
	}
	there, err := d.openLink(name)
	if err != nil || there == nil {
		return errors.Join(failed, err)
	}
	defer there.Close()
	if info, err := l.Info(); err != nil || info.ID != there.info.ID {
		return errors.Join(failed, err)
	}
	return nil
}

// pinAgain pins a link by a name. One that was being ended gets its name back instead: with
// two pins it would be ended by the other.
func (d pinDir) pinAgain(name string, l pinnedLink) error {
	old, err := link.LoadPinnedLink(d.pin(name+ending), nil)
	if err != nil {
		return d.pinLink(name, l)
	}
	defer old.Close()
	info, err := old.Info()
	if err != nil {
		return err
	}
	if info.ID != l.info.ID {
		return d.pinLink(name, l)
	}
	return os.Rename(d.pin(name+ending), d.pin(name))
}

// endLinks removes the pins of links before those of what they run.
func (d pinDir) endLinks() error {
	found, err := d.exists()
	if err != nil || !found {
		return err
	}
	links, err := d.names(linkPrefix)
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := d.removeLink(l); err != nil {
			return err
		}
	}
	return nil
}
