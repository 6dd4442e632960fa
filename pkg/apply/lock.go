package apply

import (
	"errors"
	"fmt"
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

// Acquire takes the lock at path, waiting at most wait for another holder. It
// makes the directory that the file is in, open to root only: whoever may
// open a file may lock it.
func Acquire(path string, wait time.Duration) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w; run as root or choose another --run-dir", err)
	}
	deadline := time.Now().Add(wait)
	for {
		l, holder, err := try(path)
		if err != nil || l != nil {
			return l, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: %s is held by process %s, which is changing the kernel side; wait for it to end", ErrLocked, path, holder)
		}
		time.Sleep(lockPoll)
	}
}

// Release lets the lock go and removes its file.
func (l *Lock) Release() error {
	os.Remove(l.file.Name())
	return l.file.Close()
}

// try takes the lock once; with neither lock nor error it is held by the
// process named.
func try(path string) (*Lock, string, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("lock: %w", err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		holder, _ := os.ReadFile(path)
		f.Close()
		return nil, strings.TrimSpace(string(holder)), nil
	case err != nil:
		f.Close()
		return nil, "", fmt.Errorf("lock %s: %w", path, err)
	}
	if !same(f, path) { // released and removed between open and flock: a dead file
		f.Close()
		return try(path)
	}
	f.Truncate(0)
	f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &Lock{f}, "", nil
}

// same reports whether the open file is still the one at path.
func same(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(open, there)
}
