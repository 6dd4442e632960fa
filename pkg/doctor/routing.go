package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
)

// localTable is where the kernel keeps the gateway's own addresses; its rule
// comes first everywhere and takes nothing that we want.
const localTable = 255

// mainTable is where routes are that no rule is about.
const mainTable = 254

// rules judges the policy rules of others: those that use our mark bits, those
// that come before ours and would route our packets elsewhere, and those that
// lead into our table.
func (e *exam) rules() {
	k := e.c.Kernel
	for _, r := range e.m.Rules {
		object := "rule " + r.String()
		switch {
		case e.ours(r):
		case slices.Contains(e.tables(), r.Table):
			e.problem("rule-into-table", object, fmt.Sprintf("it leads to routing table %d, which is portreeve's", r.Table),
				"set kernel.table (or loop_table) to a number that ip rule and ip route show table all do not show")
		case r.Mask&e.marks() != 0:
			e.warn("rule-mark-bits", object, fmt.Sprintf("it looks at mark bits 0x%x, which portreeve sets", r.Mask&e.marks()),
				"set kernel.client_mark, kernel.origin_mark and kernel.loop_mark to bits that nobody else uses")
		case r.Priority < k.Priority && r.Table != localTable && e.catches(r):
			e.warn("rule-before", object, "it comes before portreeve's rules and may route steered packets elsewhere",
				fmt.Sprintf("set kernel.priority below %d", r.Priority))
		}
	}
	for _, r := range e.m.Table {
		if !r.Ours {
			e.problem("route-in-table", "route "+r.String(), fmt.Sprintf("it is in routing table %d, which is portreeve's", r.Table), "set kernel.table (or loop_table) to a free number")
		}
	}
}

// tables are those that are portreeve's.
func (g *gateway) tables() []uint32 {
	if plan.Loops(g.c) {
		return []uint32{g.c.Kernel.Table, g.c.Kernel.LoopTable}
	}
	return []uint32{g.c.Kernel.Table}
}

// byKernel is the protocol of our rules and routes.
const byKernel = 2

// ours tells our rules by what Build makes, and those of another file by what all of
// them have in common: the interface that they name may not be in this one.
func (g *gateway) ours(r route.PolicyRule) bool {
	k := g.c.Kernel
	one := r.Mark == k.ClientMark || r.Mark == k.OriginMark || r.Mark == k.LoopMark
	shaped := r.In != "" && r.Mark == r.Mask && one && slices.Contains(g.tables(), r.Table)
	return shaped && (r.Protocol == byKernel || slices.Contains(g.interfaces(), r.In)) || g.leftover(r)
}

// leftover reports whether attach would remove the rule: it is ours, of a file with
// other marks or another table.
func (g *gateway) leftover(r route.PolicyRule) bool {
	return slices.ContainsFunc(g.m.Drift, func(c plan.Change) bool {
		old, is := c.Item.(plan.Rule)
		return is && c.Op == plan.Remove && old.Interface == r.In && old.Mark == r.Mark && old.Table == r.Table
	})
}

// catches reports whether a rule without a mark of ours could match packets
// that come in by one of our interfaces.
func (g *gateway) catches(r route.PolicyRule) bool {
	if r.In != "" && !slices.Contains(g.interfaces(), r.In) {
		return false
	}
	return r.Out == "" && r.Mask == 0 && r.Table != 0
}

// sysctls explains the settings that break setups like this one elsewhere,
// and names the one that can break it here. None is ever written.
func (e *exam) sysctls() {
	for _, name := range e.interfaces() {
		if e.rpFilter(name) == 1 {
			e.remark(remark{subject: name, Finding: finding.Finding{Severity: finding.Info, Code: "rp-filter", Object: "interface {}", Text: "its reverse path filter (sysctl rp_filter) is strict: replies to a packet must leave by the interface that it came in by, which holds where routing is symmetric"}})
		}
	}
	for _, s := range []struct{ code, path, text string }{
		{"src-valid-mark", "net/ipv4/conf/all/src_valid_mark", "harmless, for the rules of portreeve name their interface"},
		{"fwmark-accept", "net/ipv4/tcp_fwmark_accept", "harmless, for the rules of portreeve name their interface"},
	} {
		if e.m.Sysctl(strings.Split(s.path, "/")...) == "1" {
			e.info(s.code, "sysctl "+strings.ReplaceAll(s.path, "/", "."), s.text)
		}
	}
	e.forwarding()
}

// rpFilter is the mode in force: the kernel takes the higher of the interface's
// and that of all.
func (g *gateway) rpFilter(name string) int {
	mode := max(g.m.Sysctl("net", "ipv4", "conf", "all", "rp_filter"), g.m.Sysctl("net", "ipv4", "conf", name, "rp_filter"))
	switch mode {
	case "1":
		return 1
	case "2":
		return 2
	}
	return 0
}

