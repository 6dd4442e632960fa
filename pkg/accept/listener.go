package accept

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/plan"
)

// Bounds of the pause after a connection could not be accepted. The longest one
// is what a client waits at most once descriptors are free again.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

// Listener is the listening socket of one family.
type Listener struct {
	set    *Listeners
	ln     *net.TCPListener
	addr   netip.AddrPort
	quiet  atomic.Int64  // nanoseconds without a connection that end a drain; 0: not draining
	closed chan struct{} // closed with the socket
	once   sync.Once
	spare  spare // of the goroutine in Accept
}

// newListener wraps a socket that is listening.
func newListener(set *Listeners, ln *net.TCPListener) *Listener {
	l := &Listener{
		set:    set,
		ln:     ln,
		addr:   ln.Addr().(*net.TCPAddr).AddrPort(),
		closed: make(chan struct{}),
	}
	l.spare.take() // else Accept does, as soon as that is possible
	return l
}

// Family returns the family of the addresses that the listener serves.
func (l *Listener) Family() plan.Family { return plan.FamilyOf(l.addr.Addr()) }

// Addr returns the loopback address and port that the listener is bound to.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// SyscallConn implements syscall.Conn.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.ln.SyscallConn() }

// Accept waits for the next connection that a service is bound to. The caller
// owns the connection. Connections to an address that nobody is bound to are
// closed and counted here.
//
// An error is ErrExhausted, with a connection, or net.ErrClosed, when the listener
// is closed or drained. What else can go wrong passes (accept(2)): Accept reports it
// to Options.Trouble, pauses and tries again.
func (l *Listener) Accept() (*net.TCPConn, flow.Flow, error) {
	pause := shortestPause
	for {
		l.spare.take()
		conn, err := l.accept()
		switch {
		case err == nil, err == ErrExhausted:
			l.extend()
			pause = shortestPause
			if f, ok := l.describe(conn); ok {
				return conn, f, err
			}
			l.set.strays.Add(1)
			conn.Close()
		case l.finished(err):
			l.close()
			l.spare.release()
			return nil, flow.Flow{}, net.ErrClosed
		default:
			l.rest(err, pause)
			pause = min(2*pause, longestPause)
			l.extend()
		}
	}
}

// accept takes a connection, at the price of the spare descriptor where there is no
// other and a client waits.
func (l *Listener) accept() (*net.TCPConn, error) {
	conn, err := l.ln.AcceptTCP()
	if err == nil || !exhausted(err) || !l.queued() || !l.spare.release() {
		return conn, err
	}
	conn, err = l.ln.AcceptTCP()
	if err == nil && !l.spare.take() {
		err = ErrExhausted
	}
	return conn, err
}

// describe says what a connection is, or false when nobody is bound to its address.
func (l *Listener) describe(conn *net.TCPConn) (flow.Flow, bool) {
	server := unmapped(conn.LocalAddr())
	b, ok := l.set.table.Load().Lookup(server)
	if !ok && l.set.opts.Unknown != nil {
		b, ok = l.set.opts.Unknown(server)
	}
	if !ok {
		return flow.Flow{}, false
	}
	f := flow.Flow{ID: flow.NewID(), Client: unmapped(conn.RemoteAddr()), Server: server, Service: b.Service}
	if l.set.transit(b, server.Addr()) {
		f.Way = flow.Transit
	}
	return f, true
}

// finished reports whether an error of accept ends the listener.
func (l *Listener) finished(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	return l.quiet.Load() != 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// rest reports an error and waits a while, or until the listener is closed. That there
// is no descriptor is no trouble while nobody wants one.
func (l *Listener) rest(err error, pause time.Duration) {
	if l.set.opts.Trouble != nil && (!exhausted(err) || l.queued()) {
		l.set.opts.Trouble(err)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closed:
	}
}

// drain makes the listener close after a time without connections.
func (l *Listener) drain(quiet time.Duration) {
	l.quiet.Store(int64(max(quiet, 1)))
	l.extend()
}

// extend starts the time without connections anew while draining. An error
// means that the socket is closed, which Accept will see.
func (l *Listener) extend() {
	if quiet := l.quiet.Load(); quiet != 0 {
		l.ln.SetDeadline(time.Now().Add(time.Duration(quiet)))
	}
}

// close closes the socket and tells who waits for it.
func (l *Listener) close() {
	l.once.Do(func() {
		l.ln.Close()
		close(l.closed)
	})
}

// unmapped returns the address of a TCP connection, IPv4 never in its mapped
// form.
func unmapped(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
