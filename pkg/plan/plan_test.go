package plan

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// gateway is the machine of the manual's topology.
var gateway = Facts{
	Interfaces: []string{"lo", "ext0", "dmz0"},
	Local: []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"),
		netip.MustParseAddr("172.16.40.1"), netip.MustParseAddr("172.16.20.1"),
		netip.MustParseAddr("fd00:40::1"), netip.MustParseAddr("fd00:20::1"),
	},
	TCX: true,
}

// parse reads a configuration of the two-armed gateway with the given
// services.
func parse(t testing.TB, services string) *config.Config {
	t.Helper()
	c, err := config.Parse("portreeve.yaml", []byte("interfaces: {client: [ext0], origin: [dmz0]}\nservices:\n"+services), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBuild compares the plans of the configurations in testdata with the
// plans printed beside them.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Parse(file, data, nil)
			if err != nil {
				t.Fatal(err)
			}
			facts := gateway
			facts.TCX = !strings.Contains(file, "old-kernel")
			facts.NFLinks, facts.Match = facts.TCX, "/sys/fs/bpf/portreeve/4026531840/steer_forward_match"
			facts.Legacy = strings.Contains(file, "legacy")
			var b strings.Builder
			for _, i := range Build(c, facts) {
				b.WriteString(i.String() + "\n")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".plan"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("run the test with -update if this is meant:\n%s", diff)
			}
		})
	}
}

func TestDiffAddsUpwardsAndRemovesDownwards(t *testing.T) {
	items := Build(parse(t, transit), gateway)
	add := Diff(nil, items)
	if !slices.IsSortedFunc(add, func(a, b Change) int { return int(a.Item.Kind()) - int(b.Item.Kind()) }) {
		t.Errorf("additions out of order: %v", add)
	}
	remove := Diff(items, nil)
	slices.Reverse(remove)
	for n := range add {
		if add[n].Item != remove[n].Item {
			t.Fatalf("removal is not the reverse of addition at %d: %s, %s", n, add[n], remove[n])
		}
	}
}

