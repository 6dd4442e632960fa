package accept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/testenv/alone"
	"github.com/portreeve/portreeve/testenv/descriptors"
)

// Every address of the documentation prefixes is this machine's.
func TestMain(m *testing.M) {
	alone.Main(m,
		"route add local 192.0.2.0/24 dev lo",
		"route add local 198.51.100.0/24 dev lo",
		"-6 route add local 2001:db8::/32 dev lo",
		"addr add 2001:db8::7/128 dev lo nodad",
	)
}

const (
	mark  = 0x40000000
	quiet = 50 * time.Millisecond
)

var (
	client4 = netip.MustParseAddr("198.51.100.7")
	client6 = netip.MustParseAddr("2001:db8::7")
	server4 = netip.MustParseAddrPort("192.0.2.1:25")
	server6 = netip.MustParseAddrPort("[2001:db8:1::1]:25")
)

// bindings cover server4 addressed and server6 in transit.
func bindings() []plan.Binding {
	return []plan.Binding{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Port: 25, Service: "four", Addressed: true},
		{Prefix: netip.MustParsePrefix("192.0.2.99/32"), Port: 25},
		{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Port: 25, Service: "six", Transit: true},
	}
}

// open makes listeners and lets the firewall steer port 25 to them.
func open(t *testing.T, o Options) *Listeners {
	t.Helper()
	if o.Table == nil {
		o.Table = NewTable(bindings())
	}
	ls, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ls.Close)
	for _, l := range ls.All() {
		steerTo(t, l)
	}
	return ls
}

// steerTo does for a listener what the sk_lookup program does, by TPROXY.
func steerTo(t *testing.T, l *Listener) {
	t.Helper()
	tool := "iptables"
	if l.Family() == plan.IPv6 {
		tool = "ip6tables"
	}
	rule := fmt.Sprintf("PREROUTING -t mangle -p tcp --dport 25 -j TPROXY --on-ip %s --on-port %d", l.Addr().Addr(), l.Addr().Port())
	run(t, tool+" -w -A "+rule)
	t.Cleanup(func() { run(t, tool+" -w -D "+rule) })
}

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// dial connects as a client would.
func dial(t *testing.T, from netip.Addr, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

type accepted struct {
	conn *net.TCPConn
	flow flow.Flow
}

// acceptAll accepts until the listener is closed; the returned channel is
// closed then.
func acceptAll(t *testing.T, l *Listener) <-chan accepted {
	t.Helper()
	all := make(chan accepted, 100)
	go func() {
		defer close(all)
		for {
			conn, f, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v, want %v", err, net.ErrClosed)
				}
				return
			}
			all <- accepted{conn, f}
		}
	}()
	t.Cleanup(func() {
		l.close()
		for a := range all {
			a.conn.Close()
		}
	})
	return all
}

func TestAcceptSaysWhoWantsWhat(t *testing.T) {
	ls := open(t, Options{Mark: mark})
	for i, c := range []struct {
		client netip.Addr
		server netip.AddrPort
		want   flow.Flow
	}{
		{client4, server4, flow.Flow{Way: flow.Addressed, Service: "four"}},
		{client6, server6, flow.Flow{Way: flow.Transit, Service: "six"}},
	} {
		all := acceptAll(t, ls.All()[i])
		conn := dial(t, c.client, c.server)
		a := <-all
		want := c.want
		want.ID, want.Client, want.Server = a.flow.ID, conn.LocalAddr().(*net.TCPAddr).AddrPort(), c.server
		if a.flow != want {
			t.Errorf("flow %+v, want %+v", a.flow, want)
		}
		if a.flow.ID == (flow.ID{}) {
			t.Error("flow has no ID")
		}
		if got := option(t, a.conn, unix.SOL_SOCKET, unix.SO_MARK); got != mark {
			t.Errorf("accepted socket has mark 0x%x, want 0x%x", got, mark)
		}
		if got := option(t, a.conn, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != 0 {
			t.Error("keep-alive was set up")
		}
	}
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

func TestListenersAreOfPlainTCPOnLoopback(t *testing.T) {
	ls := open(t, Options{})
	if len(ls.All()) != 2 {
		t.Fatalf("%d listeners, want one per family", len(ls.All()))
	}
	for _, l := range ls.All() {
		if !l.Addr().Addr().IsLoopback() || l.Addr().Port() < 1024 {
			t.Errorf("%s listens at %s", l.Family(), l.Addr())
		}
		raw, err := l.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
				t.Errorf("%s listener has protocol %d, %v; a SOCKMAP takes only %d", l.Family(), p, err, unix.IPPROTO_TCP)
			}
			if l.Family() == plan.IPv6 {
				if only, err := unix.GetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY); err != nil || only != 1 {
					t.Errorf("IPV6_V6ONLY is %d, %v", only, err)
				}
			}
		})
	}
}

