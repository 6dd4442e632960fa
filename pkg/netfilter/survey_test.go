package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

func look(t *testing.T) *Survey {
	t.Helper()
	before := snapshot(t)
	s, err := Look()
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
	mail4 = Packet{In: "ext0", Out: "dmz0", From: netip.MustParseAddr("172.16.10.99"), To: netip.MustParseAddr("172.16.20.254"), Port: 25}
	mail6 = Packet{In: "ext0", Out: "dmz0", From: netip.MustParseAddr("2001:db8:10::99"), To: netip.MustParseAddr("2001:db8:20::25"), Port: 25}
)

func TestSurveyOfNothing(t *testing.T) {
	isolate(t)
	s := look(t)
	if f := s.Flavours(); len(f) > 0 {
		t.Errorf("flavours %v", f)
	}
	if len(s.Input())+len(s.Output())+len(s.Diversions(mail4))+len(s.Rewrites(mail4))+len(s.Flowtables()) > 0 {
		t.Errorf("found something: %+v", s)
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
diversion dnat iptables-legacy table nat chain B: -A B -p tcp -m tcp --dport 1:1024 -j DNAT --to-destination 10.0.0.1
diversion dnat iptables-nft table nat chain B
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
rewrite snat nft table inet nat chain post
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
		note := func(what string, all []Translation) {
			for _, tr := range all {
				line := fmt.Sprintf("%s %s %s", what, tr.Action, tr.Place)
				if tr.Flavour == IPTablesLegacy {
					line += ": " + tr.Rule
				}
				seen[line+family.note] = true
			}
		}
		note("diversion", s.Diversions(family.p))
		note("diversion of ours", s.DiversionsOfOurs(family.p))
		note("rewrite", s.Rewrites(family.p))
	}
	return sortedKeys(seen)
}

