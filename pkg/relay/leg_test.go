package relay

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/peer"
)

// row is a TCP socket of this namespace as /proc/net/tcp shows it, IPv4 only.
type row struct {
	local, remote netip.AddrPort
	state         string
	unsent        uint64 // octets that were written and not acknowledged
}

const timeWait = "06"

func tcpSockets(t testing.TB) (list []row) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
		f := strings.Fields(line)
		unsent, _, _ := strings.Cut(f[4], ":")
		n, err := strconv.ParseUint(unsent, 16, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, row{hexAddress(t, f[1]), hexAddress(t, f[2]), f[3], n})
	}
	return list
}

// hexAddress reads 6300007F:0019, the address in the order of a little-endian
// machine.
func hexAddress(t testing.TB, text string) netip.AddrPort {
	t.Helper()
	var a [4]byte
	var port uint16
	if _, err := fmt.Sscanf(text, "%02X%02X%02X%02X:%04X", &a[3], &a[2], &a[1], &a[0], &port); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(a), port)
}

// lingerers returns the sockets in TIME_WAIT of an address towards the gate's origin.
func (g *gate) lingerers(from netip.Addr) (list []row) {
	g.t.Helper()
	origin := g.relay.opts.Services["mx"].Dialer.Origins[0]
	for _, s := range tcpSockets(g.t) {
		if s.state == timeWait && s.local.Addr() == from && s.remote == origin {
			list = append(list, s)
		}
	}
	return list
}

// withOrigin puts another origin in place of the gate's own: serve gets each
// connection, and closes it.
func withOrigin(t testing.TB, serve func(*net.TCPConn)) func(*Options) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(patience))
			go serve(conn.(*net.TCPConn))
		}
	}()
	return func(o *Options) {
		mx := o.Services["mx"]
		d := *mx.Dialer
		d.Origins = []netip.AddrPort{netip.MustParseAddrPort(ln.Addr().String())}
		mx.Dialer = &d
		o.Services["mx"] = mx
	}
}

// TestPortsAreFreeAgain: however a session ends, its forged port can be taken again at
// once, while no socket of ours is in TIME_WAIT. The origin is one that leaves
// the first close to its client, as Exim does after 221.
func TestPortsAreFreeAgain(t *testing.T) {
	// A port in TIME_WAIT cannot be taken before its minute is over, but on the
	// loopback interface, where this lets it be after a second.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	patientOrigin := func(conn *net.TCPConn) {
		defer conn.Close()
		talk(conn)
		io.Copy(io.Discard, conn) // the client closes first
	}
	ends := map[event.End]func(g *gate, c *client){
		event.EndQuit: func(g *gate, c *client) {
			if _, err := c.Send(mail); err != nil {
				g.t.Fatal(err)
			}
			c.Write("QUIT\r\n")
			c.expect("221")
		},
		event.EndErrors: func(_ *gate, c *client) {
			for range 20 {
				c.Write("WHAT\r\n")
				c.expect("500")
			}
			c.Write("WHAT\r\n")
			c.expect("421")
		},
		event.EndForeign: func(_ *gate, c *client) {
			c.Write("GET / HTTP/1.1\r\n")
			c.expect("421")
		},
		event.EndClientSyntax: func(_ *gate, c *client) {
			c.Write("NOOP\n")
			c.expect("500")
		},
		event.EndClientGone: func(g *gate, c *client) {
			c.Write("MAIL FROM:<a@example.net>\r\n")
			c.expect("250")
			c.conn.Close()
		},
		event.EndDraining: func(g *gate, c *client) {
			g.relay.draining.Store(true)
			c.Write("NOOP\r\n")
			c.expect("421")
		},
	}
	from := netip.MustParseAddr("127.0.0.99")
	for end, play := range ends {
		t.Run(end.String(), func(t *testing.T) {
			g := start(t, peer.Behaviour{}, withOrigin(t, patientOrigin), forging, func(o *Options) {
				o.Services["mx"].Dialer.Forge.Port = config.ForgePort{Mode: config.PortNumber, Number: 2525}
			})
			for range 3 {
				g.relay.draining.Store(false)
				c := g.dialFrom(from, g.addr())
				if _, err := c.Open("client.example.net"); err != nil {
					t.Fatal(err)
				}
				play(g, c)
				c.conn.Close()
				g.empty()
				if left := g.lingerers(from); len(left) > 0 {
					t.Fatalf("in TIME_WAIT: %v", left)
				}
			}
			if want := []event.End{end, end, end}; !slices.Equal(g.records.ends, want) {
				t.Errorf("recorded %v", g.records.ends)
			}
		})
	}
}

// talk answers as an origin does, up to QUIT or the end.
func talk(conn io.ReadWriter) {
	io.WriteString(conn, "220 mx\r\n")
	content := false
	for in := bufio.NewScanner(conn); in.Scan(); {
		verb, _, _ := strings.Cut(in.Text(), " ")
		switch {
		case content && in.Text() != ".":
		case content:
			content = false
			io.WriteString(conn, "250 taken\r\n")
		case verb == "DATA":
			content = true
			io.WriteString(conn, "354 go\r\n")
		case verb == "QUIT":
			io.WriteString(conn, "221 bye\r\n")
			return
		default:
			io.WriteString(conn, "250 ok\r\n")
		}
	}
}

