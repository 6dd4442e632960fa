package forward

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/testenv/alone"
)

// The origins' prefixes are this machine's. The clients' are not, so that only a
// transparent socket can bear their addresses; a rule for what comes from an
// origin brings the answers back, as the origin-side program does.
func TestMain(m *testing.M) {
	alone.Main(m,
		"addr add 192.0.2.1/24 dev lo",
		"addr add 2001:db8:25::25/128 dev lo nodad",
		"addr add 2001:db8:25::26/128 dev lo nodad",
		"route add unreachable 198.18.0.0/15",
		"rule add from 192.0.2.0/24 lookup 100",
		"-6 rule add from 2001:db8:25::/48 lookup 100",
		"route add local 203.0.113.0/24 dev lo table 100",
		"-6 route add local 2001:db8:7::/48 dev lo table 100",
	)
}

const mark = 0x20000000

// network is one family's addresses in the tests.
type network struct {
	client         netip.Addr
	origin, second netip.Addr
	tool           string
}

var (
	four = network{
		client: netip.MustParseAddr("203.0.113.7"),
		origin: netip.MustParseAddr("192.0.2.25"),
		second: netip.MustParseAddr("192.0.2.26"),
		tool:   "iptables",
	}
	six = network{
		client: netip.MustParseAddr("2001:db8:7::7"),
		origin: netip.MustParseAddr("2001:db8:25::25"),
		second: netip.MustParseAddr("2001:db8:25::26"),
		tool:   "ip6tables",
	}
)

// families runs a test once for each family.
func families(t *testing.T, test func(t *testing.T, n network)) {
	t.Run("IPv4", func(t *testing.T) { test(t, four) })
	t.Run("IPv6", func(t *testing.T) { test(t, six) })
}

// flow returns a flow from a port of the client.
func (n network) flow(port uint16) flow.Flow {
	return flow.Flow{ID: flow.NewID(), Client: netip.AddrPortFrom(n.client, port), Service: "mx"}
}

// origin is a listener that tells who connected to it.
type origin struct {
	addr     netip.AddrPort
	accepted chan *net.TCPConn
}

// listen starts an origin at an address, on a port of the kernel's choice.
func listen(t *testing.T, addr netip.Addr) *origin {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{addr: addrPort(ln.Addr()), accepted: make(chan *net.TCPConn, 100)}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			o.accepted <- conn.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return o
}

// seen returns the address that the origin saw of the next connection, which it
// leaves open.
func (o *origin) seen(t *testing.T) netip.AddrPort {
	t.Helper()
	conn := <-o.accepted
	t.Cleanup(func() { conn.Close() })
	return addrPort(conn.RemoteAddr())
}

// dial dials and closes the connection at the end of the test.
func dial(t *testing.T, d Dialer, f flow.Flow) (*net.TCPConn, Path) {
	t.Helper()
	conn, path, err := d.Dial(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

// fails dials and returns the error that must come.
func fails(t *testing.T, d Dialer, f flow.Flow) error {
	t.Helper()
	conn, _, err := d.Dial(t.Context(), f)
	if err == nil {
		conn.Close()
		t.Fatal("the dial did not fail")
	}
	return err
}

// closedPort returns an address on which nothing listens.
func closedPort(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return addrPort(ln.Addr())
}

// silence drops what comes from a source until the end of the test.
func silence(t *testing.T, n network, source netip.Addr) {
	t.Helper()
	rule := fmt.Sprintf("INPUT -s %s -p tcp --syn -j DROP", source)
	run(t, n.tool+" -w -A "+rule)
	t.Cleanup(func() { run(t, n.tool+" -w -D "+rule) })
}

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// sysctl sets a value of the namespace until the end of the test.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	file := "/proc/sys/net/ipv4/" + name
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(value []byte) {
		if err := os.WriteFile(file, value, 0); err != nil {
			t.Error(err)
		}
	}
	set([]byte(value))
	t.Cleanup(func() { set(was) })
}

// option reads an option of a connection.
func option(t *testing.T, conn *net.TCPConn, level, name int) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int
	raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// markOf reads the mark of a connection's packets.
func markOf(t *testing.T, conn *net.TCPConn) int {
	t.Helper()
	return option(t, conn, unix.SOL_SOCKET, unix.SO_MARK)
}

// timeout is short where silence is expected and irrelevant elsewhere.
const (
	timeout = 10 * time.Second
	brief   = 50 * time.Millisecond
)
