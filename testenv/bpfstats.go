package testenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RunStats is what the kernel counted of a BPF program while statistics were
// enabled: how often it ran, and for how long altogether. The time includes
// reading the clock before and after each run.
type RunStats struct {
	Runs uint64
	Time time.Duration
}

// Sub returns what was counted since an earlier look.
func (s RunStats) Sub(earlier RunStats) RunStats {
	return RunStats{s.Runs - earlier.Runs, s.Time - earlier.Time}
}

// EnableRunStats makes the kernel count the runs of all BPF programs of the
// machine, which slows each of them down, until the returned file is closed or
// our process ends. Kernel 5.8.
func EnableRunStats() (*os.File, error) {
	attr := struct{ kind uint32 }{unix.BPF_STATS_RUN_TIME}
	fd, err := bpf(unix.BPF_ENABLE_STATS, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, fmt.Errorf("enable statistics of BPF programs: %w", err)
	}
	return os.NewFile(uintptr(fd), "bpf statistics"), nil
}

// PinnedRunStats returns the statistics of the programs that are pinned in the
// gateway's BPF file system, by the names of their pins.
func (e *Env) PinnedRunStats() (map[string]RunStats, error) {
	all := make(map[string]RunStats)
	err := filepath.WalkDir(e.BPFFS, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		stats, program, err := pinnedRunStats(path)
		if program {
			all[entry.Name()] = stats
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read statistics of pinned BPF programs: %w", err)
	}
	return all, nil
}

// pinnedRunStats opens a pin, which may also be that of a map or a link.
func pinnedRunStats(path string) (stats RunStats, program bool, err error) {
	fd, err := openPin(path)
	if errors.Is(err, unix.ENOENT) { // one of the kernel's own files there
		return RunStats{}, false, nil
	}
	if err != nil {
		return RunStats{}, false, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	return readRunStats(fd)
}

// AttachEmptyTCX attaches a program that does nothing at all: what the kernel
// counts for it is the counting itself. It needs kernel 6.6.
func (n *Node) AttachEmptyTCX(device string) (*ForeignTCX, error) {
	f := &ForeignTCX{counter: -1, program: -1, link: -1}
	err := n.Enter(func() (err error) {
		code := append(instruction(0xb7, 0x00, 0, -1), // r0 = -1
			instruction(0x95, 0x00, 0, 0)...) // exit
		if f.program, err = loadProgram(unix.BPF_PROG_TYPE_SCHED_CLS, "empty", code); err != nil {
			return fmt.Errorf("load program: %w", err)
		}
		return f.hook(device)
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("attach an empty tcx program to %s of %s: %w", device, n.Role, err)
	}
	return f, nil
}

// RunStats returns the statistics of the program.
func (f *ForeignTCX) RunStats() (RunStats, error) {
	stats, _, err := readRunStats(f.program)
	return stats, err
}

// readRunStats reads what the kernel says of a descriptor. Only those of
// programs have a count of runs.
func readRunStats(fd int) (stats RunStats, program bool, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return RunStats{}, false, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "run_cnt":
			program = true
			stats.Runs, err = strconv.ParseUint(value, 10, 64)
		case "run_time_ns":
			var ns int64
			ns, err = strconv.ParseInt(value, 10, 64)
			stats.Time = time.Duration(ns)
		}
		if err != nil {
			return RunStats{}, false, fmt.Errorf("read %q: %w", line, err)
		}
	}
	return stats, program, nil
}
