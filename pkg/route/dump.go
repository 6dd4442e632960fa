package route

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// dumpTries is how often a listing is started anew when a change in between
// may have made it incomplete.
const dumpTries = 5

// dump lists kernel objects and calls see with each message. The library's own
// lists parse every object in full, among them those of others that it may
// not understand, and a gateway may have a million routes: here each caller
// looks at no more than it needs.
func dump(request int, body nl.NetlinkRequestData, see func(message []byte)) error {
	req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	req.AddData(body)
	err := req.ExecuteIter(unix.NETLINK_ROUTE, 0, func(m []byte) bool {
		see(m)
		return true
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without that family has none of them
	}
	return err
}

// collect dumps objects of one kind and keeps those that parse accepts.
func collect[T any](request int, body nl.NetlinkRequestData, parse func([]byte) (T, bool)) ([]T, error) {
	return settled(func() ([]T, error) {
		var all []T
		err := dump(request, body, func(m []byte) {
			if one, keep := parse(m); keep {
				all = append(all, one)
			}
		})
		return all, err
	})
}

// settled calls list again while a change in between interrupted it.
func settled[T any](list func() ([]T, error)) ([]T, error) {
	var all []T
	var err error
	for range dumpTries {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// attributes returns the attributes that follow a header of the given size,
// by type. Malformed ones end the list.
func attributes(m []byte, header int) map[uint16][]byte {
	if len(m) < header {
		return nil
	}
	list, err := nl.ParseRouteAttr(m[header:])
	if err != nil {
		return nil
	}
	found := make(map[uint16][]byte, len(list))
	for _, a := range list {
		found[a.Attr.Type&nlaTypeMask] = a.Value
	}
	return found
}

// nlaTypeMask takes the flags off an attribute's type.
const nlaTypeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(b)
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// gone reports whether the kernel says that a thing does not exist.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// explain adds the remedy to the errors that have one.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: run it with CAP_NET_ADMIN, as root", err)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%w: set the interface up first (ip link set dev lo up)", err)
	}
	return err
}

// families are the address families that we have things in.
var families = []plan.Family{plan.IPv4, plan.IPv6}

// afOf returns the family's number in netlink messages.
func afOf(f plan.Family) uint8 {
	if f == plan.IPv6 {
		return syscall.AF_INET6
	}
	return syscall.AF_INET
}

func familyOf(af uint8) plan.Family {
	switch af {
	case syscall.AF_INET:
		return plan.IPv4
	case syscall.AF_INET6:
		return plan.IPv6
	}
	return 0
}
