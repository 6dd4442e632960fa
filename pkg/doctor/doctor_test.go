package doctor

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
	"github.com/portreeve/portreeve/testenv/alone"
)

func TestMain(m *testing.M) { alone.Main(m, "link add ext0 type veth peer name dmz0") }

const file = `
interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    listen: ["172.16.40.1:25"]
    intercept: ["172.16.20.254:25"]
    origins: ["172.16.20.254:25"]
    fail: open
limits: {sessions: 100}
`

func parse(t *testing.T) *config.Config {
	t.Helper()
	c, err := config.Parse("gw.yaml", []byte(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// healthy is a gateway with nothing to complain of, attached.
func healthy() Machine {
	origin := netip.MustParseAddr("172.16.20.254")
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	return Machine{
		Facts: plan.Facts{
			Interfaces: []string{"ext0", "dmz0"}, TCX: true,
			Local: []netip.Addr{netip.MustParseAddr("172.16.40.1"), netip.MustParseAddr("172.16.20.1")},
		},
		Features: []steer.Feature{{Name: "sk_lookup programs", Kernel: "5.9", Needed: true}, {Name: "TCX links", Kernel: "6.6"}},
		Attached: true,
		Alive: steer.Alive{
			Instance: 7, Age: time.Second, Limit: 3 * time.Second,
			Services: []steer.ServiceAlive{{Name: "mx", Open: true, IPv4: true, IPv6: true}},
		},
		Links: []route.Link{
			{Name: "ext0", Ethernet: true, Up: true, Carrier: true, Addresses: prefix("172.16.40.1/24")},
			{Name: "dmz0", Ethernet: true, Up: true, Carrier: true, Addresses: prefix("172.16.20.1/24")},
		},
		Rules: []route.PolicyRule{
			{Family: plan.IPv4, Priority: 0, Table: localTable},
			{Family: plan.IPv4, Priority: 25, In: "ext0", Mark: 0x01000000, Mask: 0x01000000, Table: 2525, Protocol: 2},
			{Family: plan.IPv4, Priority: 32766, Table: 254},
		},
		Table:    []route.TableRoute{{Family: plan.IPv4, Table: 2525, Ours: true}},
		Sysctl:   func(...string) string { return "1" },
		Firewall: &netfilter.Survey{},
		Routes:   map[netip.Addr]Route{origin: {Path: route.Path{Type: "unicast", Interface: "dmz0"}}},
		Probes:   []returns.Trial{{Origin: netip.AddrPortFrom(origin, 25), From: netip.MustParseAddr("192.0.2.7")}},
		Files:    1024,
	}
}

func TestReadSaved(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{
		"none":    "",
		"marks":   "*filter\n-A PORTREEVE-INPUT -m mark --mark 0x1000000/0x1000000 -j ACCEPT\nCOMMIT\n",
		"foreign": "*filter\n-A INPUT -m bpf --object-pinned /sys/fs/bpf/x -j DROP\nCOMMIT\n",
		"ours":    "*filter\n:PORTREEVE-FORWARD - [0:0]\n-A PORTREEVE-FORWARD -m bpf --object-pinned /sys/fs/bpf/portreeve/1/steer_forward_match -j DROP\n",
	} {
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := readSaved(append(files, filepath.Join(dir, "absent")))
	if want := []string{filepath.Join(dir, "ours")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHealthyMachineHasNoComplaint(t *testing.T) {
	for _, f := range Examine(parse(t), healthy()) {
		if f.Severity != finding.Info {
			t.Errorf("%s: %s", f.Severity, f)
		}
	}
}

// seen are the codes that tests have met.
var seen = map[string]bool{}

func noted(l finding.List) finding.List {
	for _, f := range l {
		seen[f.Code] = true
	}
	return l
}

// TestEachFinding: each has its test, and its code is in the table.
func TestEachFinding(t *testing.T) {
	t.Run("machine", testFindings)
	t.Run("firewall", testFirewallFindings)
	t.Run("astray", testRulesAstray)
	t.Run("TLS", testTLSFindings)
	if strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return // some of them only
	}
	known := map[string]bool{}
	for _, c := range Codes {
		known[c.Name] = true
		if !seen[c.Name] {
			t.Errorf("no test meets %s", c.Name)
		}
		for _, h := range c.Hides {
			if !slices.ContainsFunc(Codes, func(c Code) bool { return c.Name == h }) {
				t.Errorf("%s hides %s, which there is not", c.Name, h)
			}
		}
	}
	for code := range seen {
		if !known[code] {
			t.Errorf("the code %q is in no table", code)
		}
	}
}

// Each row makes one thing wrong with the healthy machine and expects the
// finding about it, and no other complaint.
func testFindings(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // descriptors depend on it
	missing := fmt.Errorf("try: %w", ebpf.ErrNotSupported)
	for name, test := range map[string]struct {
		spoil    func(*config.Config, *Machine)
		severity finding.Severity
		want     string
	}{
		"feature missing": {func(_ *config.Config, m *Machine) { m.Features[0].Err = missing }, finding.Error,
			"kernel: this kernel has no sk_lookup programs; run Linux 5.9 or later with BPF enabled"},
		"feature unknown": {func(_ *config.Config, m *Machine) { m.Features[0].Err = errors.New("EPERM") }, finding.Error,
			"kernel: cannot tell whether there are sk_lookup programs: EPERM; run doctor as root"},
		"data path, new kernel": {func(*config.Config, *Machine) {}, finding.Info,
			"kernel: data path: TCX links, which this kernel has"},
		"data path, old kernel": {func(_ *config.Config, m *Machine) { m.Facts.TCX = false; m.Features[1].Err = missing }, finding.Info,
			"kernel: data path: clsact filters, for this kernel has no TCX links (Linux 6.6 and later)"},
		"data path, told": {func(c *config.Config, _ *Machine) { c.Kernel.Datapath = config.DatapathClsact }, finding.Info,
			"kernel: data path: clsact filters, as kernel.datapath asks for"},
		"no bpffs": {func(_ *config.Config, m *Machine) {
			m.BPFFS = fmt.Errorf("%w at /sys/fs/bpf", steer.ErrNoBPFFS)
		}, finding.Error, "BPF file system: none is mounted at /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf"},
		"not attached": {func(_ *config.Config, m *Machine) { m.Attached, m.Probes = false, nil }, finding.Info,
			"return routes: not tried: replies to a forged address are claimed only while attached"},
		"drift": {func(_ *config.Config, m *Machine) {
			m.Drift = []plan.Change{{Op: plan.Add, Item: plan.Lookup{}}}
		}, finding.Warning, "kernel side: what is attached differs from gw.yaml in 1 things, the first: + link sk_lookup; portreeve attach -c gw.yaml"},
		"inspector alive": {func(*config.Config, *Machine) {}, finding.Info,
			"inspector: it is alive: its last heartbeat was 1s ago, and the limit is 3s"},
		"no inspector": {func(_ *config.Config, m *Machine) {
			m.Alive = steer.Alive{Limit: 3 * time.Second, Services: []steer.ServiceAlive{{Name: "mx"}, {Name: "let", Open: true}}}
		}, finding.Error, "inspector: none runs, so that connections to mx are refused or dropped, and connections to let pass by uninspected; portreeve run -c gw.yaml"},
		"inspector ended": {func(_ *config.Config, m *Machine) {
			m.Alive.Age, m.Alive.Services[0].IPv4, m.Alive.Services[0].IPv6 = time.Minute, false, false
		}, finding.Error,
			"inspector: none runs, so that connections to mx pass by uninspected; portreeve run -c gw.yaml"},
		"inspector hung": {func(_ *config.Config, m *Machine) { m.Alive.Age, m.Alive.Services[0].Open = 4*time.Second, false }, finding.Error,
			"inspector: it is hung: its last heartbeat was 4s ago, and the limit is 3s, so that connections to mx are refused or dropped; look why its process does not get further, or end it and start another: portreeve run -c gw.yaml"},
		"inspector of another file": {func(_ *config.Config, m *Machine) { m.Alive.Services = []steer.ServiceAlive{{Name: "mail"}} }, finding.Error,
			"inspector: nobody serves, so that connections to mail are refused or dropped; one that lived 1s ago has just ended, or its services or settings are not those that are attached; portreeve run -c gw.yaml --attach"},
		"service without inspector": {func(_ *config.Config, m *Machine) {
			m.Alive.Services = append(m.Alive.Services, steer.ServiceAlive{Name: "more"})
		}, finding.Error, "inspector: it does not serve all that is attached, so that connections to more are refused or dropped; portreeve run -c gw.yaml --attach"},
		"not attached, no inspector": {func(_ *config.Config, m *Machine) { m.Attached, m.Probes, m.Alive = false, nil, steer.Alive{} }, finding.Info,
			"kernel side: not attached; portreeve attach would install it"},
		"interface missing": {func(_ *config.Config, m *Machine) { m.Facts.Interfaces = []string{"dmz0"}; m.Links = m.Links[1:] }, finding.Error,
			`gw.yaml: interfaces.client[0]: interface "ext0" does not exist on this machine; use one of dmz0, or create it first`},
		"saved rules": {func(_ *config.Config, m *Machine) { m.Saved = []string{"/etc/iptables/rules.v4"} }, finding.Error,
			"/etc/iptables/rules.v4: it holds a rule of portreeve that asks a BPF program, which is not there at boot: iptables-restore then loads no rule of the file at all; portreeve detach, save the rules again, then portreeve attach"},
		"in a VRF": {func(_ *config.Config, m *Machine) { m.Facts.VRFs = map[string]string{"ext0": "red"} }, finding.Error,
			`gw.yaml: interfaces.client[0]: interface "ext0" is in the VRF red, and portreeve steers no mail in VRFs; take it out (ip link set ext0 nomaster), or use an interface that is in no VRF`},
		"bridge port": {func(_ *config.Config, m *Machine) { m.Links[0].Master, m.Links[0].MasterOf = "br0", "bridge" }, finding.Error,
			"interface ext0: it is a port of the bridge br0, whose packets do not arrive by it; name br0 in its place"},
		"down":       {func(_ *config.Config, m *Machine) { m.Links[1].Up = false }, finding.Warning, "interface dmz0: it is down; ip link set dmz0 up"},
		"no carrier": {func(_ *config.Config, m *Machine) { m.Links[1].Carrier = false }, finding.Warning, "interface dmz0: it has no carrier; check the cable, or the other end"},
		"no address": {func(_ *config.Config, m *Machine) { m.Links[1].Addresses = nil }, finding.Warning,
			"interface dmz0: it has no address; a gateway routes by its addresses: give it one, or name the VLAN or bridge above it"},
		"foreign rule in our table": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 7000, Table: 2525})
		}, finding.Error, "rule IPv4 pref 7000 lookup 2525 proto 0: it leads to routing table 2525, which is portreeve's; set kernel.table (or loop_table) to a number that ip rule and ip route show table all do not show"},
		"foreign route in our table": {func(_ *config.Config, m *Machine) {
			m.Table = append(m.Table, route.TableRoute{Family: plan.IPv4, Table: 2525, Type: "unicast", To: netip.MustParsePrefix("192.0.2.0/24")})
		}, finding.Error, "route unicast 192.0.2.0/24 table 2525 proto 0: it is in routing table 2525, which is portreeve's; set kernel.table (or loop_table) to a free number"},
		"foreign use of a mark": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 7000, Mark: 0x03000000, Mask: 0xff000000, Table: 7})
		}, finding.Warning, "rule IPv4 pref 7000 fwmark 0x3000000/0xff000000 lookup 7 proto 0: it looks at mark bits 0x7000000, which portreeve sets; set kernel.client_mark, kernel.origin_mark and kernel.loop_mark to bits that nobody else uses"},
		"rule before ours": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 10, In: "ext0", Table: 7})
		}, finding.Warning, "rule IPv4 pref 10 iif ext0 lookup 7 proto 0: it comes before portreeve's rules and may route steered packets elsewhere; set kernel.priority below 10"},
		"rule before ours, other interface": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 10, In: "lan0", Table: 7})
		}, finding.Info, "kernel side: attached as gw.yaml asks for"},
		"strict rp_filter": {func(*config.Config, *Machine) {}, finding.Info,
			"interface ext0, dmz0: its reverse path filter (sysctl rp_filter) is strict: replies to a packet must leave by the interface that it came in by, which holds where routing is symmetric"},
		"src_valid_mark": {func(*config.Config, *Machine) {}, finding.Info,
			"sysctl net.ipv4.conf.all.src_valid_mark: harmless, for the rules of portreeve name their interface"},
		"tcp_fwmark_accept": {func(*config.Config, *Machine) {}, finding.Info,
			"sysctl net.ipv4.tcp_fwmark_accept: harmless, for the rules of portreeve name their interface"},
		"no forwarding": {func(_ *config.Config, m *Machine) { m.Facts.Forwarding = map[string][]plan.Family{"ext0": {plan.IPv6}} }, finding.Error,
			"gw.yaml: kernel.forward_rules: connections to addresses under intercept have to meet the rules of FORWARD, and the kernel forwards no IPv4 that comes in by ext0; sysctl -w net.ipv4.ip_forward=1 # and write it into /etc/sysctl.d, or it is lost at boot; or set kernel.forward_rules to skip"},
		"no forwarding, no loop": {func(c *config.Config, m *Machine) {
			c.Kernel.ForwardRules = config.ForwardSkip
			m.Sysctl = func(path ...string) string {
				return map[bool]string{true: "0", false: "1"}[path[len(path)-1] == "ip_forward"]
			}
		}, finding.Warning, "sysctl net.ipv4.ip_forward: it is 0, so service mx cannot fail open: the kernel forwards no IPv4; sysctl -w net.ipv4.ip_forward=1 # and write it into /etc/sysctl.d, or it is lost at boot"},
		"networkd drops routes": {func(_ *config.Config, m *Machine) { m.Networkd = Networkd{Running: true, DropsRoutes: true} }, finding.Warning,
			"systemd-networkd: it may remove foreign routes when it starts, portreeve's among them if it manages lo; mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\n' >/etc/systemd/networkd.conf.d/portreeve.conf # read when networkd starts; portreeve attach puts a lost route back"},
		"networkd drops rules": {func(_ *config.Config, m *Machine) { m.Networkd = Networkd{Running: true, DropsRules: true} }, finding.Info,
			"systemd-networkd: it removes foreign policy rules when it starts; those of portreeve bear the protocol kernel, which it spares"},
		"local listener": {func(_ *config.Config, m *Machine) {
			m.Listeners = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:25")}
		}, finding.Info, "listener 0.0.0.0:25: a local server; connections to 172.16.40.1:25 by ext0 go to service mx and not to it, all others still do"},
		"no route": {func(_ *config.Config, m *Machine) {
			m.Routes = map[netip.Addr]Route{netip.MustParseAddr("172.16.20.254"): {Err: errors.New("network is unreachable")}}
		}, finding.Error, "origin 172.16.20.254: no route leads to it: network is unreachable; add one"},
		"route elsewhere": {func(_ *config.Config, m *Machine) {
			m.Routes = map[netip.Addr]Route{netip.MustParseAddr("172.16.20.254"): {Path: route.Path{Type: "unicast", Interface: "ext0"}}}
		}, finding.Error, "origin 172.16.20.254: packets to it leave by ext0, which is not on the origin side, so its replies are not looked for there; add ext0 to interfaces.origin, or correct the route"},
		"origin answers": {func(*config.Config, *Machine) {}, finding.Info,
			"origin 172.16.20.254:25: it answers an address that is not this gateway's, so its replies to clients pass here"},
		"origin refuses": {func(_ *config.Config, m *Machine) { m.Probes[0].Forged = &forward.Error{Class: forward.ErrRefused} }, finding.Error,
			"origin 172.16.20.254:25: it refuses connections; its replies to clients do pass this gateway; start the mail server there, or correct the port"},
		"no return route": {func(_ *config.Config, m *Machine) { m.Probes[0].Forged = &forward.Error{Class: forward.ErrTimeout} }, finding.Error,
			"origin 172.16.20.254:25: it answers this gateway's own address, but no other: its route to its clients does not lead through this gateway, or a packet filter drops them; on the origin, make this gateway the default route, and let port 25 in from everywhere"},
		"replies by another interface": {func(_ *config.Config, m *Machine) {
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrTimeout}
			m.Replies = map[netip.Addr]string{m.Probes[0].From: "lan0"}
		}, finding.Error,
			"origin 172.16.20.254:25: its replies to clients come in by lan0, which is not on the origin side, so they are not for us; add lan0 to interfaces.origin, then portreeve attach -c gw.yaml"},
		"replies get lost": {func(_ *config.Config, m *Machine) {
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrTimeout}
			m.Replies = map[netip.Addr]string{m.Probes[0].From: "dmz0"}
		}, finding.Error,
			"origin 172.16.20.254:25: its replies to clients come in by dmz0, and are lost on this gateway; see what other findings say, and the rules of whatever filters packets here"},
		"many origins refuse": {func(c *config.Config, m *Machine) {
			m.Probes = nil
			for port := range uint16(300) {
				o := netip.AddrPortFrom(netip.MustParseAddr("172.16.20.254"), 1000+port)
				c.Services[0].Origins = append(c.Services[0].Origins, o)
				m.Probes = append(m.Probes, returns.Trial{Origin: o, Forged: &forward.Error{Class: forward.ErrRefused}})
			}
		}, finding.Error,
			"origin 172.16.20.254:1000, 172.16.20.254:1001, 172.16.20.254:1002, 172.16.20.254:1003, 172.16.20.254:1004 and 295 more: it refuses connections; its replies to clients do pass this gateway; start the mail server there, or correct the port"},
		"source routing": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 100, From: netip.MustParsePrefix("172.16.10.0/24"), Table: 7},
				route.PolicyRule{Family: plan.IPv4, Priority: 101, From: netip.MustParsePrefix("172.16.40.1/32"), Table: 7},
				route.PolicyRule{Family: plan.IPv4, Priority: 102, From: netip.MustParsePrefix("10.0.0.0/8"), Table: 8})
			m.Tables = map[uint32][]route.TableRoute{
				7: {{Family: plan.IPv4, To: netip.MustParsePrefix("0.0.0.0/0"), Interface: "ext0"}},
				8: {{Family: plan.IPv4, To: netip.MustParsePrefix("0.0.0.0/0"), Interface: "ext0"}, {Family: plan.IPv4, To: netip.MustParsePrefix("172.16.20.0/24"), Interface: "dmz0"}},
			}
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrTimeout}
		}, finding.Error,
			`origin 172.16.20.254: connections from clients in 172.16.10.0/24 leave by ext0, which is not on the origin side: the rule "IPv4 pref 100 from 172.16.10.0/24 lookup 7 proto 0" catches them by the source that they are forged with; ip rule add pref 99 to 172.16.20.254 lookup main # and write it where the other rule is made`},
		"our rule of another file": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 25, In: "old0", Mark: 0x01000000, Mask: 0x01000000, Table: 2525, Protocol: 2})
		}, finding.Info, "kernel side: attached as gw.yaml asks for"},
		"our rule of a file with other marks": {func(_ *config.Config, m *Machine) {
			m.Rules = append(m.Rules, route.PolicyRule{Family: plan.IPv4, Priority: 25, In: "ext0", Mark: 0x02000000, Mask: 0x02000000, Table: 77, Protocol: 2})
			m.Drift = []plan.Change{{Op: plan.Remove, Item: plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 0x02000000, Table: 77, Priority: 25}}}
		}, finding.Warning, "kernel side: what is attached differs from gw.yaml in 1 things, the first: - rule IPv4 pref 25 iif ext0 fwmark 0x2000000/0x2000000 lookup 77; portreeve attach -c gw.yaml"},
		"the cause hides what it explains": {func(_ *config.Config, m *Machine) {
			m.Routes = map[netip.Addr]Route{netip.MustParseAddr("172.16.20.254"): {Err: errors.New("network is unreachable")}}
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrUnreachable}
		}, finding.Error, "origin 172.16.20.254: no route leads to it: network is unreachable; add one"},
		"VRF under bypass": {func(c *config.Config, m *Machine) {
			c.Interfaces.Bypass = []string{"lan0"}
			m.Facts.Interfaces, m.Facts.VRFs = append(m.Facts.Interfaces, "lan0"), map[string]string{"lan0": "red"}
		}, finding.Error, `gw.yaml: interfaces.bypass[0]: interface "lan0" is in the VRF red: to the kernel, what comes in by it came in by red; name red in its place`},
		"no TCX": {func(c *config.Config, m *Machine) { c.Kernel.Datapath, m.Facts.TCX = config.DatapathTCX, false }, finding.Error,
			"gw.yaml: kernel.datapath: this kernel has no TCX links (Linux 6.6 and later); use datapath: auto, which takes the clsact qdisc here"},
		"an address of others": {func(c *config.Config, m *Machine) { m.Facts.Local = m.Facts.Local[1:] }, finding.Warning,
			"gw.yaml: services[0].listen[0]: no address of this gateway is in 172.16.40.1/32, so no connection to it arrives here; add the address to an interface, or put it under intercept if it is an origin's"},
		"origin is the gateway": {func(c *config.Config, m *Machine) {
			m.Facts.Local = append(m.Facts.Local, netip.MustParseAddr("172.16.20.254"))
			c.Services[0].Intercept = nil
		}, finding.Error,
			"gw.yaml: services[0].origins[0]: service mx would send mail back to the gateway: 172.16.20.254 is its own address, and a forged connection to it gets no reply; name the address of a server behind the gateway"},
		"target is the gateway": {func(c *config.Config, m *Machine) {
			c.Services[0].Intercept[0].Prefix = netip.MustParsePrefix("172.16.20.1/32")
		}, finding.Error,
			"gw.yaml: services[0].intercept[0]: service mx would intercept mail for the gateway: 172.16.20.1 is its own address; put it under listen, or name an origin's address"},
		"program of others ahead": {func(c *config.Config, m *Machine) { m.Ahead = []string{"TCX program x on ext0"} }, finding.Warning,
			"TCX program x on ext0: it comes before a program of portreeve, and can end the chain or change what that one looks at; portreeve attach -c gw.yaml # puts portreeve's own first again; a watcher does it by itself"},
		"no answer at all": {func(_ *config.Config, m *Machine) {
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrTimeout}
			m.Probes[0].Plain = &forward.Error{Class: forward.ErrTimeout, Origin: m.Probes[0].Origin}
		}, finding.Error,
			"origin 172.16.20.254:25: neither a client's address nor this gateway's own can connect to it: no answer in time; see whether it is up, and whether a packet filter lets port 25 in"},
		"cannot be tried": {func(_ *config.Config, m *Machine) {
			m.Probes[0].Forged = &forward.Error{Class: forward.ErrUnreachable, Origin: m.Probes[0].Origin}
		}, finding.Error,
			"origin 172.16.20.254:25: cannot connect to it: unreachable; see whether it is up, and ip route get for its address"},
		"origin next to clients": {func(c *config.Config, _ *Machine) { c.Interfaces.Client = append(c.Interfaces.Client, "dmz0") }, finding.Warning,
			"origin 172.16.20.254:25: it is in the network 172.16.20.0/24 of dmz0, where clients come in, too, and answers clients in there past this gateway: they are refused; let hosts in 172.16.20.0/24 connect to it directly, or give it a network of its own behind this gateway"},
		"origin next to clients, as asked for": {func(c *config.Config, _ *Machine) {
			c.Interfaces.Client = append(c.Interfaces.Client, "dmz0")
			c.Services[0].Forge.OnLink = config.OnLinkPlain
		}, finding.Info,
			"origin 172.16.20.254:25: it is in the network 172.16.20.0/24 of dmz0, where clients come in, too, and answers clients in there past this gateway: they come from this gateway's own address, as forge.on_link asks for; see that it has no rights at the origin"},
		"clients on the origin's link": {func(c *config.Config, m *Machine) {
			c.Interfaces.Client = append(c.Interfaces.Client, "dmz0")
			c.Services[0].Forge.OnLink = config.OnLinkPlain
			m.Links[1].Addresses = append(m.Links[1].Addresses, netip.MustParsePrefix("10.7.0.1/16"), netip.MustParsePrefix("fd00::1/64"))
		}, finding.Warning,
			"origin 172.16.20.254:25: clients in the network 10.7.0.0/16 are on the same link, dmz0: should it have an address or a route there, it answers them past this gateway, and they are refused after timeouts.connect; see that its route to 10.7.0.0/16 leads through this gateway"},
		"router next to clients": {func(c *config.Config, m *Machine) {
			c.Services[0].Origins = []netip.AddrPort{netip.MustParseAddrPort("10.9.0.25:25")}
			m.Routes[netip.MustParseAddr("10.9.0.25")] = Route{Path: route.Path{Type: "unicast", Interface: "dmz0", Gateway: netip.MustParseAddr("172.16.20.9")}}
			c.Interfaces.Client = append(c.Interfaces.Client, "dmz0")
		}, finding.Warning,
			"origin 10.9.0.25:25: it is reached by the router 172.16.20.9 in the network 172.16.20.0/24 of dmz0, where clients come in, too: the router may hand its replies to clients in there to them, past this gateway, and they are refused after timeouts.connect; let hosts in 172.16.20.0/24 connect to it directly, or put this gateway between them and the router"},
		"never forged": {func(c *config.Config, m *Machine) {
			c.Interfaces.Client = append(c.Interfaces.Client, "dmz0")
			c.Services[0].Forge.Address = config.ForgeNever
		}, finding.Info, "kernel side: attached as gw.yaml asks for"},
		"an interface in no list": {func(_ *config.Config, m *Machine) {
			m.Links = append(m.Links, route.Link{Name: "lan0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}},
				route.Link{Name: "spare0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}})
		}, finding.Warning, "interfaces: new connections that come in by lan0 to addresses under intercept are stopped while the kernel side is attached, for no list names the interface; name it under interfaces.client to inspect them, under interfaces.bypass to let them pass uninspected, or leave it"},
		"an interface that may pass": {func(c *config.Config, m *Machine) {
			c.Interfaces.Bypass = []string{"lan0"}
			m.Facts.Interfaces = append(m.Facts.Interfaces, "lan0")
			m.Links = append(m.Links, route.Link{Name: "lan0", Up: true, Carrier: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}})
		}, finding.Info, "kernel side: attached as gw.yaml asks for"},
		"no wall in FORWARD": {func(c *config.Config, m *Machine) { m.Facts.NFLinks = false; c.Kernel.Netfilter = config.NetfilterOff }, finding.Warning,
			"gw.yaml: kernel.netfilter: it is off, and without rules nothing stops connections to origins that pass portreeve and leave by an interface that is not on the origin side; use netfilter: auto, or Linux 6.4 or later with datapath: auto, which needs no rules for that"},
		"no wall in FORWARD by choice": {func(c *config.Config, m *Machine) {
			m.Facts.NFLinks = true
			c.Kernel.Datapath, c.Kernel.Netfilter = config.DatapathClsact, config.NetfilterOff
		}, finding.Warning,
			"gw.yaml: kernel.netfilter: it is off, and without rules nothing stops connections to origins that pass portreeve and leave by an interface that is not on the origin side; use netfilter: auto, or Linux 6.4 or later with datapath: auto, which needs no rules for that"},
		"a bridge": {func(_ *config.Config, m *Machine) { m.Links[1].Kind = "bridge" }, finding.Info,
			"interface " + healthy().Links[1].Name + ": frames that are bridged between its ports never meet IP, and neither inspector nor walls: an origin must not be behind a port of the same bridge as its clients"},
		"XDP": {func(_ *config.Config, m *Machine) { m.Links[1].XDP = true }, finding.Warning,
			"interface " + healthy().Links[1].Name + ": an XDP program is attached, which may redirect packets before the walls see them; make sure that it leaves port 25 alone"},
		"flowtable": {func(_ *config.Config, m *Machine) {
			m.Flowtables = []netfilter.Flowtable{{Table: "inet fw", Name: "f"}}
		}, finding.Warning,
			"nftables flowtable inet fw f: flows that it took up before attach pass by the routing rules until they end, unseen; attach before mail flows, or leave port 25 out of the flowtable"},
		"few descriptors": {func(_ *config.Config, m *Machine) { m.Files = 164 }, finding.Warning,
			"gw.yaml: limits.sessions: 100 sessions need 818 file descriptors, and a process here may open 164; raise the limit (LimitNOFILE=818 in the unit, or ulimit -n), or allow 19 sessions"},
	} {
		t.Run(name, func(t *testing.T) {
			c, m := parse(t), healthy()
			test.spoil(c, &m)
			expect(t, noted(Examine(c, m)), test.severity, test.want)
		})
	}
}

