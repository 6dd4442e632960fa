package testenv

import (
	"strings"
	"testing"
)

// snapshot looks at the gateway.
func snapshot(t *testing.T, e *Env) Snapshot {
	t.Helper()
	s, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// gateway runs a command on the gateway.
func gateway(t *testing.T, e *Env, command string) {
	t.Helper()
	words := strings.Fields(command)
	if _, err := e.Gateway.Run(t.Context(), words[0], words[1:]...); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotSeesEveryChange(t *testing.T) {
	e := open(t, Options{})
	for _, c := range []struct{ do, undo, section string }{
		{"iptables-nft -A INPUT -j ACCEPT", "nft flush ruleset", "iptables-nft-save"},
		{"ip6tables-nft -A INPUT -j ACCEPT", "nft flush ruleset", "ip6tables-nft-save"},
		{"iptables-legacy -t raw -A OUTPUT -j ACCEPT", "iptables-legacy -t raw -F", "iptables-legacy-save"},
		{"iptables-legacy -N PORTREEVE", "iptables-legacy -X PORTREEVE", "iptables-legacy-save"},
		{"ip6tables-legacy -P INPUT DROP", "ip6tables-legacy -P INPUT ACCEPT", "ip6tables-legacy-save"},
		{"nft add table inet other", "nft delete table inet other", "nft --stateless list ruleset"},
		{"ip rule add fwmark 1 lookup 7", "ip rule del fwmark 1 lookup 7", "ip rule"},
		{"ip -6 rule add fwmark 1 lookup 7", "ip -6 rule del fwmark 1 lookup 7", "ip -6 rule"},
		{"ip route add local default dev lo table 7", "ip route flush table 7", "ip route show table all"},
		{"ip -6 route add local default dev lo table 7", "ip -6 route flush table 7", "ip -6 route show table all"},
		{"tc qdisc add dev ext0 clsact", "tc qdisc del dev ext0 clsact", "tc qdisc"},
		{"sysctl -qw net.ipv4.conf.ext0.rp_filter=1", "sysctl -qw net.ipv4.conf.ext0.rp_filter=0", "sysctls"},
		{"mkdir " + e.BPFFS + "/portreeve", "rmdir " + e.BPFFS + "/portreeve", "bpf pins"},
		{"mkdir " + e.RunDir, "rmdir " + e.RunDir, "run directory"},
		{"mkdir -p " + e.RunDir + "/lost", "rm -r " + e.RunDir, "run directory"},
	} {
		t.Run(c.do, func(t *testing.T) {
			before := snapshot(t, e)
			gateway(t, e, c.do)
			if diff := before.Diff(snapshot(t, e)); !strings.Contains(diff, c.section+":\n  ") {
				t.Errorf("difference without %q:\n%s", c.section, diff)
			}
			gateway(t, e, c.undo)
			if diff := before.Diff(snapshot(t, e)); diff != "" {
				t.Errorf("after undoing it by hand:\n%s", diff)
			}
		})
	}
}

func TestSnapshotSeesFilters(t *testing.T) {
	e := open(t, Options{})
	gateway(t, e, "tc qdisc add dev ext0 clsact")
	before := snapshot(t, e)
	gateway(t, e, "tc filter add dev ext0 ingress protocol all prio 9 u32 match u32 0 0")
	if diff := before.Diff(snapshot(t, e)); !strings.Contains(diff, "tc filter show dev ext0 ingress:\n  + ") {
		t.Errorf("the filter is not in the difference:\n%s", diff)
	}
}

// needTCX skips a test of foreign TCX programs where nobody can have any. On
// which kernels that is right, testenv/kernels checks.
func needTCX(t *testing.T) {
	t.Helper()
	has, err := HasTCX()
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		t.Skip("the kernel has no TCX")
	}
}

func TestSnapshotSeesForeignProgram(t *testing.T) {
	needTCX(t)
	e := open(t, Options{})
	before := snapshot(t, e)
	foreign, err := e.Gateway.AttachForeignTCX("ext0")
	if err != nil {
		t.Fatal(err)
	}
	diff := before.Diff(snapshot(t, e))
	if !strings.Contains(diff, "ext0 tcx ingress: program ") || !strings.Contains(diff, " foreign link ") {
		t.Errorf("the program is not in the difference:\n%s", diff)
	}
	hello(t, e, e.Client4, e.Origin4)
	packets, err := foreign.Packets()
	if err != nil || packets < 3 {
		t.Errorf("the program counted %d packets of a handshake, %v", packets, err)
	}
	if err := foreign.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(snapshot(t, e)); diff != "" {
		t.Errorf("after it is gone:\n%s", diff)
	}
}

func TestSnapshotIgnoresTraffic(t *testing.T) {
	e := open(t, Options{})
	gateway(t, e, "iptables-nft -A FORWARD -j ACCEPT")
	gateway(t, e, "iptables-legacy -A FORWARD -j ACCEPT")
	gateway(t, e, "nft add table inet other")
	gateway(t, e, "nft add chain inet other c { type filter hook forward priority 0 ; }")
	gateway(t, e, "nft add rule inet other c counter accept")
	before := snapshot(t, e)
	hello(t, e, e.Client4, e.Origin4)
	if diff := before.Diff(snapshot(t, e)); diff != "" {
		t.Errorf("a connection changed the snapshot:\n%s", diff)
	}
}

func TestDiffNamesOrder(t *testing.T) {
	a := Snapshot{map[string]string{"ip rule": "1\n2\n"}}
	b := Snapshot{map[string]string{"ip rule": "2\n1\n"}}
	if got, want := a.Diff(b), "ip rule:\n  the same lines in another order\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
