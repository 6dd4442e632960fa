package relay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/zone"
	"github.com/portreeve/portreeve/testenv/peer"
)

// trusting puts the clients of these tests into zones: the balancer at 127.0.0.1
// and ::1, and its clients. Everybody else is in none.
func trusting(o *Options) {
	forging(o)
	o.Zones = zone.NewTable([]zone.Network{
		{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Zone: zone.Zone{Name: "balancers", Trust: zone.PROXY}},
		{Prefix: netip.MustParsePrefix("::1/128"), Zone: zone.Zone{Name: "balancers", Trust: zone.PROXY}},
		{Prefix: netip.MustParsePrefix("192.0.2.64/26"), Zone: zone.Zone{Name: "lan"}},
	})
	o.Proxy = patience
}

// impatient waits for a header as short as possible.
func impatient(o *Options) {
	trusting(o)
	o.Proxy = time.Nanosecond
}

const (
	header1 = "PROXY TCP4 192.0.2.99 203.0.113.1 40099 25\r\n"
	header2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x63\xcb\x00\x71\x01\x9c\xa3\x00\x19"
	local2  = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// waitFor looks at a condition until it holds.
func (g *gate) waitFor(condition func() bool) {
	g.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatal("waited in vain")
		}
	}
}

// sessions returns the sessions that have ended, and how.
func (r *records) sessions() ([]flow.Flow, []event.End) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.flows), slices.Clone(r.ends)
}

// say writes octets as a peer that is no client of SMTP yet.
func (c *client) say(text string) {
	c.t.Helper()
	if err := c.Write(text); err != nil {
		c.t.Fatal(err)
	}
}

// TestHeaderNamesTheClient: the address in the header is the client's in all
// that follows, and the proxy's stands beside it.
func TestHeaderNamesTheClient(t *testing.T) {
	named := netip.MustParseAddrPort("192.0.2.99:40099")
	for name, header := range map[string]string{"version 1": header1, "version 2": header2} {
		t.Run(name, func(t *testing.T) {
			g := start(t, peer.Behaviour{}, trusting)
			c := g.dial()
			c.say(header)
			if _, err := c.Deliver(mail); err != nil {
				t.Fatal(err)
			}
			g.empty()
			if seen := g.await(over)[0]; seen.Client.Addr() != named.Addr() || len(seen.Messages) != 1 {
				t.Errorf("the origin saw %+v", seen)
			}
			flows, _ := g.records.sessions()
			f := flows[0]
			if f.Client != named || f.Via.String() != c.conn.LocalAddr().String() || f.Zone.Name != "lan" || f.Server != g.addr() {
				t.Errorf("recorded %+v", f)
			}
		})
	}
}

// TestHeaderInPieces: what was cut on the way is one header.
func TestHeaderInPieces(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	for _, header := range []string{header1, header2} {
		c := g.dial()
		for _, octet := range []byte(header) {
			c.say(string([]byte{octet}))
		}
		if _, err := c.Deliver(mail); err != nil {
			t.Error(err)
		}
	}
}

// TestHeaderOfNobody: a proxy that speaks for itself is the client.
func TestHeaderOfNobody(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	for _, header := range []string{local2, "PROXY UNKNOWN\r\n"} {
		c := g.dial()
		c.say(header)
		if _, err := c.Deliver(mail); err != nil {
			t.Error(err)
		}
		g.empty()
		flows, _ := g.records.sessions()
		f := flows[len(flows)-1]
		if f.Client.String() != c.conn.LocalAddr().String() || f.Via.IsValid() || f.Zone.Name != "balancers" {
			t.Errorf("recorded %+v", f)
		}
	}
}

// TestHeaderOfAnotherFamily: an IPv6 client cannot be forged towards an IPv4
// origin, and is told so for now.
func TestHeaderOfAnotherFamily(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	c := g.dial()
	c.say("PROXY TCP6 2001:db8::7 2001:db8::1 40099 25\r\n")
	c.expect("421 4.4.1 ")
	c.expectEnd()
	g.empty()
	flows, ends := g.records.sessions()
	if f := flows[0]; f.Client.String() != "[2001:db8::7]:40099" || f.Zone != (zone.Zone{}) || ends[0] != event.EndNoOrigin {
		t.Errorf("recorded %+v, %s", f, ends[0])
	}
	six := g.dialFrom(netip.Addr{}, g.listeners.All()[1].Addr()) // and the other way round it can
	six.say(header1)
	if _, err := six.Deliver(mail); err != nil {
		t.Error(err)
	}
}

