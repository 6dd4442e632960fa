package accept

import (
	"net/netip"
	"testing"

	"github.com/portreeve/portreeve/pkg/plan"
)

func bind(prefix string, port uint16, service string) plan.Binding {
	return plan.Binding{Prefix: netip.MustParsePrefix(prefix), Port: port, Service: service, Addressed: true}
}

func TestTableChoosesAsTheKernelDoes(t *testing.T) {
	table := NewTable([]plan.Binding{
		bind("192.0.2.0/24", 25, "net"),
		bind("192.0.2.1/32", 25, "host"),
		bind("192.0.2.128/25", 25, ""),
		bind("192.0.2.129/32", 25, "inner"),
		bind("192.0.2.1/32", 587, "submission"),
		bind("2001:db8::/32", 25, "six"),
		bind("2001:db8:1::/48", 25, "six inner"),
		bind("::/0", 26, "everything"),
		bind("0.0.0.0/0", 26, "every IPv4"),
		bind("::/0", 27, "mapped too"),
	})
	for server, want := range map[string]string{
		"192.0.2.9:25":           "net",
		"192.0.2.1:25":           "host",
		"[::ffff:192.0.2.1]:25":  "host",
		"192.0.2.200:25":         "",
		"192.0.2.129:25":         "inner",
		"192.0.2.1:587":          "submission",
		"192.0.2.2:587":          "",
		"192.0.3.1:25":           "",
		"[2001:db8:2::1]:25":     "six",
		"[2001:db8:1::1]:25":     "six inner",
		"[2001:db9::1]:25":       "",
		"[2001:db8::1]:26":       "everything",
		"203.0.113.7:26":         "every IPv4",
		"203.0.113.7:27":         "mapped too",
		"[2001:db8::1%eth0]:25":  "six",
		"[::ffff:127.0.0.1]:125": "",
	} {
		b, ok := table.Lookup(netip.MustParseAddrPort(server))
		if ok != (want != "") || b.Service != want {
			t.Errorf("Lookup(%s) = %q, %v; want %q", server, b.Service, ok, want)
		}
	}
}

func TestTableLaterBindingCounts(t *testing.T) {
	table := NewTable([]plan.Binding{bind("192.0.2.1/32", 25, "old"), bind("192.0.2.1/32", 25, "new")})
	if b, _ := table.Lookup(netip.MustParseAddrPort("192.0.2.1:25")); b.Service != "new" {
		t.Errorf("service %q, want new", b.Service)
	}
}

func TestTableLookupAllocatesNothing(t *testing.T) {
	table := NewTable([]plan.Binding{bind("192.0.2.0/24", 25, "net"), bind("2001:db8::/32", 25, "six")})
	server := netip.MustParseAddrPort("192.0.2.1:25")
	if n := testing.AllocsPerRun(100, func() { table.Lookup(server) }); n != 0 {
		t.Errorf("%v allocations per Lookup", n)
	}
}
