package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Node is one machine of an Env: a network namespace. File system, processes
// and users are those of the host.
type Node struct {
	Name string // of the namespace, as `ip netns` lists it
	Role string // client, router, gateway, inner or origin

	atRest atomic.Int64 // TCP sockets when there was no connection, see Connected; 0: not known
}

// netnsDir is where iproute2 keeps names of network namespaces.
const netnsDir = "/run/netns"

// Path returns the file that stands for the namespace.
func (n *Node) Path() string { return filepath.Join(netnsDir, n.Name) }

// Command prepares a command that runs inside the node. Only the network
// namespace is entered: `ip netns exec` would also mount a new /sys and so hide
// a BPF file system below it. A cancelled context kills the command; what it
// leaves behind dies with the Env. Of the caller's environment it sees PATH alone, and
// has no home: mail clients would find there what their user likes best.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--", name}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", NoNameserver}
	return cmd
}

// NoNameserver is an entry of the environment by which programs do not ask the host's
// name servers, which nobody reaches from a node. Swaks wants the host's own name and
// address: where /etc/hosts lacks them, it waited twelve seconds before each message.
const NoNameserver = "RES_OPTIONS=attempts:0"

// Run runs a command inside the node and returns its standard output. The
// error of a failed command carries what it said on standard error.
func (n *Node) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(n.Command(ctx, name, args...), n.Role+": "+name+" "+strings.Join(args, " "))
}

// run runs a command; what names it in the error.
func run(cmd *exec.Cmd, what string) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Enter runs fn on a thread inside the node's network namespace and returns
// its error. Sockets made by fn stay in the node; goroutines started by fn do
// not run there. fn must not end its goroutine (no t.FailNow).
func (n *Node) Enter(fn func() error) error {
	result := make(chan error, 1)
	go func() { result <- n.enter(fn) }()
	return <-result
}

// enter does the work of Enter on a goroutine of its own, so that the caller's
// thread is never in a foreign namespace.
func (n *Node) enter(fn func() error) error {
	target, err := os.Open(n.Path())
	if err != nil {
		return fmt.Errorf("enter node %s: %w", n.Role, err)
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter node %s: open own network namespace: %w", n.Role, err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter node %s: setns: %w (are you root?)", n.Role, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and so ends with this goroutine: no other
		// code may run on it.
		return fmt.Errorf("leave node %s: setns: %w", n.Role, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Dial connects from inside the node. from may be the zero address: the
// kernel chooses; its port may be zero.
func (n *Node) Dial(ctx context.Context, from netip.AddrPort, to netip.AddrPort) (*net.TCPConn, error) {
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(false)
	if from.Addr().IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	var conn net.Conn
	err := n.Enter(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.Role, err)
	}
	return conn.(*net.TCPConn), nil
}

// Listen listens inside the node.
func (n *Node) Listen(at netip.AddrPort) (*net.TCPListener, error) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	var listener net.Listener
	err := n.Enter(func() (err error) {
		listener, err = config.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", n.Role, err)
	}
	return listener.(*net.TCPListener), nil
}

// Greets reports whether a server that the node connects to says 220.
func (n *Node) Greets(ctx context.Context, to netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, greetingPatience)
	defer cancel()
	conn, err := n.Dial(ctx, netip.AddrPort{}, to)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetReadDeadline(deadline)
	greeting := make([]byte, 3)
	_, err = io.ReadFull(conn, greeting)
	return err == nil && string(greeting) == "220"
}

// greetingPatience is for one try: a SYN that was dropped is sent again after
// one second only.
const greetingPatience = 5 * time.Second

// AwaitGreeting connects again and again until a server says 220.
func (n *Node) AwaitGreeting(ctx context.Context, to netip.AddrPort) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !n.Greets(ctx, to) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not greet %s: %w", to, n.Role, context.Cause(ctx))
		}
	}
	return nil
}

// awaitLinks waits until every device but lo is running, or is set down, and the
// kernel has done with their state and their IPv6 addresses, which it does in the
// background.
func (n *Node) awaitLinks(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		busy, err := n.unsettled(ctx)
		if err != nil || len(busy) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await links of %s: %s: %w", n.Role, strings.Join(busy, ", "), context.Cause(ctx))
		}
	}
}

// unsettled names the devices that are set up and have another state, and the IPv6
// addresses that are tentative or lack a route of those that come with them. Flags
// would not tell all: a device counts as running while its state is not yet known.
func (n *Node) unsettled(ctx context.Context) (busy []string, err error) {
	links, err := n.Run(ctx, "ip", "-brief", "link", "show", "up")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(links) { // device[@peer], state, address, flags
		if words := strings.Fields(line); words[0] != "lo" && words[1] != "UP" {
			busy = append(busy, words[0])
		}
	}
	err = n.Enter(func() error {
		late, err := lateAddresses()
		busy = append(busy, late...)
		return err
	})
	return busy, err
}

// tentative is IFA_F_TENTATIVE.
const tentative = 0x40

// lateAddresses reads the IPv6 addresses of this namespace and their routes. An
// address has a local route, and on a router, unless its prefix is a single
// address, its network has an anycast route (RFC 4291 section 2.6.1).
func lateAddresses() ([]string, error) {
	addresses, err := columns("/proc/thread-self/net/if_inet6")
	if err != nil {
		return nil, err
	}
	routes, err := columns("/proc/thread-self/net/ipv6_route")
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, r := range routes {
		if len(r) == 10 {
			have[r[0]+"/"+r[1]+" "+r[9]] = true
		}
	}
	forwarding, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding")
	if err != nil {
		return nil, err
	}
	var late []string
	for _, a := range addresses { // address, index, prefix length, scope, flags, device
		if len(a) != 6 || a[5] == "lo" {
			continue
		}
		flags, err := strconv.ParseUint(a[4], 16, 32)
		if err != nil {
			return nil, err
		}
		complete := flags&tentative == 0 && have[a[0]+"/80 "+a[5]]
		if a[2] == "40" && forwarding[0] == '1' { // all our networks are /64
			complete = complete && have[a[0][:16]+strings.Repeat("0", 16)+"/80 "+a[5]]
		}
		if !complete {
			late = append(late, a[0]+" on "+a[5])
		}
	}
	return late, nil
}

// columns reads a table of a file in /proc.
func columns(path string) ([][]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(string(data)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows, nil
}

// Sysctl reads a sysctl of the node's network, named as sysctl(8) names it:
// net.ipv4.tcp_syncookies.
func (n *Node) Sysctl(key string) (string, error) {
	var value []byte
	err := n.Enter(func() (err error) {
		value, err = os.ReadFile(sysctlPath(key))
		return err
	})
	return strings.TrimSpace(string(value)), err
}

// SetSysctl writes a sysctl of the node's network.
func (n *Node) SetSysctl(key, value string) error {
	return n.Enter(func() error {
		return os.WriteFile(sysctlPath(key), []byte(value), 0)
	})
}

// sysctlPath returns the file of a sysctl. /proc/sys/net shows the network of
// the thread that looks at it.
func sysctlPath(key string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
}
