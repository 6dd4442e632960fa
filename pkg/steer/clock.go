package steer

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clock is the monotonic clock by which the programs judge the heartbeat. In a time
// namespace (unshare --time, containers) a process reads another one: the machine's
// with an offset, which nobody can change once a process is in there. Programs and the
// inspector, or the inspector and status, need not be in the same one.
type clock struct {
	offset time.Duration // that the kernel adds for this process
}

// firstTimeNamespace is how the kernel names the one without offsets, on every machine
// (PROC_TIME_INIT_INO).
const firstTimeNamespace = "time:[4026531834]"

// ourClock returns the clock of this process. It takes no privileges.
func ourClock() (clock, error) { return clockOf("/proc/self") }

// clockOf returns the clock of a process by its directory in /proc.
//
// The offsets there are those of the time namespace in which the processes that it starts
// will be. After an unshare that is another than its own, which it does not leave, on
// older kernels not even by an exec.
func clockOf(process string) (clock, error) {
	ours, err := os.Readlink(filepath.Join(process, "ns", "time"))
	if errors.Is(err, fs.ErrNotExist) || ours == firstTimeNamespace {
		return clock{}, nil // the kernel has none (before Linux 5.6), or we are in none
	}
	if err != nil {
		return clock{}, fmt.Errorf("identify the time namespace: %w", err)
	}
	childrens, err := os.Readlink(filepath.Join(process, "ns", "time_for_children"))
	if err != nil {
		return clock{}, fmt.Errorf("identify the time namespace: %w", err)
	}
	if ours != childrens {
		return clock{}, fmt.Errorf("read the offset of the time namespace %s: this process is to start others in %s, and the kernel tells the offset of that one only; start portreeve from a process that is in one with its children, as by unshare --fork", ours, childrens)
	}
	text, err := os.ReadFile(filepath.Join(process, "timens_offsets"))
	if err != nil {
		return clock{}, fmt.Errorf("read the offset of the time namespace: %w", err)
	}
	offset, err := monotonicOffset(string(text))
	return clock{offset}, err
}

// monotonicOffset finds the offset of CLOCK_MONOTONIC in a file timens_offsets: lines of
// a clock, seconds, which may be negative, and nanoseconds, which are not.
func monotonicOffset(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "monotonic" {
			continue
		}
		seconds, err := strconv.ParseInt(f[1], 10, 64)
		nanoseconds, bad := strconv.ParseUint(f[2], 10, 64)
		if err != nil || bad != nil || nanoseconds >= uint64(time.Second) || seconds < -mostSeconds || seconds > mostSeconds {
			break
		}
		return time.Duration(seconds)*time.Second + time.Duration(nanoseconds), nil
	}
	return 0, fmt.Errorf("read the offset of the time namespace: %q is none for the monotonic clock", text)
}

// mostSeconds fit into a Duration with a second to spare.
const mostSeconds = int64(math.MaxInt64/time.Second) - 1

// now reads the clock.
func (c clock) now() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return time.Duration(now.Nano()) - c.offset, nil
}
