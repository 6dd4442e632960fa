package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoLandlock means that the kernel cannot confine a process: it is older than
// 5.13, or has Landlock switched off.
var ErrNoLandlock = errors.New("this kernel has no Landlock (Linux 5.13 and later, with landlock among the lsm= of its command line)")

// Exec replaces the calling process by a program that can read neither the files
// nor the memory of a process outside, such as the holder: Landlock forbids both.
// All other files it can read as before, except those that come to stand beside
// the forbidden ones or above them later.
//
// It returns only when it fails; then nothing has changed, except when it is the
// program that cannot be run.
func Exec(files []string, program string, args, environ []string) error {
	ruleset, err := ruleset(files)
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	runtime.LockOSThread() // Landlock is a thread's; the new program begins with this one alone
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("confine the inspector: %w", errno)
	}
	return fmt.Errorf("run the inspector again, confined: %w", unix.Exec(program, args, environ))
}

// ruleset makes a ruleset under which everything can be read except files.
//
// Landlock knows permissions only, and they hold for all below a directory. So
// what is beside the way to a forbidden file is permitted, at each step of it.
func ruleset(files []string) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_READ_FILE}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	switch errno {
	case 0:
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return -1, ErrNoLandlock
	default:
		return -1, fmt.Errorf("confine the inspector: %w", errno)
	}
	forbidden, err := resolved(files)
	if err == nil {
		err = permitBeside(int(fd), "/", forbidden)
	}
	if err != nil {
		unix.Close(int(fd))
		return -1, err
	}
	return int(fd), nil
}

// resolved returns the files with the links on their way followed, and the links
// themselves.
func resolved(files []string) (map[string]bool, error) {
	all := make(map[string]bool)
	for _, f := range files {
		real, err := filepath.EvalSymlinks(f)
		if err != nil {
			return nil, fmt.Errorf("confine the inspector: find the key %s: %w", f, err)
		}
		all[real] = true
		if dir, err := filepath.EvalSymlinks(filepath.Dir(f)); err == nil {
			all[filepath.Join(dir, filepath.Base(f))] = true // what a renewal puts there is not permitted either
		}
	}
	return all, nil
}

// permitBeside permits all entries of a directory that lead to no forbidden
// file, and goes on in those that do.
func permitBeside(ruleset int, dir string, forbidden map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("confine the inspector: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case forbidden[path], isOneOf(path, forbidden):
		case leads(path, forbidden):
			if err := permitBeside(ruleset, path, forbidden); err != nil {
				return err
			}
		case e.Type()&os.ModeSymlink == 0: // where a link leads to has a rule of its own
			permit(ruleset, path)
		}
	}
	return nil
}

// isOneOf reports whether a path is another name of a forbidden file: a rule is
// about what a name leads to, not about the name.
func isOneOf(path string, forbidden map[string]bool) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	for f := range forbidden {
		if other, err := os.Stat(f); err == nil && os.SameFile(info, other) {
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
func permit(ruleset int, path string) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: unix.LANDLOCK_ACCESS_FS_READ_FILE, Parent_fd: int32(fd)}
	unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
}
