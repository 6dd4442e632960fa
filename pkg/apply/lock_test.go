package apply

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockRole makes the test binary play one of many processes that take turns.
const lockRole = "APPLY_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockRole); path != "" {
		if err := takeTurns(path, 300, func() error { return alone(path + ".alone") }); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// takeTurns takes the lock, calls a function and lets it go, again and again.
func takeTurns(path string, turns int, f func() error) error {
	for range turns {
		l, err := Acquire(context.Background(), path, time.Minute)
		if err != nil {
			return err
		}
		if err := errors.Join(f(), l.Release()); err != nil {
			return err
		}
	}
	return nil
}

// alone fails where another is in it at the same time.
func alone(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(path))
}

func acquire(t *testing.T, path string) *Lock {
	t.Helper()
	l, err := Acquire(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, l *Lock) {
	t.Helper()
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestLockKeepsSecondRunnerOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lock")
	l := acquire(t, path)
	if _, err := Acquire(t.Context(), path, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("second runner: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Acquire(ctx, path, 1<<62); !errors.Is(err, ErrLocked) {
		t.Errorf("who waits no more: %v", err)
	}
	release(t, l)
	release(t, acquire(t, path))
}

// Whoever has the lock is alone, though its file and its directory come and go.
func TestLockIsHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "portreeve", "lock")
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := takeTurns(path, 300, func() error {
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				inside.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	absent(t, filepath.Dir(filepath.Dir(path)))
}

func TestLockIsHeldByOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lock")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), lockRole+"="+path)
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
	wg.Wait()
	absent(t, filepath.Dir(path))
}

func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", path, err)
	}
}

// What Acquire has made goes with the lock, and nothing else does.
func TestReleaseRemovesWhatAcquireMade(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare string // shell, in the directory that holds a/b/lock
		stays   string // the lowest directory that is left
	}{
		"nothing was there":           {``, "."},
		"made by hand":                {`mkdir -m 700 -p a/b`, "a/b"},
		"made by a service manager":   {`mkdir -m 755 -p a/b`, "a/b"},
		"above made by hand":          {`mkdir a`, "a"},
		"the files of another":        {`mkdir -m 1700 a a/b; touch a/b/7.journal`, "a/b"},
		"left behind by one killed":   {`mkdir -m 1700 a a/b; echo 77 >a/b/lock`, "."},
		"something else in the upper": {`mkdir -m 1700 a a/b; touch a/x`, "a"},
		"a mount point":               {`mkdir -m 1700 a a/b; mount -t tmpfs -o mode=1700 none a/b`, "a/b"},
		"a link to the place":         {`mkdir -m 1700 c c/d; ln -s c a; ln -s d c/b`, "a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "a/b"), unix.MNT_DETACH) })
			cmd := exec.Command("sh", "-ec", tc.prepare)
			cmd.Dir = dir
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			path := filepath.Join(dir, "a", "b", "lock")
			release(t, acquire(t, path))
			absent(t, path)
			if info, err := os.Stat(filepath.Join(dir, tc.stays)); err != nil || !info.IsDir() {
				t.Errorf("%s is gone: %v", tc.stays, err)
			}
			for _, gone := range []string{"a/b", "a"} {
				if len(gone) > len(tc.stays) || tc.stays == "." {
					absent(t, filepath.Join(dir, gone))
				}
			}
		})
	}
}

// A lock that cannot be had leaves no directory, and a remedy.
func TestAcquireThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "a", "b", string(make([]byte, 300))), "/proc/a/lock"} {
		if _, err := Acquire(t.Context(), path, time.Second); err == nil || errors.Is(err, ErrLocked) {
			t.Errorf("%q: %v", path, err)
		}
	}
	absent(t, filepath.Join(dir, "a"))
}

// Somebody has removed the file of a lock that is held. Its holder does not take
// another's away with its own.
func TestReleaseLeavesTheLockOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lock")
	former := acquire(t, path)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, path)
	release(t, former)
	if holder, err := os.ReadFile(path); err != nil || string(holder) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the lock's file has %q, %v", holder, err)
	}
	if _, err := Acquire(t.Context(), path, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("another has it, too: %v", err)
	}
	release(t, l)
	absent(t, filepath.Dir(path))
}
