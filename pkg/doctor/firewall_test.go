package doctor

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// outbound is a configuration of a gateway that inspects what its own network mails.
const outbound = `
interfaces: {client: [ext0], origin: [dmz0]}
services:
  - {name: out, intercept: ["0.0.0.0/0:25"], fail: open}
limits: {sessions: 100}
`

// unforged is the usual one, but for its origin legs.
var unforged = strings.Replace(file, "fail: open", "forge: {address: never}", 1)

// testFirewallFindings: the packet filter is judged as it is read from this test's own
// network namespace. Each finding is gone when its remedy was typed as it was printed.
func testFirewallFindings(t *testing.T) {
	const chain = "add table inet fw; add chain inet fw c { type filter hook %s; };"
	base := func(hook, rules string) string {
		return "nft '" + strings.ReplaceAll(chain, "%s", hook) + rules + "'"
	}
	rule := func(hook string, rules ...string) string {
		script := ""
		for _, r := range rules {
			script += "add rule inet fw c " + r + ";"
		}
		return base(hook, script)
	}
	for name, test := range map[string]struct {
		rules    string
		severity finding.Severity
		code     string // "": nothing is found
		object   string
		text     string // of text and remedy, a part
		stays    bool   // the remedy is no command
		file     string // other than the usual
	}{
		"policies of iptables":    {rules: "for c in iptables-nft ip6tables-nft; do for h in INPUT OUTPUT FORWARD; do $c -P $h DROP; done; done"},
		"policies of our flavour": {rules: "for h in INPUT OUTPUT FORWARD; do iptables-nft -P $h DROP; done; iptables-nft -A INPUT -j LOG; iptables-nft -A INPUT -j REJECT"},
		"INPUT policy of the other flavour": {rules: "iptables-legacy -P INPUT DROP", severity: finding.Error, code: "input-drops", object: "iptables-legacy table filter chain INPUT",
			text: "its policy drops connections to 172.16.40.1:25 by ext0, packets of transit clients to 172.16.20.254:25 by ext0 and replies of origin 172.16.20.254:25 by dmz0; iptables-legacy -t filter -A INPUT -m mark ! --mark 0x0/0x3000000 -j ACCEPT && iptables-legacy -t filter -A INPUT -i ext0 -d 172.16.40.1/32 -p tcp -m tcp --dport 25 -j ACCEPT"},
		"INPUT policy of nftables": {rules: base("input priority 0; policy drop", ""), severity: finding.Error, code: "input-drops", object: "nft table inet fw chain c",
			text: "; nft 'add rule inet fw c meta mark and 0x3000000 != 0 accept' && nft 'add rule inet fw c iifname ext0 ip daddr 172.16.40.1/32 tcp dport 25 accept'"},
		"last rule of nftables": {rules: rule("input priority 0", "tcp dport 22 accept", "counter drop"), severity: finding.Error, code: "input-drops", object: "nft table inet fw chain c",
			text: "its rule `counter packets 0 bytes 0 drop # handle 3` drops connections to 172.16.40.1:25"},
		"INPUT accepts the port": {rules: rule("input priority 0; policy drop", "ct state established,related accept", "meta mark and 0x3000000 != 0 accept", "tcp dport { 22, 25 } accept")},
		"INPUT accepts the port, but not what is untracked": {rules: rule("input priority 0; policy drop", "ct state established,related accept", "tcp dport 25 ct state new accept"),
			severity: finding.Error, code: "input-drops", object: "nft table inet fw chain c", text: "its policy drops packets of transit clients to 172.16.20.254:25 by ext0; nft 'add rule inet fw c meta mark and 0x1000000 != 0 accept'"},
		"a ban": {rules: "iptables-nft -A INPUT -s 10.0.0.1 -j DROP; iptables-nft -A FORWARD -s 10.0.0.1 -p tcp --dport 25 -j DROP;" + rule("input priority 0", "ip saddr { 10.0.0.1, 10.0.0.2 } drop")},
		"DROP of the port": {rules: "iptables-nft -A INPUT -p tcp --dport 25 -j DROP", severity: finding.Error, code: "input-drops", object: "iptables-nft table filter chain INPUT",
			text: "its rule `iptables-nft -t filter -A INPUT -p tcp -m tcp --dport 25 -j DROP` drops connections to 172.16.40.1:25 by ext0; iptables-nft -t filter -I INPUT 1 -i ext0 -d 172.16.40.1/32 -p tcp -m tcp --dport 25 -j ACCEPT"},
		"DROP of the port, perhaps": {rules: "iptables-nft -A INPUT -p tcp --dport 25 -m string --algo bm --string 'it is' -j DROP", severity: finding.Warning, code: "input-drops", object: "iptables-nft table filter chain INPUT",
			text: "its rule `iptables-nft -t filter -A INPUT -p tcp -m tcp --dport 25 -m string --string 'it is' --algo bm -j DROP` may drop connections"},
		"untracked is dropped": {rules: "iptables-legacy -t mangle -A PREROUTING -m conntrack ! --ctstate ESTABLISHED,NEW -j DROP", severity: finding.Error, code: "prerouting-drops", object: "iptables-legacy table mangle chain PREROUTING",
			text: "drops packets of transit clients to 172.16.20.254:25 by ext0; iptables-legacy -t mangle -R PREROUTING 1 -m mark --mark 0x0/0x1000000 -m conntrack ! --ctstate NEW,ESTABLISHED -j DROP"},
		"untracked is dropped, by nftables": {rules: rule("prerouting priority 0", "ct state != { established, related, new } counter drop"), severity: finding.Error, code: "prerouting-drops", object: "nft table inet fw chain c",
			text: "; nft 'replace rule inet fw c handle 3 meta mark and 0x1000000 == 0 ct state != { established, related, new } counter drop'"},
		"what is invalid is dropped": {rules: "iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j DROP;" + rule("input priority 0", "ct state invalid drop")},
		"what is invalid is dropped, and replies of origins are not tracked": {rules: "iptables-nft -t raw -A PREROUTING -p tcp --sport 25 -j CT --notrack;" + rule("output priority 0", "ct state invalid drop"),
			severity: finding.Error, code: "output-drops", object: "nft table inet fw chain c", text: "drops all but the first packets to origin 172.16.20.254:25, whose replies connection tracking does not see; nft 'replace rule inet fw c handle"},
		"what is invalid is dropped, and port 25 is not tracked": {rules: "iptables-nft -t raw -A PREROUTING -p tcp --sport 25 -j CT --notrack; iptables-nft -t raw -A OUTPUT -p tcp --dport 25 -j CT --notrack;" + rule("output priority 0", "ct state invalid drop")},
		"more ways than can be followed": {rules: `{
	echo '*mangle'; for i in $(seq 24); do echo ":c$i -"; done; echo '-A FORWARD -i ext0 -p tcp --dport 25 -j c1'
	for i in $(seq 23); do echo "-A c$i -j c$((i+1))"; echo "-A c$i -j MARK --xor-mark $((1<<i))"; echo "-A c$i -j c$((i+1))"; done; echo COMMIT
} | iptables-legacy-restore`, severity: finding.Warning, code: "rules-unfollowed", object: "iptables-legacy table mangle chain FORWARD",
			text: "packets have too many ways through it and the chains that it leads to", stays: true},
		"raw": {rules: "iptables-legacy -t raw -A PREROUTING -i ext0 -p tcp --dport 25 -j DROP", severity: finding.Error, code: "prerouting-drops", object: "iptables-legacy table raw chain PREROUTING",
			text: "drops connections to 172.16.40.1:25 by ext0, new transit connections to 172.16.20.254:25 by ext0 and packets of transit clients"},
		"security": {rules: "iptables-nft -t security -A INPUT -i dmz0 -p tcp --sport 25 -j DROP", severity: finding.Error, code: "input-drops", object: "iptables-nft table security chain INPUT",
			text: "drops replies of origin 172.16.20.254:25 by dmz0; iptables-nft -t security -R INPUT 1 -m mark --mark 0x0/0x2000000 -i dmz0 -p tcp -m tcp --sport 25 -j DROP"},
		"ingress": {rules: rule("ingress device ext0 priority 0", "tcp dport 25 drop"), severity: finding.Error, code: "ingress-drops", object: "nft table inet fw chain c",
			text: "its rule `tcp dport 25 drop # handle 2` drops connections to 172.16.40.1:25 by ext0"},
		"egress": {rules: "nft 'add table netdev fw; add chain netdev fw c { type filter hook egress device dmz0 priority 0; }; add rule netdev fw c tcp dport 25 counter drop'", severity: finding.Error, code: "egress-drops",
			object: "nft table netdev fw chain c", text: "drops connections to origin 172.16.20.254:25; nft 'replace rule netdev fw c handle 2 meta mark and 0x2000000 == 0 tcp dport 25 counter drop'"},
		"POSTROUTING": {rules: "iptables-nft -t mangle -A POSTROUTING -o dmz0 -p tcp --dport 25 -j DROP", severity: finding.Error, code: "postrouting-drops", object: "iptables-nft table mangle chain POSTROUTING", text: "drops connections to origin 172.16.20.254:25"},
		"FORWARD of the port": {rules: "iptables-nft -A FORWARD -p tcp --dport 25 -j REJECT", severity: finding.Error, code: "forward-drops", object: "iptables-nft table filter chain FORWARD",
			text: "rejects new transit connections to 172.16.20.254:25 by ext0 and connections to 172.16.20.254:25 that pass while no inspector lives; iptables-nft -t filter -R FORWARD 1 -m mark --mark 0x0/0x4000000 -p tcp"},
		"FORWARD policy of nftables": {rules: rule("forward priority 0; policy drop", "oifname portreeve0 accept"), severity: finding.Warning, code: "fail-open-drops", object: "nft table inet fw chain c",
			text: "; nft 'add rule inet fw c iifname ext0 oifname dmz0 ip daddr 172.16.20.254/32 tcp dport 25 accept' && nft 'add rule inet fw c iifname dmz0 oifname ext0 ip saddr 172.16.20.254/32 tcp sport 25 accept'"},
		"FORWARD asks for the origin's interface": {rules: "iptables-nft -A FORWARD -i ext0 -o dmz0 -s 10.0.0.1 -j DROP; iptables-nft -A FORWARD -o dmz0 -p tcp --dport 25 -j ACCEPT; iptables-nft -A FORWARD -o lan0 -j DROP; iptables-nft -A FORWARD -s 10.0.0.0/8 -j DROP", severity: finding.Warning, code: "forward-out-interface", object: "iptables-nft table filter chain FORWARD",
			text: "do not meet `iptables-nft -t filter -A FORWARD -s 10.0.0.1/32 -i ext0 -o dmz0 -j DROP`, `iptables-nft -t filter -A FORWARD -o dmz0 -p tcp -m tcp --dport 25 -j ACCEPT`: they leave FORWARD by portreeve0, and come to the inspector from there; iptables-nft -t filter -I FORWARD 3 -o portreeve0 -p tcp -m tcp --dport 25 -j ACCEPT && iptables-nft -t filter -I FORWARD 2 -s 10.0.0.1/32 -i ext0 -o portreeve0 -j DROP"},
		"nftables asks for the origin's interface": {rules: rule("forward priority 0", `iifname "ext0" oifname { "dmz0", "lan0" } ip saddr @bad counter drop`, `oif "dmz0" accept`, `oifname "lan0" drop`), severity: finding.Warning, code: "forward-out-interface", object: "nft table inet fw chain c",
			text: `ip saddr @bad counter packets 0 bytes 0 drop # handle 4` + "`: they leave FORWARD by portreeve0, and come to the inspector from there; " + `nft 'add rule inet fw c handle 4 iifname "ext0" oifname "portreeve0" ip saddr @bad counter drop'`},
		"FORWARD lets a SYN pass, and no more": {rules: "iptables-nft -A FORWARD -s 10.0.0.1 -p tcp --dport 25 --syn -m limit --limit 1/hour -j ACCEPT; iptables-nft -A FORWARD -d 172.16.20.254 -p tcp --dport 25 -j DROP", severity: finding.Warning, code: "forward-later", object: "iptables-nft table filter chain FORWARD",
			text: "of them, FORWARD sees the SYN alone", stays: true},
		"INPUT accepts by state, and drops all but some": {rules: rule("input priority 10", "tcp dport 25 ct state new,established accept", "ip saddr != 10.0.0.1 tcp dport 25 drop"), severity: finding.Warning, code: "input-drops", object: "nft table inet fw chain c",
			text: "may drop packets of transit clients to 172.16.20.254:25 by ext0; nft 'replace rule inet fw c handle 3 meta mark and 0x1000000 == 0 ip saddr != 10.0.0.1 tcp dport 25 drop'"},
		"FORWARD compares a whole mark": {rules: "iptables-nft -A FORWARD -m mark --mark 0x1 -j REJECT; iptables-nft -A FORWARD -m mark --mark 0x1/0xff -j DROP", severity: finding.Warning, code: "forward-mark", object: "iptables-nft table filter chain FORWARD",
			text: "new transit connections do not meet `iptables-nft -t filter -A FORWARD -m mark --mark 0x1 -j REJECT --reject-with icmp-port-unreachable`: until they come back from portreeve0 they bear the mark 0x4000000, too; iptables-nft -t filter -I FORWARD 2 -m mark --mark 0x1/0xfbffffff -j REJECT --reject-with icmp-port-unreachable"},
		"nftables compares a whole mark": {rules: rule("forward priority 0", "meta mark 0x2 counter drop", "meta mark and 0xff == 0x3 drop"), severity: finding.Warning, code: "forward-mark", object: "nft table inet fw chain c",
			text: "they bear the mark 0x4000000, too; nft 'add rule inet fw c handle 2 meta mark & 0xfbffffff == 0x00000002 counter drop'"},
		"FORWARD stops answers to a client": {rules: "iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j LOG; iptables-nft -A FORWARD -d 10.0.0.1 -o ext0 -j DROP; iptables-nft -A FORWARD -d 10.0.0.2 -p tcp --dport 25 -j DROP", severity: finding.Warning, code: "forward-later", object: "iptables-nft table filter chain FORWARD",
			text: "transit connections do not meet `iptables-nft -t filter -A FORWARD -d 10.0.0.1/32 -o ext0 -j DROP`: of them, FORWARD sees the SYN alone; iptables-nft -t filter -I FORWARD 1 -s 10.0.0.1/32 -o portreeve0 -j DROP"},
		"FORWARD stops answers to a set": {rules: "ipset create later hash:ip -exist; iptables-legacy -t mangle -A FORWARD -m set --match-set later dst -j DROP", severity: finding.Warning, code: "forward-later", object: "iptables-legacy table mangle chain FORWARD",
			text: "; iptables-legacy -t mangle -I FORWARD 1 -o portreeve0 -m set --match-set later src -j DROP"},
		"FORWARD stops answers to whom it stops": {rules: "iptables-nft -t raw -A PREROUTING -s 10.0.0.0/8 -j DROP; iptables-nft -A FORWARD -d 10.0.0.1 -j DROP"},
		"nftables stops answers to a set": {rules: rule("forward priority 0", `ip daddr @bad ip saddr 172.16.20.254 counter drop`), severity: finding.Warning, code: "forward-later", object: "nft table inet fw chain c",
			text: `; nft 'insert rule inet fw c ip saddr @bad oifname "portreeve0" drop'`},
		"FORWARD stops a client's later packets": {rules: "iptables-nft -A FORWARD -s 10.0.0.1 -m conntrack --ctstate ESTABLISHED -j DROP", severity: finding.Warning, code: "forward-later", object: "iptables-nft table filter chain FORWARD",
			text: "of them, FORWARD sees the SYN alone; stop new connections of those clients in FORWARD: they leave it by portreeve0", stays: true},
		"OUTPUT policy of nftables": {rules: rule("output priority 0; policy drop", "ct state established accept"), severity: finding.Error, code: "output-drops", object: "nft table inet fw chain c",
			text: "its policy drops replies of 172.16.20.254:25 to transit clients and connections to origin 172.16.20.254:25; nft 'add rule inet fw c meta mark and 0x3000000 != 0 accept'"},
		"SMTP_BLOCK": {rules: "iptables-nft -N SMTPOUTPUT; iptables-nft -A OUTPUT -p tcp -m multiport --dports 25,465,587 -j SMTPOUTPUT; iptables-nft -A SMTPOUTPUT -m owner --gid-owner 8 -j ACCEPT; iptables-nft -A SMTPOUTPUT -o dmz0 -j DROP", file: unforged, severity: finding.Error, code: "output-drops",
			object: "iptables-nft table filter chain SMTPOUTPUT", text: `; sed -i '/^SMTP_BLOCK = /s/".*"/"0"/' /etc/csf/csf.conf && csf -r`, stays: true},
		"SMTP_BLOCK lets root send": {rules: "iptables-legacy -A OUTPUT -p tcp --dport 25 -m owner --uid-owner 0 -j ACCEPT; iptables-legacy -A OUTPUT -p tcp --dport 25 -j DROP"},
		"SMTP_BLOCK by nftables": {rules: rule("output priority 0", "tcp dport { 25, 465 } meta skuid != 8 reject"), severity: finding.Error, code: "output-drops", object: "nft table inet fw chain c",
			text: "its rule `tcp dport { 25, 465 } meta skuid != 8 reject # handle 3` rejects connections to origin 172.16.20.254:25"},
		"SYNPROXY": {rules: "iptables-legacy -A INPUT -p tcp --dport 25 --syn -j SYNPROXY --mss 1460", severity: finding.Error, code: "synproxy", object: "iptables-legacy table filter chain INPUT",
			text: "answers connections to 172.16.40.1:25 by ext0 itself (SYNPROXY), so that they never come to the inspector; iptables-legacy -t filter -I INPUT 1 -i ext0"},
		"SYNPROXY in FORWARD": {rules: "iptables-nft -t raw -A PREROUTING -p tcp --dport 25 --syn -j CT --notrack; iptables-nft -A FORWARD -p tcp --dport 25 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1460", severity: finding.Error, code: "synproxy",
			object: "iptables-nft table filter chain FORWARD", text: "answers new transit connections to 172.16.20.254:25 by ext0 itself (SYNPROXY)"},
		"MARK": {rules: "iptables-nft -t mangle -A PREROUTING -i ext0 -j MARK --set-mark 0x1", severity: finding.Error, code: "mark-writer", object: "iptables-nft table mangle chain PREROUTING",
			text: "its rule `iptables-nft -t mangle -A PREROUTING -i ext0 -j MARK --set-xmark 0x1/0xffffffff` takes the mark 0x4000000 off new transit connections to 172.16.20.254:25 by ext0 and packets of transit clients to 172.16.20.254:25 by ext0, so that they go astray; iptables-nft -t mangle -R PREROUTING 1 -m mark --mark 0x0/0x5000000 -i ext0 -j MARK --set-xmark 0x1/0xffffffff"},
		"CONNMARK": {rules: "iptables-legacy -t mangle -A PREROUTING -j CONNMARK --restore-mark", severity: finding.Error, code: "mark-writer", object: "iptables-legacy table mangle chain PREROUTING",
			text: "-m mark --mark 0x0/0x6000000 -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"},
		"marks of nftables": {rules: rule("prerouting priority mangle", "meta mark set ct mark"), severity: finding.Error, code: "mark-writer", object: "nft table inet fw chain c",
			text: "; nft 'replace rule inet fw c handle 2 meta mark and 0x6000000 == 0 meta mark set ct mark'"},
		"marks of nftables, some": {rules: rule("prerouting priority mangle", "meta mark set meta mark or 0x1", "ip saddr 10.0.0.0/8 meta mark set 7"), severity: finding.Warning, code: "mark-writer", object: "nft table inet fw chain c",
			text: "may take the mark 0x4000000 off new transit connections"},
		"marks of OUTPUT": {rules: "iptables-legacy -t mangle -A OUTPUT -p tcp --dport 25 -j MARK --set-mark 1; nft add table ip n; nft 'add chain ip n post { type nat hook postrouting priority 101; }'; nft add rule ip n post 'meta mark and 0x2000000 == 0' oifname dmz0 masquerade", severity: finding.Error, code: "mark-writer",
			object: "iptables-legacy table mangle chain OUTPUT", text: "takes the mark 0x2000000 off connections to origin 172.16.20.254:25"},
		"marks that do no harm in OUTPUT": {rules: "iptables-nft -t mangle -A OUTPUT -j MARK --set-mark 1"},
		"our marks, by others":            {rules: "iptables-nft -t mangle -A PREROUTING -p tcp --dport 25 -j MARK --set-xmark 0x2000000/0x2000000", severity: finding.Warning, code: "mark-writer", object: "iptables-nft table mangle chain PREROUTING", text: "may set the mark 0x2000000, which is portreeve's, on connections", stays: true},
		"DNAT of transit":                 {rules: "iptables-nft -t nat -A PREROUTING -p tcp --dport 25 -d 172.16.20.254 -j DNAT --to 172.16.20.9"},
		"DNAT of the port": {rules: "iptables-nft -t nat -A PREROUTING -p tcp --dport 25 -d 172.16.40.1 -j DNAT --to 172.16.20.9", severity: finding.Error, code: "divert-client", object: "iptables-nft table nat chain PREROUTING",
			text: "sends connections to 172.16.40.1:25 by ext0 elsewhere (dnat); iptables-nft -t nat -D PREROUTING 1 # to serve the address where it points to, name that origin under origins"},
		"Docker's port": {rules: "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 25 -j DNAT --to 172.17.0.2:25; iptables-nft -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER", severity: finding.Error, code: "divert-client",
			object: "iptables-nft table nat chain DOCKER", text: "publish the container's port on another port, or another address (docker run -p 127.0.0.1:2525:25)", stays: true},
		"Docker": {rules: `
iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER -i docker0 -j RETURN
iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to 172.17.0.2:80; iptables-nft -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
for c in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do iptables-nft -N $c; done; iptables-nft -P FORWARD DROP
iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-ISOLATION-STAGE-1; iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A FORWARD -o docker0 -j DOCKER; iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT; iptables-nft -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables-nft -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2; iptables-nft -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables-nft -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP; iptables-nft -A DOCKER-ISOLATION-STAGE-2 -j RETURN; iptables-nft -A DOCKER-USER -j RETURN`},
		"DOCKER-USER": {rules: "iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A DOCKER-USER -i ext0 ! -o dmz0 -j DROP", severity: finding.Error, code: "forward-drops", object: "iptables-nft table filter chain DOCKER-USER",
			text: "drops new transit connections to 172.16.20.254:25 by ext0; iptables-nft -t filter -R DOCKER-USER 1 -m mark --mark 0x0/0x4000000 -i ext0 ! -o dmz0 -j DROP"},
		"DNAT of ours": {rules: "iptables-nft -t nat -A OUTPUT -p tcp --dport 25 -j DNAT --to 172.16.20.9", severity: finding.Error, code: "divert-origin", object: "iptables-nft table nat chain OUTPUT",
			text: "sends connections to origin 172.16.20.254:25 elsewhere (dnat); iptables-nft -t nat -R OUTPUT 1 -m mark --mark 0x0/0x2000000 -p tcp -m tcp --dport 25 -j DNAT --to-destination 172.16.20.9"},
		"DNAT of another address to an origin": {rules: "iptables-legacy -t nat -A PREROUTING -p tcp --dport 25 -d 203.0.113.5 -j DNAT --to-destination 172.16.20.254:25", severity: finding.Warning, code: "diverted-into",
			object: "iptables-legacy table nat chain PREROUTING", text: "sends connections to 172.16.20.254:25, which service mx intercepts, they are stopped", stays: true},
		"DNAT of another address to another host": {rules: "iptables-legacy -t nat -A PREROUTING -p tcp --dport 25 -d 203.0.113.5 -j DNAT --to-destination 172.16.20.9"},
		"MASQUERADE of iptables":                  {rules: "iptables-nft -t nat -A POSTROUTING -o dmz0 -j MASQUERADE"},
		"MASQUERADE of nftables": {rules: "nft add table ip n; nft add chain ip n post '{ type nat hook postrouting priority 100; }'; nft add rule ip n post oifname dmz0 masquerade", severity: finding.Error, code: "masquerade-origin",
			object: "nft table ip n chain post", text: "gives connections to origin 172.16.20.254:25 another source (masquerade), so that what answers them is not for us; nft 'replace rule ip n post handle 2 meta mark and 0x2000000 == 0 oifname \"dmz0\" masquerade'"},
		"MASQUERADE of what goes to the loop link": {rules: "nft add table ip n; nft add chain ip n post '{ type nat hook postrouting priority 99; }'; nft add rule ip n post oifname != dmz0 masquerade", severity: finding.Error, code: "masquerade-loop",
			object: "nft table ip n chain post", text: "gives new transit connections to 172.16.20.254:25 by ext0 another source"},
		"MASQUERADE of others' networks": {rules: "ip addr add 10.9.0.1/24 dev dmz0; nft add table ip n; nft add chain ip n post '{ type nat hook postrouting priority 100; }'; nft add rule ip n post ip saddr 172.16.20.0/24 masquerade"},
		"a NAT router": {rules: "iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/16 -o dmz0 -j MASQUERADE", severity: finding.Error, code: "masquerade-clients", object: "gw.yaml: service out", file: outbound, stays: true,
			text: "this gateway gives clients another source towards 0.0.0.0/0:25 (iptables-nft table nat chain POSTROUTING: `iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/16 -o dmz0 -j MASQUERADE`), and the service forges their own: where that is not known, no reply comes back, and read 421; set forge: {address: never} for service out"},
		"a NAT router that does not forge": {rules: "iptables-nft -t nat -A POSTROUTING -o dmz0 -j MASQUERADE", file: strings.Replace(outbound, "fail: open", "forge: {address: never}", 1)},
		"firewalld": {rules: firewalldRules, severity: finding.Error, code: "input-drops", object: "nft table inet firewalld chain filter_IN_public", stays: true,
			text: "; firewall-cmd --permanent --zone=public --add-service=smtp && firewall-cmd --reload"},
		"ufw, asked for the port": {rules: "for c in ufw-before-input ufw-user-input; do iptables-legacy -N $c; done; iptables-legacy -A INPUT -j ufw-before-input; iptables-legacy -A ufw-before-input -j ufw-user-input; iptables-legacy -A ufw-before-input -m mark --mark 0/0x3000000 -j DROP", severity: finding.Error, code: "input-drops",
			object: "iptables-legacy table filter chain ufw-before-input", text: "; ufw allow in on ext0 to any port 25 proto tcp", stays: true},
		"ufw, asked for the origin's interface": {rules: "iptables-nft -N ufw-user-forward; iptables-nft -A FORWARD -j ufw-user-forward; iptables-nft -A ufw-user-forward -o dmz0 -s 10.0.0.1 -j DROP; iptables-nft -A ufw-user-forward -i ext0 -o dmz0 -d 172.16.20.254 -p tcp --dport 25 -j ACCEPT; iptables-nft -A FORWARD -s 10.0.0.0/8 -j DROP", severity: finding.Warning, code: "forward-out-interface",
			object: "iptables-nft table filter chain ufw-user-forward", text: "; ufw route deny out on portreeve0 from 10.0.0.1 && ufw route allow in on ext0 out on portreeve0 to 172.16.20.254 port 25 proto tcp", stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				shell(t, "nft flush ruleset; for t in raw mangle nat filter; do iptables-legacy -t $t -F; iptables-legacy -t $t -X; done; for h in INPUT OUTPUT FORWARD; do iptables-legacy -P $h ACCEPT; done; ip addr flush dev dmz0")
			})
			if strings.Contains(test.rules, "@bad") {
				shell(t, "nft 'add table inet fw; add set inet fw bad { type ipv4_addr; }'")
			}
			shell(t, test.rules)
			f, found := only(t, test.file, test.code)
			if !found {
				return
			}
			if f.Severity != test.severity || f.Object != test.object || !strings.Contains(f.String(), test.text) {
				t.Errorf("found\n%s %s %s\nwant %s %s …%s…", f.Severity, f.Code, f, test.severity, test.object, test.text)
			}
			if test.stays {
				return
			}
			shell(t, f.Remedy)
			only(t, test.file, "")
		})
	}
}

