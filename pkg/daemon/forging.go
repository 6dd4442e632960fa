package daemon

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/metrics"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/route"
)

// networksEvery is how often the gateway's networks are read, so that no session has
// to: a tenth of a millisecond each time.
const networksEvery = 5 * time.Second

// networks are those that the gateway is in, as they were read last.
type networks struct {
	last atomic.Pointer[route.Connected]
}

func (n *networks) read() error {
	now, err := route.ReadConnected()
	if err == nil {
		n.last.Store(&now)
	}
	return err
}

// onLink reports whether an origin and a client are in one network, where the origin
// answers the client past the gateway.
func (n *networks) onLink(client, origin netip.Addr) bool {
	_, shared := n.last.Load().Shared(origin, client)
	return shared
}

// has reports whether an address is in one of them.
func (n *networks) has(a netip.Addr) bool { return n.last.Load().Has(a) }

// openForging makes what dialers have to know of forging.
func (i *inspector) openForging() error {
	if err := i.networks.read(); err != nil {
		return err
	}
	i.returns = returns.New(returns.Options{
		Dial:    returns.Dialer(i.Config.Kernel.OriginMark),
		Nobody:  func(origin netip.Addr) netip.Addr { return returns.Nobody(origin, i.networks.has) },
		Origins: plan.Hosts(preferring(i.Config.Services)...),
		Near:    i.networks.has,
		Log:     i.Log,
	})
	return nil
}

// preferring returns those services that prefer forging.
func preferring(services []config.Service) []config.Service {
	return slices.DeleteFunc(slices.Clone(services), func(s config.Service) bool { return s.Forge.Address != config.ForgePrefer })
}

// forge tells a dialer what forging depends on.
func (i *inspector) forge(d *forward.Dialer) {
	if d.Forge.Address == config.ForgeNever {
		return
	}
	d.OnLink = i.networks.onLink
	if d.Forge.Address == config.ForgePrefer {
		d.Returns = i.returns
	}
}

// keepForging tries the ways back, and reads the networks again and again, until ctx
// ends. Replies can be claimed by then.
func (i *inspector) keepForging(ctx context.Context) {
	i.returns.Start()
	ticker := time.NewTicker(networksEvery)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := i.networks.read(); err != nil && err.Error() != said {
				said = err.Error()
				i.Log.Warn("cannot read the gateway's networks, going on with those read before", "error", err)
			}
		}
	}
}

// forging returns how the origins are dialled of services that prefer forging.
func (i *inspector) forging() []metrics.OriginForging {
	if i.returns == nil {
		return nil
	}
	var all []metrics.OriginForging
	for _, s := range i.returns.States() {
		all = append(all, metrics.OriginForging(s))
	}
	return all
}
