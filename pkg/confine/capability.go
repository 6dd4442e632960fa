package confine

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Capability is the number of one, such as unix.CAP_NET_RAW.
type Capability uintptr

// Bare calls a function on a thread that has no capabilities but some of those that
// the process has, and can get no others; what it starts has no more. The thread ends
// with the function, for it cannot have them back.
func Bare(keep []Capability, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := cut(keep); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// cut takes all capabilities but some from the calling thread, and from what an exec
// of it can give. Of those that are kept it gives none that the thread did not have.
//
// An exec gives root all that is in the bounding set, and everybody else what is in
// the ambient one. Without CAP_SETPCAP the bounding set stays as it is; then an exec
// gives no more than there is now because of no_new_privs.
func cut(keep []Capability) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if err := dropBounding(keep); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up ambient capabilities: %w", err)
	}
	left, err := permitted()
	if err != nil {
		return err
	}
	left &= setOf(keep)
	if os.Geteuid() == 0 {
		return setCapabilities(left, 0)
	}
	if err := setCapabilities(left, left); err != nil {
		return err
	}
	return raiseAmbient(left)
}

// setCapabilities sets what the calling thread has, and what it may inherit to an
// ambient set.
func setCapabilities(have, inheritable uint64) error {
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	for half := range data {
		word := uint32(have >> (32 * half))
		data[half] = unix.CapUserData{Effective: word, Permitted: word, Inheritable: uint32(inheritable >> (32 * half))}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// raiseAmbient makes an exec give capabilities to who is not root.
func raiseAmbient(set uint64) error {
	for ; set != 0; set &= set - 1 {
		c := bits.TrailingZeros64(set)
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("keep capability %d: %w", c, err)
		}
	}
	return nil
}

// dropBounding takes all but some from the bounding set.
func dropBounding(keep []Capability) error {
	for c := Capability(0); ; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err {
		case nil:
		case unix.EINVAL: // the kernel knows no more
			return nil
		case unix.EPERM: // without CAP_SETPCAP, see cut
			return nil
		default:
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
}

// permitted returns what the calling thread has, as bits.
func permitted() (uint64, error) {
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

// Within reports whether the calling thread has no capability but some.
func Within(some []Capability) (bool, error) {
	have, err := permitted()
	return have&^setOf(some) == 0, err
}

func setOf(list []Capability) (set uint64) {
	for _, c := range list {
		set |= 1 << c
	}
	return set
}

// Hide keeps other processes of the same user from looking into this one, but for
// those that have CAP_SYS_PTRACE, and it leaves no core behind. An exec undoes it.
func Hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep others from looking into the process: %w", err)
	}
	return nil
}
