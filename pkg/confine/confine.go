// Package confine takes from a process what the inspector must not have, since it
// parses what strangers send: all capabilities but those that it works with, and the
// sight of private keys and of the memory of other processes.
//
// The verb run begins the inspector with it, with keys or without. keeper starts the
// process that holds the keys by it, too. It knows neither the configuration nor what
// the keys are for.
package confine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Confines are what the inspector is run in.
type Confines struct {
	// Keys are files that it must not be able to read. Without any, it may read what
	// its user may.
	Keys []string
	// Needed are files, and directories with all below, that it has to read though
	// others may not.
	Needed []string
	// Capabilities are all that it has, as far as this process has them, and can get.
	Capabilities []Capability
}

// Exec replaces the calling process by a program that has some capabilities only, and
// where there are keys can read neither those nor the memory of a process outside, such
// as the one that holds the keys (package keeper). Landlock forbids to open either; the
// capabilities that lead to them by another way (tracing, BPF programs, devices made by
// oneself) are gone.
//
// Beside the keys, and beside the directories on the way to them, the program can
// read what everybody may read, and what is needed. What is kept from others there is
// kept from it as well, since it may be a copy of a key (renewal programs leave their
// old ones in the same directory, with the same key when they are told to reuse it); so
// is what comes to stand there later. Landlock cannot shut what comes to a directory
// that was on no such way: of that keeper.Keys warns. Devices that show a disk or the
// memory as it is are shut, too.
//
// It returns only when it fails. ErrNoLandlock means that nothing has changed;
// otherwise the thread may have lost its capabilities.
func (c Confines) Exec(program string, args, environ []string) error {
	runtime.LockOSThread() // what follows is a thread's; the new program begins with this one alone
	restrict := func() error { return nil }
	if len(c.Keys) > 0 {
		fd, err := ruleset(c.Keys, c.Needed, program)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		restrict = func() error { return restrictSelf(fd) }
	}
	if err := cut(c.Capabilities); err != nil {
		return err
	}
	if err := restrict(); err != nil {
		return err
	}
	return fmt.Errorf("run the inspector again, confined: %w", unix.Exec(program, args, environ))
}
