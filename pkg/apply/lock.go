package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrLocked means that another process is changing the kernel side.
var ErrLocked = errors.New("locked")

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// Lock is held by the one process that may change the kernel side of a network
// namespace. The kernel lets it go when the process ends, however it ends.
type Lock struct{ file *os.File }

// made is the mode of a directory that Acquire has made. The sticky bit says nothing
// about files where nobody else may write: it is how Release knows such a directory
// from one that the administrator or a service manager has made, which stays, though
// empty. A mark on the directory itself comes and goes with it in one step.
const made = os.ModeDir | os.ModeSticky | 0o700

// mostVanished is how often the file or its directory may be gone again on the way to
// it, as their last holder removes them, until that must have another cause.
const mostVanished = 1000

// Acquire takes the lock at path, waiting at most wait for another holder, and not when ctx
// ends. It
// makes the directory that the file is in, open to root only: whoever may
// open a file may lock it.
func Acquire(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	deadline := time.Now().Add(wait)
	for vanished := 0; ; {
		l, err := try(path)
		switch {
		case err == nil:
			return l, nil
		case (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) && vanished < mostVanished:
			vanished++ // ErrExist: MkdirAll met the directory, and then it was gone
		case errors.Is(err, ErrLocked) && time.Now().Before(deadline):
			select {
			case <-ctx.Done():
				deadline = time.Time{}
			case <-time.After(lockPoll):
			}
		default:
			removeMade(filepath.Dir(path))
			return nil, err
		}
	}
}

// Held reports whether the lock still keeps others out: somebody may have removed its
// file.
func (l *Lock) Held() bool { return same(l.file, l.file.Name()) }

// Release lets the lock go, and removes its file and the directory, if Acquire has made
// that and nothing else is in it.
func (l *Lock) Release() error {
	if path := l.file.Name(); same(l.file, path) { // not that of another, where somebody has removed ours
		os.Remove(path)
		removeMade(filepath.Dir(path))
	}
	return l.file.Close()
}

// removeMade removes a directory that Acquire has made, with those above that it has
// made for it. One that is in use or a mount point is left alone by the kernel.
func removeMade(dir string) {
	for {
		info, err := os.Lstat(dir)
		if err != nil || info.Mode()&^os.ModeSetgid != made || os.Remove(dir) != nil {
			return
		}
		dir = filepath.Dir(dir)
	}
}

// try takes the lock once. The error is ErrLocked where another process has it, and
// fs.ErrNotExist where another has just let it go.
func try(path string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), made); err != nil {
		return nil, fmt.Errorf("lock: %w; run as root or choose another --run-dir", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := claim(f); err != nil {
		f.Close()
		return nil, err
	}
	return &Lock{f}, nil
}

// claim locks a file that was opened, and writes in it whose it is.
func claim(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(f.Name())
		return fmt.Errorf("%w: %s is held by process %s, which is changing the kernel side; wait for it to end",
			ErrLocked, f.Name(), strings.TrimSpace(string(holder)))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if !same(f, f.Name()) { // its holder has removed it between open and flock: a dead file
		return fmt.Errorf("lock %s: %w", f.Name(), fs.ErrNotExist)
	}
	f.Truncate(0)
	f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return nil
}

// same reports whether the open file is still the one at path.
func same(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}
