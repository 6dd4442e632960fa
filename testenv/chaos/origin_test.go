package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

// origin takes what it gets for the ledger. Only CRLF ends a line for it.
type origin struct {
	*peer.Server
	ledger *Ledger
}

// originPatience is how long it waits for a client.
const originPatience = 30 * time.Second

func newOrigin(env *testenv.Env, l *Ledger) (*origin, error) {
	var listeners []net.Listener
	for _, at := range []netip.Addr{env.Origin4, env.Origin6} {
		listener, err := env.Origin.Listen(netip.AddrPortFrom(at, 25))
		if err == nil {
			listeners = append(listeners, listener)
			err = keepSYN(listener)
		}
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, err
		}
	}
	o := &origin{ledger: l}
	o.Server = peer.Accept(func(conn net.Conn) func() { return func() { o.serve(conn.(*net.TCPConn)) } }, listeners...)
	return o, nil
}

func (o *origin) serve(conn *net.TCPConn) {
	inspected, err := madeByGateway(conn)
	if err != nil {
		o.ledger.Fail("it is not known who has made the connection from %s: %v", conn.RemoteAddr(), err)
		return
	}
	o.ledger.Connected(conn.RemoteAddr().String(), inspected)
	d := &dialogue{origin: o, conn: conn, in: bufio.NewReader(conn), inspected: inspected}
	if d.say("220 origin.example.org ESMTP\r\n") != nil {
		return
	}
	for d.command() == nil {
	}
}

// dialogue is one session.
type dialogue struct {
	origin    *origin
	conn      net.Conn
	in        *bufio.Reader
	inspected bool
}

func (d *dialogue) say(text string) error {
	d.conn.SetDeadline(time.Now().Add(originPatience))
	_, err := d.conn.Write([]byte(text))
	return err
}

// line reads up to CRLF.
func (d *dialogue) line() (string, error) {
	d.conn.SetDeadline(time.Now().Add(originPatience))
	var line strings.Builder
	for {
		part, err := d.in.ReadString('\n')
		line.WriteString(part)
		if err != nil || strings.HasSuffix(part, "\r\n") {
			return line.String(), err
		}
	}
}

var errDone = errors.New("done")

func (d *dialogue) command() error {
	line, err := d.line()
	if err != nil {
		return err
	}
	verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
	switch verb {
	case "EHLO":
		return d.say("250-origin.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
	case "DATA":
		return d.data()
	case "QUIT":
		return errors.Join(d.say("221 2.0.0 Until next time\r\n"), errDone)
	case "HELO", "MAIL", "RCPT", "RSET", "NOOP":
		return d.say("250 2.0.0 So be it\r\n")
	}
	if d.inspected {
		d.origin.ledger.Fail("the origin got the line %.200q of the inspector", line)
	}
	return d.say("500 5.5.1 Not in the test's book\r\n")
}

func (d *dialogue) data() error {
	if err := d.say("354 Go ahead\r\n"); err != nil {
		return err
	}
	var content strings.Builder
	for {
		line, err := d.line()
		if err != nil {
			return err // without its end it is no message
		}
		if line == ".\r\n" {
			break
		}
		content.WriteString(line)
	}
	if d.origin.ledger.Arrived(content.String(), d.inspected) {
		return d.say("250 2.0.0 Queued\r\n")
	}
	return d.say("451 4.3.0 Not this one, not now\r\n")
}

// keepSYN makes a listener remember the first packet of each connection.
func keepSYN(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1) })
	return errors.Join(err, failed)
}

// madeHere is the TTL and the hop limit of what the next host has made. Each router on
// the way took one off.
const madeHere = 64

// madeByGateway reports whether the gateway has made a connection, or only forwarded
// it. It reads that of the first packet.
func madeByGateway(conn *net.TCPConn) (bool, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	header := make([]byte, 256)
	size := uint32(len(header))
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
			uintptr(unsafe.Pointer(&header[0])), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil {
		return false, err
	}
	if failed != 0 {
		return false, failed
	}
	return hops(header[:size])
}

// hops reports whether an IP header was made by the next host.
func hops(header []byte) (bool, error) {
	switch {
	case len(header) >= 20 && header[0]>>4 == 4:
		return header[8] == madeHere, nil
	case len(header) >= 40 && header[0]>>4 == 6:
		return header[7] == madeHere, nil
	}
	return false, fmt.Errorf("no IP header: % x", header)
}
