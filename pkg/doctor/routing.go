package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
)

// localTable is where the kernel keeps the gateway's own addresses; its rule
// comes first everywhere and takes nothing that we want.
const localTable = 255

// rules judges the policy rules of others: those that use our mark bits, those
// that come before ours and would route our packets elsewhere, and those that
// lead into our table.
func (e *exam) rules() {
	k := e.c.Kernel
	both := k.ClientMark | k.OriginMark
	for _, r := range e.m.Rules {
		object := "rule " + r.String()
		switch {
		case e.ours(r):
		case r.Table == k.Table:
			e.problem(object, fmt.Sprintf("it leads to routing table %d, which is portreeve's", k.Table),
				"set kernel.table to a number that ip rule and ip route show table all do not show")
		case r.Mask&both != 0:
			e.warn(object, fmt.Sprintf("it looks at mark bits 0x%x, which portreeve sets", r.Mask&both),
				"set kernel.client_mark and kernel.origin_mark to bits that nobody else uses")
		case r.Priority < k.Priority && r.Table != localTable && e.catches(r):
			e.warn(object, "it comes before portreeve's rules and may route steered packets elsewhere",
				fmt.Sprintf("set kernel.priority below %d", r.Priority))
		}
	}
	for _, r := range e.m.Table {
		if !r.Ours {
			e.problem("route "+r.String(), fmt.Sprintf("it is in routing table %d, which is portreeve's", k.Table), "set kernel.table to a free number")
		}
	}
}

// ours tells our rules by what Build makes.
func (e *exam) ours(r route.PolicyRule) bool {
	k := e.c.Kernel
	return r.Table == k.Table && r.Mark == r.Mask && (r.Mark == k.ClientMark || r.Mark == k.OriginMark) &&
		slices.Contains(e.interfaces(), r.In)
}

// catches reports whether a rule without a mark of ours could match packets
// that come in by one of our interfaces.
func (e *exam) catches(r route.PolicyRule) bool {
	if r.In != "" && !slices.Contains(e.interfaces(), r.In) {
		return false
	}
	return r.Out == "" && r.Mask == 0 && r.Table != 0
}

// sysctls explains the settings that break setups like this one elsewhere,
// and names the one that can break it here. None is ever written.
func (e *exam) sysctls() {
	for _, name := range e.interfaces() {
		if e.rpFilter(name) == 1 {
			e.info("sysctl net.ipv4.conf."+name+".rp_filter", "strict: replies to a packet must leave by the interface that it came in by, which holds where routing is symmetric")
		}
	}
	for _, s := range []struct{ path, text string }{
		{"net/ipv4/conf/all/src_valid_mark", "harmless, for the rules of portreeve name their interface"},
		{"net/ipv4/tcp_fwmark_accept", "harmless, for the rules of portreeve name their interface"},
	} {
		if e.m.Sysctl(strings.Split(s.path, "/")...) == "1" {
			e.info("sysctl "+strings.ReplaceAll(s.path, "/", "."), s.text)
		}
	}
	e.forwarding()
}

// rpFilter is the mode in force: the kernel takes the higher of the interface's
// and that of all.
func (e *exam) rpFilter(name string) int {
	mode := max(e.m.Sysctl("net", "ipv4", "conf", "all", "rp_filter"), e.m.Sysctl("net", "ipv4", "conf", name, "rp_filter"))
	switch mode {
	case "1":
		return 1
	case "2":
		return 2
	}
	return 0
}

// forwarding judges whether the kernel forwards what services that fail open
// leave to it.
func (e *exam) forwarding() {
	needs := map[plan.Family]string{}
	for _, s := range e.c.Services {
		for _, t := range s.Intercept {
			if s.Fail == config.FailOpen {
				needs[plan.FamilyOf(t.Prefix.Addr())] = s.Name
			}
		}
	}
	for _, f := range []struct {
		family plan.Family
		path   []string
	}{
		{plan.IPv4, []string{"net", "ipv4", "ip_forward"}},
		{plan.IPv6, []string{"net", "ipv6", "conf", "all", "forwarding"}},
	} {
		name := strings.Join(f.path, ".")
		if service, open := needs[f.family]; open && e.m.Sysctl(f.path...) == "0" {
			e.warn("sysctl "+name, fmt.Sprintf("it is 0, so service %s cannot fail open: the kernel forwards no %s", service, f.family),
				"sysctl -w "+name+"=1")
		}
	}
}

// origins judges the route to each origin.
func (e *exam) origins() {
	for _, addr := range sorted(e.m.Routes) {
		r := e.m.Routes[addr]
		object := "origin " + addr.String()
		switch {
		case r.Err != nil:
			e.problem(object, "no route leads to it: "+r.Err.Error(), "add one")
		case r.Type == "local":
		case !slices.Contains(e.c.Interfaces.Origin, r.Interface):
			e.problem(object, fmt.Sprintf("packets to it leave by %s, which is not on the origin side, so its replies are not looked for there", r.Interface),
				fmt.Sprintf("add %s to interfaces.origin, or correct the route", r.Interface))
		}
	}
}

func sorted(m map[netip.Addr]Route) []netip.Addr {
	var all []netip.Addr
	for a := range m {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// listeners tells which local servers the inspector takes connections from.
func (e *exam) listeners() {
	for _, s := range e.c.Services {
		for _, t := range s.Listen {
			for _, l := range e.m.Listeners {
				if !hears(l, t) {
					continue
				}
				e.info("listener "+l.String(), fmt.Sprintf("a local server; connections to %s by %s go to service %s and not to it, all others still do",
					t, strings.Join(e.c.Interfaces.Client, ", "), s.Name))
			}
		}
	}
}

// hears reports whether a socket that listens on l would get connections to t.
func hears(l netip.AddrPort, t config.Target) bool {
	if l.Port() != t.Port {
		return false
	}
	if l.Addr().IsUnspecified() {
		return l.Addr().Is6() || t.Prefix.Addr().Is4()
	}
	return t.Prefix.Contains(l.Addr())
}
