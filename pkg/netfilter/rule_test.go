package netfilter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// met returns the one rule that a packet meets.
func met(t *testing.T, s *Survey, hook, packet string) Meeting {
	t.Helper()
	all := s.Meet(hook, packets[packet])
	if len(all) != 1 {
		t.Fatalf("met %v", all)
	}
	return all[0]
}

// TestPrintingChangesNothing: rules are shown without making a table or a chain.
func TestPrintingChangesNothing(t *testing.T) {
	isolate(t)
	sh(t, "iptables-nft -A INPUT -j DROP; nft add table ip6 filter; nft 'add chain ip6 filter INPUT { type filter hook input priority 0; }'; nft add rule ip6 filter INPUT drop")
	before := snapshot(t)
	s := look(t)
	for _, family := range []plan.Family{plan.IPv4, plan.IPv6} {
		p := packets["SYN in"]
		p.Family = family
		for _, m := range s.Meet("input", p) {
			_ = m.String()
		}
	}
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestRuleIsShownAllTheSame: where iptables does not understand its own table, nft
// shows it; where nft is missing, the handle must do.
func TestRuleIsShownAllTheSame(t *testing.T) {
	isolate(t)
	sh(t, "iptables-nft -A INPUT -i lo -j ACCEPT; nft 'add rule ip filter INPUT meta cpu 0-63 ct direction original iifname ext0 drop'")
	m := met(t, look(t), "input", "SYN in")
	if got := m.String(); !strings.Contains(got, `iifname "ext0" drop # handle `) {
		t.Errorf("shown as %q", got)
	}
	if got := m.Sparing(1 << 24); !strings.HasPrefix(got, "nft 'replace rule ip filter INPUT handle ") || !strings.Contains(got, " meta mark and 0x1000000 == 0 ") {
		t.Errorf("spared by %q", got)
	}
	sh(t, m.Sparing(1<<24))
	bare := t.TempDir()
	for _, name := range []string{"iptables-nft"} {
		path, err := lookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bare, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bare)
	s := look0(t)
	s.printer.lines = map[nftRule]string{} // as if nft were not installed: root's commands are found without PATH
	if got := met(t, s, "input", "SYN in").String(); !strings.HasPrefix(got, "rule with handle ") {
		t.Errorf("without nft shown as %q", got)
	}
}

func look0(t *testing.T) *Survey {
	t.Helper()
	s, err := Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCommands: what is typed spares packets, or accepts them before the rule.
func TestCommands(t *testing.T) {
	for name, setup := range map[string]string{
		"iptables-nft":    `iptables-nft -A INPUT -i lo -j ACCEPT; iptables-nft -A INPUT -m comment --comment 'it is "$(reboot)"' -i ext0 -j DROP`,
		"iptables-legacy": `iptables-legacy -A INPUT -i lo -j ACCEPT; iptables-legacy -A INPUT -m comment --comment 'it is "$(reboot)"' -i ext0 -j DROP`,
		"nft":             `nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; }; add rule inet fw in tcp dport > 24 tcp dport { 25, 26 } log prefix "it is" counter drop comment "x"'`,
		"policy of nft":   `nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }'`,
		"policy":          `iptables-legacy -P INPUT DROP`,
	} {
		for how, command := range map[string]func(Meeting) string{
			"sparing":   func(m Meeting) string { return m.Sparing(1 << 24) },
			"accepting": func(m Meeting) string { return m.Accepting(Bearing(1 << 24)) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				isolate(t)
				sh(t, setup)
				marked, plain := packets["marked in"], packets["SYN in"]
				s := look(t)
				m := s.Meet("input", marked)
				if len(m) != 1 {
					t.Fatalf("met %v", m)
				}
				typed := command(m[0])
				sh(t, typed)
				s = look(t)
				if m := s.Meet("input", marked); len(m) > 0 {
					t.Errorf("after %s it is met by %v", typed, m)
				}
				if m := s.Meet("input", plain); len(m) != 1 {
					t.Errorf("after %s others meet %v", typed, m)
				}
			})
		}
	}
}

// TestWith: our rules are where attach would put them, whatever is there of ours.
func TestWith(t *testing.T) {
	eachFlavour(t, func(t *testing.T, legacy bool) {
		tl := tool{plan.IPv4, legacy}
		sh(t, "c="+tl.String()+"; $c -t nat -A POSTROUTING -j MASQUERADE; $c -P INPUT DROP; $c -A INPUT -s 10.0.0.1 -j DROP; $c -A INPUT -j LOG; $c -A INPUT -j REJECT; $c -P FORWARD DROP; $c -P OUTPUT DROP")
		items := everything(legacy)
		everywhere := func(s *Survey) map[string][]string {
			all := map[string][]string{}
			for name, p := range packets {
				for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
					for _, m := range s.Meet(hook, p) {
						all[name+" at "+hook] = append(all[name+" at "+hook], describe(m))
					}
				}
			}
			return all
		}
		would := everywhere(look(t).With(items))
		run(t, New(), plan.Diff(nil, items))
		if diff := cmp.Diff(would, everywhere(look(t))); diff != "" {
			t.Errorf("(-would meet +meets):\n%s", diff)
		}
		if diff := cmp.Diff(would, everywhere(look(t).With(items))); diff != "" {
			t.Errorf("again (-would meet +would meet):\n%s", diff)
		}
	})
}