func TestStraysAreClosedAndCounted(t *testing.T) {
	ls := open(t, Options{})
	l := ls.All()[0]
	all := acceptAll(t, l)
	for i, server := range []netip.AddrPort{l.Addr(), netip.MustParseAddrPort("192.0.2.99:25"), netip.MustParseAddrPort("198.51.100.1:25")} {
		conn := dial(t, netip.Addr{}, server)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatalf("%s: read %d, %v; want the end of the connection", server, n, err)
		}
		if got := ls.Strays(); got != uint64(i+1) {
			t.Errorf("after %s: %d strays, want %d", server, got, i+1)
		}
	}
	if len(all) != 0 {
		t.Error("a stray was handed to the caller")
	}
}

func TestReplaceTable(t *testing.T) {
	ls := open(t, Options{})
	all := acceptAll(t, ls.All()[0])
	dial(t, client4, server4)
	if a := <-all; a.flow.Service != "four" {
		t.Errorf("service %q", a.flow.Service)
	}
	if err := ls.Replace(NewTable([]plan.Binding{bind("192.0.2.1/32", 25, "other")})); err != nil {
		t.Fatal(err)
	}
	dial(t, client4, server4)
	if a := <-all; a.flow.Service != "other" {
		t.Errorf("service %q after Replace, want other", a.flow.Service)
	}
}

func TestBothWaysIsDecidedByTheAddress(t *testing.T) {
	both := plan.Binding{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Port: 25, Service: "both", Addressed: true, Transit: true}
	local := func(a netip.Addr) bool { return a == server4.Addr() }
	ls := open(t, Options{Table: NewTable([]plan.Binding{both}), Local: local})
	all := acceptAll(t, ls.All()[0])
	for server, want := range map[string]flow.Way{"192.0.2.1:25": flow.Addressed, "192.0.2.2:25": flow.Transit} {
		dial(t, client4, netip.MustParseAddrPort(server))
		if a := <-all; a.flow.Way != want {
			t.Errorf("way to %s is %s, want %s", server, a.flow.Way, want)
		}
	}
}

func TestDrainLosesNoQueuedConnection(t *testing.T) {
	ls := open(t, Options{})
	const queued = 20
	for range queued {
		dial(t, client4, server4) // completed by the kernel, nobody accepts yet
	}
	drained := make(chan error, 1)
	go func() { drained <- ls.Drain(t.Context(), quiet) }()
	var channels []<-chan accepted
	for _, l := range ls.All() {
		channels = append(channels, acceptAll(t, l))
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	n := 0
	for a := range channels[0] {
		a.conn.Close()
		n++
	}
	if n != queued {
		t.Errorf("%d connections accepted while draining, want %d", n, queued)
	}
	if _, err := net.DialTimeout("tcp", ls.All()[0].Addr().String(), time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial after drain: %v, want refused", err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	ls := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ls.Drain(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain: %v, want %v", err, context.Canceled)
	}
	if _, _, err := ls.All()[0].Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Drain: %v", err)
	}
}

