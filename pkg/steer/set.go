package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
)

// abi is the shape of the maps that this build understands.
const abi = uint32(bpfAbiABI)

// embedded parses the compiled objects once; callers copy what they change.
var embedded = sync.OnceValues(loadBpf)

// pinSet is the pinned maps and programs, opened. In damaged state some are nil.
type pinSet struct {
	dir      pinDir
	abi      uint32 // of the pinned maps; 0: cannot be told
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
	missing  []string // pins that are absent or not what they should be

	slots *slots     // index of services, see index
	bound *portCount // ports of bindings
	ours  *portCount // ports of origins

	targets *targetCount // addresses of transit bindings
}

// openSet opens the pins of a directory.
func openSet(dir pinDir) (*pinSet, error) {
	found, err := dir.exists()
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNotAttached
	}
	spec, err := embedded()
	if err != nil {
		return nil, err
	}
	s := &pinSet{dir: dir, maps: map[string]*ebpf.Map{}, programs: map[string]*ebpf.Program{}}
	s.abi, err = readABI(dir)
	for name, want := range spec.Maps {
		err = errors.Join(err, s.openMap(name, want))
	}
	for name := range spec.Programs {
		err = errors.Join(err, s.openProgram(name))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	slices.Sort(s.missing)
	return s, nil
}

// openMap opens a pinned map; a shape that is not ours counts as missing.
func (s *pinSet) openMap(name string, want *ebpf.MapSpec) error {
	m, err := ebpf.LoadPinnedMap(s.dir.pin(name), nil)
	if isDenied(err) {
		return err
	}
	if err != nil {
		s.missing = append(s.missing, "map "+name)
		return nil
	}
	if want.Compatible(m) != nil {
		s.missing = append(s.missing, "map "+name)
		return m.Close()
	}
	s.maps[name] = m
	return nil
}

func (s *pinSet) openProgram(name string) error {
	p, err := ebpf.LoadPinnedProgram(s.dir.pin(name), nil)
	if isDenied(err) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) && name == bpfProgSteerForward && !s.hasForward() {
		return nil // the kernel has no netfilter links
	}
	if err != nil {
		s.missing = append(s.missing, "program "+name)
		return nil
	}
	s.programs[name] = p
	return nil
}

// hasForward reports whether a netfilter program was loaded with the maps.
func (s *pinSet) hasForward() bool {
	if s.maps[bpfMapSettings] == nil {
		return true
	}
	v, err := s.settings()
	return err != nil || v.Forward != 0
}

// isDenied tells what we may not see from what is not there.
func isDenied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// Close closes all maps and programs.
func (s *pinSet) Close() error {
	var errs []error
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	for _, p := range s.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// complete refuses damaged state and another release's maps.
func (s *pinSet) complete() error {
	if err := s.checkABI(); err != nil {
		return err
	}
	if len(s.missing) > 0 {
		return errDamaged{s.dir, s.missing}
	}
	return nil
}

// has refuses state in which one of these maps is missing, and another release's.
func (s *pinSet) has(maps ...string) error {
	if err := s.checkABI(); err != nil {
		return err
	}
	for _, name := range maps {
		if s.maps[name] == nil {
			return errDamaged{s.dir, s.missing}
		}
	}
	return nil
}

// ErrDamaged: pins are gone or not what they should be.
var ErrDamaged = errors.New("the pinned objects are damaged")

// errDamaged says which.
type errDamaged struct {
	dir     pinDir
	missing []string
}

func (e errDamaged) Error() string {
	return fmt.Sprintf("%s is damaged: no usable %s; run portreeve detach, then attach", e.dir, strings.Join(e.missing, ", "))
}

// Is makes it an ErrDamaged.
func (e errDamaged) Is(target error) bool { return target == ErrDamaged }

// errABI says that another release's maps are pinned.
type errABI struct{ have uint32 }

func (e errABI) Error() string {
	return fmt.Sprintf("the pinned maps are of ABI %d, this build speaks %d; detach with the release that attached, then attach", e.have, abi)
}

// checkABI compares the pinned maps with this build. Maps that are too damaged
// to tell pass; they are missed elsewhere.
func (s *pinSet) checkABI() error {
	if s.abi != 0 && s.abi != abi {
		return errABI{s.abi}
	}
	return nil
}

// readABI reads what every release keeps in the same place: the first word of
// the map settings, whatever the shape of the rest.
func readABI(dir pinDir) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(dir.pin(bpfMapSettings), nil)
	if isDenied(err) {
		return 0, err
	}
	if err != nil {
		return 0, nil
	}
	defer m.Close()
	first, err := m.LookupBytes(uint32(0))
	if err != nil || len(first) < 4 {
		return 0, nil
	}
	return binary.NativeEndian.Uint32(first), nil
}
