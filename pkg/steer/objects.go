package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// haveObjects says whether a pin directory exists, and what is wrong with it.
func (s *Steer) haveObjects() (plan.Objects, bool, error) {
	unfinished, err := s.unfinished()
	if err != nil {
		return plan.Objects{}, false, err
	}
	set, err := openSet(s.dir())
	if errors.Is(err, ErrNotAttached) {
		return plan.Objects{Fault: "unfinished"}, unfinished, nil
	}
	if err != nil {
		return plan.Objects{}, false, err
	}
	defer set.Close()
	faults, other, err := s.faults(set)
	if unfinished {
		faults = append(faults, "an unfinished attach beside it")
	}
	return plan.Objects{Fault: strings.Join(faults, ", "), Other: other}, true, err
}

// unfinished reports what a crash leaves: objects built aside and not renamed,
// or the directory above when all that was in it is gone.
func (s *Steer) unfinished() (bool, error) {
	if aside, err := s.dir().aside().exists(); err != nil || aside {
		return aside, err
	}
	entries, err := os.ReadDir(s.root())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && len(entries) == 0, err
}

// faults lists what keeps the pinned objects from being those of this build, and
// reports whether they are of another.
func (s *Steer) faults(set *pinSet) (_ []string, other bool, _ error) {
	if err := set.checkABI(); err != nil {
		return []string{err.Error()}, true, nil
	}
	var faults []string
	for _, m := range set.missing {
		faults = append(faults, "no usable "+m)
	}
	others, err := set.othersPrograms()
	if err != nil {
		return nil, false, err
	}
	links, err := s.strayLinks(set)
	if err != nil {
		return nil, false, err
	}
	filters, err := strayFilters(s.filters, set)
	return slices.Concat(faults, others, links, filters), len(others) > 0, err
}

// othersPrograms names the pinned programs that are not those of this build.
func (s *pinSet) othersPrograms() ([]string, error) {
	var faults []string
	for _, name := range programNames() {
		p := s.programs[name]
		if p == nil {
			continue
		}
		ours, err := isOfBuild(name, p)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		if !ours {
			faults = append(faults, "program "+name+" of another build")
		}
	}
	if s.maps[bpfMapSettings] == nil {
		return faults, nil
	}
	v, err := s.settings()
	if err == nil && faults == nil && v.Build != build() {
		faults = append(faults, "programs of another build")
	}
	return faults, err
}

// strayLinks names the links that do not run the pinned program: a
// replacement was interrupted between the two.
func (s *Steer) strayLinks(set *pinSet) ([]string, error) {
	var faults []string
	err := s.dir().eachLink(func(l pinnedLink) error {
		p := set.programs[l.program]
		if p == nil {
			return nil
		}
		info, err := p.Info()
		if err != nil {
			return err
		}
		if id, _ := info.ID(); l.info.Program != id {
			faults = append(faults, l.name+" runs another program")
		}
		return nil
	})
	return faults, err
}

// addObjects loads maps and programs and pins them aside, and makes them the
// pin directory by one rename. Until then nothing refers to them, and after a
// crash they are a directory that nobody uses.
func (s *Steer) addObjects() error {
	set, err := openSet(s.dir())
	if err == nil {
		defer set.Close()
		return set.complete()
	}
	if !errors.Is(err, ErrNotAttached) {
		return err
	}
	if err := s.makeRoot(); err != nil {
		return err
	}
	aside := s.dir().aside()
	if err := aside.removeAll(); err != nil {
		return err
	}
	if err := os.Mkdir(string(aside), 0o700); err != nil {
		return err
	}
	if err := buildSet(aside); err != nil {
		return errors.Join(err, aside.removeAll(), s.removeRoot())
	}
	if err := os.Rename(string(aside), string(s.dir())); err != nil {
		return err
	}
	return s.adoptFilters()
}

// adoptFilters hands the new programs to clsact filters that have outlived the
// pins of theirs, whose maps nobody can write to any more.
func (s *Steer) adoptFilters() error {
	set, err := openSet(s.dir())
	if err != nil {
		return err
	}
	defer set.Close()
	return replaceFilters(s.filters, set.programs)
}