// forwarding judges whether the kernel forwards what services that fail open leave to
// it. What has to pass FORWARD on its way to the inspector is judged by plan.
func (e *exam) forwarding() {
	needs := map[plan.Family]string{}
	for _, s := range e.c.Services {
		for _, t := range s.Intercept {
			if s.Fail == config.FailOpen && !plan.Loops(e.c) {
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
			e.warn("forwarding-off", "sysctl "+name, fmt.Sprintf("it is 0, so service %s cannot fail open: the kernel forwards no %s", service, f.family),
				"sysctl -w "+name+"=1 # and write it into /etc/sysctl.d, or it is lost at boot")
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
			e.remark(e.routeRemark(addr, "origin-no-route", "no route leads to it: "+r.Err.Error(), "add one"))
		case r.Type == "local":
		case !slices.Contains(e.c.Interfaces.Origin, r.Interface):
			e.remark(e.routeRemark(addr, "origin-interface", fmt.Sprintf("packets to it leave by %s, which is not on the origin side, so its replies are not looked for there", r.Interface),
				fmt.Sprintf("add %s to interfaces.origin, or correct the route", r.Interface)))
		default:
			e.sourceRoutes(object, addr)
		}
	}
}

// routeRemark is an error about the route to an origin, which explains what goes wrong
// with each of its ports.
func (e *exam) routeRemark(addr netip.Addr, code, text, remedy string) remark {
	return remark{subject: addr.String(), about: e.portsOf(addr), Finding: finding.Finding{
		Severity: finding.Error, Code: code, Object: "origin {}", Text: text, Remedy: remedy,
	}}
}

// portsOf names the origins at an address, for findings that explain each other.
func (g *gateway) portsOf(addr netip.Addr) []string {
	var all []string
	for _, o := range plan.Hosts(g.c.Services...) {
		if o.Addr() == addr {
			all = append(all, aboutOrigin(o)...)
		}
	}
	return all
}

// sourceRoutes judges rules that ask for a source: clients have those that they ask
// for, and what is forged to an origin may leave by another interface.
func (e *exam) sourceRoutes(object string, origin netip.Addr) {
	if !e.forges() {
		return
	}
	rules := slices.Clone(e.m.Rules)
	slices.SortStableFunc(rules, func(a, b route.PolicyRule) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, r := range rules {
		if r.Table == mainTable && !r.From.IsValid() && e.meets(r, origin) {
			return // the rest is met by none
		}
		if !e.catchesForged(r, origin) {
			continue
		}
		by := leadsTo(e.m.Tables[r.Table], origin)
		if by == "" || slices.Contains(e.c.Interfaces.Origin, by) {
			continue
		}
		e.remark(remark{about: e.portsOf(origin), Finding: finding.Finding{
			Severity: finding.Error, Code: "origin-source-route", Object: object,
			Text:   fmt.Sprintf("connections from clients in %s leave by %s, which is not on the origin side: the rule %q catches them by the source that they are forged with", r.From, by, r),
			Remedy: fmt.Sprintf("ip %srule add pref %d to %s lookup main # and write it where the other rule is made", ipOption(origin), max(r.Priority, 1)-1, origin),
		}})
	}
}

// ipOption makes ip speak of a family.
func ipOption(a netip.Addr) string {
	if a.Is6() {
		return "-6 "
	}
	return ""
}

// catchesForged reports whether a rule asks for the source of clients, and sends what
// is forged with it to an origin to a table.
func (g *gateway) catchesForged(r route.PolicyRule, origin netip.Addr) bool {
	own := r.From.IsValid() && r.From.IsSingleIP() && slices.Contains(g.m.Facts.Local, r.From.Addr())
	return r.From.IsValid() && !own && r.Table != 0 && r.Table != localTable && g.meets(r, origin) && !g.elsewhere(r.From)
}

// meets reports whether what the inspector sends to an origin meets a rule, whatever
// its source is.
func (g *gateway) meets(r route.PolicyRule, origin netip.Addr) bool {
	return !r.Inverted && r.Family == plan.FamilyOf(origin) && r.In == "" && r.Out == "" &&
		(!r.To.IsValid() || r.To.Contains(origin)) && g.c.Kernel.OriginMark&r.Mask == r.Mark
}

// leadsTo is the interface of a table's route to an address; "" if it has none.
func leadsTo(table []route.TableRoute, a netip.Addr) string {
	best, by := -1, ""
	for _, r := range table {
		if r.Family == plan.FamilyOf(a) && r.To.Contains(a) && r.To.Bits() > best {
			best, by = r.To.Bits(), r.Interface
		}
	}
	return by
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
				e.remark(remark{subject: t.String(), Finding: finding.Finding{
					Severity: finding.Info, Code: "local-server", Object: "listener " + l.String(),
					Text: fmt.Sprintf("a local server; connections to {} by %s go to service %s and not to it, all others still do",
						strings.Join(e.c.Interfaces.Client, ", "), s.Name),
				}})
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