// TestOriginClosesFirst: an origin that has closed after its 221 sees the end of the
// stream, and no reset.
func TestOriginClosesFirst(t *testing.T) {
	ended := make(chan error, 1)
	g := start(t, peer.Behaviour{}, withOrigin(t, func(conn *net.TCPConn) {
		defer conn.Close()
		talk(&brisk{conn})
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}))
	c := g.dial()
	if _, err := c.Deliver(mail); err != nil {
		t.Fatal(err)
	}
	g.empty()
	if err := <-ended; err != nil {
		t.Errorf("the origin's stream ended with %v", err)
	}
}

// brisk ends its half in the segment that has the 221.
type brisk struct{ *net.TCPConn }

func (c *brisk) Write(p []byte) (int, error) {
	if !strings.HasPrefix(string(p), "221") {
		return c.TCPConn.Write(p)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_CORK, 1) })
	n, failed := c.TCPConn.Write(p)
	return n, errors.Join(err, failed, c.CloseWrite())
}

// TestHalfCloseReadsItsReply: a client that ends its half with the end of data, and
// loses the packets with its 250, gets them again, as from any server.
func TestHalfCloseReadsItsReply(t *testing.T) {
	for name, secure := range map[string]bool{"in clear": false, "inside TLS": true} {
		t.Run(name, func(t *testing.T) {
			from := netip.MustParseAddr("127.0.0.99")
			g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, trust.Policy{}))
			c := g.dialFrom(from, g.addr())
			if _, err := c.Open("client.example.net"); err != nil {
				t.Fatal(err)
			}
			if secure {
				if err := c.StartTLS(believing()); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Command("EHLO client.example.net"); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Envelope(mail); err != nil {
				t.Fatal(err)
			}
			back := lose(t, "--sport", strconv.Itoa(int(g.addr().Port())), "-d", from.String())
			if err := c.Write(mail.Content + ".\r\n"); err != nil {
				t.Fatal(err)
			}
			c.conn.CloseWrite()
			g.empty() // we have said all and gone
			back()
			c.expect("250 2.0.0 ")
			c.expectEnd()
			if r := g.record(); r.Messages != 1 || r.End != event.EndClientGone {
				t.Errorf("%d messages, %s", r.Messages, r.End)
			}
		})
	}
}

// lose makes the packets of TCP that come and fit get lost, until the function that it
// returns is called.
func lose(t *testing.T, which ...string) (back func()) {
	t.Helper()
	run := func(action string) {
		rule := append([]string{"-w", action, "INPUT", "-p", "tcp"}, append(which, "-j", "DROP")...)
		if out, err := exec.Command("iptables", rule...).CombinedOutput(); err != nil {
			t.Errorf("iptables %v: %v: %s", rule, err, out)
		}
	}
	run("-A")
	done := sync.OnceFunc(func() { run("-D") })
	t.Cleanup(done)
	return done
}

// TestStrayMeetsTheEndOfData: an origin says 250 when it cannot have read the end of
// data. No look before the write could have seen it, and it is no answer.
func TestStrayMeetsTheEndOfData(t *testing.T) {
	for name, secure := range map[string]bool{"in clear": false, "inside TLS": true} {
		t.Run(name, func(t *testing.T) {
			inContent, lie := make(chan bool, 1), make(chan bool)
			mode := session.TLS{Mode: "off"}
			if secure {
				mode = session.TLS{Mode: "origin", Origin: session.Always}
			}
			g := start(t, peer.Behaviour{}, withTLS(mode, trust.Policy{}), withOrigin(t, func(conn *net.TCPConn) {
				defer conn.Close()
				var end io.ReadWriter = conn
				io.WriteString(conn, "220 mx\r\n")
				if secure {
					obey(bufio.NewReader(conn), conn, "STARTTLS")
					end = tls.Server(conn, certificate(originName))
				}
				obey(bufio.NewReader(end), end, "content")
				inContent <- true
				<-lie
				io.WriteString(end, "250 stray\r\n")
				io.Copy(io.Discard, conn)
			}))
			c := g.open()
			if err := c.Envelope(mail); err != nil {
				t.Fatal(err)
			}
			if err := c.Write(mail.Content); err != nil {
				t.Fatal(err)
			}
			<-inContent
			origin := g.relay.opts.Services["mx"].Dialer.Origins[0]
			g.waitFor(func() bool { return g.unsent(origin) == 0 })
			back := lose(t, "--dport", strconv.Itoa(int(origin.Port())))
			if err := c.Write(".\r\n"); err != nil {
				t.Fatal(err)
			}
			g.waitFor(func() bool { return g.unsent(origin) > 0 })
			close(lie)
			c.expect("421 4.5.0 ")
			back()
			c.expectEnd()
			c.conn.Close()
			g.empty()
			if !slices.Equal(g.records.messages, []event.Outcome{event.Unknown}) {
				t.Errorf("recorded %v", g.records.messages)
			}
		})
	}
}

// unsent counts the octets to the origin that were written and not acknowledged.
func (g *gate) unsent(origin netip.AddrPort) (n uint64) {
	for _, s := range tcpSockets(g.t) {
		if s.remote == origin {
			n += s.unsent
		}
	}
	return n
}
