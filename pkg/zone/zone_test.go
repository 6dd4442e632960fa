package zone

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func networks(list ...string) (all []Network) {
	for i := 0; i < len(list); i += 2 {
		all = append(all, Network{netip.MustParsePrefix(list[i]), Zone{Name: list[i+1]}})
	}
	return all
}

func TestFind(t *testing.T) {
	table := NewTable(networks(
		"192.0.2.0/24", "lan", "192.0.2.64/26", "dmz", "192.0.2.65/32", "balancer", "192.0.2.65/32", "second",
		"2001:db8::/32", "six", "2001:db8::1/128", "host", "::ffff:198.51.100.0/120", "mapped", "fe80::/10", "link",
	))
	for addr, want := range map[string]string{
		"192.0.2.1": "lan", "192.0.2.63": "lan", "192.0.2.64": "dmz", "192.0.2.127": "dmz", "192.0.2.128": "lan",
		"192.0.2.65": "balancer", "::ffff:192.0.2.65": "balancer", "192.0.3.1": "", "198.51.100.7": "mapped",
		"2001:db8::2": "six", "2001:db8::1": "host", "2001:db9::1": "", "fe80::1%eth0": "link", "::": "", "::192.0.2.1": "",
	} {
		if z := table.Find(netip.MustParseAddr(addr)); z.Name != want {
			t.Errorf("%s is in %q, want %q", addr, z.Name, want)
		}
	}
}

// TestNobodysZone: a client in no zone, and a table without zones, are ordinary.
func TestNobodysZone(t *testing.T) {
	everybody := NewTable(networks("0.0.0.0/0", "four", "::/0", "six"))
	for _, table := range []*Table{{}, NewTable(nil), everybody} {
		if z := table.Find(netip.Addr{}); z != (Zone{}) {
			t.Errorf("no address is in %+v", z)
		}
	}
	if z := NewTable(nil).Find(netip.MustParseAddr("192.0.2.1")); z != (Zone{}) || z.Trust.Has(PROXY) {
		t.Errorf("without zones, an address is in %+v", z)
	}
	if got := everybody.Find(netip.MustParseAddr("::ffff:1.2.3.4")).Name; got != "four" {
		t.Errorf("a mapped address is in %q", got)
	}
	if z := NewTable([]Network{{}}).Find(netip.MustParseAddr("::1")); z != (Zone{}) {
		t.Errorf("a prefix that is none has %+v", z)
	}
}

func TestTrust(t *testing.T) {
	both := PROXY | XFORWARD
	if both.Has(XCLIENT) || !both.Has(XFORWARD) || both.Has(PROXY|XCLIENT) || Trust(0).Has(PROXY) {
		t.Error("a set has what is not in it")
	}
	if got := both.String() + "," + Trust(0).String() + "," + XCLIENT.String(); got != "PROXY XFORWARD,,XCLIENT" {
		t.Errorf("printed as %s", got)
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	table := NewTable(networks("192.0.2.0/24", "a", "10.0.0.0/8", "b", "2001:db8::/32", "c"))
	hit, miss := netip.MustParseAddr("::ffff:10.1.2.3"), netip.MustParseAddr("2001:db9::1")
	if n := testing.AllocsPerRun(100, func() { table.Find(hit); table.Find(miss) }); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// TestLongestPrefixWins compares with a search through all networks.
func TestLongestPrefixWins(t *testing.T) {
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "octet")})
		return netip.PrefixFrom(a, rapid.IntRange(24, 32).Draw(t, "bits")).Masked()
	})
	rapid.Check(t, func(t *rapid.T) {
		var all []Network
		for _, p := range rapid.SliceOfDistinct(prefix, rapid.ID[netip.Prefix]).Draw(t, "prefixes") {
			all = append(all, Network{p, Zone{Name: p.String()}})
		}
		a := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address")})
		var want Network
		for _, n := range all {
			if n.Prefix.Contains(a) && n.Prefix.Bits() >= want.Prefix.Bits() {
				want = n
			}
		}
		if got := NewTable(all).Find(a); got != want.Zone {
			t.Fatalf("%s is in %q, want %q", a, got.Name, want.Zone.Name)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	a := netip.MustParseAddr("192.0.2.1")
	for name, table := range map[string]*Table{"none": {}, "three": NewTable(networks("10.0.0.0/8", "a", "172.16.0.0/12", "b", "192.168.0.0/16", "c"))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Find(a)
			}
		})
	}
}
