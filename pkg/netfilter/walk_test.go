package netfilter

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// The packets of these tests: one of each kind that doctor asks about.
var (
	origin = netip.MustParsePrefix("172.16.20.254/32")
	here   = netip.MustParsePrefix("172.16.40.1/32")

	packets = map[string]Packet{
		"SYN in":        {Family: plan.IPv4, In: "ext0", To: here, ToHere: true, Port: 25, Flags: SYN, State: StateNew},
		"SYN past":      {Family: plan.IPv4, In: "ext0", Out: "dmz0", To: origin, Port: 25, Flags: SYN, State: StateNew},
		"marked in":     {Family: plan.IPv4, In: "ext0", To: origin, Port: 25, Flags: ACK, State: StateUntracked, Mark: 1 << 24},
		"reply out":     {Family: plan.IPv4, Out: "ext0", From: origin, SourcePort: 25, Flags: SYNACK, State: StateUntracked, Mark: 1 << 24, Sent: true},
		"origin leg":    {Family: plan.IPv4, Out: "dmz0", To: origin, Port: 25, Flags: SYN, State: StateNew, Mark: 1 << 25, Sent: true},
		"origin's":      {Family: plan.IPv4, In: "dmz0", From: origin, SourcePort: 25, Flags: SYNACK, State: StateEstablished, Mark: 1 << 25},
		"marked, begun": {Family: plan.IPv4, In: "ext0", To: origin, Port: 25, Flags: SYN, State: StateNew, Mark: 1 << 26},
	}
)

