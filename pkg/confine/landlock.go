package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoLandlock means that the kernel cannot confine a process: it is older than
// 5.13, has Landlock switched off, or a container forbids it.
var ErrNoLandlock = errors.New("there is no Landlock here (Linux 5.13 and later, with landlock among the lsm= of its command line, and not forbidden by a container)")

// restrictSelf puts the calling thread under a ruleset. It needs no_new_privs.
func restrictSelf(ruleset int) error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("confine the inspector: %w", errno)
	}
	return nil
}

// handled is what nobody may without a rule. There is no rule for making devices.
const handled = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR

// ruleset makes a ruleset for Exec.
//
// Landlock knows permissions only, and they hold for all below a directory. So
// what is beside the way to a key is permitted, at each step of it.
func ruleset(keys, needed []string, program string) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	switch errno {
	case 0:
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM: // the last from a filter of system calls, of a container
		return -1, ErrNoLandlock
	default:
		return -1, fmt.Errorf("confine the inspector: %w", errno)
	}
	w, err := newWay(int(fd), keys, needed)
	if err == nil {
		w.permit(program, 0) // running is reading; the program may be in nobody's directory
		err = w.permitBeside("/", true)
	}
	if err != nil {
		unix.Close(int(fd))
		return -1, err
	}
	return int(fd), nil
}

// way is a walk along the ways to the keys.
type way struct {
	ruleset int
	keys    map[string]bool // by all names that are known, without links on the way
	needed  map[string]bool
}

func newWay(ruleset int, keys, needed []string) (*way, error) {
	w := &way{ruleset, make(map[string]bool), make(map[string]bool)}
	for _, f := range keys {
		real, err := filepath.EvalSymlinks(f)
		if err != nil {
			if e, is := errors.AsType[*fs.PathError](err); is {
				err = e.Err
			}
			return nil, fmt.Errorf("cannot read the key %s: %w; name the right file under tls.certificates", f, err)
		}
		w.keys[real] = true
		for _, name := range mountedNames(real) {
			w.keys[name] = true
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(f)); err == nil {
			w.keys[filepath.Join(dir, filepath.Base(f))] = true // what a renewal puts there is not permitted either
		}
	}
	for _, f := range needed {
		if real, err := filepath.EvalSymlinks(f); err == nil { // who opens it says that it is missing
			w.needed[real] = true
		}
	}
	return w, nil
}

// mountedNames returns the names that a file has by further mounts of its file
// system. No other file system is touched: one over a network may hang.
func mountedNames(file string) (names []string) {
	var info unix.Stat_t
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(file, &info) != nil {
		return nil
	}
	device := fmt.Sprintf("%d:%d", unix.Major(info.Dev), unix.Minor(info.Dev))
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // proc(5): id, parent, device, root, mount point
		if len(f) < 5 || f[2] != device {
			continue
		}
		// What is mounted begins somewhere on the way to the file.
		for rest := file; ; rest = afterFirst(rest) {
			name := filepath.Join(spelled.Replace(f[4]), rest)
			var other unix.Stat_t
			if name != file && unix.Stat(name, &other) == nil && other.Dev == info.Dev && other.Ino == info.Ino {
				names = append(names, name)
			}
			if rest == "" {
				break
			}
		}
	}
	return names
}

// spelled undoes what the kernel does to names in that table.
var spelled = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// afterFirst returns a path without its first element.
func afterFirst(path string) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return rest
}

// permitBeside permits what is in a directory and leads to no key, and goes on in
// what does. Where not everybody can get into the directory, it is only what is
// needed.
func (w *way) permitBeside(dir string, open bool) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrPermission): // not root, and only let through, as by Debian's /etc/ssl/private
		w.permitNeeded(dir)
		return nil
	case err != nil:
		return fmt.Errorf("confine the inspector: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case w.isKey(path), e.Type()&os.ModeSymlink != 0: // where a link leads to has a rule of its own
		case leads(path, w.keys):
			err = w.permitBeside(path, open && public(e))
		case path == "/dev":
			for _, name := range harmless {
				w.permit(filepath.Join(path, name), unix.O_NOFOLLOW)
			}
		case w.needed[path], open && public(e):
			w.permit(path, unix.O_NOFOLLOW)
		case leads(path, w.needed):
			err = w.permitBeside(path, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// permitNeeded permits what is needed below a directory that cannot be listed.
func (w *way) permitNeeded(dir string) {
	for path := range w.needed {
		if strings.HasPrefix(path, dir+"/") && !w.isKey(path) && !leads(path, w.keys) {
			w.permit(path, unix.O_NOFOLLOW)
		}
	}
}

// harmless are the devices that show nothing of disks or memory.
var harmless = []string{"null", "zero", "full", "random", "urandom", "tty", "console", "pts", "ptmx", "shm"}

// public reports whether everybody may read a file, or list a directory and enter
// it.
func public(e os.DirEntry) bool {
	info, err := e.Info()
	if err != nil {
		return false
	}
	need := os.FileMode(0o004)
	if e.IsDir() {
		need = 0o005
	}
	return info.Mode().Perm()&need == need
}

// isKey reports whether a path is a name of a key: a rule is about what a name
// leads to, not about the name.
func (w *way) isKey(path string) bool {
	if w.keys[path] {
		return true
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	for key := range w.keys {
		if other, err := os.Stat(key); err == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}

func leads(dir string, to map[string]bool) bool {
	for path := range to {
		if strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// permit permits reading what is at a path and below. What cannot be opened now
// (it is gone, or a socket) needs no rule.
func (w *way) permit(path string, flags int) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: unix.LANDLOCK_ACCESS_FS_READ_FILE, Parent_fd: int32(fd)}
	unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(w.ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
}
