package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every architecture
// that Debian has.
const tick = 10 * time.Millisecond

// view is what had been used at a moment, since whenever.
type view struct {
	at      time.Time
	machine time.Duration // of CPU, by everything on the machine
	own     time.Duration // by our process and its descendants: subject, load and sink
	subject time.Duration // by the subject's processes
}

// look reads what has been used so far. pid is the subject's process, or 0.
func look(pid int) (view, error) {
	v := view{}
	processes, err := readProcesses()
	if err != nil {
		return v, err
	}
	v.own = processes.used(os.Getpid())
	if pid != 0 {
		v.subject = processes.used(pid)
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return v, err
	}
	v.at = time.Now()
	v.machine, err = machineTime(string(text))
	return v, err
}

// machineTime reads the time of all processors together from /proc/stat: user,
// nice, system, irq and softirq. Idle, waiting for disks and what the hypervisor
// took away are no work of ours; guest time is part of user already.
func machineTime(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	words := strings.Fields(line)
	if len(words) < 8 || words[0] != "cpu" {
		return 0, fmt.Errorf("read /proc/stat: unexpected first line %q", line)
	}
	return sumTicks(words[1], words[2], words[3], words[6], words[7])
}

// process is what is read of /proc/PID/stat.
type process struct {
	parent int
	used   time.Duration // with that of children that it has waited for
}

// processes are those of the machine, by process id.
type processes map[int]process

func readProcesses() (processes, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(processes, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process") {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		pid, p, err := parseProcess(string(text))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all[pid] = p
	}
	return all, nil
}

// parseProcess reads a line of /proc/PID/stat, proc_pid_stat(5). A command's
// name is in parentheses and may itself contain anything.
func parseProcess(text string) (pid int, p process, err error) {
	head, rest := text, ""
	if i := strings.LastIndexByte(text, ')'); i >= 0 {
		head, rest = text[:i], text[i+1:]
	}
	words := strings.Fields(rest)
	if len(words) < 15 {
		return 0, p, fmt.Errorf("unexpected line %q", text)
	}
	first, _, _ := strings.Cut(head, " ")
	if pid, err = strconv.Atoi(first); err != nil {
		return 0, p, err
	}
	if p.parent, err = strconv.Atoi(words[1]); err != nil {
		return 0, p, err
	}
	p.used, err = sumTicks(words[11], words[12], words[13], words[14]) // utime stime cutime cstime
	return pid, p, err
}

// used returns the time of a process and all its descendants.
func (all processes) used(pid int) (sum time.Duration) {
	for _, p := range all.family(pid) {
		sum += all[p].used
	}
	return sum
}

// family returns a process and all its descendants.
func (all processes) family(pid int) []int {
	pids := []int{pid}
	for child, p := range all {
		if p.parent == pid && child != pid {
			pids = append(pids, all.family(child)...)
		}
	}
	return pids
}

func sumTicks(words ...string) (time.Duration, error) {
	var sum time.Duration
	for _, w := range words {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
