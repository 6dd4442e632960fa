package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/sockopt"
)

// attempt is all that is tried at one origin.
type attempt struct {
	d      *Dialer
	client netip.AddrPort
	path   Path
}

// dial connects to the origin as the service's forging asks. Nothing that one
// client meets, a port that is taken or an origin that is silent to it, lets it
// come from the gateway's own address.
func (a *attempt) dial(ctx context.Context) (*net.TCPConn, error) {
	prefers := a.d.Forge.Address == config.ForgePrefer
	switch {
	case a.d.Local != nil && a.d.Local(a.path.Origin.Addr()):
		return nil, &Error{Class: ErrLoop, Origin: a.path.Origin}
	case a.d.Forge.Address == config.ForgeNever:
		return a.plain(ctx, event.NotUnforged)
	case prefers && !sameFamily(a.client.Addr(), a.path.Origin.Addr()): // and so are all others, see candidates
		return a.plain(ctx, event.OtherFamily)
	case prefers && linkLocal(a.client.Addr()):
		return a.plain(ctx, event.UnforgedLinkLocal)
	case a.d.OnLink != nil && a.d.OnLink(a.client.Addr(), a.path.Origin.Addr()):
		return a.onLink(ctx)
	case prefers && a.d.Returns != nil:
		return a.prefer(ctx)
	}
	return a.forged(ctx)
}

// onLink does what the service asks for a client that the origin would answer past
// the gateway.
func (a *attempt) onLink(ctx context.Context) (*net.TCPConn, error) {
	if a.d.Forge.OnLink == config.OnLinkPlain {
		return a.plain(ctx, event.UnforgedOnLink)
	}
	return nil, &Error{Class: ErrOnLink, Origin: a.path.Origin, Source: a.client}
}

// prefer connects from the client's address unless that works for nobody now.
func (a *attempt) prefer(ctx context.Context) (*net.TCPConn, error) {
	origin, returns := a.path.Origin, a.d.Returns
	if returns.Broken(origin, a.client.Addr()) {
		return a.plain(ctx, event.NoReturn)
	}
	conn, err := a.forged(ctx)
	switch {
	case err == nil, errors.Is(err, ErrRefused):
		returns.Answered(origin)
	case errors.Is(err, ErrTimeout):
		returns.Silent(origin)
	}
	return conn, err
}

// plain connects from the address that the kernel chooses. The mark stays off:
// it would keep the administrator's SNAT from a connection that is no concern
// of ours.
func (a *attempt) plain(ctx context.Context, why event.Unforged) (*net.TCPConn, error) {
	a.path.Rung, a.path.Unforged = RungPlain, why
	return a.connect(ctx, netip.AddrPort{}, nil)
}

// forged connects from the client's address, from one port after the other until
// one is free.
func (a *attempt) forged(ctx context.Context) (*net.TCPConn, error) {
	switch {
	case !sameFamily(a.client.Addr(), a.path.Origin.Addr()):
		return nil, &Error{Class: ErrFamily, Origin: a.path.Origin, Source: a.client}
	case linkLocal(a.client.Addr()):
		return nil, &Error{Class: ErrLinkLocal, Origin: a.path.Origin, Source: a.client}
	}
	var err error
	for rung, port := range ports(a.d.Forge.Port, a.client.Port()) {
		a.path.Rung = rung
		var conn *net.TCPConn
		conn, err = a.connect(ctx, netip.AddrPortFrom(a.client.Addr(), port), a.forge)
		if err == nil || !taken(err) {
			return conn, err
		}
	}
	return nil, err
}

// taken reports whether another source port may succeed where one failed:
// another socket holds it (bind), or a connection between the same four
// addresses and ports exists or is in TIME_WAIT (connect).
func taken(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// connect makes one socket and connects it. A source that is not valid leaves
// the choice to the kernel.
func (a *attempt) connect(ctx context.Context, source netip.AddrPort, control controlFunc) (*net.TCPConn, error) {
	a.path.Attempts++
	dialer := net.Dialer{
		Timeout:   a.d.Timeout,
		KeepAlive: -1, // saves four system calls per connection; the session has deadlines of its own
		Control:   control,
	}
	dialer.SetMultipathTCP(false)
	if source.IsValid() { // DialTCP would bind without a source, too
		dialer.LocalAddr = net.TCPAddrFromAddrPort(source)
	}
	conn, err := dialer.DialContext(ctx, "tcp", a.path.Origin.String())
	if err != nil {
		return nil, newError(ctx, a.path.Origin, source, err)
	}
	a.path.Source = addrPort(conn.LocalAddr())
	return conn.(*net.TCPConn), nil
}

type controlFunc = func(network, address string, c syscall.RawConn) error

// forge sets the options of a socket that is going to bear the client's address,
// before it is bound.
//
// SO_REUSEADDR matters for a port that the kernel chooses, too: without it, that
// port could not be bound for the same client by a service that forges a port
// of its own.
func (a *attempt) forge(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = a.options(fd)
	})
	return errors.Join(err, set)
}

func (a *attempt) options(fd uintptr) error {
	if err := sockopt.Transparent(fd, a.client.Addr()); err != nil {
		return err
	}
	if err := sockopt.ReuseAddr(fd); err != nil {
		return err
	}
	if a.d.Mark != 0 {
		if err := sockopt.Mark(fd, a.d.Mark); err != nil {
			return err
		}
	}
	if a.path.Rung != RungAny {
		return nil
	}
	return sockopt.BindAddressNoPort(fd)
}

// addrPort returns the address of a TCP connection, IPv4 never in its mapped
// form.
func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