// buildSet loads everything and pins it in a directory.
func buildSet(dir pinDir) error {
	spec, err := loadable()
	if err != nil {
		return err
	}
	coll, err := loadCollection(spec, nil)
	if err != nil {
		return err
	}
	defer coll.Close()
	var forward uint32
	if coll.Programs[bpfProgSteerForward] != nil {
		forward = 1
	}
	first := bpfSettings{Forward: forward, Abi: bpfAbiABI, Reasons: bpfReasonREASONS, Build: build(), Since: uint64(time.Now().Unix())}
	if err := coll.Maps[bpfMapSettings].Put(uint32(0), first); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	for name, m := range coll.Maps {
		if err := m.Pin(dir.pin(name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for name, p := range coll.Programs {
		if err := p.Pin(dir.pin(name)); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	return nil
}

// loadError says what was being done; the verifier's log is in the error for
// those who print it with %+v.
func loadError(err error) error { return fmt.Errorf("load the BPF programs: %w", err) }

// replaceObjects puts this build's programs in place of others, link by link,
// each of which changes over between two packets. Maps stay as they are.
func (s *Steer) replaceObjects(want plan.Objects) error {
	if want.Fault != "" {
		return nil // apply takes a change back; programs that are gone cannot be had again, and these do as well
	}
	if err := s.Close(); err != nil {
		return err
	}
	set, err := openSet(s.dir())
	if errors.Is(err, ErrNotAttached) {
		return s.addObjects()
	}
	if err != nil {
		return err
	}
	defer set.Close()
	if err := set.keepMaps(); err != nil {
		return err
	}
	if err := s.replacePrograms(set); err != nil {
		return err
	}
	return s.dir().aside().removeAll()
}

// keepMaps refuses to go on with maps that programs of this build cannot use.
func (s *pinSet) keepMaps() error {
	for _, m := range s.missing {
		if strings.HasPrefix(m, "map ") {
			return s.complete()
		}
	}
	return s.checkABI() // missing programs are what is being replaced
}

// replacePrograms works in an order that can be begun again after a crash at
// any point: while a pin is not renamed the old program is found there, and
// everything is done once more.
func (s *Steer) replacePrograms(set *pinSet) error {
	spec, err := loadable()
	if err != nil {
		return err
	}
	coll, err := loadCollection(spec, set.maps)
	if err != nil {
		return err
	}
	defer coll.Close()
	err = s.dir().eachLink(func(l pinnedLink) error {
		if l.program == bpfProgSteerForward {
			return s.replaceForward(l, coll.Programs[l.program])
		}
		return l.Update(coll.Programs[l.program])
	})
	if err != nil {
		return fmt.Errorf("replace the programs of links: %w", err)
	}
	if err := replaceFilters(s.filters, coll.Programs); err != nil {
		return err
	}
	for name, p := range coll.Programs {
		if err := s.dir().replace(name, p); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	return set.putBuild(coll.Programs[bpfProgSteerForward] != nil)
}

// removeObjects removes every pin and the directory; with the links goes
// every program's attachment.
func (s *Steer) removeObjects() error {
	if err := s.Close(); err != nil {
		return err
	}
	if err := errors.Join(s.dir().endLinks(), s.endUnpinned("", 0)); err != nil {
		return err
	}
	if err := errors.Join(s.dir().removeAll(), s.dir().aside().removeAll()); err != nil {
		return err
	}
	return s.removeRoot()
}

// makeRoot makes the directory above. Where anybody may write to the BPF file
// system, one that is there may be another user's, who could take our pins away.
func (s *Steer) makeRoot() error {
	err := os.Mkdir(s.root(), 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(s.root(), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only this user can write to; remove it", s.root())
	}
	return nil
}

// removeRoot removes the directory above, unless another network namespace
// has its own in it.
func (s *Steer) removeRoot() error {
	if entries, err := os.ReadDir(s.root()); err != nil || len(entries) > 0 {
		return nil // absent is what is wanted, and what cannot be read is not empty
	}
	return removePin(s.root())
}
