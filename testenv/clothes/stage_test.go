package clothes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

const (
	// patience bounds any one thing that is waited for.
	patience = time.Minute
	// batchFrames are sent before answers are collected: fewer than what the kernel
	// queues for a processor (net.core.netdev_max_backlog, 1000) with the answers,
	// so that none is lost unseen.
	batchFrames = 400
	// beaconPort is a port of the origin that nobody listens on and that portreeve
	// leaves alone.
	beaconPort = 26
)

// stage is a network with one kind of link, a sender before the gateway and judges.
type stage struct {
	t *testing.T
	*kind
	env     *testenv.Env
	gateway *gateway

	seed    uint64 // that the closet's was made of
	closet  *Closet
	tailor  *Tailor
	sender  Sender
	judge   *Judge
	counter *Counter
	origin  *peer.Origin

	serial uint32 // of the last SYN
	beacon uint32
	scenes []*scene
	leaks  []*leak   // that were looked into
	space  []Garment // of the last outfit

	hold          bool // the origin's neighbour entry is missing while SYNs arrive
	held, slipped int  // batches that waited for it, and that did not
}

// newStage builds the network. It returns nil where the kernel lacks the kind of
// link, and says so.
func newStage(t *testing.T, k *kind, c *Closet) *stage {
	t.Helper()
	env := testenv.ForTest(t)
	s := &stage{t: t, kind: k, env: env, gateway: &gateway{Portreeve: testenv.Portreeve{Env: env, Program: program}}, closet: c}
	tun, err := k.lay(t.Context(), env)
	if err != nil {
		if absent(err) && len(k.gateway)+len(k.after) > 0 {
			t.Logf("this kernel has no %s devices: %v", k.name, err)
			return nil
		}
		t.Fatal(err)
	}
	s.prepare()
	s.open(tun)
	t.Cleanup(s.close)
	return s
}

