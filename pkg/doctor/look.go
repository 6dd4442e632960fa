package doctor

import (
	"context"
	"net/netip"
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
	}
	var err error
	if m.Links, err = route.Links(); err != nil {
		return m, err
	}
	if m.Rules, err = route.PolicyRules(); err != nil {
		return m, err
	}
	if m.Table, err = route.InTable(c.Kernel.Table); err != nil {
		return m, err
	}
	if m.Listeners, err = listeners(); err != nil {
		return m, err
	}
	if m.Firewall, err = netfilter.Look(); err != nil {
		return m, err
	}
	m.Routes = routes(c)
	if a.Attached {
		m.Probes = try(ctx, c, route.ConnectedBy(m.Links))
	}
	return m, nil
}

// routes asks for the way to each origin that is one address.
func routes(c *config.Config) map[netip.Addr]Route {
	ways := map[netip.Addr]Route{}
	for _, s := range c.Services {
		for _, o := range plan.Hosts(s) {
			path, err := route.RouteGet(route.Query{To: o.Addr()})
			ways[o.Addr()] = Route{path, err}
		}
	}
	return ways
}

// files is how many descriptors a process may open, 0 if that is not known.
func files() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Max
}
