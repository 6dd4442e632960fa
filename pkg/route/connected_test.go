package route

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadConnected(t *testing.T) {
	isolate(t)
	sh(t, `
ip addr add 192.0.2.1/24 dev ext0
ip addr add 192.0.2.2/24 dev ext0
ip addr add 192.0.2.130/25 dev dmz0
ip addr add 198.51.100.1/32 dev dmz0
ip addr add 203.0.113.1/24 dev lo
ip addr add 2001:db8:1::1/64 dev ext0 nodad
ip addr add fe80::5/64 dev ext0 nodad
ip tuntap add dev tun0 mode tun
ip addr add 10.0.0.1/8 dev tun0
ip link set tun0 up
ip link add mac0 link ext0 type macvlan
ip addr add 172.16.0.1/12 dev mac0`)
	got, err := ReadConnected()
	if err != nil {
		t.Fatal(err)
	}
	want := Connected{
		{"ext0", netip.MustParsePrefix("2001:db8:1::/64")},
		{"dmz0", netip.MustParsePrefix("192.0.2.128/25")},
		{"ext0", netip.MustParsePrefix("192.0.2.0/24")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	sh(t, "ip link set mac0 up")
	if got, err = ReadConnected(); err != nil || len(got) != 4 || got[3].Interface != "mac0" {
		t.Errorf("with an interface more: %v, %v", got, err)
	}
}

// TestShared: two addresses are neighbours where the longest prefix of both is the
// same; whoever is behind a router, or in a network within the network, is not.
func TestShared(t *testing.T) {
	c := ConnectedBy([]Link{
		{Name: "ext0", Ethernet: true, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/16"), netip.MustParsePrefix("fd00:1::1/64")}},
		{Name: "dmz0", Ethernet: true, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.1/24"), netip.MustParsePrefix("10.1.3.1/24")}},
	})
	for _, k := range []struct {
		a, b, want string
	}{
		{"10.1.2.99", "10.1.2.254", "dmz0 10.1.2.0/24"},
		{"10.1.9.9", "10.1.8.8", "ext0 10.1.0.0/16"},
		{"10.1.9.9", "10.1.2.254", ""},
		{"10.1.2.254", "10.1.9.9", ""},
		{"10.1.2.99", "10.1.3.99", ""}, // one link, but who knows what the origin thinks of the other network
		{"192.0.2.1", "10.1.2.254", ""},
		{"192.0.2.1", "192.0.2.2", ""},
		{"fd00:1::5", "fd00:1::6", "ext0 fd00:1::/64"},
		{"fd00:1::5", "10.1.2.254", ""},
	} {
		n, shared := c.Shared(netip.MustParseAddr(k.a), netip.MustParseAddr(k.b))
		got := ""
		if shared {
			got = n.Interface + " " + n.Prefix.String()
		}
		if got != k.want {
			t.Errorf("%s and %s: %q, want %q", k.a, k.b, got, k.want)
		}
	}
	if _, shared := Connected(nil).Shared(netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.2.4")); shared {
		t.Error("shared in no network")
	}
	if n := testing.AllocsPerRun(100, func() { c.Shared(netip.MustParseAddr("10.1.2.99"), netip.MustParseAddr("10.1.2.254")) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