// TestHeaderMustCome: who connects from a network that must send a header and
// sends none, or a broken one, does not get in.
func TestHeaderMustCome(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	for _, says := range []string{"EHLO client.example.net\r\n", "PROXY TCP4 192.0.2.99 203.0.113.1 40099 65536\r\n", header2[:13] + "\x12" + header2[14:], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00"} {
		c := g.dial()
		c.say(says)
		c.expect("421 4.7.0 ")
		c.expectEnd()
		c.conn.Close()
	}
	g.empty()
	if len(g.origin.Sessions()) > 0 {
		t.Error("the origin was asked")
	}
	_, ends := g.records.sessions()
	for _, e := range ends {
		if e != event.EndProxyHeader {
			t.Errorf("recorded %s", e)
		}
	}
	if n := strings.Count(g.log.String(), "no PROXY header"); n < 4 || !strings.Contains(g.log.String(), "zone=balancers") {
		t.Errorf("log %s", g.log)
	}
}

// TestHeaderMustComeInTime: silence is no header.
func TestHeaderMustComeInTime(t *testing.T) {
	g := start(t, peer.Behaviour{}, impatient)
	c := g.dial()
	c.expect("421 4.7.0 ")
	c.expectEnd()
	c.conn.Close()
	g.empty()
	if _, ends := g.records.sessions(); ends[0] != event.EndProxyHeader || !strings.Contains(g.log.String(), "in time") {
		t.Errorf("recorded %s, log %s", ends[0], g.log)
	}
}

// TestNoHeaderAtAll: a proxy that connects to see whether we are alive, and goes,
// is no trouble.
func TestNoHeaderAtAll(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	g.dial().conn.Close()
	var ends []event.End
	g.waitFor(func() bool { _, ends = g.records.sessions(); return len(ends) == 1 })
	if ends[0] != event.EndClientGone || g.log.String() != "" {
		t.Errorf("recorded %s, log %s", ends[0], g.log)
	}
}

// TestNothingMayFollowTheHeader: not an octet behind the header is taken with it,
// so who talks before the greeting is seen to.
func TestNothingMayFollowTheHeader(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	for header, want := range map[string]string{header1 + "EHLO client.example.net\r\n": "421 4.5.0 ", header2 + "E": "421 4.5.0 ", header1 + header1: "554 5.5.0 ", local2 + "\n": "554 5.5.0 "} {
		c := g.dial()
		c.say(header)
		c.expect(want)
		c.conn.Close()
	}
	g.empty()
	_, ends := g.records.sessions()
	for _, e := range ends {
		if e != event.EndEarlyTalker {
			t.Errorf("recorded %s", e)
		}
	}
}

// TestHeaderFromAnybodyElse: a header from who was not asked for it names nobody.
func TestHeaderFromAnybodyElse(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	for _, from := range []string{"127.0.0.2:40000", "192.0.2.65:40000"} { // in no zone, and in one that is not trusted
		for _, header := range []string{header1, header2, local2} {
			c := g.talkative(netip.MustParseAddrPort(from), header)
			c.expect("554 5.5.0 ")
			c.conn.Close()
		}
	}
	g.empty()
	flows, ends := g.records.sessions()
	for i, f := range flows {
		if f.Via.IsValid() || f.Client.Addr() == netip.MustParseAddr("192.0.2.99") || ends[i] != event.EndEarlyTalker {
			t.Errorf("recorded %+v, %s", f, ends[i])
		}
	}
}

// talkative is a client whose first octets are there before it is served.
func (g *gate) talkative(from netip.AddrPort, says string) *client {
	g.t.Helper()
	ours, theirs := pair(g.t)
	c := &client{Client: peer.NewClient(theirs), t: g.t, conn: theirs}
	c.say(says)
	call := g.relay.adopt(ours, flow.Flow{Service: "mx", Client: from})
	g.waitFor(func() bool { n, _ := call.client.Pending(); return n > 0 })
	g.relay.live.add(call)
	go call.serve()
	return c
}

// TestDrainDoesNotWaitForAHeader: who has not said who it is has no session to
// finish.
func TestDrainDoesNotWaitForAHeader(t *testing.T) {
	g := start(t, peer.Behaviour{}, trusting)
	c := g.dial()
	c.say(header1[:20])
	g.waitFor(func() bool { return len(g.relay.Sessions()) == 1 })
	cut := g.drain(t.Context())
	c.expect("421 4.3.2 ")
	c.expectEnd()
	c.conn.Close()
	if n := <-cut; n > 0 {
		t.Errorf("%d sessions were cut", n)
	}
	late := g.dial() // accepted while the relay drains
	late.expect("421 4.3.2 ")
	late.expectEnd()
	late.conn.Close()
	g.empty()
	if g.log.String() != "" {
		t.Errorf("log %s: a drain is no proxy's mistake", g.log)
	}
}
