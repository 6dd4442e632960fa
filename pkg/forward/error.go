package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/portreeve/portreeve/pkg/sockopt"
)

// The classes of failure. Each is worth a reply of its own to the client.
var (
	ErrRefused     = errors.New("connection refused")
	ErrTimeout     = errors.New("no answer in time")
	ErrUnreachable = errors.New("unreachable")
	ErrNoAddress   = errors.New("source address or port cannot be used")
	ErrFamily      = errors.New("client and origin are of different families")
	ErrLinkLocal   = errors.New("the client has a link-local address, which no reply finds through a router")
	ErrOnLink      = errors.New("the origin would answer this client past the gateway, in the network that both are in")
	ErrLoop        = errors.New("the origin is this gateway")
	ErrResources   = errors.New("out of descriptors or memory")
)

// remedies say what the operator can do about a class.
var remedies = map[error]string{
	ErrRefused:   "see whether the origin's mail server runs and listens there",
	ErrFamily:    "configure an origin of the client's family",
	ErrLinkLocal: "let this client connect from a global address, or prefer forging",
	ErrOnLink:    "let this client connect to the origin itself, or give the origin a network of its own behind the gateway",
	ErrLoop:      "name the real origin under origins",
	ErrResources: "raise the limit of open files (LimitNOFILE)",
}

// Error is one origin that could not be reached from one source.
type Error struct {
	Class  error          // one of the classes above, or context.Canceled
	Origin netip.AddrPort // that was dialled
	Source netip.AddrPort // forged; port 0: of the kernel's choice; not valid: the gateway's own
	Err    error          // what the kernel said; nil when it was not asked
}

// Error says what was dialled from where, why it failed and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial origin %s", e.Origin)
	if e.Source.IsValid() {
		fmt.Fprintf(&b, " from %s", e.Source)
	}
	fmt.Fprintf(&b, ": %v", e.Class)
	if e.Err != nil && e.Err.Error() != e.Class.Error() {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	if remedy := e.remedy(); remedy != "" {
		b.WriteString("; ")
		b.WriteString(remedy)
	}
	return b.String()
}

// remedy returns what to do.
func (e *Error) remedy() string {
	switch {
	case e.Class == ErrNoAddress:
		return e.addressRemedy()
	case e.Class == ErrTimeout && e.Source.IsValid(): // silence has a second cause when the address is forged
		return "see whether the origin is up and its route back to the client leads through this gateway"
	}
	return remedies[e.Class]
}

// addressRemedy returns what to do about a source that could not be used.
func (e *Error) addressRemedy() string {
	var option *sockopt.Error
	switch {
	case errors.As(e.Err, &option): // says it itself
		return ""
	case errors.Is(e.Err, syscall.EACCES):
		return "run with CAP_NET_BIND_SERVICE, or forge port \"any\""
	case e.Source.Port() == 0:
		return "widen net.ipv4.ip_local_port_range"
	}
	return "forge port \"any\" or \"group\""
}

// Unwrap returns the class and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}

// Failures are the reasons why no origin could be reached, in the order of the
// attempts. It prints on one line.
type Failures []error

// Error joins the reasons.
func (f Failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; then ")
}

// Unwrap returns the reasons.
func (f Failures) Unwrap() []error { return f }

// newError finds the class of a failed attempt.
func newError(ctx context.Context, origin, source netip.AddrPort, err error) *Error {
	e := &Error{Origin: origin, Source: source, Err: err}
	var op *net.OpError
	if errors.As(err, &op) { // says the addresses once more
		e.Err = op.Err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		e.Class, e.Err = context.Canceled, nil
		return e
	}
	e.Class = class(e.Err)
	return e
}

// class sorts what the kernel or the dialer said.
func class(err error) error {
	var option *sockopt.Error
	var timeout net.Error
	switch {
	case errors.As(err, &option), isAny(err, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL), failedCall(err) == "bind":
		return ErrNoAddress
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrRefused
	case isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM):
		return ErrResources
	case errors.As(err, &timeout) && timeout.Timeout():
		return ErrTimeout
	}
	return ErrUnreachable // ENETUNREACH and EHOSTUNREACH, but also a firewall's EPERM and a route's EACCES or EINVAL
}

// isAny reports whether an error is one of several.
func isAny(err error, of ...syscall.Errno) bool {
	for _, errno := range of {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// failedCall returns the name of the system call that failed, if one did.
func failedCall(err error) string {
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Syscall
	}
	return ""
}
