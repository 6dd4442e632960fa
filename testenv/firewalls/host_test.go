package firewalls

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv"
)

// host answers on a node: over TCP in words of SMTP, whatever the port, over UDP with
// a line. Both say who the client is for it.
type host struct {
	name    Host
	node    *testenv.Node
	more    []netip.Addr // where it is More
	closers []func() error
}

func (h *host) close() error {
	var failures []error
	for _, c := range h.closers {
		failures = append(failures, c())
	}
	return errors.Join(failures...)
}

// listen answers at an address.
func (h *host) listen(at netip.AddrPort) error {
	listener, err := h.node.Listen(at)
	if err != nil {
		return err
	}
	h.closers = append(h.closers, listener.Close)
	go h.serve(listener)
	return nil
}

// listenUDP answers datagrams at an address.
func (h *host) listenUDP(at netip.AddrPort) error {
	var conn *net.UDPConn
	err := h.node.Enter(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", h.node.Role, err)
	}
	h.closers = append(h.closers, conn.Close)
	go h.echo(conn)
	return nil
}

func (h *host) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go h.talk(conn)
	}
}

// talk greets, and answers EHLO with the offer that no inspector lets pass.
func (h *host) talk(conn net.Conn) {
	defer conn.Close()
	name := h.name
	if slices.Contains(h.more, addressOf(conn.LocalAddr())) {
		name = More
	}
	fmt.Fprintf(conn, "220 %s ESMTP\r\n", saw(name, addressOf(conn.RemoteAddr())))
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		answer := "250 2.0.0 So be it"
		if strings.HasPrefix(line, "EHLO") {
			answer = fmt.Sprintf("250-%s\r\n250-PIPELINING\r\n250 %s", name, offer)
		}
		if _, err := fmt.Fprintf(conn, "%s\r\n", answer); err != nil {
			return
		}
	}
}

func addressOf(a net.Addr) netip.Addr { return netip.MustParseAddrPort(a.String()).Addr().Unmap() }

func (h *host) echo(conn *net.UDPConn) {
	word := make([]byte, 64)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(word)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil { // or an answer was refused
			conn.WriteToUDPAddrPort([]byte(saw(h.name, from.Addr().Unmap())), from)
		}
	}
}

// asUser runs fn with the user id by which netfilter tells whose a socket is. The
// thread is the caller's alone: Node.Enter's.
func asUser(user int, fn func() error) error {
	if user == 0 {
		return fn()
	}
	if err := unix.Setfsuid(user); err != nil {
		return fmt.Errorf("become user %d: %w", user, err)
	}
	return errors.Join(fn(), unix.Setfsuid(0))
}
