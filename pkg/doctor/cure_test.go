package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
)

// TestManyPorts: 300 ports are one finding, whose remedy opens all of them.
func TestManyPorts(t *testing.T) {
	for name, rules := range map[string]string{
		"nft":      "nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }; add rule inet fw in meta mark and 0x3000000 != 0 accept'",
		"iptables": "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -m mark ! --mark 0/0x3000000 -j ACCEPT",
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { shell(t, "nft flush ruleset; iptables-legacy -P INPUT ACCEPT; iptables-legacy -F") })
			var listen []string
			for port := range 300 {
				listen = append(listen, fmt.Sprintf("172.16.40.1:%d", 1000+port))
			}
			many := fmt.Sprintf("interfaces: {client: [ext0], origin: [dmz0]}\nservices: [{name: mx, listen: [\"%s\"], origins: [\"172.16.20.254:25\"]}]\nlimits: {sessions: 100}\n", strings.Join(listen, `", "`))
			shell(t, rules)
			f, _ := only(t, many, "input-drops")
			if want := "its policy drops connections to 172.16.40.1:1000, 172.16.40.1:1001, 172.16.40.1:1002, 172.16.40.1:1003, 172.16.40.1:1004 and "; !strings.HasPrefix(f.Text, want) {
				t.Errorf("found %q", f.Text)
			}
			for range 2 { // of more than mostTargets the first are followed
				shell(t, f.Remedy)
				again := judged(t, many, false)
				if !again.Failed() {
					return
				}
				f, _ = only(t, many, "input-drops")
			}
			t.Errorf("still found: %s", f)
		})
	}
}

func TestKeep(t *testing.T) {
	cure := cures{&gateway{m: Machine{Rulesets: []Ruleset{
		{"/etc/nftables.conf", "flush ruleset\n\ntable inet  fw {\n\tchain in { }\n}\n"},
		{"/etc/iptables/rules.v4", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n"},
		{"/etc/iptables/rules.v6", "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"},
	}}}}
	for _, k := range []struct {
		rules, hook, want string
	}{
		{"nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }'", "input", "/etc/nftables.conf"},
		{"nft 'add table inet other; add chain inet other in { type filter hook input priority 0; policy drop; }'", "input", ""},
		{"iptables-nft -P INPUT DROP", "input", "/etc/iptables/rules.v4"},
		{"iptables-nft -P FORWARD DROP", "forward", ""},
	} {
		shell(t, k.rules)
		s, err := netfilter.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if k.want != "" {
			want = " # and write it into " + k.want + ", or the next reload undoes it"
		}
		if got := cure.keep(s.Meet(k.hook, netfilter.Packet{Family: 4})[0].Place); got != want {
			t.Errorf("%s: keep says %q, want %q", k.rules, got, want)
		}
		shell(t, "nft flush ruleset")
	}
}

func TestReadZones(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"firewalld.conf":  "# DefaultZone=no\nDefaultZone=home\n",
		"zones/dmz.xml":   `<?xml version="1.0"?><zone target="DROP"><interface name="ext0"/><service name="ssh"/><interface name="ext1"/></zone>`,
		"zones/wrong.xml": `<zone`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Zones{Default: "home", Of: map[string]string{"ext0": "dmz", "ext1": "dmz"}}
	if diff := cmp.Diff(want, readZones(dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if z := readZones(filepath.Join(dir, "absent")); z.Default != "public" {
		t.Errorf("without files: %+v", z)
	}
}

func TestUFWRoute(t *testing.T) {
	for rule, want := range map[string]string{
		"iptables -t filter -A ufw-user-forward -i ext0 -o portreeve0 -d 172.16.20.254/32 -p tcp -m tcp --dport 25 -j ACCEPT": "ufw route allow in on ext0 out on portreeve0 to 172.16.20.254 port 25 proto tcp",
		"iptables -t filter -A ufw-user-forward -s 10.0.0.0/8 -o portreeve0 -j DROP":                                          "ufw route deny out on portreeve0 from 10.0.0.0/8",
		"iptables -t filter -A ufw-user-forward -o portreeve0 -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset":     "ufw route reject out on portreeve0 to any port 25 proto tcp",
		"iptables -t filter -A ufw-user-forward -o portreeve0 -m limit --limit 3/min -j ACCEPT":                               "",
		"iptables -t filter -A ufw-user-forward ! -i ext0 -o portreeve0 -j ACCEPT":                                            "",
		"iptables -t filter -A ufw-before-forward -o portreeve0 -j ufw-user-forward":                                          "",
	} {
		if got, _ := ufwRoute(strings.Fields(rule)); got != want {
			t.Errorf("%s: %q, want %q", rule, got, want)
		}
	}
}

// TestWatch: a packet of TCP that comes in is seen with its interface; others, and what
// goes out, are not.
func TestWatch(t *testing.T) {
	shell(t, "ip link set ext0 up; ip link set dmz0 up; ip addr add 172.16.20.1/24 dev dmz0; ip neigh replace 172.16.20.9 lladdr $(ip -br link show ext0 | awk '{print $3}') dev dmz0")
	t.Cleanup(func() { shell(t, "ip addr flush dev dmz0") })
	to, other := netip.MustParseAddr("172.16.20.9"), netip.MustParseAddr("172.16.20.10")
	w, err := watchFor([]netip.Addr{to, other})
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", other.String()+":9")
	if err != nil {
		t.Fatal(err)
	}
	udp.Write([]byte("x"))
	udp.Close()
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	if c, err := d.Dial("tcp", to.String()+":9"); err == nil {
		c.Close()
	}
	if diff := cmp.Diff(map[netip.Addr]string{to: "ext0"}, w.end(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReport: an error hides what it explains of the same thing, and only that.
func TestReport(t *testing.T) {
	about := func(code string, s finding.Severity, subject, about string) remark {
		return remark{subject: subject, about: []string{about}, Finding: finding.Finding{Severity: s, Code: code, Object: "origin {}", Text: "x", Remedy: "do {}"}}
	}
	e := begin(nil, Machine{})
	for _, r := range []remark{
		about("return-route", finding.Error, "a", "origin a"),
		about("return-route", finding.Error, "b", "origin b"),
		about("return-route", finding.Error, "c", "origin c"),
		about("output-drops", finding.Error, "a", "origin a"),
		about("input-drops", finding.Warning, "b", "origin b"),
	} {
		e.remark(r)
	}
	e.problem("drift", "kernel side", "{} stays as it is", "")
	var got []string
	for _, f := range e.report() {
		got = append(got, f.Code+" "+f.String())
	}
	want := []string{"return-route origin b, c: x; do b && do c", "output-drops origin a: x; do a", "input-drops origin b: x; do b", "drift kernel side: {} stays as it is"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
