package netfilter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/sockopt"
	"github.com/portreeve/portreeve/testenv"
)

const (
	clientMark = 1 << 24
	originMark = 1 << 25
	loopMark   = 1 << 26
	patience   = 10 * time.Second       // for what must come
	refusal    = 500 * time.Millisecond // for what must not
)

// network is the test network with a hostile firewall on its gateway, and
// rules that mark packets as the TC programs do.
type network struct {
	*testing.T
	*testenv.Env
	family                  plan.Family
	legacy                  bool
	client, gateway, origin netip.Addr
	want                    []plan.Item // what was attached
}

// TestEffect: with policies of DROP and MASQUERADE towards the origin, nothing
// works before, and everything after our rules are in place. Only policies are
// cured: who is banned stays so.
func TestEffect(t *testing.T) {
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		for _, legacy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, legacy %t", family, legacy), func(t *testing.T) {
				n := build(t, family, legacy)
				n.hostile()
				n.blocked(n.gateway)
				n.blocked(n.origin)
				n.attach(netip.PrefixFrom(n.gateway, n.gateway.BitLen()))
				n.addressed()
				n.transit(1)
				n.looped()
				n.banned("-I INPUT")
				n.banned("-A INPUT")
			})
		}
	}
}

// TestEffectOfTheSamePort: an origin leg with the client's own port is not tracked
// where the new connection that it belongs to was, and passes policies and
// MASQUERADE all the same. So it does rules about what the host itself sends: none
// of both legs is that.
func TestEffectOfTheSamePort(t *testing.T) {
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		for _, legacy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, legacy %t", family, legacy), func(t *testing.T) {
				n := build(t, family, legacy)
				n.hostile()
				n.gatewayRuns(fmt.Sprintf("%[1]s -A OUTPUT -p tcp --dport 25 -j DROP\n%[1]s -A OUTPUT -m conntrack --ctstate UNTRACKED -j DROP", n.command()))
				f := n.firewall()
				f.SamePort = f.Forged
				n.install(f)
				n.transit(0)
			})
		}
	}
}

// TestEffectOfTheSocketMatch: a long list of addresses is let in by the
// socket that waits for them, and what nobody waits for stays out.
func TestEffectOfTheSocketMatch(t *testing.T) {
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		t.Run(family.String(), func(t *testing.T) {
			n := build(t, family, false)
			n.hostile()
			var many []netip.Prefix
			for a := n.gateway; len(many) < 100; a = a.Next() {
				many = append(many, netip.PrefixFrom(a, a.BitLen()))
			}
			n.attach(many...)
			l := n.listen(n.gateway, 26, false)
			defer l.Close()
			n.blocked(n.gateway) // port 25, without a listener
			n.addressed()
		})
	}
}

func build(t *testing.T, family plan.Family, legacy bool) *network {
	t.Helper()
	e := testenv.ForTest(t)
	n := &network{T: t, Env: e, family: family, legacy: legacy, client: e.Client4, gateway: e.Gateway4, origin: e.Origin4}
	if family == plan.IPv6 {
		n.client, n.gateway, n.origin = e.Client6, e.Gateway6, e.Origin6
	}
	return n
}

func (n *network) gatewayRuns(script string) string {
	n.Helper()
	out, err := n.Env.Gateway.Run(context.Background(), "sh", "-ec", script)
	if err != nil {
		n.Fatal(err)
	}
	return out
}

func (n *network) command() string {
	name := "iptables"
	if n.family == plan.IPv6 {
		name = "ip6tables"
	}
	if n.legacy {
		return name + "-legacy"
	}
	return name + "-nft"
}

// hostile is what an administrator may have, and the routing that plan asks
// for beside netfilter. Connection tracking is at work.
func (n *network) hostile() {
	n.Helper()
	n.gatewayRuns(fmt.Sprintf(`
c=%s; v=%d
$c -P INPUT DROP
$c -A INPUT -p ipv6-icmp -j ACCEPT
$c -A INPUT -m conntrack --ctstate INVALID -j DROP
$c -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j DROP
$c -P OUTPUT DROP
$c -A OUTPUT -p ipv6-icmp -j ACCEPT
$c -A OUTPUT -m conntrack --ctstate INVALID -j DROP
$c -t nat -A POSTROUTING -o dmz0 -j MASQUERADE
ip -$v rule add pref 100 iif ext0 fwmark %d/%d lookup 25
ip -$v rule add pref 100 iif dmz0 fwmark %d/%d lookup 25
ip -$v route add local default dev lo table 25`,
		n.command(), n.family, clientMark, clientMark, originMark, originMark))
}

