// Package doctor looks at a gateway with a configuration in hand and says what
// is in the way of it, each time with the exact remedy.
//
// Look reads the machine, Examine judges what was read; the judging is pure, so
// that every finding has a test. Nothing is changed: where a connection is
// tried (Probes), it is opened and closed again. Its caller is the doctor verb.
package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/descriptors"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

// Machine is what was read of a gateway.
type Machine struct {
	Facts      plan.Facts
	Features   []steer.Feature
	BPFFS      error // nil: mounted
	Attached   bool
	Drift      []plan.Change // what attach would do
	Alive      steer.Alive   // the inspector, where attached
	Links      []route.Link
	Rules      []route.PolicyRule
	Table      []route.TableRoute // what is in our tables
	Sysctl     func(path ...string) string
	Listeners  []netip.AddrPort
	Networkd   Networkd
	Saved      []string // files of saved rules that need a program of ours
	Firewall   *netfilter.Survey
	Flowtables []netfilter.Flowtable
	Rulesets   []Ruleset                     // files that rules are loaded from
	Zones      Zones                         // of firewalld
	Routes     map[netip.Addr]Route          // to each origin
	Tables     map[uint32][]route.TableRoute // of the rules that ask for a source
	Probes     []returns.Trial               // made only where attached
	Replies    map[netip.Addr]string         // to the addresses of Probes: the interface that they came by
	User       uint32                        // as whom the inspector runs
	Group      uint32
	Files      uint64   // descriptors that a process may open
	Ahead      []string // TC programs of others before ours, in words
	TLS        TLS
	Now        time.Time // when it was read
}

// Route is the way to an origin, or why there is none.
type Route struct {
	route.Path
	Err error
}

// Examine returns the findings about a machine, by topic.
func Examine(c *config.Config, m Machine) finding.List {
	e := begin(c, m)
	e.kernel()
	e.attachment()
	e.inspector()
	for _, f := range plan.Judge(c, m.Facts) {
		e.remark(remark{Finding: f})
	}
	e.links()
	e.walls()
	e.rules()
	e.sysctls()
	e.networkd()
	e.firewall()
	e.saved()
	e.listeners()
	e.origins()
	e.neighbours()
	e.probes()
	e.files()
	tlsTopic{e}.judge()
	return e.report()
}

// transit reports whether some service intercepts.
func (g *gateway) transit() bool {
	for _, s := range g.c.Services {
		if len(s.Intercept) > 0 {
			return true
		}
	}
	return false
}

// forges reports whether some service's origin legs bear the client's
// address.
func (g *gateway) forges() bool {
	for _, s := range g.c.Services {
		if s.Forge.Address != config.ForgeNever {
			return true
		}
	}
	return false
}

// kernel judges what the kernel can do, and says which data path that means.
func (e *exam) kernel() {
	for _, f := range e.m.Features {
		switch {
		case f.Err == nil || !f.Needed && f.Missing():
		case f.Missing():
			e.problem("kernel-lacks", "kernel", fmt.Sprintf("this kernel has no %s", f.Name),
				fmt.Sprintf("run Linux %s or later with BPF enabled", f.Kernel))
		case f.Needed:
			e.problem("kernel-unknown", "kernel", fmt.Sprintf("cannot tell whether there are %s: %v", f.Name, f.Err), "run doctor as root")
		}
	}
	if e.transit() || e.forges() {
		e.info("data-path", "kernel", "data path: "+e.datapath())
	} else {
		e.info("data-path", "kernel", "data path: sk_lookup alone, for no service intercepts or forges")
	}
	if e.m.BPFFS != nil {
		e.problem("bpffs-missing", "BPF file system", "none is mounted at "+e.c.Kernel.BPFFS, "mount -t bpf bpf "+e.c.Kernel.BPFFS)
	}
}

// datapath says how TC programs are attached, and why so.
func (g *gateway) datapath() string {
	switch {
	case g.c.Kernel.Datapath == config.DatapathClsact:
		return "clsact filters, as kernel.datapath asks for"
	case g.c.Kernel.Datapath == config.DatapathTCX:
		return "TCX links, as kernel.datapath asks for"
	case g.m.Facts.TCX:
		return "TCX links, which this kernel has"
	}
	return "clsact filters, for this kernel has no TCX links (Linux 6.6 and later)"
}

// attachment compares what is attached with the configuration.
func (e *exam) attachment() {
	switch {
	case !e.m.Attached:
		e.info("not-attached", "kernel side", "not attached; portreeve attach would install it")
	case len(e.m.Drift) > 0:
		e.warn("drift", "kernel side", fmt.Sprintf("what is attached differs from %s in %d things, the first: %s", e.c.File, len(e.m.Drift), e.m.Drift[0]),
			"portreeve attach -c "+e.c.File)
	default:
		e.info("attached", "kernel side", "attached as "+e.c.File+" asks for")
	}
}