func TestDrops(t *testing.T) {
	for _, tc := range []struct{ name, setup, want string }{
		{"policies", `
for c in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do $c -P INPUT DROP; $c -P FORWARD DROP; done
iptables-nft -P OUTPUT DROP
nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 10; policy drop; }'`, `
input ip6tables-legacy table filter chain INPUT: policy drop
input ip6tables-nft table filter chain INPUT: policy drop
input iptables-legacy table filter chain INPUT: policy drop
input iptables-nft table filter chain INPUT: policy drop
input nft table inet fw chain in: policy drop
output iptables-nft table filter chain OUTPUT: policy drop
`},
		{"last rules", nft(`
table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority 10; policy accept;
		ct state established accept
		ct state invalid drop
		reject with icmpx admin-prohibited
	}
	chain filter_OUTPUT {
		type filter hook output priority 10; policy accept;
		ip daddr 10.0.0.0/8 drop
	}
}`) + `
iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT
iptables-legacy -A INPUT -j REJECT --reject-with icmp-host-prohibited
iptables-nft -A INPUT -j LOG
iptables-nft -A INPUT -j DROP`, `
input iptables-legacy table filter chain INPUT: -A INPUT -j REJECT --reject-with icmp-host-prohibited
input iptables-nft table filter chain INPUT: rule with handle N
input nft table inet firewalld chain filter_INPUT: rule with handle N
`},
		{"let in", nft(`
table inet fw {
	set services { type inet_service; elements = { 22, 25 }; }
	chain in {
		type filter hook input priority 0; policy drop;
		iif lo accept
		jump allowed
	}
	chain allowed { iifname "ext0" tcp dport @services counter accept; }
	chain in2 {
		type filter hook input priority 1; policy drop;
		iifname vmap { "lo" : accept, "ext0" : goto external }
	}
	chain external { tcp dport { 80, 443 } accept; tcp dport 25 accept; }
	chain in3 {
		type filter hook input priority 2; policy drop;
		tcp dport 25 ct state new accept
	}
	chain in4 {
		type filter hook input priority 3; policy drop;
		ip saddr 172.16.10.0/24 drop
		tcp dport 25 accept
	}
}`) + `
iptables-nft -P INPUT DROP; iptables-legacy -P INPUT DROP
iptables-nft -A INPUT -i ext0 -p tcp --dport 25 -j ACCEPT
iptables-legacy -A INPUT -p tcp -d 172.16.20.0/24 --dport 25 -j ACCEPT`, `
input iptables-legacy table filter chain INPUT: policy drop, lets mail in
input iptables-nft table filter chain INPUT: policy drop, lets mail in
input nft table inet fw chain in2: policy drop, lets mail in
input nft table inet fw chain in3: policy drop
input nft table inet fw chain in4: policy drop
input nft table inet fw chain in: policy drop, lets mail in
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			isolate(t)
			sh(t, tc.setup)
			s := look(t)
			seen := map[string]bool{}
			note := func(what string, all []Drop) {
				for _, d := range all {
					by := d.By
					if strings.HasPrefix(by, "rule with handle ") {
						by = "rule with handle N"
					}
					line := fmt.Sprintf("%s %s: %s", what, d.Place, by)
					if d.LetsIn(mail4) {
						line += ", lets mail in"
					}
					seen[line] = true
				}
			}
			note("input", s.Input())
			note("output", s.Output())
			want := strings.Split(strings.Trim(tc.want, "\n"), "\n")
			if diff := cmp.Diff(want, sortedKeys(seen)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusals: which rules are sure to drop a packet that is not tracked, for
// its being so.
func TestRefusals(t *testing.T) {
	isolate(t)
	sh(t, nft(`
table inet fw {
	chain pre {
		type filter hook prerouting priority mangle;
		ct state invalid drop
		ct state != { established, related, new } counter drop
		ct state established,related accept
		tcp dport 25 ct state vmap { established : accept, untracked : drop }
	}
	chain in {
		type filter hook input priority 0;
		ct state untracked,established accept
		ct state != established drop
	}
	chain out {
		type filter hook output priority 0;
		meta mark and 0x1 != 0 accept
		ct state != established reject
	}
}`)+`
for c in iptables-nft iptables-legacy; do
	$c -A INPUT -m conntrack --ctstate INVALID,NEW -j DROP
	$c -A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED,UNTRACKED -j DROP
	$c -A INPUT -m conntrack --ctstate ESTABLISHED -m conntrack --ctstatus SEEN_REPLY -j DROP
	$c -A INPUT -s 10.0.0.0/8 -m conntrack ! --ctstate ESTABLISHED -j DROP
	$c -A INPUT -i ext0 -m conntrack ! --ctstate RELATED,ESTABLISHED,NEW -j DROP
	$c -A OUTPUT -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP
done
iptables-legacy -A OUTPUT -m state ! --state RELATED,ESTABLISHED -j DROP`)
	s := look(t)
	var got []string
	for _, hook := range []string{"prerouting", "input", "output"} {
		p := mail4
		p.Mark = 1
		for _, r := range s.Refusals(hook, p) {
			line := fmt.Sprintf("%s %s", r.Hook, r.Place)
			if r.Flavour == IPTablesLegacy {
				line += ": " + r.Rule
			}
			got = append(got, line)
		}
	}
	slices.Sort(got)
	want := []string{
		"input iptables-legacy table filter chain INPUT: -A INPUT -i ext0 -m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP",
		"input iptables-nft table filter chain INPUT",
		"output iptables-legacy table filter chain OUTPUT: -A OUTPUT -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
		"output iptables-nft table filter chain OUTPUT",
		"prerouting nft table inet fw chain pre",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, sh(t, "nft -a list ruleset"))
	}
}

func TestGuarded(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		tl := tool{plan.IPv4, legacy}
		sh(t, fmt.Sprintf("%s -t nat -A POSTROUTING -j MASQUERADE; %s -P INPUT DROP", tl, tl))
		guarded := func() []bool {
			s := look(t)
			return []bool{s.Rewrites(mail4)[0].Guarded, s.Input()[0].Guarded}
		}
		if diff := cmp.Diff([]bool{false, false}, guarded()); diff != "" {
			t.Errorf("before attach (-want +got):\n%s", diff)
		}
		run(t, New(), plan.Diff(nil, everything(legacy)))
		if diff := cmp.Diff([]bool{true, true}, guarded()); diff != "" {
			t.Errorf("after attach (-want +got):\n%s", diff)
		}
		sh(t, fmt.Sprintf("%s -t nat -I POSTROUTING -j MASQUERADE; %s -I INPUT -j DROP", tl, tl))
		if diff := cmp.Diff([]bool{false, false}, guarded()); diff != "" {
			t.Errorf("after somebody was put in front (-want +got):\n%s", diff)
		}
	})
}

func TestFlavours(t *testing.T) {
	isolate(t)
	sh(t, "iptables-legacy -P OUTPUT DROP; ip6tables-nft -A INPUT -j ACCEPT; nft add table inet f; nft add chain inet f x; nft add rule inet f x accept")
	if diff := cmp.Diff([]Flavour{IPTablesLegacy, IPTablesNFT, NFT}, look(t).Flavours()); diff != "" {
		t.Errorf("flavours (-want +got):\n%s", diff)
	}
}