// prepare makes origin and gateway answer quickly, always and without memory of
// those before. None of it changes what they take for a SYN.
func (s *stage) prepare() {
	s.t.Helper()
	ctx := s.t.Context()
	err := ip(ctx, s.env, s.env.Router, "route add blackhole "+Sources4.String(), "-6 route add blackhole "+Sources6.String())
	for _, setting := range []struct {
		node       *testenv.Node
		key, value string
	}{
		{s.env.Origin, "net.ipv4.neigh.dmz0.base_reachable_time_ms", "3600000"}, // it asks once, and not while the gateway is to have forgotten it
		{s.env.Origin, "net.ipv6.neigh.dmz0.base_reachable_time_ms", "3600000"},
		{s.env.Origin, "net.ipv4.tcp_syncookies", "2"}, // each SYN is answered, and forgotten
		{s.env.Origin, "net.ipv4.icmp_ratemask", "0"},
		{s.env.Origin, "net.ipv6.icmp.ratemask", "255"},
		{s.env.Origin, "net.ipv4.ipfrag_time", "1"},
		{s.env.Origin, "net.ipv6.ip6frag_time", "1"},
		{s.env.Origin, "net.ipv4.ipfrag_high_thresh", "134217728"},
		{s.env.Origin, "net.ipv6.ip6frag_high_thresh", "134217728"},
		{s.env.Gateway, "net.ipv4.ipfrag_time", "1"},
		{s.env.Gateway, "net.ipv4.ipfrag_high_thresh", "134217728"},
		{s.env.Gateway, "net.netfilter.nf_conntrack_frag6_timeout", "1"},
		{s.env.Gateway, "net.netfilter.nf_conntrack_frag6_high_thresh", "134217728"},
		{s.env.Gateway, "net.netfilter.nf_conntrack_tcp_timeout_syn_sent", "1"},
		{s.env.Gateway, "net.netfilter.nf_conntrack_tcp_timeout_syn_recv", "1"},
		{s.env.Gateway, "net.netfilter.nf_conntrack_tcp_timeout_close", "1"},
		{s.env.Gateway, "net.ipv4.tcp_synack_retries", "0"},
		{s.env.Gateway, "net.ipv4.conf.all.send_redirects", "0"},
		{s.env.Gateway, "net.ipv4.conf.ext0.send_redirects", "0"},
	} {
		failure := setting.node.SetSysctl(setting.key, setting.value)
		if !errors.Is(failure, fs.ErrNotExist) { // where the module is not there yet
			err = errors.Join(err, failure)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// open opens sender and judges, and proves that the network forwards.
func (s *stage) open(tun *Tun) {
	s.t.Helper()
	e := s.env
	a := Address{Wearable: s.Wearable, Origin4: e.Origin4, Origin6: e.Origin6, Gateway4: e.Gateway4, Port: smtpPort}
	var err error
	if s.Ethernet {
		err = errors.Join(hardware(e.Gateway, "ext0", &a.GatewayMAC), hardware(e.Router, "wan0", &a.OurMAC))
	}
	s.tailor = NewTailor(a)
	var listeners []net.Listener
	for _, target := range []netip.Addr{e.Origin4, e.Origin6} {
		l, failure := e.Origin.Listen(netip.AddrPortFrom(target, smtpPort))
		err = errors.Join(err, failure)
		listeners = append(listeners, l)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.origin = peer.Serve(peer.Behaviour{}, listeners...)
	s.greeted()
	s.sender = tun
	if tun == nil {
		err = e.Router.Enter(func() (err error) {
			s.sender, err = NewPacketSender("wan0", s.Ethernet)
			return err
		})
	}
	err = errors.Join(err, e.Origin.Enter(func() (err error) {
		s.judge, err = NewJudge("dmz0")
		return err
	}), e.Gateway.Enter(func() (err error) {
		s.counter, err = NewCounter("ext0", smtpPort)
		return err
	}))
	if err != nil {
		s.t.Fatal(err)
	}
}

// hardware reads a device's address.
func hardware(n *testenv.Node, device string, to *[6]byte) error {
	return n.Enter(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		copy(to[:], link.HardwareAddr)
		return nil
	})
}

// greeted waits until an honest client is greeted by each address of the origin.
func (s *stage) greeted() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var err error
	if s.V4 {
		err = s.env.Client.AwaitGreeting(ctx, netip.AddrPortFrom(s.env.Origin4, smtpPort))
	}
	if s.V6 {
		err = errors.Join(err, s.env.Client.AwaitGreeting(ctx, netip.AddrPortFrom(s.env.Origin6, smtpPort)))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) close() {
	err := errors.Join(s.gateway.Kill(), s.origin.Close())
	if s.sender != nil {
		err = errors.Join(err, s.sender.Close())
	}
	if s.judge != nil {
		err = errors.Join(err, s.judge.Close())
	}
	if s.counter != nil {
		err = errors.Join(err, s.counter.Close())
	}
	if err != nil {
		s.t.Error(err)
	}
}

// toOrigin is the gateway's interface towards the origin.
func (s *stage) toOrigin() string {
	if s.kind.origin != "" {
		return s.kind.origin
	}
	return "dmz0"
}

// named is the interface that portreeve takes for the client side.
func (s *stage) named() string {
	if s.client != "" {
		return s.client
	}
	return "ext0"
}

// must ends the test of this link on an error.
func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// flush sends the batch that was dressed and a beacon behind it, and hears all that
// the origin answers until it answers the beacon. A beacon that is not answered
// means that the gateway forwards nothing, and silence proves nothing.
func (s *stage) flush() {
	s.t.Helper()
	s.beacon++
	light := MaxSerial + 1 + s.beacon%0xffff
	s.tailor.Port = beaconPort
	s.tailor.Dress(&Outfit{Serial: light, V6: !s.V4 || s.V6 && s.beacon%2 == 0})
	s.tailor.Port = smtpPort
	if s.hold {
		s.must(s.unresolve())
	}
	s.must(s.sender.Send(s.tailor, 0))
	s.tailor.Clear()
	if s.hold {
		slipped := s.hear(light, 0)
		s.must(s.resolve())
		if slipped {
			s.slipped++
			return
		}
		s.held++
	}
	if !s.hear(light, patience) {
		s.t.Fatalf("%s: the gateway does not forward what is not portreeve's: SYN %d to port %d was not answered in %v", s.scene().name, s.beacon, beaconPort, patience)
	}
}

// hear notes answers until one to the beacon, or until there was none for a time.
func (s *stage) hear(light uint32, wait time.Duration) bool {
	s.t.Helper()
	for {
		a, heard, err := s.judge.Hear(wait)
		s.must(err)
		if !heard || a.Serial == light {
			return heard
		}
		if a.Serial <= MaxSerial {
			s.note(a)
		}
	}
}

// unresolve makes the gateway forget the origin's hardware address, and ask nobody
// for it.
func (s *stage) unresolve() error {
	device := s.toOrigin()
	return s.batch("neighbour del "+s.env.Origin4.String()+" dev "+device, "neighbour del "+s.env.Origin6.String()+" dev "+device)
}

// resolve tells it, which lets all packets go that wait for it.
func (s *stage) resolve() error {
	var mac [6]byte
	if err := hardware(s.env.Origin, "dmz0", &mac); err != nil {
		return err
	}
	var lines []string
	for _, a := range []netip.Addr{s.env.Origin4, s.env.Origin6} {
		lines = append(lines, fmt.Sprintf("neighbour replace %s lladdr %s dev %s nud reachable", a, net.HardwareAddr(mac[:]), s.toOrigin()))
	}
	return s.batch(lines...)
}

// batch runs ip commands on the gateway in one process.
func (s *stage) batch(lines ...string) error {
	cmd := s.env.Gateway.Command(s.t.Context(), "ip", "-force", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "No such file") { // nobody knew the neighbour anyway
		return fmt.Errorf("%s: %w: %s", strings.Join(lines, "; "), err, out)
	}
	return nil
}

// asking lets the gateway ask for the origin's hardware address, or not: packets
// then wait for somebody to tell it.
func (s *stage) asking(ask bool) {
	s.t.Helper()
	multicast, application, room := "3", "0", "212992"
	if !ask {
		multicast, application, room = "0", "60", "8388608"
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		prefix := "net." + family + ".neigh." + s.toOrigin() + "."
		s.must(s.env.Gateway.SetSysctl(prefix+"app_solicit", application))
		s.must(s.env.Gateway.SetSysctl(prefix+"mcast_solicit", multicast))
		s.must(s.env.Gateway.SetSysctl(prefix+"unres_qlen_bytes", room))
	}
}