// TestEntered: the chains that a packet is sure to come to.
func TestEntered(t *testing.T) {
	isolate(t)
	sh(t, nft(`
table inet firewalld {
	chain filter_INPUT { type filter hook input priority 10; ct state established accept; jump filter_INPUT_ZONES; reject; }
	chain filter_INPUT_ZONES { iifname "dmz0" goto filter_IN_dmz; iifname "ext0" goto filter_IN_public; goto filter_IN_home; }
	chain filter_IN_dmz { accept; }
	chain filter_IN_public { jump filter_IN_public_allow; reject; }
	chain filter_IN_public_allow { tcp dport 22 accept; }
	chain filter_IN_home { reject; }
}`))
	want := []string{"filter_INPUT", "filter_INPUT_ZONES", "filter_IN_public", "filter_IN_public_allow"}
	if diff := cmp.Diff(want, look(t).Entered("input", packets["SYN in"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSources(t *testing.T) {
	isolate(t)
	sh(t, nft(`table ip n { chain p { type nat hook postrouting priority 100; ip saddr { 10.0.0.0/8, 192.168.1.0-192.168.1.127 } masquerade; }; }`)+`
iptables-legacy -t nat -A POSTROUTING -s 172.16.0.0/12 ! -o lo -j MASQUERADE; iptables-legacy -t nat -A POSTROUTING ! -s 10.0.0.0/8 -j MASQUERADE`)
	p := packets["SYN past"]
	p.In = ""
	var got []string
	for _, m := range look(t).Meet("postrouting", p) {
		for _, source := range m.Sources() {
			got = append(got, source.String())
		}
	}
	if diff := cmp.Diff([]string{"10.0.0.0/8", "192.168.1.0/25", "172.16.0.0/12"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnmet(t *testing.T) {
	for _, tc := range []struct{ name, setup, want string }{
		{"none", `iptables-nft -A FORWARD -i ext0 -j ACCEPT; iptables-nft -A FORWARD ! -o lan0 -j ACCEPT`, ""},
		{"an accept that no drop follows", `iptables-nft -A FORWARD -o dmz0 -j ACCEPT; iptables-nft -A FORWARD -o lan0 -j DROP`, ""},
		{"an accept before a policy", `iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -o dmz+ -j ACCEPT`, "iptables-nft -t filter -I FORWARD 2 -o portreeve0 -j ACCEPT"},
		{"a jump", `iptables-legacy -N A; iptables-legacy -A A -j DROP; iptables-legacy -A FORWARD -i ext0 -o dmz0 -g A`, "iptables-legacy -t filter -I FORWARD 2 -i ext0 -o portreeve0 -g A"},
		{"in a chain", `iptables-legacy -N A; iptables-legacy -A FORWARD -i ext0 -j A; iptables-legacy -A A -o dmz0 -j REJECT`, "iptables-legacy -t filter -I A 2 -o portreeve0 -j REJECT --reject-with icmp-port-unreachable"},
		{"with its twin", `iptables-nft -A FORWARD -o dmz0 -j DROP; iptables-nft -A FORWARD -o portreeve0 -j DROP`, ""},
		{"with its twin, nft", nft(`table inet fw { chain f { type filter hook forward priority 0; oifname "dmz0" counter drop; oifname "portreeve0" counter drop; }; }`), ""},
		{"behind what ends it", `iptables-nft -A FORWARD -i ext0 -o dmz0 -p tcp -j DROP; iptables-nft -A FORWARD -o dmz0 -j ACCEPT`, "iptables-nft -t filter -I FORWARD 2 -i ext0 -o portreeve0 -p tcp -j DROP"},
		{"a verdict map", nft(`table inet fw { chain f { type filter hook forward priority 0; oifname vmap { "dmz0" : drop, "lan0" : accept }; }; }`), "?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			isolate(t)
			sh(t, tc.setup)
			would, goes := packets["SYN past"], packets["SYN past"]
			goes.Out = plan.LoopLink
			var got []string
			for _, u := range look(t).Unmet("forward", would, goes) {
				command := u.Follow()
				if command == "" {
					got = append(got, "?")
					continue
				}
				got = append(got, command)
				sh(t, command)
			}
			if strings.Join(got, "\n") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if again := look(t).Unmet("forward", would, goes); len(again) > 0 && tc.want != "?" {
				t.Errorf("still unmet: %v", again)
			}
		})
	}
}
