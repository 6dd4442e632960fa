package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Account is a control group of version 2: the kernel adds up in it what some processes
// use, with all that they start, also after they have ended.
type Account struct {
	path string
	dir  *os.File
}

// Account makes an account of the Env, which is removed with it. It needs a mount of
// cgroup2; controllers are not needed.
func (e *Env) Account(name string) (*Account, error) {
	root, err := cgroups()
	if err != nil {
		return nil, fmt.Errorf("make the account %s: %w", name, err)
	}
	path := filepath.Join(root, e.prefix+"-"+name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the account %s: %w", name, err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("make the account %s: %w", name, err)
	}
	return &Account{path, dir}, nil
}

// Charge has a command counted from its start on. Call it before that.
func (a *Account) Charge(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(a.dir.Fd())
}

// Used returns the CPU time of all processes so far, exact to a microsecond.
func (a *Account) Used() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(a.path, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read what an account has used: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("read what an account has used: there is no usage_usec in %s", a.path)
}

// Processes returns the ids of those that are there now.
func (a *Account) Processes() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(a.path, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list the processes of an account: %w", err)
	}
	var ids []int
	for word := range strings.FieldsSeq(string(text)) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("list the processes of an account: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// id returns what BPF programs know the group by: the number of its inode.
func (a *Account) id() (uint64, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(a.dir.Fd()), &s); err != nil {
		return 0, fmt.Errorf("find an account's number: %w", err)
	}
	return s.Ino, nil
}

// Close makes the account unusable for further commands. What has been used can still
// be read, until the Env is closed.
func (a *Account) Close() error { return a.dir.Close() }

// cgroups returns where control groups of version 2 are mounted.
func cgroups() (string, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 2 && words[2] == "cgroup2" {
			return words[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}