// attach puts our rules in place and, before them, marks as TC would.
func (n *network) attach(addressed ...netip.Prefix) {
	n.Helper()
	f := n.firewall()
	for _, p := range addressed {
		f.Addressed = append(f.Addressed, config.Target{Prefix: p, Port: 25})
	}
	n.install(f)
}

// firewall is what netfilter has to know of a service that intercepts and forges.
func (n *network) firewall() plan.Firewall {
	both := []plan.Family{n.family}
	return plan.Firewall{
		Legacy: n.legacy, Clients: []string{"ext0"}, Origins: []string{"dmz0"},
		Transit: both, Forged: both, Sent: both,
		ClientMark: clientMark, OriginMark: originMark, LoopMark: loopMark, Link: plan.LoopLink,
	}
}

func (n *network) install(f plan.Firewall) {
	n.Helper()
	n.want = plan.Netfilter(f)
	n.again()
	n.gatewayRuns(fmt.Sprintf(`
%[1]s -t raw -I PREROUTING -i ext0 -d %[2]s -p tcp --dport 25 -j MARK --or-mark %[3]d
%[1]s -t raw -I PREROUTING -i dmz0 -d %[4]s -p tcp --sport 25 -j MARK --or-mark %[5]d`,
		n.command(), n.origin, clientMark, n.client, originMark))
}

// again makes the gateway's packet filter hold what is wanted, and returns what
// it changed.
func (n *network) again() (changes []plan.Change) {
	n.Helper()
	err := n.Env.Gateway.Enter(func() error {
		h := netfilter.New()
		have, err := h.Have()
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(i plan.Item) bool { // of others, or there already
			_, shared := i.(plan.Shared)
			return shared
		})
		changes = plan.Diff(have, n.want)
		for _, c := range changes {
			do := h.Add
			if c.Op == plan.Replace {
				do = func(i plan.Item) error { return h.Replace(c.Old, i) }
			}
			if err := do(c.Item); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
		}
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	return changes
}

// banned expects that a client whom the administrator bans is not served, when
// our jumps are in their places again, until he lifts the ban.
func (n *network) banned(how string) {
	n.Helper()
	n.gatewayRuns(fmt.Sprintf("%s %s -s %s -j DROP", n.command(), how, n.client))
	moved := false
	for _, c := range n.again() {
		f, is := c.Item.(plan.Filter)
		moved = moved || is && c.Op == plan.Replace && f.Chain == "INPUT"
	}
	if !moved {
		n.Errorf("after %s no jump in INPUT was moved", how)
	}
	n.blocked(n.gateway)
	n.gatewayRuns(fmt.Sprintf("%s -D INPUT -s %s -j DROP", n.command(), n.client))
	n.addressed()
}

// looped expects that packets on their way to the loop link pass a policy of
// FORWARD, and keep their source, and that others do not.
func (n *network) looped() {
	n.Helper()
	const port = 26
	server, err := n.Env.Origin.Listen(netip.AddrPortFrom(n.origin, port))
	if err != nil {
		n.Fatal(err)
	}
	defer server.Close()
	dial := func(wait time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(n.Context(), wait)
		defer cancel()
		return n.Env.Client.Dial(ctx, netip.AddrPortFrom(n.client, 0), netip.AddrPortFrom(n.origin, port))
	}
	if c, err := dial(refusal); err == nil {
		c.Close()
		n.Fatal("FORWARD lets a connection through: this test proves nothing")
	}
	n.gatewayRuns(fmt.Sprintf(`
%[1]s -t raw -I PREROUTING -i ext0 -d %[2]s -p tcp --dport %[3]d -j MARK --or-mark %[4]d
%[1]s -t raw -I PREROUTING -i dmz0 -s %[2]s -p tcp --sport %[3]d -j MARK --or-mark %[4]d`, n.command(), n.origin, port, loopMark))
	there, here := n.meet(server, func() (net.Conn, error) { return dial(patience) })
	n.exchange(there, here)
	if got, want := there.RemoteAddr().String(), here.LocalAddr().String(); got != want {
		n.Errorf("behind FORWARD the source is %s, want %s", got, want)
	}
}

// listen listens in the gateway as the inspector does: transparent, and with
// the client mark, which serves addressed and transit clients alike.
func (n *network) listen(at netip.Addr, port uint16, marked bool) net.Listener {
	n.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, at, clientMark, marked)
	}}
	var l net.Listener
	err := n.Env.Gateway.Enter(func() (err error) {
		l, err = config.Listen(context.Background(), "tcp", netip.AddrPortFrom(at, port).String())
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	return l
}

func control(c syscall.RawConn, at netip.Addr, mark uint32, marked bool) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = errors.Join(sockopt.Transparent(fd, at), sockopt.ReuseAddr(fd))
		if marked {
			failed = errors.Join(failed, sockopt.Mark(fd, mark))
		}
	})
	return errors.Join(err, failed)
}