// firewalldRules are some of firewalld's, as nft shows them.
const firewalldRules = `nft -f - <<'END'
table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_INPUT_ZONES {
		iifname "ext0" goto filter_IN_public
		iifname "dmz0" goto filter_IN_trusted
		goto filter_IN_public
	}
	chain filter_IN_trusted { accept; }
	chain filter_IN_public {
		jump filter_IN_public_allow
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_IN_public_allow { tcp dport 22 accept; }
}
END`

// only wants complaints of one code, and one of them; of none, if it is empty.
func only(t *testing.T, file, code string) (finding.Finding, bool) {
	t.Helper()
	var found []finding.Finding
	for _, f := range judged(t, file, false) {
		switch {
		case f.Code == code:
			found = append(found, f)
		case f.Severity != finding.Info:
			t.Errorf("unexpected %s: %s: %s", f.Severity, f.Code, f)
		}
	}
	if code == "" {
		return finding.Finding{}, false
	}
	if len(found) != 1 {
		t.Fatalf("found %d of %s: %v\nin\n%v", len(found), code, found, judged(t, file, false))
	}
	return found[0], true
}

// judged examines the healthy machine with this namespace's packet filter.
func judged(t *testing.T, file string, attached bool) finding.List {
	t.Helper()
	c, m := parse(t), healthy()
	if file != "" {
		var err error
		if c, err = config.Parse("gw.yaml", []byte(file), nil); err != nil {
			t.Fatal(err)
		}
	}
	m.Attached = attached
	if !attached {
		m.Probes = nil
	}
	var err error
	if m.Firewall, err = netfilter.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return noted(Examine(c, m))
}

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// testRulesAstray: what our rules would cure if they were in their place is blamed on
// that, and no unwanted word is said once they are.
func testRulesAstray(t *testing.T) {
	t.Cleanup(func() { shell(t, "nft flush ruleset") })
	attach := func() {
		h := netfilter.New()
		have, err := h.Have()
		if err != nil {
			t.Fatal(err)
		}
		var want []plan.Item
		for _, i := range plan.Build(parse(t), healthy().Facts) {
			if h.Owns(i.Kind()) {
				want = append(want, i)
			}
		}
		for _, c := range plan.Diff(have, want) {
			switch c.Op {
			case plan.Add:
				err = h.Add(c.Item)
			case plan.Remove:
				err = h.Remove(c.Item)
			default:
				err = h.Replace(c.Old, c.Item)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	complaints := func() (all []string) {
		for _, f := range judged(t, "", true) {
			if f.Severity == finding.Error {
				all = append(all, f.Code+" "+f.Object)
			}
		}
		return all
	}
	shell(t, "for h in INPUT OUTPUT FORWARD; do iptables-nft -P $h DROP; done; iptables-nft -t nat -A POSTROUTING -o dmz0 -j MASQUERADE")
	attach()
	if all := complaints(); len(all) > 0 {
		t.Errorf("with everything in place: %v", all)
	}
	shell(t, "iptables-nft -t nat -I POSTROUTING -o dmz0 -j MASQUERADE")
	want := "rules-astray iptables-nft table nat chain POSTROUTING"
	if all := complaints(); len(all) != 1 || all[0] != want {
		t.Errorf("with a rule in front: %v, want %s", all, want)
	}
	attach()
	if all := complaints(); len(all) > 0 {
		t.Errorf("after attach: %v", all)
	}
	shell(t, "iptables-nft -F FORWARD")
	want = "rules-astray iptables-nft table filter chain FORWARD"
	if all := complaints(); len(all) != 1 || all[0] != want {
		t.Errorf("with a jump gone: %v, want %s", all, want)
	}
}
