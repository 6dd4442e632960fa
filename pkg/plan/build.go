package plan

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/config"
)

// Facts are what Build must know of the machine.
type Facts struct {
	Interfaces []string            // names of those that exist
	VRFs       map[string]string   // the VRF of each interface that is in one; a VRF's own is itself
	Local      []netip.Addr        // the gateway's own addresses
	TCX        bool                // the kernel has TCX links (6.6 and later)
	NFLinks    bool                // the kernel has netfilter links (6.4 and later)
	Forwarding map[string][]Family // what the kernel forwards of what comes in by an interface; without an entry: that is not known
	Match      string              // where the program is pinned that a rule in FORWARD asks where there are none
	Legacy     bool                // our chains belong in iptables-legacy
}

// Build returns the items that the configuration asks for on a machine with
// these facts. Only what a service needs is asked for: an addressed service
// that does not forge needs neither marks nor rules nor TC programs.
func Build(c *config.Config, f Facts) []Item {
	items := []Item{Objects{}, SettingsOf(c), Lookup{}}
	for _, s := range c.Services {
		items = append(items, Service{Name: s.Name, Open: s.Fail == config.FailOpen})
	}
	for _, b := range Bindings(c, f.Local) {
		items = append(items, b)
	}
	items = append(items, origins(c)...)
	items = append(items, roles(c)...)
	items = append(items, routing(c)...)
	items = append(items, attachments(c, f)...)
	items = append(items, loop(c, f)...)
	items = append(items, forwards(c, f)...)
	if c.Kernel.Netfilter != config.NetfilterOff {
		items = append(items, Netfilter(needs(c, f))...)
	}
	return unique(items)
}

// SettingsOf returns the values that the programs read at run time.
func SettingsOf(c *config.Config) Settings {
	return Settings{
		ClientMark: c.Kernel.ClientMark,
		OriginMark: c.Kernel.OriginMark,
		Heartbeat:  c.Kernel.Heartbeat,
	}
}

// Bindings returns the addresses and ports that are bound to services, and
// those of the gateway's own addresses that are kept out.
func Bindings(c *config.Config, local []netip.Addr) []Binding {
	var all []Binding
	for _, s := range c.Services {
		all = append(all, bindings(s)...)
	}
	return append(all, bypasses(c, local)...)
}

// bindings are the addresses that clients of a service connect to. An
// address may be both listened on and intercepted.
func bindings(s config.Service) []Binding {
	at := map[config.Target]Binding{}
	bind := func(t config.Target) Binding {
		b := at[t]
		b.Prefix, b.Port, b.Service = t.Prefix, t.Port, s.Name
		return b
	}
	for _, t := range s.Listen {
		b := bind(t)
		b.Addressed = true
		at[t] = b
	}
	for _, t := range s.Intercept {
		b := bind(t)
		b.Transit = true
		at[t] = b
	}
	return slices.Collect(maps.Values(at))
}

// bypasses keep the gateway's own addresses out of intercepted prefixes that
// contain them: the gateway is not one of its origins, and an inspector that
// dialled itself would loop.
func bypasses(c *config.Config, local []netip.Addr) []Binding {
	bound := map[config.Target]bool{}
	for _, s := range c.Services {
		for _, t := range slices.Concat(s.Listen, s.Intercept) {
			bound[t] = true
		}
	}
	var items []Binding
	for _, s := range c.Services {
		for _, t := range s.Intercept {
			for _, a := range local {
				own := config.Target{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: t.Port}
				if t.Prefix.Contains(a) && !bound[own] {
					items = append(items, Binding{Prefix: own.Prefix, Port: own.Port})
				}
			}
		}
	}
	return items
}

// origins are the sources whose replies to forged addresses come back to us.
func origins(c *config.Config) []Item {
	var items []Item
	for _, t := range forgedOrigins(c) {
		items = append(items, Origin{Prefix: t.Prefix, Port: t.Port})
	}
	return items
}

// forgedOrigins are the origins of services that forge.
func forgedOrigins(c *config.Config) []config.Target {
	var targets []config.Target
	for _, s := range c.Services {
		if s.Forge.Address == config.ForgeNever {
			continue
		}
		targets = append(targets, Destinations(s)...)
	}
	return targets
}

// Destinations are where a service's mail goes: its origins, or, when it has
// none, whatever the client chose.
func Destinations(s config.Service) []config.Target {
	if len(s.Origins) == 0 {
		return s.Intercept
	}
	var targets []config.Target
	for _, o := range s.Origins {
		targets = append(targets, config.Target{
			Prefix: netip.PrefixFrom(o.Addr(), o.Addr().BitLen()), Port: o.Port(),
		})
	}
	return targets
}

// Hosts are the destinations of services that are single addresses, each once.
func Hosts(services ...config.Service) []netip.AddrPort {
	var all []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	for _, s := range services {
		for _, t := range Destinations(s) {
			host := netip.AddrPortFrom(t.Prefix.Addr(), t.Port)
			if t.Prefix.IsSingleIP() && !seen[host] {
				seen[host] = true
				all = append(all, host)
			}
		}
	}
	return all
}

