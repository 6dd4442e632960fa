package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every architecture
// that Debian has.
const tick = 10 * time.Millisecond

// accounts are the parties of a stage. What each uses is counted apart.
type accounts struct{ load, subject, origin *testenv.Account }

func newAccounts(e *testenv.Env) (a accounts, err error) {
	for name, of := range map[string]**testenv.Account{"load": &a.load, "subject": &a.subject, "sink": &a.origin} {
		if *of, err = e.Account(name); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a accounts) close() {
	for _, of := range []*testenv.Account{a.load, a.subject, a.origin} {
		if of != nil {
			of.Close()
		}
	}
}

// view is the CPU time that had been used at a moment, since whenever.
type view struct {
	at                    time.Time
	machine               time.Duration // by everything on the machine
	load, subject, origin time.Duration // by those processes of the stage
}

// look reads what has been used so far.
func (a accounts) look() (v view, err error) {
	for of, used := range map[*testenv.Account]*time.Duration{a.load: &v.load, a.subject: &v.subject, a.origin: &v.origin} {
		if *used, err = of.Used(); err != nil {
			return v, err
		}
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
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
