package plan

import (
	"encoding/json"
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
	base := Firewall{
		Clients: []string{"ext0"}, Origins: []string{"dmz0"},
		ClientMark: 1 << 24, OriginMark: 1 << 25, Link: LoopLink,
	}
	for _, tc := range []struct {
		name string
		set  func(*Firewall)
		want string
	}{
		{"nothing needed", func(*Firewall) {}, ""},
		{"a loop without transit", func(f *Firewall) { f.LoopMark, f.SamePort = 1<<26, both }, ""},
		{"addressed, not forged", func(f *Firewall) {
			f.Addressed = []config.Target{target("172.16.40.1/32", 25), target("0.0.0.0/0", 587)}
			f.Clients = []string{"ext0", "ext1"}
			f.Sent = []Family{IPv4}
		}, `
nftables table IPv4 filter
nftables base chain IPv4 filter INPUT
nftables base chain IPv4 filter OUTPUT
iptables-nft -t filter -N PORTREEVE-LISTEN
iptables-nft -t filter -N PORTREEVE-SEND
iptables-nft -t filter -A PORTREEVE-LISTEN -d 172.16.40.1/32 -i ext0 -p tcp -m tcp --dport 25 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-LISTEN -d 172.16.40.1/32 -i ext1 -p tcp -m tcp --dport 25 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-LISTEN -i ext0 -p tcp -m tcp --dport 587 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-LISTEN -i ext1 -p tcp -m tcp --dport 587 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-SEND -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-nft -t filter -A PORTREEVE-SEND -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-nft -t filter -A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN
iptables-nft -t filter -A OUTPUT -m comment --comment portreeve -j PORTREEVE-SEND
`},
		{"addressed and forged, IPv6, legacy", func(f *Firewall) {
			f.Legacy = true
			f.Addressed = []config.Target{target("2001:db8:40::1/128", 25)}
			f.Forged, f.Sent = []Family{IPv6}, []Family{IPv6}
		}, `
ip6tables-legacy -t filter -N PORTREEVE-INPUT
ip6tables-legacy -t filter -N PORTREEVE-LISTEN
ip6tables-legacy -t filter -N PORTREEVE-OUTPUT
ip6tables-legacy -t filter -N PORTREEVE-SEND
ip6tables-legacy -t nat -N PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -N PORTREEVE-PREROUTING
ip6tables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-LISTEN -d 2001:db8:40::1/128 -i ext0 -p tcp -m tcp --dport 25 -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x2000000/0x2000000 -m addrtype ! --src-type LOCAL -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-SEND -m mark --mark 0x1000000/0x1000000 -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-SEND -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
ip6tables-legacy -t filter -A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN
ip6tables-legacy -t filter -A OUTPUT -m comment --comment portreeve -j PORTREEVE-SEND
ip6tables-legacy -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
ip6tables-legacy -t filter -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
ip6tables-legacy -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
`},
		{"transit without a loop, the same port, a wall", func(f *Firewall) {
			f.Legacy = true
			f.Transit, f.Forged, f.SamePort = []Family{IPv4}, []Family{IPv4}, []Family{IPv4}
			f.Match = "/a/b"
		}, `
iptables-legacy -t filter -N PORTREEVE-FORWARD
iptables-legacy -t filter -N PORTREEVE-INPUT
iptables-legacy -t filter -N PORTREEVE-OUTPUT
iptables-legacy -t nat -N PORTREEVE-POSTROUTING
iptables-legacy -t raw -N PORTREEVE-OUTPUT
iptables-legacy -t raw -N PORTREEVE-PREROUTING
iptables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -m addrtype ! --src-type LOCAL -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x2000000/0x2000000 -m addrtype ! --src-type LOCAL -j ACCEPT
iptables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-legacy -t raw -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -m addrtype ! --src-type LOCAL -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x1000000/0x1000000 -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
iptables-legacy -t filter -I FORWARD -m comment --comment portreeve -j PORTREEVE-FORWARD
iptables-legacy -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
iptables-legacy -t filter -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-legacy -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
iptables-legacy -t raw -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-legacy -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-legacy -t filter -A PORTREEVE-FORWARD ! -o portreeve0 -m bpf --object-pinned /a/b -j DROP
`},
		{"transit in IPv4 by the loop, forged in both families, fails open", func(f *Firewall) {
			f.Legacy = true
			f.Transit, f.Forged, f.SamePort, f.Sent = []Family{IPv4}, both, both, []Family{IPv4}
			f.LoopMark, f.Match = 1<<26, "/a/b"
			f.Open = []config.Target{target("172.16.20.0/24", 25), target("0.0.0.0/0", 26)}
			f.Origins = []string{"dmz0", "dmz1"}
		}, `
ip6tables-legacy -t filter -N PORTREEVE-INPUT
ip6tables-legacy -t filter -N PORTREEVE-OUTPUT
ip6tables-legacy -t nat -N PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -N PORTREEVE-PREROUTING
iptables-legacy -t filter -N PORTREEVE-FORWARD
iptables-legacy -t filter -N PORTREEVE-INPUT
iptables-legacy -t filter -N PORTREEVE-LOOP
iptables-legacy -t filter -N PORTREEVE-OUTPUT
iptables-legacy -t filter -N PORTREEVE-SEND
iptables-legacy -t mangle -N PORTREEVE-PREROUTING
iptables-legacy -t nat -N PORTREEVE-POSTROUTING
iptables-legacy -t nat -N PORTREEVE-PREROUTING
iptables-legacy -t raw -N PORTREEVE-OUTPUT
iptables-legacy -t raw -N PORTREEVE-PREROUTING
ip6tables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x2000000/0x2000000 -m addrtype ! --src-type LOCAL -j ACCEPT
ip6tables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
ip6tables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
iptables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -d 172.16.20.0/24 -i ext0 -p tcp -m tcp --dport 25 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -i dmz0 -p tcp -m tcp --sport 26 ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -i dmz1 -p tcp -m tcp --sport 26 ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -i ext0 -p tcp -m tcp --dport 26 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -m mark --mark 0x4000000/0x4000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -s 172.16.20.0/24 -i dmz0 -p tcp -m tcp --sport 25 ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-LOOP -s 172.16.20.0/24 -i dmz1 -p tcp -m tcp --sport 25 ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -m addrtype ! --src-type LOCAL -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-OUTPUT -m mark --mark 0x2000000/0x2000000 -m addrtype ! --src-type LOCAL -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-SEND -m mark --mark 0x1000000/0x1000000 -j ACCEPT
iptables-legacy -t filter -A PORTREEVE-SEND -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-legacy -t mangle -A PORTREEVE-PREROUTING -p tcp -m mark --mark 0x1000000/0x1000000 -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
iptables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x2000000/0x2000000 -j ACCEPT
iptables-legacy -t nat -A PORTREEVE-POSTROUTING -m mark --mark 0x4000000/0x4000000 -j ACCEPT
iptables-legacy -t nat -A PORTREEVE-PREROUTING -m mark --mark 0x4000000/0x4000000 -j ACCEPT
iptables-legacy -t raw -A PORTREEVE-OUTPUT -m mark --mark 0x1000000/0x1000000 -m addrtype ! --src-type LOCAL -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-OUTPUT -m mark --mark 0x2000000/0x2000000 -m addrtype ! --src-type LOCAL -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x1000000/0x1000000 -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -j CT --notrack
iptables-legacy -t raw -A PORTREEVE-PREROUTING -m mark --mark 0x2000000/0x2000000 -m socket --transparent -j RETURN
iptables-legacy -t raw -A PORTREEVE-PREROUTING -p tcp -m mark --mark 0x1000000/0x1000000 -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
ip6tables-legacy -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
ip6tables-legacy -t filter -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
ip6tables-legacy -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
ip6tables-legacy -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-legacy -t filter -A FORWARD -m comment --comment portreeve -j PORTREEVE-LOOP
iptables-legacy -t filter -A OUTPUT -m comment --comment portreeve -j PORTREEVE-SEND
iptables-legacy -t filter -I FORWARD -m comment --comment portreeve -j PORTREEVE-FORWARD
iptables-legacy -t filter -I INPUT -m comment --comment portreeve -j PORTREEVE-INPUT
iptables-legacy -t filter -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-legacy -t mangle -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-legacy -t nat -I POSTROUTING -m comment --comment portreeve -j PORTREEVE-POSTROUTING
iptables-legacy -t nat -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-legacy -t raw -I OUTPUT -m comment --comment portreeve -j PORTREEVE-OUTPUT
iptables-legacy -t raw -I PREROUTING -m comment --comment portreeve -j PORTREEVE-PREROUTING
iptables-legacy -t filter -A PORTREEVE-FORWARD ! -o portreeve0 -m bpf --object-pinned /a/b -j DROP
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
iptables-nft -t filter -N PORTREEVE-LISTEN
iptables-nft -t filter -A PORTREEVE-LISTEN -i ext0 -p tcp -m tcp --dport 25 -m socket --transparent -j ACCEPT
iptables-nft -t filter -A PORTREEVE-LISTEN -i ext1 -p tcp -m tcp --dport 25 -m socket --transparent -j ACCEPT
iptables-nft -t filter -A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN
`
	if diff := cmp.Diff(want, lines(Netfilter(f))); diff != "" {
		t.Errorf("Netfilter (-want +got):\n%s", diff)
	}
}

// Of a service that fails open, up to 64 targets in a family are listed.
func TestManyOpenAreNotListed(t *testing.T) {
	f := Firewall{Clients: []string{"ext0"}, Origins: []string{"dmz0"}, Open: []config.Target{target("::/0", 25)}}
	for i := range 64 {
		f.Open = append(f.Open, target(fmt.Sprintf("10.0.0.%d/32", i), 25))
	}
	count := func() int { return strings.Count(lines(Netfilter(f)), "-A PORTREEVE-LOOP") }
	if n := count(); n != 2*65 {
		t.Errorf("64 targets and one of IPv6 have %d rules", n)
	}
	f.Open = append(f.Open, target("10.0.1.0/24", 25))
	if n := count(); n != 2 {
		t.Errorf("65 targets and one of IPv6 have %d rules", n)
	}
}

func TestNeeds(t *testing.T) {
	const open, directed = `  - {name: out, intercept: ["0.0.0.0/0:25"], fail: open}` + "\n",
		`  - {name: mx, listen: ["172.16.40.1:25"], origins: ["172.16.20.254:2525"], forge: {address: always, port: group}}` + "\n"
	for name, test := range map[string]struct {
		services string
		skip     bool
		want     Firewall
	}{
		"addressed": {services: directed, want: Firewall{
			Addressed: []config.Target{target("172.16.40.1/32", 25)},
			Forged:    []Family{IPv4}, Sent: []Family{IPv4}, SamePort: []Family{IPv4},
		}},
		"transit": {services: open, want: Firewall{
			Open: []config.Target{target("0.0.0.0/0", 25)}, Transit: []Family{IPv4}, Forged: []Family{IPv4}, Sent: []Family{IPv4},
			LoopMark: 0x04000000, Link: LoopLink,
		}},
		"transit, not honouring": {services: open, skip: true, want: Firewall{
			Open: []config.Target{target("0.0.0.0/0", 25)}, Transit: []Family{IPv4}, Forged: []Family{IPv4}, Sent: []Family{IPv4},
		}},
		"any port, not forged": {
			services: `  - {name: mx, intercept: ["[fd00:20::1]:25"], forge: {port: any}}` + "\n" +
				`  - {name: a, listen: ["172.16.40.1:26"], origins: ["172.16.20.254:26"], forge: {address: never, port: any}}` + "\n",
			want: Firewall{
				Addressed: []config.Target{target("172.16.40.1/32", 26)},
				Transit:   []Family{IPv6}, Forged: []Family{IPv6}, Sent: []Family{IPv4, IPv6},
				LoopMark: 0x04000000, Link: LoopLink,
			}},
		"any and random port": {
			services: `  - {name: mx, intercept: ["[fd00:20::1]:25"], forge: {port: random}}` + "\n" + open,
			want: Firewall{
				Open: []config.Target{target("0.0.0.0/0", 25)}, Transit: []Family{IPv4, IPv6}, Forged: []Family{IPv4, IPv6},
				Sent: []Family{IPv4, IPv6}, SamePort: []Family{IPv6}, LoopMark: 0x04000000, Link: LoopLink,
			}},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, test.services)
			if test.skip {
				c.Kernel.ForwardRules = config.ForwardSkip
			}
			test.want.Clients, test.want.Origins = []string{"ext0"}, []string{"dmz0"}
			test.want.ClientMark, test.want.OriginMark = 0x01000000, 0x02000000
			facts := gateway
			facts.NFLinks = true
			if diff := cmp.Diff(test.want, needs(c, facts), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A jump that is not in its place is another state of the same thing, and is
// replaced.
func TestAstrayJumpIsReplaced(t *testing.T) {
	right := Filter{Family: IPv4, Table: "filter", Chain: "INPUT", Spec: Jump("PORTREEVE-LISTEN"), Place: Last}
	astray := right
	astray.Astray = true
	if astray.Key() != right.Key() {
		t.Errorf("keys %q and %q", astray.Key(), right.Key())
	}
	const want = "iptables-nft -t filter -A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN"
	if right.String() != want || astray.String() != want+" (not in its place)" {
		t.Errorf("%s\n%s", right, astray)
	}
	changes := Diff([]Item{astray}, []Item{right})
	if len(changes) != 1 || changes[0] != (Change{Op: Replace, Item: right, Old: astray}) {
		t.Errorf("changes %v", changes)
	}
}

// Journals of releases that knew one place for a jump are read.
func TestFilterOfFormerReleases(t *testing.T) {
	jump := Filter{Family: IPv6, Legacy: true, Table: "nat", Chain: "POSTROUTING", Spec: Jump("PORTREEVE-POSTROUTING"), Place: First}
	inside := Filter{Family: IPv4, Table: "raw", Chain: "PORTREEVE-OUTPUT", Spec: "-j RETURN"}
	last := Filter{Family: IPv4, Table: "filter", Chain: "OUTPUT", Spec: Jump("PORTREEVE-SEND"), Place: Last}
	astray := last
	astray.Astray = true
	encoded := func(f Filter) string {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, test := range []struct {
		text string
		want Filter
	}{
		{`{"Family":6,"Legacy":true,"Table":"nat","Chain":"POSTROUTING","Spec":"-m comment --comment portreeve -j PORTREEVE-POSTROUTING","First":true}`, jump},
		{`{"Family":4,"Legacy":false,"Table":"raw","Chain":"PORTREEVE-OUTPUT","Spec":"-j RETURN","First":false}`, inside},
		{encoded(jump), jump}, {encoded(inside), inside}, {encoded(last), last}, {encoded(astray), last},
	} {
		if got, err := Decode("Filter", []byte(test.text)); err != nil || got != Item(test.want) {
			t.Errorf("%s: %#v, %v", test.text, got, err)
		}
	}
	if _, err := Decode("Filter", []byte(`{"Family":"6"}`)); err == nil {
		t.Error("a family that is no number was read")
	}
}