// intercepts are the targets of all transit services.
func intercepts(c *config.Config) []config.Target {
	var targets []config.Target
	for _, s := range c.Services {
		targets = append(targets, s.Intercept...)
	}
	return targets
}

// roles tell the programs which interfaces clients come in by, and what may
// reach origins past the inspector.
func roles(c *config.Config) []Item {
	sides := map[string]Side{}
	for _, i := range c.Interfaces.Client {
		sides[i] |= ClientSide
	}
	for _, i := range c.Interfaces.Origin {
		sides[i] |= OriginSide
	}
	for _, i := range c.Interfaces.Bypass {
		sides[i] |= BypassSide
	}
	var items []Item
	for i, side := range sides {
		items = append(items, Role{Interface: i, Side: side})
	}
	return items
}

// routing is what makes marked packets local: a rule for each interface,
// mark and family in use, and the local route that the rules lead to.
func routing(c *config.Config) []Item {
	var items []Item
	rules := func(interfaces []string, targets []config.Target, mark uint32) {
		for _, family := range families(targets) {
			items = append(items, Route{Family: family, Table: c.Kernel.Table})
			for _, i := range interfaces {
				items = append(items, Rule{
					Family: family, Interface: i, Mark: mark,
					Table: c.Kernel.Table, Priority: c.Kernel.Priority,
				})
			}
		}
	}
	rules(c.Interfaces.Client, intercepts(c), c.Kernel.ClientMark)
	rules(c.Interfaces.Origin, forgedOrigins(c), c.Kernel.OriginMark)
	return items
}

// Loops reports whether transit connections meet the host's packet filter before they
// are taken.
func Loops(c *config.Config) bool {
	return len(intercepts(c)) > 0 && c.Kernel.ForwardRules == config.ForwardHonour
}

// loop leads SYNs of transit clients through the host's packet filter: by mark and
// rule to a link of ours, from which a program fetches them back.
func loop(c *config.Config, f Facts) []Item {
	if !Loops(c) {
		return nil
	}
	t := TC{Interface: LoopLink, Side: LoopSide, Egress: true, Clsact: byFilters(c, f)}
	items := []Item{Link{Name: LoopLink}, Role{Interface: LoopLink, Side: LoopSide}, t, Loop{Mark: c.Kernel.LoopMark}}
	if t.Clsact {
		items = append(items, Qdisc{Interface: LoopLink})
	}
	for _, family := range families(intercepts(c)) {
		items = append(items, Route{Family: family, Table: c.Kernel.LoopTable, Link: LoopLink})
		for _, i := range c.Interfaces.Client {
			items = append(items, Rule{
				Family: family, Interface: i, Mark: c.Kernel.LoopMark,
				Table: c.Kernel.LoopTable, Priority: c.Kernel.Priority,
			})
		}
	}
	return items
}

// byFilters reports whether TC programs are filters of clsact qdiscs.
func byFilters(c *config.Config, f Facts) bool {
	return c.Kernel.Datapath == config.DatapathClsact ||
		c.Kernel.Datapath == config.DatapathAuto && !f.TCX
}

// attachments are the TC programs: on the origin side for forged replies, on
// the client side for transit, and there the wall at the origin side's egress.
func attachments(c *config.Config, f Facts) []Item {
	clsact := byFilters(c, f)
	var items []Item
	attach := func(interfaces []string, t TC) {
		for _, i := range interfaces {
			if clsact {
				items = append(items, Qdisc{Interface: i})
			}
			t.Interface, t.Clsact = i, clsact
			items = append(items, t)
		}
	}
	if len(forgedOrigins(c)) > 0 {
		attach(c.Interfaces.Origin, TC{Side: OriginSide})
	}
	if len(intercepts(c)) > 0 {
		attach(c.Interfaces.Client, TC{Side: ClientSide})
		attach(c.Interfaces.Origin, TC{Side: OriginSide, Egress: true})
	}
	return items
}

// forwards are the wall at FORWARD for the families of transit; without
// netfilter links a rule is it, see Netfilter.
func forwards(c *config.Config, f Facts) []Item {
	var items []Item
	if !ForwardByLink(c, f) {
		return nil
	}
	for _, family := range families(intercepts(c)) {
		items = append(items, Forward{Family: family})
	}
	return items
}

// ForwardByLink tells whether the wall at FORWARD is a netfilter link. Who insists
// on clsact gets all of what older kernels have.
func ForwardByLink(c *config.Config, f Facts) bool {
	return f.NFLinks && c.Kernel.Datapath != config.DatapathClsact
}

// families returns the families of targets, IPv4 first.
func families(targets []config.Target) []Family {
	var fs []Family
	for _, t := range targets {
		fs = append(fs, FamilyOf(t.Prefix.Addr()))
	}
	slices.Sort(fs)
	return slices.Compact(fs)
}

// unique drops repeated items and sorts the rest in the order of activation.
func unique(items []Item) []Item {
	slices.SortFunc(items, order)
	return slices.CompactFunc(items, func(a, b Item) bool {
		return a.Kind() == b.Kind() && a.Key() == b.Key()
	})
}
