// Package descriptors takes a test's process to where it has no descriptor left.
package descriptors

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// few is the limit that is set meanwhile, so that using it up takes no time.
const few = 100

// Exhaust uses up those that the process may open, until the returned function is
// called or the test ends.
func Exhaust(t *testing.T) (free func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for range 3 {
		taken = append(taken, all()...)
		time.Sleep(10 * time.Millisecond) // one that was in use for the moment of a system call is free now
	}
	free = sync.OnceFunc(func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(free)
	return free
}

// all opens descriptors until there are no more.
func all() (taken []int) {
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return taken
		}
		taken = append(taken, fd)
	}
}