func (n *network) dial(to netip.Addr, wait time.Duration) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(n.Context(), wait)
	defer cancel()
	return n.Env.Client.Dial(ctx, netip.AddrPortFrom(n.client, 0), netip.AddrPortFrom(to, 25))
}

// blocked expects that the firewall drops a connection without a word.
func (n *network) blocked(to netip.Addr) {
	n.Helper()
	if to == n.origin { // it would be forwarded; there is nobody yet
		n.gatewayRuns(n.command() + " -P FORWARD DROP")
	}
	c, err := n.dial(to, refusal)
	var timeout net.Error
	if err == nil {
		c.Close()
		n.Fatalf("%s answers through the administrator's firewall", to)
	}
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		n.Fatalf("%s: %v, want silence", to, err)
	}
}

// addressed expects a client of the gateway's own address to be served, by
// the listener that bears the mark, and tracked as any other.
func (n *network) addressed() {
	n.Helper()
	l := n.listen(n.gateway, 25, true)
	defer l.Close()
	here, there := n.meet(l, func() (net.Conn, error) { return n.dial(n.gateway, patience) })
	n.exchange(here, there)
	if tracked := n.tracked(portOf(there.LocalAddr())); len(tracked) != 1 || !strings.Contains(tracked[0], "ASSURED") {
		n.Errorf("an addressed connection is tracked as %q", tracked)
	}
}

// transit expects a client of the origin's address to be served by us, and
// the origin to see the client's own address and port on the forged leg, which
// alone may be tracked.
func (n *network) transit(entries int) {
	n.Helper()
	l := n.listen(n.origin, 25, true)
	defer l.Close()
	here, client := n.meet(l, func() (net.Conn, error) { return n.dial(n.origin, patience) })
	n.exchange(here, client)

	server, err := n.Env.Origin.Listen(netip.AddrPortFrom(n.origin, 25))
	if err != nil {
		n.Fatal(err)
	}
	defer server.Close()
	atOrigin, forged := n.meet(server, func() (net.Conn, error) { return n.forge(client.LocalAddr()) })
	n.exchange(atOrigin, forged)
	if got, want := atOrigin.RemoteAddr().String(), client.LocalAddr().String(); got != want {
		n.Errorf("the origin sees %s, want %s", got, want)
	}
	n.exchange(here, client) // untouched by the other leg
	tracked := n.tracked(portOf(client.LocalAddr()))
	if len(tracked) != entries || entries == 1 && !strings.Contains(tracked[0], "ASSURED") {
		n.Errorf("the two legs are tracked as %q, want %d entries", tracked, entries)
	}
}

// TestFloodLeavesNoEntries: a flood of SYNs at a transit service makes fewer
// conntrack entries than the same gateway makes of it without us: none.
func TestFloodLeavesNoEntries(t *testing.T) {
	const syns = 3000
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		for _, legacy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, legacy %t", family, legacy), func(t *testing.T) {
				n := build(t, family, legacy)
				first := netip.MustParseAddr("172.16.10.130")
				if family == plan.IPv6 {
					first = netip.MustParseAddr("fd00:10::1:0")
				}
				flood := func() int {
					t.Helper()
					if err := n.Env.Client.Flood(first, netip.AddrPortFrom(n.origin, 25), syns); err != nil {
						t.Fatal(err)
					}
					return n.entries()
				}
				server, err := n.Env.Origin.Listen(netip.AddrPortFrom(n.origin, 25)) // a reset would remove the entries
				if err != nil {
					t.Fatal(err)
				}
				defer server.Close()
				n.gatewayRuns(n.command() + " -A INPUT -m conntrack --ctstate INVALID -j DROP")
				if forwarded := flood(); forwarded < syns/2 {
					t.Fatalf("%d SYNs that are forwarded leave %d entries: this test proves nothing", syns, forwarded)
				}
				n.gatewayRuns("conntrack -F; " + n.command() + " -D INPUT -m conntrack --ctstate INVALID -j DROP")
				n.hostile()
				n.attach(netip.PrefixFrom(n.gateway, n.gateway.BitLen()))
				l := n.listen(n.origin, 25, true)
				defer l.Close()
				if left := flood(); left != 0 {
					t.Errorf("%d SYNs at a transit service leave %d entries", syns, left)
				}
				here, client := n.meet(l, func() (net.Conn, error) { return n.dial(n.origin, patience) })
				n.exchange(here, client)
			})
		}
	}
}

// entries counts the gateway's conntrack entries of connections to port 25.
func (n *network) entries() int {
	n.Helper()
	return strings.Count(n.gatewayRuns(fmt.Sprintf("conntrack -L -f ipv%d -p tcp --orig-port-dst 25 2>/dev/null", n.family)), "\n")
}

