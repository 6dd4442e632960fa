// Package forward makes the origin leg: it dials the origin of a flow, from the
// client's own address where the service forges it.
//
// It decides which origins are tried, from which source addresses and ports,
// and in what order, and says in its result what it came to. It never reads or
// writes the connection that it hands over, and never retries later: a flow that
// cannot be forwarded now is refused by its caller, relay. Package returns tries with it
// whether forging works.
package forward

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// Dialer dials for one service. It has no state of its own: dial with it from
// as many goroutines as you like.
type Dialer struct {
	Origins []netip.AddrPort // tried in order; empty: the address that the client chose
	Forge   config.Forge
	Mark    uint32                // of the packets of forged connections; 0: none
	Timeout time.Duration         // of one attempt to connect; 0: the kernel's, about two minutes
	Local   func(netip.Addr) bool // whether an address is the gateway's own; nil: none is

	// OnLink reports whether an origin would answer a client past the gateway, in a
	// network that both are in; nil: none would.
	OnLink func(client, origin netip.Addr) bool

	// Returns is asked, and told, where forging is preferred; nil: forging works.
	Returns Returns
}

// Returns knows whether origins' replies to forged addresses come back to the
// gateway. Its methods are called by many sessions at once, for every dial, and
// return at once.
type Returns interface {
	// Broken reports whether they do not, for nobody. The client is then served from
	// the gateway's own address.
	Broken(origin netip.AddrPort, client netip.Addr) bool
	// Answered reports a forged connection that the origin answered.
	Answered(origin netip.AddrPort)
	// Silent reports one that got no answer in time.
	Silent(origin netip.AddrPort)
}

// Path says how an origin leg came about.
type Path struct {
	Origin   netip.AddrPort // that answered
	Source   netip.AddrPort // that the origin sees
	Rung     Rung           // how the source was chosen
	Attempts int            // sockets that were tried, for all origins together; at least 1
	Unforged event.Unforged // why the origin does not see the client's address; NotUnforged too where the service never forges
	Failed   error          // why the origins before it did not do, as of Dial; nil: it was the first
}

// Forged reports whether the origin sees the client's address.
func (p Path) Forged() bool { return p.Rung != RungPlain }

// Dial connects to an origin of the flow. The caller owns the connection: plain
// TCP, without keep-alive, with TCP_NODELAY.
//
// An error is either the reason of one failed attempt or a Failures with one for
// each; errors.Is tells ErrRefused, ErrTimeout, ErrUnreachable, ErrNoAddress,
// ErrFamily, ErrLinkLocal, ErrOnLink, ErrLoop and ErrResources apart, and finds context.Canceled when ctx ended.
func (d *Dialer) Dial(ctx context.Context, f flow.Flow) (*net.TCPConn, Path, error) {
	var failures Failures
	var path Path
	for _, origin := range d.candidates(f) {
		a := attempt{d: d, client: f.Client, path: Path{Origin: origin, Attempts: path.Attempts}}
		conn, err := a.dial(ctx)
		path = a.path
		if err == nil {
			if len(failures) > 0 {
				path.Failed = failures
			}
			return conn, path, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(failures) == 1 {
		return nil, path, failures[0]
	}
	return nil, path, failures
}

// DialAgain connects once more to the origin of an earlier path of the same flow,
// whose connection is gone. The new path continues it. Errors are as of Dial.
func (d *Dialer) DialAgain(ctx context.Context, f flow.Flow, earlier Path) (*net.TCPConn, Path, error) {
	a := attempt{d: d, client: f.Client, path: Path{Origin: earlier.Origin, Attempts: earlier.Attempts, Failed: earlier.Failed}}
	conn, err := a.dial(ctx)
	return conn, a.path, err
}

// candidates returns the origins in the order in which they are tried. Where some
// can see the client's address, and are to see it, the others are left out: they are
// no attempt, and where forging is preferred a client that the former do not answer
// shall not get around that by them.
func (d *Dialer) candidates(f flow.Flow) []netip.AddrPort {
	if len(d.Origins) == 0 {
		return []netip.AddrPort{f.Server}
	}
	if d.Forge.Address == config.ForgeNever {
		return d.Origins
	}
	others := func(o netip.AddrPort) bool { return !sameFamily(o.Addr(), f.Client.Addr()) }
	if own := slices.DeleteFunc(slices.Clone(d.Origins), others); len(own) > 0 {
		return own
	}
	return d.Origins
}

// linkLocal reports whether an address means another host on every link: a reply to
// it finds no way beyond its own.
func linkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// sameFamily reports whether one address can be a source towards the other.
func sameFamily(a, b netip.Addr) bool { return a.Unmap().Is4() == b.Unmap().Is4() }
