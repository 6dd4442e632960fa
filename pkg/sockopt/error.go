package sockopt

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Error is an option that the kernel did not set.
type Error struct {
	Option string // "IP_TRANSPARENT"
	Needs  string // the capability that the option asks for; empty: none
	Err    error  // the kernel's answer
}

// Error says which option failed and what is missing.
func (e *Error) Error() string {
	s := fmt.Sprintf("set %s: %v", e.Option, e.Err)
	if e.Needs != "" && errors.Is(e.Err, unix.EPERM) {
		s += "; run with " + e.Needs
	}
	return s
}

// Unwrap returns the kernel's answer, a syscall.Errno.
func (e *Error) Unwrap() error { return e.Err }