// forge dials the origin from the client's address and port.
func (n *network) forge(from net.Addr) (c net.Conn, err error) {
	d := net.Dialer{LocalAddr: from, Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, n.origin, originMark, true)
	}}
	err = n.Env.Gateway.Enter(func() error {
		c, err = d.Dial("tcp", netip.AddrPortFrom(n.origin, 25).String())
		return err
	})
	return c, err
}

// meet connects and accepts; both ends are closed with the test.
func (n *network) meet(l net.Listener, dial func() (net.Conn, error)) (accepted, dialled net.Conn) {
	n.Helper()
	dialled, err := dial()
	if err != nil {
		n.Fatalf("connect: %v\n%s", err, n.gatewayRuns(n.command()+"-save; conntrack -L"))
	}
	n.Cleanup(func() { dialled.Close() })
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		n.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { accepted.Close() })
	return accepted, dialled
}

// exchange sends a word in both directions.
func (n *network) exchange(a, b net.Conn) {
	n.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}, {a, b}} {
		got := make([]byte, 4)
		way[1].SetDeadline(time.Now().Add(patience))
		if _, err := way[0].Write([]byte("220 ")); err != nil {
			n.Fatal(err)
		}
		if _, err := way[1].Read(got); err != nil {
			n.Fatalf("read: %v\n%s", err, n.gatewayRuns("conntrack -L"))
		}
	}
}

// tracked returns the gateway's conntrack entries of connections to port 25
// from a port.
func (n *network) tracked(from uint16) []string {
	n.Helper()
	var found []string
	for _, l := range strings.Split(n.gatewayRuns(fmt.Sprintf("conntrack -L -f ipv%d -p tcp --orig-port-dst 25 2>/dev/null", n.family)), "\n") {
		if strings.Contains(l, fmt.Sprintf("sport=%d dport=25", from)) {
			found = append(found, l)
		}
	}
	return found
}

func portOf(a net.Addr) uint16 { return a.(*net.TCPAddr).AddrPort().Port() }

// TestFragmentsAreJoined: only the first fragment of a packet has ports to
// tell by that it is ours. They are put together on their way in, which shows by
// their being taken apart again on their way out, and no connection is tracked
// for that.
func TestFragmentsAreJoined(t *testing.T) {
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		for name, f := range map[string]plan.Firewall{
			"forged":            {Forged: []plan.Family{family}},
			"forged, legacy":    {Forged: []plan.Family{family}, Legacy: true},
			"transit":           {Transit: []plan.Family{family}},
			"transit, legacy":   {Transit: []plan.Family{family}, Legacy: true},
			"both ways":         {Transit: []plan.Family{family}, Forged: []plan.Family{family}},
			"both ways, legacy": {Transit: []plan.Family{family}, Forged: []plan.Family{family}, Legacy: true},
		} {
			t.Run(fmt.Sprintf("%s, %s", family, name), func(t *testing.T) {
				n := build(t, family, f.Legacy)
				if taken := n.takenApart(); taken != 0 {
					t.Fatalf("%d packets were taken apart without our rules", taken)
				}
				err := n.Env.Gateway.Enter(func() error {
					f.ClientMark, f.OriginMark = clientMark, originMark
					h := netfilter.New()
					for _, c := range plan.Diff(nil, plan.Netfilter(f)) {
						if err := h.Add(c.Item); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if taken := n.takenApart(); taken != 1 {
					t.Errorf("%d packets were taken apart with our rules, want 1", taken)
				}
				if entries := n.gatewayRuns("conntrack -L 2>/dev/null"); entries != "" {
					t.Errorf("connections are tracked:\n%s", entries)
				}
			})
		}
	}
}

// takenApart sends a packet of several fragments from the client to the
// origin, and returns how many the gateway has made fragments of so far.
func (n *network) takenApart() (count int) {
	n.Helper()
	const size = 3000
	var server net.PacketConn
	err := n.Env.Origin.Enter(func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(n.origin, 2525).String())
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	defer server.Close()
	err = n.Env.Client.Enter(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(n.origin, 2525).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, size))
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(patience))
	if got, _, err := server.ReadFrom(make([]byte, 2*size)); err != nil || got != size {
		n.Fatalf("the origin received %d octets, want %d: %v", got, size, err)
	}
	script := `awk '/^Ip:/ { if ($18 ~ /Frag/) column = 18; else print $column }' /proc/net/snmp`
	if n.family == plan.IPv6 {
		script = `awk '/^Ip6FragOKs/ { print $2 }' /proc/net/snmp6`
	}
	if _, err := fmt.Sscan(n.gatewayRuns(script), &count); err != nil {
		n.Fatal(err)
	}
	return count
}