func TestAcceptOutlivesEMFILE(t *testing.T) {
	trouble := make(chan error, 1000)
	ls := open(t, Options{Trouble: func(err error) {
		select {
		case trouble <- err:
		default:
		}
	}})
	dial(t, client4, server4) // waits in the queue
	restore := forbidDescriptors(t)
	all := acceptAll(t, ls.All()[0])
	if err := <-trouble; !errors.Is(err, unix.EMFILE) {
		t.Errorf("trouble is %v, want %v", err, unix.EMFILE)
	}
	restore()
	if a := <-all; a.flow.Service != "four" {
		t.Errorf("flow %+v after descriptors were free again", a.flow)
	}
}

// TestLastDescriptorIsForTheNextClient: without descriptors a client that waits is
// accepted all the same, one after the other, and with the news that it must be sent
// away. Once there are some again, the next one is served.
func TestLastDescriptorIsForTheNextClient(t *testing.T) {
	trouble := make(chan error, 1000)
	ls := open(t, Options{Trouble: func(err error) { trouble <- err }})
	l := ls.All()[0]
	for range 4 {
		dial(t, client4, server4) // waits in the queue
	}
	free := descriptors.Exhaust(t)
	for n := range 3 {
		conn, f, err := l.Accept()
		if err != ErrExhausted || f.Service != "four" {
			t.Fatalf("client %d: flow %+v, %v", n, f, err)
		}
		conn.Close()
	}
	if len(trouble) > 0 {
		t.Errorf("trouble: %v", <-trouble)
	}
	free()
	conn, _, err := l.Accept()
	if err != nil {
		t.Fatalf("with descriptors again: %v", err)
	}
	conn.Close()
	if l.spare.file == nil {
		t.Error("it has no spare descriptor any more")
	}
}

// TestNobodyIsNoTrouble: without descriptors, and without a client, there is nothing
// to tell, and the client that comes then has the spare.
func TestNobodyIsNoTrouble(t *testing.T) {
	trouble := make(chan error, 1000)
	ls := open(t, Options{Trouble: func(err error) { trouble <- err }})
	l := ls.All()[0]
	ready := make(chan struct{})
	go func() { // makes its socket while it may
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		ready <- struct{}{}
		<-ready
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(server4.Port()), Addr: server4.Addr().As4()}); err != nil {
			t.Error(err)
		}
		ready <- struct{}{}
		<-ready
		unix.Close(fd)
	}()
	<-ready
	descriptors.Exhaust(t)
	if _, err := l.accept(); !errors.Is(err, unix.EMFILE) || l.spare.file == nil {
		t.Errorf("without a client: %v, spare %v", err, l.spare.file)
	}
	l.rest(unix.EMFILE, time.Nanosecond)
	if len(trouble) > 0 {
		t.Errorf("trouble: %v", <-trouble)
	}
	ready <- struct{}{}
	conn, _, err := l.Accept()
	if err != ErrExhausted {
		t.Fatalf("the client that comes then: %v", err)
	}
	conn.Close()
	<-ready
	ready <- struct{}{}
}

// forbidDescriptors lets the process open no further descriptor until the
// returned function is called.
func forbidDescriptors(t *testing.T) func() {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	set(unix.Rlimit{Cur: 1, Max: was.Max})
	restore := sync.OnceFunc(func() { set(was) })
	t.Cleanup(restore)
	return restore
}

// A connection to an address that the table does not bind is served if the
// kernel side knows it: its binding is newer.
func TestAcceptAsksAboutUnknownAddresses(t *testing.T) {
	var asked atomic.Pointer[netip.AddrPort]
	ls := open(t, Options{Table: NewTable(nil), Unknown: func(at netip.AddrPort) (plan.Binding, bool) {
		asked.Store(&at)
		return plan.Binding{Service: "late", Transit: true}, true
	}})
	all := acceptAll(t, ls.All()[0])
	dial(t, client4, server4)
	a := <-all
	if a.flow.Service != "late" || a.flow.Way != flow.Transit || *asked.Load() != server4 {
		t.Errorf("flow %+v, asked about %v", a.flow, asked.Load())
	}
}
