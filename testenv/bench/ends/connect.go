package ends

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Connections are made in bursts, and between two of them there is a rest: an
// inspector takes longer for a connection than the kernel for its handshake, and
// would fall back further and further until its queue is full.
const (
	burst     = 32
	burstRest = 30 * time.Millisecond
)

// connectPatience is for one connect(2). A SYN that is lost is sent again after
// one second, and again after two more.
const connectPatience = 5 * time.Second

// connectAll makes the connections of an order one after the other, ends each as
// soon as it is there, and returns how long each connect(2) took. What is asked
// is when the kernel at the other end has answered, so nobody waits for a
// greeting, and no runtime stands between the call and the clock.
func connectAll(o Order) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	took := make([]time.Duration, o.Sessions)
	for n := range took {
		if n%burst == 0 {
			time.Sleep(burstRest)
		}
		var from netip.Addr
		if len(o.Sources) > 0 {
			from = o.Sources[n%len(o.Sources)]
		}
		var err error
		if took[n], err = connect(from, o.To); err != nil {
			return nil, fmt.Errorf("connection %d: %w", n+1, err)
		}
	}
	return took, nil
}

// connect makes one connection and resets it, so that its port is free again at
// once and nobody has anything to wait for.
func connect(from netip.Addr, to netip.AddrPort) (took time.Duration, err error) {
	if !to.Addr().Is4() {
		return 0, fmt.Errorf("connect to %s: only IPv4 is timed", to)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := prepare(fd, from); err != nil {
		return 0, err
	}
	address := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	begun := time.Now()
	err = unix.Connect(fd, address)
	took = time.Since(begun)
	if err != nil {
		err = fmt.Errorf("connect to %s: %w", to, err)
	}
	return took, err
}

// prepare makes a socket ready to connect.
func prepare(fd int, from netip.Addr) error {
	patience := unix.NsecToTimeval(connectPatience.Nanoseconds())
	err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience), // bounds connect(2), too
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
	)
	if err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	if !from.IsValid() {
		return nil
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return fmt.Errorf("bind to %s: %w", from, err)
	}
	return nil
}