// TestFindingsDocumented holds findings.md to the codes that there are.
func TestFindingsDocumented(t *testing.T) {
	page, err := os.ReadFile("findings.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, table, _ := strings.Cut(string(page), "|---|---|---|\n"); table != codeTable() {
		t.Errorf("the table of findings.md is not\n%s", codeTable())
	}
}

// codeTable is the table of findings.md.
func codeTable() string {
	var b strings.Builder
	for _, c := range Codes {
		hides := ""
		if len(c.Hides) > 0 {
			hides = "`" + strings.Join(c.Hides, "`, `") + "` "
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s|\n", c.Name, c.Means, hides)
	}
	return b.String()
}

// expect wants one finding of these words, and no complaint of others.
func expect(t *testing.T, list finding.List, severity finding.Severity, want string) {
	t.Helper()
	found := false
	for _, f := range list {
		switch {
		case f.String() == want && f.Severity == severity:
			found = true
		case f.Severity != finding.Info:
			t.Errorf("unexpected %s: %s", f.Severity, f)
		}
	}
	if !found {
		t.Errorf("no %s: %s\nin:\n%v", severity, want, list)
	}
}

func TestParseListeners(t *testing.T) {
	if !littleEndian {
		t.Fatal("the sample below is of a little-endian machine; add one of this machine's")
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 012810AC:0019 630A10AC:C001 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: B80D0120000000000000000001000000:0250 00000000000000000000000000000000:0000 0A 0 0 0 0 0 0 0
`
	got, err := parseListeners(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := "[127.0.0.1:25 [2001:db8::1]:592]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if _, err := parseListeners(strings.NewReader("x\n 0: zz:19 0:0 0A\n")); err == nil {
		t.Error("no error for an unreadable address")
	}
}

func TestReadNetworkd(t *testing.T) {
	n := Networkd{DropsRules: true, DropsRoutes: true}
	n.read(strings.NewReader("[Network]\n# ManageForeignRoutes=no\nManageForeignRoutingPolicyRules = no\n"))
	if n.DropsRules || !n.DropsRoutes {
		t.Errorf("read %+v", n)
	}
}