// With other programs pinned, the rules that ask one are made anew, and no crash
// in between leaves a stale one.
func TestDiffMakesRulesAnew(t *testing.T) {
	asks := Filter{Family: IPv4, Legacy: true, Table: "filter", Chain: "PORTREEVE-FORWARD", Spec: "-m bpf --object-pinned /a/b -j DROP"}
	other := Filter{Family: IPv4, Legacy: true, Table: "filter", Chain: "PORTREEVE-INPUT", Spec: "-j RETURN"}
	for name, test := range map[string]struct {
		have, want []Item
		changes    string
	}{
		"same":         {[]Item{Objects{}, asks, other}, []Item{Objects{}, asks, other}, ""},
		"other build":  {[]Item{Objects{Fault: "old"}, asks, other}, []Item{Objects{}, asks, other}, "- " + asks.String() + "\n~ bpf maps and programs\n+ " + asks.String() + "\n"},
		"pins lost":    {[]Item{asks, other}, []Item{Objects{}, asks, other}, "- " + asks.String() + "\n+ bpf maps and programs\n+ " + asks.String() + "\n"},
		"not wanted":   {[]Item{asks, other}, []Item{Objects{}, other}, "- " + asks.String() + "\n+ bpf maps and programs\n"},
		"new":          {nil, []Item{Objects{}, asks}, "+ bpf maps and programs\n+ " + asks.String() + "\n"},
		"detach first": {[]Item{asks, other}, nil, "- " + asks.String() + "\n- " + other.String() + "\n"},
	} {
		var got strings.Builder
		for _, c := range Diff(test.have, test.want) {
			got.WriteString(c.String() + "\n")
		}
		if diff := cmp.Diff(test.changes, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDiffOfEqualPlansIsEmpty(t *testing.T) {
	items := Build(parse(t, transit), gateway)
	if d := Diff(slices.Clone(items), items); len(d) != 0 {
		t.Errorf("changes %v", d)
	}
}

// A specific binding is there before the wider one and goes after it: its
// address is never caught by the wider one in between.
func TestDiffBindsSpecificFirst(t *testing.T) {
	wide := Binding{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Port: 25, Service: "a", Transit: true}
	narrow := Binding{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Port: 25, Service: "b", Transit: true}
	add := Diff(nil, []Item{wide, narrow})
	remove := Diff([]Item{wide, narrow}, nil)
	if add[0].Item != Item(narrow) || remove[0].Item != Item(wide) {
		t.Errorf("add %v, remove %v", add, remove)
	}
}

func TestUndoTakesBack(t *testing.T) {
	was, is := Service{Name: "mx"}, Service{Name: "mx", Open: true}
	for _, c := range []Change{{Op: Add, Item: is}, {Op: Remove, Item: is}, {Op: Replace, Item: is, Old: was}} {
		if c.Undo().Undo() != c {
			t.Errorf("undo of undo of %s is %s", c, c.Undo().Undo())
		}
	}
}

const transit = "  - {name: mx, intercept: [\"172.16.20.0/24:25\"], fail: open}\n"

func TestJudge(t *testing.T) {
	for name, test := range map[string]struct {
		services string
		facts    func(*Facts)
		want     string // "" for none
	}{
		"fits": {transit, nil, ""},
		"interface missing": {transit, func(f *Facts) { f.Interfaces = []string{"lo", "dmz0"} },
			`portreeve.yaml: interfaces.client[0]: interface "ext0" does not exist on this machine; use one of dmz0, or create it first`},
		"client side in a VRF": {transit, func(f *Facts) { f.VRFs = map[string]string{"ext0": "red"} },
			`portreeve.yaml: interfaces.client[0]: interface "ext0" is in the VRF red, and portreeve steers no mail in VRFs; take it out (ip link set ext0 nomaster), or use an interface that is in no VRF`},
		"origin side in a VRF": {transit, func(f *Facts) { f.VRFs = map[string]string{"dmz0": "red"} },
			`portreeve.yaml: interfaces.origin[0]: interface "dmz0" is in the VRF red, and portreeve steers no mail in VRFs; take it out (ip link set dmz0 nomaster), or use an interface that is in no VRF`},
		"a VRF": {transit, func(f *Facts) { f.VRFs = map[string]string{"ext0": "ext0"} },
			`portreeve.yaml: interfaces.client[0]: interface "ext0" is a VRF, and portreeve steers no mail in VRFs; use interfaces that are in no VRF`},
		"another interface in a VRF": {transit, func(f *Facts) { f.VRFs = map[string]string{"lan0": "red", "red": "red"} }, ""},
		"origin on the gateway": {`  - {name: mx, listen: ["172.16.40.1:25"], origins: ["172.16.20.1:2525"]}` + "\n", nil,
			"portreeve.yaml: services[0].origins[0]: service mx would send mail back to the gateway: 172.16.20.1 is its own address, and a forged connection to it gets no reply; name the address of a server behind the gateway"},
		"origin on the gateway, not forged": {`  - {name: mx, listen: ["172.16.40.1:25"], origins: ["172.16.20.1:2525"], forge: {address: never}}` + "\n", nil, ""},
		"intercepts the gateway": {`  - {name: mx, intercept: ["172.16.20.1:25"]}` + "\n", nil,
			"portreeve.yaml: services[0].intercept[0]: service mx would intercept mail for the gateway: 172.16.20.1 is its own address; put it under listen, or name an origin's address"},
		"listens elsewhere": {`  - {name: mx, listen: ["172.16.40.9:25"], origins: ["172.16.20.254:25"]}` + "\n", nil,
			"portreeve.yaml: services[0].listen[0]: no address of this gateway is in 172.16.40.9/32, so no connection to it arrives here; add the address to an interface, or put it under intercept if it is an origin's"},
	} {
		t.Run(name, func(t *testing.T) {
			facts := gateway
			if test.facts != nil {
				test.facts(&facts)
			}
			got := ""
			if l := Judge(parse(t, test.services), facts); len(l) > 0 {
				got = l.Error()
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Without netfilter links and without rules there is no wall at FORWARD.
func TestJudgeWarnsOfNoWall(t *testing.T) {
	const want = "portreeve.yaml: kernel.netfilter: it is off, and without rules nothing stops connections to origins that pass portreeve and leave by an interface that is not on the origin side; use netfilter: auto, or Linux 6.4 or later with datapath: auto, which needs no rules for that"
	for _, test := range []struct {
		links    bool
		datapath config.Datapath
		rules    config.Netfilter
		services string
		want     string
	}{
		{false, config.DatapathAuto, config.NetfilterOff, transit, want},
		{true, config.DatapathClsact, config.NetfilterOff, transit, want},
		{true, config.DatapathAuto, config.NetfilterOff, transit, ""},
		{false, config.DatapathAuto, config.NetfilterAuto, transit, ""},
		{false, config.DatapathAuto, config.NetfilterOff, `  - {name: mx, listen: ["172.16.40.1:25"], origins: ["172.16.20.254:25"]}` + "\n", ""},
	} {
		c := parse(t, test.services)
		c.Kernel.Datapath, c.Kernel.Netfilter = test.datapath, test.rules
		facts := gateway
		facts.NFLinks = test.links
		got := ""
		if l := Judge(c, facts); len(l) > 0 {
			got = l.Error()
		}
		if got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// SYNs that shall meet FORWARD have to be forwarded, in each family and by each
// interface of the client side.
func TestJudgeForwarding(t *testing.T) {
	const v4 = "portreeve.yaml: kernel.forward_rules: connections to addresses under intercept have to meet the rules of FORWARD, and the kernel forwards no IPv4 that comes in by ext0; sysctl -w net.ipv4.ip_forward=1 # and write it into /etc/sysctl.d, or it is lost at boot; or set kernel.forward_rules to skip"
	addressed := `  - {name: mx, listen: ["172.16.40.1:25"], origins: ["172.16.20.254:25"]}` + "\n"
	for _, test := range []struct {
		services  string
		rules     config.ForwardRules
		forwarded map[string][]Family
		want      string
	}{
		{transit, config.ForwardHonour, map[string][]Family{"ext0": {}}, v4},
		{transit, config.ForwardHonour, map[string][]Family{"ext0": {IPv6}, "dmz0": {IPv4}}, v4},
		{transit, config.ForwardHonour, map[string][]Family{"ext0": {IPv4}}, ""},
		{transit, config.ForwardHonour, nil, ""},
		{transit, config.ForwardSkip, map[string][]Family{"ext0": {}}, ""},
		{addressed, config.ForwardHonour, map[string][]Family{"ext0": {}}, ""},
	} {
		c := parse(t, test.services)
		c.Kernel.ForwardRules = test.rules
		facts := gateway
		facts.Forwarding = test.forwarded
		got := ""
		if l := Judge(c, facts); len(l) > 0 {
			got = l.Error()
		}
		if got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// The kernel says of what came in by an interface in a VRF that it came in by the
// VRF: that is the name to let pass.
func TestJudgeBypassInVRF(t *testing.T) {
	c := parse(t, transit)
	facts := gateway
	facts.Interfaces = append(slices.Clone(facts.Interfaces), "lan0", "red")
	facts.VRFs = map[string]string{"lan0": "red", "red": "red"}
	c.Interfaces.Bypass = []string{"lan0"}
	const want = `portreeve.yaml: interfaces.bypass[0]: interface "lan0" is in the VRF red: to the kernel, what comes in by it came in by red; name red in its place`
	if l := Judge(c, facts); !l.Failed() || l.Error() != want {
		t.Errorf("got  %v\nwant %s", l, want)
	}
	c.Interfaces.Bypass = []string{"red"}
	if l := Judge(c, facts); len(l) > 0 {
		t.Errorf("findings %v", l)
	}
}

func TestJudgeRefusesTCXWhereThereIsNone(t *testing.T) {
	c := parse(t, transit)
	c.Kernel.Datapath = config.DatapathTCX
	facts := gateway
	facts.TCX = false
	if l := Judge(c, facts); !l.Failed() || !strings.Contains(l.Error(), "6.6") {
		t.Errorf("findings %v", l)
	}
}

func TestBypassKeepsGatewayOutOfInterceptedPrefix(t *testing.T) {
	items := Build(parse(t, transit), gateway)
	want := Binding{Prefix: netip.MustParsePrefix("172.16.20.1/32"), Port: 25}
	if !slices.Contains(items, Item(want)) {
		t.Errorf("no bypass for the gateway's own address in %v", items)
	}
}
