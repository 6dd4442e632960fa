// Package accept owns the transparent listeners: one socket per family, on a
// high port of the loopback address, to which the kernel side steers every
// connection that a binding covers.
//
// It tells from the address that a client chose which service the connection is
// for, and hands connection and flow over to relay, its only caller. It never
// reads or writes a connection, never binds the port that clients connect to,
// and never registers itself with the kernel side: steer does, with the
// sockets that IPv4 and IPv6 lend.
package accept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/sockopt"
)

// Options say how listeners are made.
type Options struct {
	Mark  uint32 // of the packets of client legs; 0: none
	Table *Table // who is bound to which service

	// Local reports whether an address is the gateway's own. It decides the
	// way of a connection where a binding is both addressed and transit; nil
	// means that all of those are addressed.
	Local func(netip.Addr) bool

	// Unknown, if not nil, is asked about an address that the table does not
	// bind: a binding may be newer than the table.
	Unknown func(netip.AddrPort) (plan.Binding, bool)

	// Trouble, if not nil, is told each time a connection could not be
	// accepted (no descriptors left, for one), from the goroutine in Accept.
	// Accept goes on by itself.
	Trouble func(error)
}

// Listeners are the listening sockets of one inspector.
type Listeners struct {
	all    []*Listener
	table  atomic.Pointer[Table]
	strays atomic.Uint64
	opts   Options
}

// Listen makes a listener for IPv4 and one for IPv6. A kernel without IPv6 gives
// the first alone, unless the table binds an IPv6 address; a machine that has
// merely no IPv6 address, not even ::1, gives both. Nothing reaches the
// listeners before their caller registers them with the kernel side; the caller
// ends them with Drain or Close.
func Listen(o Options) (*Listeners, error) {
	ls := &Listeners{opts: o}
	ls.table.Store(o.Table)
	if err := ls.open("tcp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	err := ls.open("tcp6", "[::1]:0")
	if err == nil || errors.Is(err, unix.EAFNOSUPPORT) && !o.Table.has6 {
		return ls, nil
	}
	ls.Close()
	return nil, err
}

// open adds the listener of one family.
func (ls *Listeners) open(network, address string) error {
	lc := net.ListenConfig{
		KeepAlive: -1, // saves four system calls per connection; the session has deadlines of its own
		Control:   ls.control,
	}
	lc.SetMultipathTCP(false) // a SOCKMAP takes no MPTCP socket, Go's default since 1.24
	ln, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return fmt.Errorf("open the transparent listener at %s: %w", address, err)
	}
	ls.all = append(ls.all, newListener(ls, ln.(*net.TCPListener)))
	return nil
}

// control sets the options of a listener before it is bound. Accepted
// connections inherit both: without IP_TRANSPARENT the answer to a SYN for
// somebody else's address is never sent, and the client sees a timeout.
func (ls *Listeners) control(_, address string, c syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	var set error
	err = c.Control(func(fd uintptr) {
		set = sockopt.Transparent(fd, a.Addr())
		if set == nil && ls.opts.Mark != 0 {
			set = sockopt.Mark(fd, ls.opts.Mark)
		}
	})
	return errors.Join(err, set)
}

// All returns the listeners, IPv4 first. Each needs a goroutine of its own that
// calls Accept.
func (ls *Listeners) All() []*Listener { return ls.all }

// IPv4 lends the IPv4 socket for its registration in the kernel side.
func (ls *Listeners) IPv4() syscall.Conn { return ls.all[0] }

// IPv6 lends the IPv6 socket for its registration in the kernel side; nil on a
// machine without IPv6.
func (ls *Listeners) IPv6() syscall.Conn {
	if len(ls.all) == 1 {
		return nil
	}
	return ls.all[1]
}

// Replace makes connections accepted from now on be judged by another table.
func (ls *Listeners) Replace(t *Table) error {
	if t.has6 && len(ls.all) == 1 {
		return errors.New("replace the table of bindings: it binds an IPv6 address and IPv6 was not available when the listeners were opened; enable IPv6 and restart")
	}
	ls.table.Store(t)
	return nil
}

// Strays returns how many connections were closed because nobody is bound to
// the address that they came to: somebody connected to the loopback port
// itself, or a binding went away while the connection was on its way.
func (ls *Listeners) Strays() uint64 { return ls.strays.Load() }

// Drain closes the listeners without losing a connection: each goes on
// accepting until nothing has arrived for the time quiet, and is then closed,
// upon which its Accept returns net.ErrClosed. The caller has taken the
// listeners out of the kernel side before. quiet must cover a handshake that
// has begun: its round trip.
//
// Drain returns when all are closed. It closes them at once when ctx ends, and
// then returns its error.
func (ls *Listeners) Drain(ctx context.Context, quiet time.Duration) error {
	for _, l := range ls.all {
		l.drain(quiet)
	}
	for _, l := range ls.all {
		select {
		case <-l.closed:
		case <-ctx.Done():
			ls.Close()
			return fmt.Errorf("drain the listeners: %w", ctx.Err())
		}
	}
	return nil
}

// Close closes the listeners at once. Connections that nobody has accepted yet
// are reset; Drain avoids that.
func (ls *Listeners) Close() {
	for _, l := range ls.all {
		l.close()
	}
}

// transit reports whether a connection came in on its way to an origin.
func (ls *Listeners) transit(b plan.Binding, server netip.Addr) bool {
	if b.Addressed && b.Transit {
		return ls.opts.Local != nil && !ls.opts.Local(server)
	}
	return b.Transit
}
