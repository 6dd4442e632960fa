package netfilter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

func look(t *testing.T) *Survey {
	t.Helper()
	before := snapshot(t)
	s, err := Look(t.Context())
	if err != nil {
		t.Fatalf("Look: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("looking changed (-before +after):\n%s", diff)
	}
	return s
}

// dmz makes the interfaces that the rules of these tests name.
const dmz = "ip link add ext0 type veth peer name dmz0\n"

func nft(rules string) string { return dmz + "nft -f - <<'END'\n" + rules + "\nEND" }

var (
	mail4 = mail("172.16.10.99", "172.16.20.254")
	mail6 = mail("2001:db8:10::99", "2001:db8:20::25")
)

// mail is the first packet of a connection from ext0 to dmz0.
func mail(from, to string) Packet {
	a := netip.MustParseAddr(to)
	return Packet{
		Family: plan.FamilyOf(a), In: "ext0", Out: "dmz0", From: Single(netip.MustParseAddr(from)), To: Single(a),
		Port: 25, State: StateNew, Flags: SYN,
	}
}

func TestSurveyOfNothing(t *testing.T) {
	isolate(t)
	s := look(t)
	if f := s.Flavours(); len(f) > 0 {
		t.Errorf("flavours %v", f)
	}
	for _, hook := range []string{"ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"} {
		if met := s.Meet(hook, mail4); len(met) > 0 {
			t.Errorf("%s: met %v", hook, met)
		}
	}
	if len(s.Flowtables()) > 0 {
		t.Errorf("found flowtables: %v", s.Flowtables())
	}
}

// TestTranslations: which rules may concern mail from ext0 to dmz0.
func TestTranslations(t *testing.T) {
	for _, tc := range []struct{ name, setup, want string }{
		{"iptables", `
for c in iptables-nft iptables-legacy; do
	$c -t nat -A POSTROUTING -o dmz0 -j MASQUERADE
	$c -t nat -A POSTROUTING -o ext0 -j MASQUERADE
	$c -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
	$c -t nat -A POSTROUTING -s 172.16.0.0/12 ! -d 172.16.21.0/24 -j SNAT --to-source 192.0.2.1
	$c -t nat -A PREROUTING -i ext0 -p tcp -m tcp --dport 25 -j DNAT --to-destination 172.16.20.254
	$c -t nat -A PREROUTING -p tcp -m multiport --dports 80,443,20:30 -j REDIRECT
	$c -t nat -A PREROUTING -p tcp -m tcp --dport 587 -j DNAT --to-destination 172.16.20.254
	$c -t nat -A PREROUTING -p udp -m udp --dport 25 -j DNAT --to-destination 172.16.20.254
	$c -t mangle -A PREROUTING -i ext+ -p tcp -j TPROXY --on-port 1
done`, `
diversion dnat iptables-legacy table nat chain PREROUTING: -A PREROUTING -i ext0 -p tcp -m tcp --dport 25 -j DNAT --to-destination 172.16.20.254
diversion dnat iptables-nft table nat chain PREROUTING
diversion tproxy iptables-legacy table mangle chain PREROUTING: -A PREROUTING -i ext+ -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0
diversion tproxy iptables-nft table mangle chain PREROUTING
rewrite masquerade iptables-legacy table nat chain POSTROUTING: -A POSTROUTING -o dmz0 -j MASQUERADE
rewrite masquerade iptables-nft table nat chain POSTROUTING
`},
		{"the first of two", `
for c in iptables-nft iptables-legacy; do
	$c -t nat -A POSTROUTING -s 172.16.0.0/12 ! -d 172.16.21.0/24 -m policy --pol none --dir out -j SNAT --to-source 192.0.2.1
	$c -t nat -A POSTROUTING -o dmz0 -j MASQUERADE
done`, `
rewrite masquerade iptables-legacy table nat chain POSTROUTING: -A POSTROUTING -o dmz0 -j MASQUERADE
rewrite masquerade iptables-nft table nat chain POSTROUTING
rewrite snat iptables-legacy table nat chain POSTROUTING: -A POSTROUTING -s 172.16.0.0/12 ! -d 172.16.21.0/24 -m policy --dir out --pol none -j SNAT --to-source 192.0.2.1
rewrite snat iptables-nft table nat chain POSTROUTING
`},
		{"excepted before", `
for c in iptables-nft iptables-legacy; do
	$c -t nat -N MINE
	$c -t nat -A MINE -d 172.16.20.0/24 -j RETURN
	$c -t nat -A MINE -j MASQUERADE
	$c -t nat -A POSTROUTING -o dmz0 -j MINE
	$c -t nat -A PREROUTING -p tcp --dport 25 -j ACCEPT
	$c -t nat -A PREROUTING -p tcp -j REDIRECT
done`, ``},
		{"chains", `
for c in iptables-nft iptables-legacy; do
	$c -t nat -N A; $c -t nat -N B; $c -t nat -N C
	$c -t nat -A A -m addrtype --dst-type LOCAL -j B
	$c -t nat -A B -p tcp -m tcp --dport 1:1024 -j DNAT --to-destination 10.0.0.1
	$c -t nat -A C -j REDIRECT
	$c -t nat -A PREROUTING -g A
	$c -t nat -A PREROUTING -i eth7 -j C
	$c -t nat -A OUTPUT -j C
done`, `
diversion of ours redirect iptables-legacy table nat chain C: -A C -j REDIRECT
diversion of ours redirect iptables-nft table nat chain C
`},
		{"nft", nft(`
table inet nat {
	set ports { type inet_service; flags interval; elements = { 1-24, 26-30, 587 }; }
	set mail { type inet_service; flags interval; elements = { 20-30, 587 }; }
	map to { type inet_service : ipv4_addr; elements = { 25 : 10.0.0.1 }; }
	chain pre {
		type nat hook prerouting priority dstnat;
		tcp dport @ports redirect
		tcp dport 587 redirect
		iifname "dmz*" tcp dport 25 redirect
		iif "dmz0" redirect
		ip saddr 172.16.11.0/24 redirect
		ip saddr 172.16.10.64/27 tcp dport != 25 redirect
		ip6 daddr 2001:db8:20::/47 tcp dport @mail dnat ip6 to [2001:db8::1]:25
		meta l4proto udp redirect
		tcp dport vmap { 25 : jump mine, 80 : jump other }
		iif "ext0" ip saddr 172.16.10.64/26 tcp dport { 25, 465 } dnat ip to 10.0.0.1
	}
	chain mine { dnat ip to tcp dport map @to; }
	chain other { redirect; }
	chain post {
		type nat hook postrouting priority srcnat;
		oifname { "eth7", "eth8" } masquerade
		ct state new oifname { "dmz0", "eth8" } snat ip6 to 2001:db8::1
		oifname != "ext0" ip daddr != 172.16.21.0/24 masquerade
	}
}`), `
diversion dnat nft table inet nat chain mine
diversion dnat nft table inet nat chain pre, IPv6
rewrite masquerade nft table inet nat chain post
rewrite snat nft table inet nat chain post, IPv6
`},
		{"nft of other families", nft(`
table ip6 nat { chain post { type nat hook postrouting priority srcnat; masquerade; }; }
table bridge b { chain in { type filter hook input priority 0; policy drop; }; }
table netdev n { chain in { type filter hook ingress device ext0 priority 0; policy accept; }; }`), `
rewrite masquerade nft table ip6 nat chain post, IPv6
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			isolate(t)
			sh(t, tc.setup)
			got := translations(look(t))
			want := strings.Split(strings.Trim(tc.want, "\n"), "\n")
			if tc.want == "" {
				want = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, sh(t, "nft -a list ruleset"))
			}
		})
	}
}

func translations(s *Survey) []string {
	seen := map[string]bool{}
	for _, family := range []struct {
		p    Packet
		note string
	}{{mail4, ""}, {mail6, ", IPv6"}} {
		note := func(what, hook string, is func(Meeting) bool) {
			for _, m := range s.Meet(hook, family.p) {
				line := fmt.Sprintf("%s %s %s", what, m.Action(), m.Place)
				if m.Flavour == IPTablesLegacy {
					line += ": " + strings.TrimPrefix(m.Rule.String(), "iptables-legacy -t "+m.Table+" ")
				}
				if is(m) {
					seen[line+family.note] = true
				}
			}
		}
		note("diversion", "prerouting", Meeting.Diverts)
		note("diversion of ours", "output", Meeting.Diverts)
		note("rewrite", "postrouting", Meeting.Rewrites)
	}
	return sortedKeys(seen)
}

func TestFlavours(t *testing.T) {
	isolate(t)
	sh(t, "iptables-legacy -P OUTPUT DROP; ip6tables-nft -A INPUT -j ACCEPT; nft add table inet f; nft add chain inet f x; nft add rule inet f x accept")
	if diff := cmp.Diff([]Flavour{IPTablesLegacy, IPTablesNFT, NFT}, look(t).Flavours()); diff != "" {
		t.Errorf("flavours (-want +got):\n%s", diff)
	}
}
