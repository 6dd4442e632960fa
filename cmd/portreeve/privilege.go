package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// needed are the capabilities that a verb cannot do without. CAP_SYS_ADMIN
// stands in for CAP_BPF and CAP_PERFMON, as the kernel has it; without the
// latter the verifier refuses packet offsets that are computed.
var needed = map[string][]capability{
	"attach": {capNetAdmin, capBPF, capPerfmon},
	"detach": {capNetAdmin, capBPF},
	"run":    {capNetRaw}, // the rest of what root has it gives up
	"status": {capNetAdmin, capBPF},
	"doctor": {capNetAdmin, capBPF},
	"watch":  {capNetAdmin, capBPF, capPerfmon, capSysAdmin},
}

// clsactPrivileged refuses to touch clsact filters without CAP_SYS_ADMIN: the
// kernel asks for it to look at a filter's program, and by that ours are told
// from others of the same name.
func clsactPrivileged(verb string, items []plan.Item) error {
	have, err := effective()
	if err != nil || capSysAdmin.in(have) {
		return err
	}
	for _, i := range items {
		if tc, is := i.(plan.TC); is && tc.Clsact {
			return fmt.Errorf("%s: this process (uid %d) lacks CAP_SYS_ADMIN, without which the filters of the clsact qdisc cannot be told apart; run it as root", verb, os.Geteuid())
		}
	}
	return nil
}

type capability struct {
	name string
	bits []uint
}

var (
	capNetAdmin = capability{"CAP_NET_ADMIN", []uint{unix.CAP_NET_ADMIN}}
	capNetRaw   = capability{"CAP_NET_RAW", []uint{unix.CAP_NET_RAW}}
	capSysAdmin = capability{"CAP_SYS_ADMIN", []uint{unix.CAP_SYS_ADMIN}}
	capBPF      = capability{"CAP_BPF", []uint{unix.CAP_BPF, unix.CAP_SYS_ADMIN}}
	capPerfmon  = capability{"CAP_PERFMON", []uint{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}}
)

// privileged refuses a verb that lacks capabilities before it begins, with
// one sentence in place of whatever system call would fail first.
func privileged(verb string) error {
	have, err := effective()
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range needed[verb] {
		if !c.in(have) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s: this process (uid %d) lacks %s; run it as root, or give it these capabilities",
		verb, os.Geteuid(), strings.Join(missing, " and "))
}

func (c capability) in(set uint64) bool {
	for _, bit := range c.bits {
		if set&(1<<bit) != 0 {
			return true
		}
	}
	return false
}

// effective returns the capabilities of this thread as bits.
func effective() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}
