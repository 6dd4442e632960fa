package route

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

func find(t *testing.T, name string) Link {
	t.Helper()
	l, err := Interface(name)
	if err != nil {
		t.Fatal(err)
	}
	l.Index = 0 // the kernel's choice
	return l
}

func TestInterfaces(t *testing.T) {
	isolate(t)
	sh(t, `
ip addr add 192.0.2.1/24 dev ext0
ip addr add 2001:db8::1/64 dev ext0 nodad
ip -6 addr flush dev ext0 scope link
ip link set ext0 mtu 1400
ip link set dmz0 down
ip link add br0 type bridge
ip link set dmz0 master br0
ip link add link ext0 name mac0 type macvlan
ip tuntap add dev tun0 mode tun`)
	for _, want := range []Link{
		{Name: "ext0", Kind: "veth", Ethernet: true, Up: true, MTU: 1400, Addresses: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}},
		{Name: "dmz0", Kind: "veth", Ethernet: true, MTU: 1500, Master: "br0", MasterOf: "bridge"},
		{Name: "br0", Kind: "bridge", Ethernet: true, MTU: 1500},
		{Name: "mac0", Kind: "macvlan", Ethernet: true, MTU: 1400, Parent: "ext0"},
		{Name: "tun0", Kind: "tuntap", MTU: 1500},
	} {
		if diff := cmp.Diff(want, find(t, want.Name), cmp.Comparer(samePrefix)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
	if lo := find(t, "lo"); !lo.Carrier || !lo.Up || !lo.Ethernet {
		t.Errorf("lo is %+v", lo)
	}
}

// testenv/clothes shows it of real ones, where the kernel has VRFs.
func TestVRF(t *testing.T) {
	for want, links := range map[string][]Link{
		"red": {{Name: "red", Kind: "vrf"}, {Name: "ext0", Kind: "veth", Master: "red", MasterOf: "vrf"}},
		"":    {{Name: "ext0", Kind: "veth"}, {Name: "ext0", Kind: "veth", Master: "br0", MasterOf: "bridge"}},
	} {
		for _, l := range links {
			if got := l.VRF(); got != want {
				t.Errorf("VRF of %+v is %q, want %q", l, got, want)
			}
		}
	}
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func TestLocalAddrs(t *testing.T) {
	isolate(t)
	sh(t, `
for d in ext0 dmz0; do ip -6 addr flush dev $d scope link; done
ip addr add 192.0.2.1/24 dev ext0
ip addr add 192.0.2.1/32 dev dmz0
ip addr add 198.51.100.1 peer 198.51.100.2 dev dmz0
ip addr add 2001:db8::1/64 dev ext0 nodad`)
	got, err := LocalAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	want := []string{"127.0.0.1", "192.0.2.1", "198.51.100.1", "::1", "2001:db8::1"}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRouteGet(t *testing.T) {
	isolate(t)
	sh(t, `
ip addr add 192.0.2.1/24 dev ext0
ip addr add 203.0.113.1/24 dev dmz0
ip addr add 2001:db8:1::1/64 dev ext0 nodad
ip route add default via 192.0.2.254
ip route add blackhole 10.0.0.0/8
ip rule add pref 100 iif ext0 fwmark 0x100/0x100 lookup 1025
ip rule add pref 101 fwmark 0x200/0x200 lookup 1026
ip route add local default dev lo table 1025
ip route add default via 203.0.113.254 table 1026
sysctl -qw net.ipv4.ip_forward=1`)
	addr := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		q    Query
		want Path
	}{
		{"by default", Query{To: addr("198.51.100.9")},
			Path{Type: "unicast", Interface: "ext0", Gateway: addr("192.0.2.254"), Source: addr("192.0.2.1"), Table: 254}},
		{"on the link", Query{To: addr("2001:db8:1::9")},
			Path{Type: "unicast", Interface: "ext0", Source: addr("2001:db8:1::1"), Table: 254}},
		{"local", Query{To: addr("203.0.113.1")},
			Path{Type: "local", Interface: "lo", Source: addr("203.0.113.1"), Table: 255}},
		{"by its mark", Query{To: addr("198.51.100.9"), Mark: 0x201},
			Path{Type: "unicast", Interface: "dmz0", Gateway: addr("203.0.113.254"), Source: addr("203.0.113.1"), Table: 1026}},
		{"coming in", Query{To: addr("203.0.113.9"), From: addr("192.0.2.9"), In: "ext0"},
			Path{Type: "unicast", Interface: "dmz0", Table: 254}},
		{"coming in marked", Query{To: addr("203.0.113.9"), From: addr("192.0.2.9"), In: "ext0", Mark: 0x100},
			Path{Type: "local", Interface: "lo", Table: 1025}},
	} {
		got, err := RouteGet(tc.q)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	for name, q := range map[string]Query{
		"blackhole":    {To: addr("10.1.2.3")},
		"no route":     {To: addr("2001:db8:9::9")},
		"no interface": {To: addr("203.0.113.9"), From: addr("192.0.2.9"), In: "ext7"},
	} {
		if p, err := RouteGet(q); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestHasDefault(t *testing.T) {
	isolate(t)
	has := func() string {
		var fs []string
		for _, f := range families {
			ok, err := HasDefault(f)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				fs = append(fs, f.String())
			}
		}
		return strings.Join(fs, " ")
	}
	sh(t, `
ip addr add 192.0.2.1/24 dev ext0
ip addr add 2001:db8:1::1/64 dev ext0 nodad
ip route add blackhole default metric 9
ip route add default via 192.0.2.254 table 99`)
	if got := has(); got != "" {
		t.Errorf("default route for %q, there is none", got)
	}
	sh(t, "ip -6 route add default via 2001:db8:1::fe")
	if got := has(); got != "IPv6" {
		t.Errorf("default route for %q, want IPv6", got)
	}
	sh(t, "ip route add default via 192.0.2.254")
	if got := has(); got != "IPv4 IPv6" {
		t.Errorf("default route for %q, want IPv4 IPv6", got)
	}
}

func TestNeighbour(t *testing.T) {
	isolate(t)
	sh(t, `
ip addr add 192.0.2.1/24 dev ext0
ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev ext0 nud permanent
ip neigh add 2001:db8::7 lladdr 02:00:00:00:00:07 dev ext0 nud stale`)
	for a, want := range map[string]string{"192.0.2.7": "permanent", "2001:db8::7": "stale", "192.0.2.8": ""} {
		if got, err := Neighbour("ext0", netip.MustParseAddr(a)); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", a, got, want, err)
		}
	}
	if _, err := Neighbour("ext7", netip.MustParseAddr("192.0.2.7")); err == nil {
		t.Error("an interface that does not exist has neighbours")
	}
}

func TestPolicyRules(t *testing.T) {
	isolate(t)
	sh(t, `
ip rule add not pref 7 from 10.0.0.0/8 to 192.0.2.1 iif ext0 oif dmz0 fwmark 0x1/0xff lookup 1025 protocol static
ip rule add pref 8 fwmark 5 ipproto tcp dport 25 uidrange 0-10 tos 0x10 blackhole
ip -6 rule add pref 9 from 2001:db8::/32 lookup main suppress_prefixlength 0 protocol kernel`)
	rules, err := PolicyRules()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		if r.Priority > 0 && r.Priority < 100 {
			got = append(got, r.String())
		}
	}
	want := []string{
		"IPv4 pref 7 not from 10.0.0.0/8 to 192.0.2.1/32 iif ext0 oif dmz0 fwmark 0x1/0xff lookup 1025 proto 4",
		"IPv4 pref 8 fwmark 0x5/0xffffffff action 6 dport 25-25 ipproto 6 tos 0x10 uidrange 0-10 proto 0",
		"IPv6 pref 9 from 2001:db8::/32 suppress_prefixlength 0 lookup 254 proto 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(rules, func(r PolicyRule) bool {
		return r.Family == plan.IPv6 && r.Priority == 0 && r.Table == 255
	}) {
		t.Error("the rule that leads to the local table is missing")
	}
}

func TestUnprivilegedIsToldSo(t *testing.T) {
	isolate(t)
	dropCapabilities(t)
	h := New(Options{})
	for _, i := range everything() {
		if err := h.Add(i); err == nil || !strings.HasSuffix(err.Error(), "run it with CAP_NET_ADMIN, as root") {
			t.Errorf("Add %s without capabilities: %v", i, err)
		}
	}
}