// inspector judges whether somebody serves what is attached.
func (e *exam) inspector() {
	if !e.m.Attached {
		return
	}
	const object = "inspector"
	a := e.m.Alive
	run := "portreeve run -c " + e.c.File
	ago := a.Age.Round(time.Second / 10).String()
	heard := "its last heartbeat was " + ago + " ago, and the limit is " + a.Limit.String()
	unserved := slices.DeleteFunc(slices.Clone(a.Services), func(s steer.ServiceAlive) bool { return s.IPv4 || s.IPv6 })
	switch {
	case a.Serving() && len(unserved) == 0:
		e.info("inspector-alive", object, "it is alive: "+heard)
	case a.Serving():
		e.problem("inspector-partial", object, "it does not serve all that is attached, so that "+fate(unserved), run+" --attach")
	case len(a.Served()) > 0:
		e.problem("inspector-hung", object, "it is hung: "+heard+", so that "+fate(a.Services), "look why its process does not get further, or end it and start another: "+run)
	case a.Instance != 0 && !a.Hung():
		e.problem("inspector-none", object, "nobody serves, so that "+fate(unserved)+"; one that lived "+ago+" ago has just ended, or its services or settings are not those that are attached", run+" --attach")
	default:
		e.problem("inspector-none", object, "none runs, so that "+fate(unserved), run)
	}
}

// fate says what becomes of connections to services that nobody serves.
func fate(services []steer.ServiceAlive) string {
	var closed, open []string
	for _, s := range services {
		if s.Open {
			open = append(open, s.Name)
		} else {
			closed = append(closed, s.Name)
		}
	}
	var fates []string
	if len(closed) > 0 {
		fates = append(fates, "connections to "+list(closed)+" are refused or dropped")
	}
	if len(open) > 0 {
		fates = append(fates, "connections to "+list(open)+" pass by uninspected")
	}
	return strings.Join(fates, ", and ")
}

// list names some of many services.
func list(names []string) string { return finding.Some(names, 5, ", ") }

// links judges the interfaces that exist; plan.Judge names those that do not.
func (e *exam) links() {
	byName := map[string]route.Link{}
	for _, l := range e.m.Links {
		byName[l.Name] = l
	}
	for _, name := range e.interfaces() {
		l, found := byName[name]
		object := "interface " + name
		switch {
		case !found:
		case l.MasterOf == "bridge" || l.MasterOf == "bond":
			e.problem("interface-port", object, fmt.Sprintf("it is a port of the %s %s, whose packets do not arrive by it", l.MasterOf, l.Master),
				fmt.Sprintf("name %s in its place", l.Master))
		case !l.Up:
			e.warn("interface-down", object, "it is down", "ip link set "+name+" up")
		case !l.Carrier:
			e.warn("interface-no-carrier", object, "it has no carrier", "check the cable, or the other end")
		case len(l.Addresses) == 0:
			e.warn("interface-no-address", object, "it has no address", "a gateway routes by its addresses: give it one, or name the VLAN or bridge above it")
		}
	}
}

// interfaces are those of the configuration, each once.
func (g *gateway) interfaces() []string {
	var names []string
	seen := map[string]bool{}
	for _, list := range [][]string{g.c.Interfaces.Client, g.c.Interfaces.Origin, g.c.Interfaces.Bypass} {
		for _, name := range list {
			if !seen[name] {
				names = append(names, name)
			}
			seen[name] = true
		}
	}
	return names
}

// usedBefore is about how many descriptors an inspector has open before its first
// client: the kernel side's maps, programs and links, listeners, files.
const usedBefore = 64

// files judges whether the sessions allowed fit the process's descriptors. The
// inspector serves as many as fit.
func (e *exam) files() {
	if e.m.Files == 0 {
		return
	}
	n := descriptors.Of(e.c)
	n.Limit, n.Used = int(min(e.m.Files, 1<<30)), usedBefore
	if fitting, need := n.Sessions(), n.LimitFor(e.c.Limits.Sessions); fitting < e.c.Limits.Sessions {
		e.warn("descriptors", e.c.File+": limits.sessions", fmt.Sprintf("%d sessions need %d file descriptors, and a process here may open %d", e.c.Limits.Sessions, need, e.m.Files),
			fmt.Sprintf("raise the limit (LimitNOFILE=%d in the unit, or ulimit -n), or allow %d sessions", need, max(fitting, 1)))
	}
}
