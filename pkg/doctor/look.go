package doctor

import (
	"context"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/route"
	"github.com/portreeve/portreeve/pkg/steer"
)

// Attachment is what the caller knows of the kernel side.
type Attachment struct {
	BPFFS    error
	Attached bool
	Drift    []plan.Change
	Alive    steer.Alive
}

// Look reads the machine of the calling thread's network namespace. Where the
// kernel side is attached it also tries the origins' return routes; else nobody
// would claim the replies.
func Look(ctx context.Context, c *config.Config, f plan.Facts, a Attachment) (Machine, error) {
	m := Machine{
		Facts: f, BPFFS: a.BPFFS, Attached: a.Attached, Drift: a.Drift, Alive: a.Alive,
		Features: steer.Probe(), Sysctl: sysctl, Networkd: readNetworkd(), Saved: readSaved(savedRules), Files: files(), Now: time.Now(),
		Rulesets: readRulesets(), Zones: readZones("/etc/firewalld"), User: uint32(os.Geteuid()), Group: uint32(os.Getegid()),
	}
	var err error
	if m.Links, err = route.Links(); err != nil {
		return m, err
	}
	if m.Rules, err = route.PolicyRules(); err != nil {
		return m, err
	}
	for _, table := range (&gateway{c: c}).tables() {
		routes, err := route.InTable(table)
		if err != nil {
			return m, err
		}
		m.Table = append(m.Table, routes...)
	}
	if m.Listeners, err = listeners(); err != nil {
		return m, err
	}
	if m.Firewall, err = netfilter.Look(ctx); err != nil {
		return m, err
	}
	m.Flowtables = m.Firewall.Flowtables()
	m.Routes = routes(c)
	if m.Tables, err = tables(m.Rules); err != nil {
		return m, err
	}
	if a.Attached {
		m.Probes, m.Replies, err = try(ctx, c, route.ConnectedBy(m.Links))
	}
	return m, err
}

// routes asks for the way to each origin that is one address.
func routes(c *config.Config) map[netip.Addr]Route {
	ways := map[netip.Addr]Route{}
	for _, s := range c.Services {
		for _, o := range plan.Hosts(s) {
			path, err := route.RouteGet(route.Query{To: o.Addr(), Mark: c.Kernel.OriginMark})
			ways[o.Addr()] = Route{path, err}
		}
	}
	return ways
}

// tables reads those of the rules that ask for a source.
func tables(rules []route.PolicyRule) (map[uint32][]route.TableRoute, error) {
	all := map[uint32][]route.TableRoute{}
	for _, r := range rules {
		if _, read := all[r.Table]; read || !r.From.IsValid() || r.Table == 0 {
			continue
		}
		routes, err := route.InTable(r.Table)
		if err != nil {
			return nil, err
		}
		all[r.Table] = routes
	}
	return all, nil
}

// files is how many descriptors a process may open, 0 if that is not known.
func files() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Max
}
