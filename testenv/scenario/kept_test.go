package scenario

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestKept: what others take away of the kernel side is put back.
func TestKept(t *testing.T) { tell(t, "testdata/kept") }

// signalWatcher sends a signal to the watcher that works, or to the one that stands by.
func signalWatcher(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 2 || args[1] != "active" && args[1] != "standby" {
		return usage("watcher SIGNAL active|standby")
	}
	number := unix.SignalNum("SIG" + args[0])
	if number == 0 {
		return fmt.Errorf("no signal %s", args[0])
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		pid, err := s.watcher(args[1])
		if err != nil {
			return err
		}
		if pid != 0 {
			return unix.Kill(pid, number)
		}
	}
	return fmt.Errorf("there is no watcher that is %s", args[1])
}

// watcher returns the process of a watcher on the gateway; 0 for none. The one that
// works has written its number into the file that it has locked.
func (s *stage) watcher(which string) (int, error) {
	all, err := s.watchers()
	if err != nil {
		return 0, err
	}
	files, err := filepath.Glob(filepath.Join(s.env.RunDir, "*.watch"))
	if err != nil || len(files) != 1 {
		return 0, err
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return 0, nil // it has gone since
	}
	active, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if !slices.Contains(all, active) {
		return 0, nil
	}
	if which == "active" {
		return active, nil
	}
	for _, pid := range all {
		if pid != active {
			return pid, nil
		}
	}
	return 0, nil
}

// watchers returns the processes of all watchers on the gateway.
func (s *stage) watchers() ([]int, error) {
	home, err := os.Stat(filepath.Join("/run/netns", s.env.Gateway.Name))
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var all []int
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || strings.TrimSpace(string(comm)) != "portreeve-watch" {
			continue
		}
		dir := filepath.Dir(name)
		there, err := os.Stat(filepath.Join(dir, "ns/net"))
		if err != nil || !os.SameFile(there, home) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		all = append(all, pid)
	}
	return all, nil
}
