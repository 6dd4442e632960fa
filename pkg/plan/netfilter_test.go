package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/config"
)

func target(s string, port uint16) config.Target {
	return config.Target{Prefix: netip.MustParsePrefix(s), Port: port}
}

func lines(items []Item) string {
	var b strings.Builder
	for _, i := range items {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func TestNetfilter(t *testing.T) {
	both := []Family{IPv4, IPv6}
	base := Firewall{Clients: []string{"ext0"}, ClientMark: 1 << 24, OriginMark: 1 << 25}
	for _, tc := range []struct {
		name string
		set  func(*Firewall)
		want string
	}{
		{"nothing needed", func(*Firewall) {}, ""},
		{"addressed, not forged", func(f *Firewall) {
			f.Addressed = []config.Target{target("172.16.40.1/32", 25), target("0.0.0.0/0", 587)}
			f.Clients = []string{"ext0", "ext1"}
		}, `
nftables table IPv4 filter
nftables base chain IPv4 filter INPUT
iptables-nft -t filter -N PORTREEVE-INPUT
iptables-nft -t filter -A PORTREEVE-INPUT -d 172.16.40.1/32 -i ext0 -p tcp -m tcp --dport 25 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-INPUT -d 172.16.40.1/32 -i ext1 -p tcp -m tcp --dport 25 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-INPUT -i ext0 -p tcp -m tcp --dport 587 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-INPUT -i ext1 -p tcp -m tcp --dport 587 -j ACCEPT
iptables-nft -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
`},
		{"addressed and forged, IPv6, legacy", func(f *Firewall) {
			f.Legacy = true
			f.Addressed = []config.Target{target("2001:db8:40::1/128", 25)}
			f.Forged = []Family{IPv6}
		}, `
ip6tables-legacy -t filter -N PORTREEVE-INPUT
ip6tables-legacy -t nat -N PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -N PORTREEVE-PREROUTING
ip6tables-legacy -t filter -A PORTREEVE-INPUT -d 2001:db8:40::1/128 -i ext0 -p tcp -m tcp --dport 25 -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
ip6tables-legacy -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
ip6tables-legacy -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
`},
		{"transit and forged in IPv4, forged in IPv6", func(f *Firewall) {
			f.Transit, f.Forged = []Family{IPv4}, both
		}, `
nftables table IPv4 filter
nftables table IPv4 nat
nftables table IPv4 raw
nftables table IPv6 filter
nftables table IPv6 nat
nftables table IPv6 raw
nftables base chain IPv4 filter INPUT
nftables base chain IPv4 filter OUTPUT
nftables base chain IPv4 nat POSTROUTING
nftables base chain IPv4 raw OUTPUT
nftables base chain IPv4 raw PREROUTING
nftables base chain IPv6 filter INPUT
nftables base chain IPv6 nat POSTROUTING
nftables base chain IPv6 raw PREROUTING
ip6tables-nft -t filter -N PORTREEVE-INPUT
ip6tables-nft -t nat -N PORTREEVE-POSTROUTING
ip6tables-nft -t raw -N PORTREEVE-PREROUTING
iptables-nft -t filter -N PORTREEVE-INPUT
iptables-nft -t filter -N PORTREEVE-OUTPUT
iptables-nft -t nat -N PORTREEVE-POSTROUTING
iptables-nft -t raw -N PORTREEVE-OUTPUT
iptables-nft -t raw -N PORTREEVE-PREROUTING
ip6tables-nft -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-nft -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-nft -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
iptables-nft -t filter -A PORTREEVE-INPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-nft -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-nft -t raw -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -m addrtype ! --src-type LOCAL -j CT --notrack
iptables-nft -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x1000000/0x1000000 -j CT --notrack
iptables-nft -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
ip6tables-nft -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
ip6tables-nft -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
ip6tables-nft -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-nft -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
iptables-nft -t filter -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-nft -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
iptables-nft -t raw -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-nft -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := base
			tc.set(&f)
			got := lines(Netfilter(f))
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), got); diff != "" {
				t.Errorf("Netfilter (-want +got):\n%s", diff)
			}
		})
	}
}

func TestManyAddressedAskTheSocket(t *testing.T) {
	f := Firewall{Clients: []string{"ext0", "ext1"}}
	for i := range 200 {
		f.Addressed = append(f.Addressed, target(fmt.Sprintf("10.0.0.%d/32", i), 25))
	}
	want := `nftables table IPv4 filter
nftables base chain IPv4 filter INPUT
iptables-nft -t filter -N PORTREEVE-INPUT
iptables-nft -t filter -A PORTREEVE-INPUT -i ext0 -p tcp -m tcp --dport 25 -m socket --transparent -j ACCEPT
iptables-nft -t filter -A PORTREEVE-INPUT -i ext1 -p tcp -m tcp --dport 25 -m socket --transparent -j ACCEPT
iptables-nft -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
`
	if diff := cmp.Diff(want, lines(Netfilter(f))); diff != "" {
		t.Errorf("Netfilter (-want +got):\n%s", diff)
	}
}