// TestMeet: what packets meet, how sure that is, and what decides.
func TestMeet(t *testing.T) {
	for _, tc := range []struct{ name, setup, hook, packet, want string }{
		{"policies", `
iptables-nft -P INPUT DROP; iptables-legacy -P INPUT DROP; ip6tables-nft -P INPUT DROP
nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 10; policy drop; }'`, "input", "SYN in",
			"drop, sure: iptables-nft table filter chain INPUT: policy drop"},
		{"last rules", `iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT; iptables-legacy -A INPUT -j LOG; iptables-legacy -A INPUT -j REJECT --reject-with icmp-host-prohibited`, "input", "SYN in",
			"reject, sure: iptables-legacy -t filter -A INPUT -j REJECT --reject-with icmp-host-prohibited"},
		{"let in", nft(`
table inet fw {
	set services { type inet_service; elements = { 22, 25 }; }
	chain in { type filter hook input priority 0; policy drop; iif lo accept; jump allowed; }
	chain allowed { iifname "ext0" tcp dport @services counter accept; }
	chain in2 { type filter hook input priority 1; policy drop; iifname vmap { "lo" : accept, "ext0" : goto external }; }
	chain external { tcp dport { 80, 443 } accept; tcp dport 25 accept; }
	chain in3 { type filter hook input priority 2; policy drop; tcp dport 25 ct state new accept; }
}`) + `
iptables-nft -P INPUT DROP; iptables-legacy -P INPUT DROP
iptables-nft -A INPUT -i ext0 -p tcp --dport 25 -j ACCEPT
iptables-legacy -A INPUT -p tcp -d 172.16.40.0/24 --syn -m multiport --dports 24:26,80 -j ACCEPT`, "input", "SYN in", ""},
		{"bans", nft(`
table inet f2b-table {
	set addr-set-postfix { type ipv4_addr; elements = { 10.0.0.1 }; }
	chain f2b-chain { type filter hook input priority filter - 1; tcp dport { 25, 587 } ip saddr @addr-set-postfix reject; }
	chain other { type filter hook input priority 1; ip saddr . tcp dport @both drop; add @seen { ip saddr limit rate over 10/second } drop; ip saddr != 10.0.0.0/8 tcp dport 25 drop; }
	set both { type ipv4_addr . inet_service; }
	set seen { type ipv4_addr; flags dynamic; timeout 1m; }
}`) + `
for c in iptables-nft iptables-legacy; do
	$c -N f2b-postfix; $c -A INPUT -p tcp -m multiport --dports 25,465 -j f2b-postfix
	$c -A f2b-postfix -s 10.0.0.2/32 -j REJECT; $c -A f2b-postfix -j RETURN
	$c -A INPUT -m recent --name bad --update --seconds 60 -j DROP
	$c -A INPUT -p tcp --syn -m connlimit --connlimit-above 20 -j REJECT
	$c -A INPUT -m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name x -j DROP
	$c -A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP
done`, "input", "SYN in", `
reject, maybe, choosing: tcp dport { 25, 587 } ip saddr @addr-set-postfix reject with icmp port-unreachable # handle N
reject, maybe, choosing: iptables-nft -t filter -A f2b-postfix -s 10.0.0.2/32 -j REJECT --reject-with icmp-port-unreachable
drop, maybe, choosing: iptables-nft -t filter -A INPUT -m recent --update --seconds 60 --name bad --mask 255.255.255.255 --rsource -j DROP
reject, maybe, choosing: iptables-nft -t filter -A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 20 --connlimit-mask 32 --connlimit-saddr -j REJECT --reject-with icmp-port-unreachable
drop, maybe, choosing: iptables-nft -t filter -A INPUT -m hashlimit --hashlimit-above 10/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name x -j DROP
drop, maybe, choosing: iptables-nft -t filter -A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP
reject, maybe, choosing: iptables-legacy -t filter -A f2b-postfix -s 10.0.0.2/32 -j REJECT --reject-with icmp-port-unreachable
drop, maybe, choosing: iptables-legacy -t filter -A INPUT -m recent --update --seconds 60 --name bad --mask 255.255.255.255 --rsource -j DROP
reject, maybe, choosing: iptables-legacy -t filter -A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 20 --connlimit-mask 32 --connlimit-saddr -j REJECT --reject-with icmp-port-unreachable
drop, maybe, choosing: iptables-legacy -t filter -A INPUT -m hashlimit --hashlimit-above 10/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name x -j DROP
drop, maybe, choosing: iptables-legacy -t filter -A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP
drop, maybe, choosing: ip saddr . tcp dport @both drop # handle N
drop, maybe, choosing: add @seen { ip saddr limit rate over 10/second } drop # handle N
drop, maybe, choosing: ip saddr != 10.0.0.0/8 tcp dport 25 drop # handle N`},
		{"some are let in, for mail", `iptables-nft -P INPUT DROP; iptables-nft -A INPUT -s 10.0.0.0/8 -p tcp --dport 25 -j ACCEPT`, "input", "SYN in",
			"drop, sure, choosing: iptables-nft table filter chain INPUT: policy drop"},
		{"some are let in, for whatever", `iptables-nft -P INPUT DROP; iptables-nft -A INPUT -s 10.0.0.0/8 -j ACCEPT`, "input", "SYN in",
			"drop, sure: iptables-nft table filter chain INPUT: policy drop"},
		{"what we do not understand", `iptables-nft -A INPUT -p tcp --dport 25 -m string --algo bm --string x -j DROP; iptables-nft -A INPUT -m length --length 40 -j DROP; iptables-nft -A INPUT -m length --length 60 -j ACCEPT; iptables-nft -A INPUT -j DROP`, "input", "SYN in", `
drop, maybe, specific: iptables-nft -t filter -A INPUT -p tcp -m tcp --dport 25 -m string --string x --algo bm -j DROP
drop, maybe: iptables-nft -t filter -A INPUT -m length --length 40 -j DROP
drop, maybe: iptables-nft -t filter -A INPUT -j DROP`},
		{"a jump that we do not understand", `iptables-nft -N A; iptables-nft -N B; iptables-nft -A INPUT -m length --length 40 -j A; iptables-nft -A INPUT -m length --length 60 -j B; iptables-nft -A A -j RETURN; iptables-nft -A A -j DROP; iptables-nft -A B -j ACCEPT; iptables-nft -P INPUT DROP`, "input", "SYN in",
			"drop, maybe: iptables-nft table filter chain INPUT: policy drop"},
		{"a return that we do not understand", `iptables-nft -N A; iptables-nft -A INPUT -j A; iptables-nft -A A -m length --length 40 -j RETURN; iptables-nft -A A -p tcp -j RETURN; iptables-nft -P INPUT DROP`, "input", "SYN in",
			"drop, sure: iptables-nft table filter chain INPUT: policy drop"},
		{"addresses of this machine", `
for c in iptables-nft iptables-legacy; do
	$c -A INPUT -m addrtype --dst-type LOCAL -j RETURN
	$c -A INPUT -j DROP
done
nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 10; }'; nft add rule inet fw in fib daddr type != local drop`, "input", "SYN in", ""},
		{"addresses of others", `
iptables-nft -A INPUT -m addrtype ! --dst-type LOCAL,BROADCAST -j DROP`, "input", "marked in",
			"drop, sure: iptables-nft -t filter -A INPUT -m addrtype ! --dst-type LOCAL,BROADCAST -j DROP"},
		{"states, not tracked", nft(`
table inet fw {
	chain in {
		type filter hook input priority 0;
		ct state invalid drop
		ct mark 1 drop
		ct state established,related accept
	}
}`) + `
for c in iptables-nft iptables-legacy; do
	$c -A INPUT -m conntrack --ctstate INVALID,NEW -j DROP
	$c -A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED,UNTRACKED -j DROP
	$c -A INPUT -m conntrack --ctstate ESTABLISHED -m conntrack --ctstatus SEEN_REPLY -j DROP
	$c -A INPUT -m conntrack --ctstatus ASSURED -j DROP
	$c -A INPUT -m state --state INVALID -j DROP
	$c -A INPUT -s 10.0.0.0/8 -m conntrack ! --ctstate ESTABLISHED -j DROP
done
iptables-legacy -A INPUT -i ext0 -m conntrack ! --ctstate RELATED,ESTABLISHED,NEW -j DROP`, "input", "marked in", `
drop, maybe, choosing: iptables-nft -t filter -A INPUT -s 10.0.0.0/8 -m conntrack ! --ctstate ESTABLISHED -j DROP
drop, maybe, choosing: iptables-legacy -t filter -A INPUT -s 10.0.0.0/8 -m conntrack ! --ctstate ESTABLISHED -j DROP
drop, sure: iptables-legacy -t filter -A INPUT -i ext0 -m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP`},
		{"states, not tracked, of nftables", nft(`
table inet fw {
	chain in { type filter hook input priority 0; ct state vmap { established : accept, untracked : drop }; }
}`), "input", "marked in", "drop, sure: ct state vmap { established : accept, untracked : drop } # handle N"},
		{"states, tracked", nft(`
table inet fw {
	chain in { type filter hook input priority 0; policy drop; ct status dnat accept; ct state established,related accept; }
}`), "input", "origin's", ""},
		{"marks", `
for c in iptables-nft iptables-legacy; do
	$c -A INPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT
	$c -P INPUT DROP
done
nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 10; policy drop; }'; nft add rule inet fw in meta mark and 0x3000000 != 0 accept`, "input", "marked in", ""},
		{"users", nft(`
table inet fw {
	chain out { type filter hook output priority 10; policy drop; meta skuid 1-99 drop; meta skuid 0 tcp dport 25 accept; }
}`) + `
for c in iptables-nft iptables-legacy; do
	$c -N SMTPOUTPUT; $c -A OUTPUT -p tcp -m multiport --dports 25,465,587 -j SMTPOUTPUT
	$c -A SMTPOUTPUT -o lo -j ACCEPT
	$c -A SMTPOUTPUT -m owner --gid-owner 8 -j ACCEPT
	$c -A SMTPOUTPUT -m owner --uid-owner 100-200 -j ACCEPT
	$c -A SMTPOUTPUT -m owner ! --uid-owner 0 -j ACCEPT
done
iptables-legacy -A SMTPOUTPUT -m owner --uid-owner 0 -j DROP`, "output", "origin leg",
			"drop, sure, specific: iptables-legacy -t filter -A SMTPOUTPUT -m owner --uid-owner 0 -j DROP"},
		{"marks are written", `
for c in iptables-nft iptables-legacy; do
	$c -t mangle -A PREROUTING -j CONNMARK --save-mark
	$c -t mangle -A PREROUTING -j MARK --set-xmark 0x1/0xff
	$c -t mangle -A PREROUTING -m mark --mark 0 -j MARK --set-mark 0x1
	$c -t mangle -A PREROUTING -i ext0 -j CONNMARK --restore-mark --mask 0xf000000
done
nft add table ip fw; nft 'add chain ip fw pre { type filter hook prerouting priority -140; }'
nft add rule ip fw pre meta mark set meta mark or 0x4000000
nft add rule ip fw pre meta mark set meta mark or 0x2000000
nft add rule ip fw pre meta mark set 7
nft add rule ip fw pre meta mark set ip saddr map '{ 10.0.0.1 : 0x1 }'`, "prerouting", "marked, begun", `
continue, sure, loses 0x0: iptables-nft -t mangle -A PREROUTING -j MARK --set-xmark 0x1/0xff
continue, sure, loses 0x4000000: iptables-nft -t mangle -A PREROUTING -i ext0 -j CONNMARK --restore-mark --nfmask 0xf000000 --ctmask 0xf000000
continue, sure, loses 0x0: iptables-legacy -t mangle -A PREROUTING -j MARK --set-xmark 0x1/0xff
continue, sure, loses 0x0: iptables-legacy -t mangle -A PREROUTING -i ext0 -j CONNMARK --restore-mark --nfmask 0xf000000 --ctmask 0xf000000
continue, sure, loses 0x0: meta mark set meta mark | 0x04000000 # handle N
continue, sure, loses 0x0: meta mark set meta mark | 0x02000000 # handle N
continue, sure, loses 0x6000000: meta mark set 0x00000007 # handle N
continue, maybe, choosing, loses 0x7: meta mark set ip saddr map { 10.0.0.1 : 0x00000001 } # handle N`},
		{"a mark that tracking knows, of what it does not", `iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark; nft add table ip fw; nft 'add chain ip fw pre { type filter hook prerouting priority -140; }'; nft add rule ip fw pre meta mark set ct mark`,
			"prerouting", "marked in", ""},
		{"not tracked from here on", `
for c in iptables-nft iptables-legacy; do
	$c -t raw -A PREROUTING -p tcp --dport 25 --syn -j CT --notrack
	$c -t mangle -A PREROUTING -m conntrack --ctstate NEW -j DROP
done
iptables-legacy -t mangle -A PREROUTING -m conntrack --ctstate UNTRACKED -j DROP`, "prerouting", "SYN in",
			"drop, sure: iptables-legacy -t mangle -A PREROUTING -m conntrack --ctstate UNTRACKED -j DROP"},
		{"not tracked, nftables", nft(`
table ip fw {
	chain pre { type filter hook prerouting priority raw; tcp dport 25 notrack; }
	chain nat { type nat hook prerouting priority dstnat; redirect; }
	chain post { type filter hook prerouting priority 0; ct state untracked drop; }
}`), "prerouting", "SYN in", "drop, sure: ct state untracked drop # handle N"},
		{"all tables", `
for t in raw mangle; do for c in iptables-nft iptables-legacy; do $c -t $t -A PREROUTING -i ext0 -m length --length 40 -j DROP; done; done`, "prerouting", "SYN in", `
drop, maybe: iptables-nft -t raw -A PREROUTING -i ext0 -m length --length 40 -j DROP
drop, maybe: iptables-legacy -t raw -A PREROUTING -i ext0 -m length --length 40 -j DROP
drop, maybe: iptables-nft -t mangle -A PREROUTING -i ext0 -m length --length 40 -j DROP
drop, maybe: iptables-legacy -t mangle -A PREROUTING -i ext0 -m length --length 40 -j DROP`},
		{"security", `iptables-nft -t security -A INPUT -j DROP; iptables-nft -A INPUT -m length --length 40 -j DROP`, "input", "SYN in", `
drop, maybe: iptables-nft -t filter -A INPUT -m length --length 40 -j DROP
drop, sure: iptables-nft -t security -A INPUT -j DROP`},
		{"SYNPROXY", `
for c in iptables-nft iptables-legacy; do $c -A FORWARD -p tcp --dport 25 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm; done
iptables-nft -A FORWARD -p tcp --dport 25 --syn -j SYNPROXY`, "forward", "SYN past",
			"synproxy, sure, specific: iptables-nft -t filter -A FORWARD -p tcp -m tcp --dport 25 --tcp-flags FIN,SYN,RST,ACK SYN -j SYNPROXY"},
		{"SYNPROXY of nftables", nft(`table ip fw { chain f { type filter hook forward priority 0; tcp dport 25 synproxy mss 1460; }; }`), "forward", "SYN past",
			"synproxy, sure, specific: tcp dport 25 synproxy mss 1460 wscale 0 # handle N"},
		{"TPROXY of nftables", nft(`table ip fw { chain p { type filter hook prerouting priority mangle; tcp dport 25 tproxy to 127.0.0.1:1 accept; }; }`), "prerouting", "SYN past",
			"tproxy, sure, specific: tcp dport 25 tproxy to 127.0.0.1:1 accept # handle N"},
		{"flags", `
iptables-nft -A INPUT -p tcp --tcp-flags ALL NONE -j DROP
iptables-nft -A INPUT -p tcp --tcp-flags SYN,RST SYN,RST -j DROP
iptables-nft -A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP
iptables-nft -A INPUT -p tcp --tcp-flags ALL SYN -j DROP`, "input", "SYN in",
			"drop, maybe: iptables-nft -t filter -A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG SYN -j DROP"},
		{"source port", `iptables-nft -A INPUT -p tcp --sport 1024: -j ACCEPT; iptables-legacy -A INPUT -p tcp -m multiport --sports 24:26 -j DROP`, "input", "origin's",
			"drop, sure, specific: iptables-legacy -t filter -A INPUT -p tcp -m multiport --sports 24:26 -j DROP"},
		{"an interface's ingress", nft(`
table netdev n {
	chain in { type filter hook ingress device ext0 priority 0; ip saddr 10.0.0.1 drop; meta protocol ip tcp dport 25 drop; }
	chain other { type filter hook ingress device dmz0 priority 0; policy drop; }
}
table inet i { chain in { type filter hook ingress device ext0 priority -1; meta mark 0 tcp dport { 25, 26 } meta mark set 1; }; }`), "ingress", "SYN in", `
continue, sure, specific, loses 0x0: meta mark 0x00000000 tcp dport { 25, 26 } meta mark set 0x00000001 # handle N
drop, maybe, choosing: ip saddr 10.0.0.1 drop # handle N
drop, sure, specific: meta protocol ip tcp dport 25 drop # handle N`},
		{"an interface's egress", nft(`
table netdev n {
	chain out { type filter hook egress devices = { lo, dmz0 } priority 0; policy drop; ip6 daddr ::1 accept; }
}`), "egress", "origin leg", "drop, sure: nft table netdev n chain out: policy drop"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			isolate(t)
			sh(t, tc.setup)
			var got []string
			for _, m := range look(t).Meet(tc.hook, packets[tc.packet]) {
				got = append(got, describe(m))
			}
			want := strings.Split(strings.Trim(tc.want, "\n"), "\n")
			if tc.want == "" {
				want = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func describe(m Meeting) string {
	line := m.Action()
	for _, is := range []struct {
		so   bool
		word string
	}{{m.Sure, "sure"}, {!m.Sure, "maybe"}, {m.Choosing, "choosing"}, {m.Specific && !m.Choosing, "specific"}, {m.Action() == "continue", fmt.Sprintf("loses 0x%x", m.Loses())}} {
		if is.so {
			line += ", " + is.word
		}
	}
	if m.Policy() {
		line += ": " + m.Place.String()
	}
	return line + ": " + handles.ReplaceAllString(m.Rule.String(), "handle N")
}

var handles = regexp.MustCompile("handle [0-9]+")
