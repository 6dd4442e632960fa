package relay

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/portreeve/portreeve/pkg/proxy"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/wording"
	"github.com/portreeve/portreeve/pkg/zone"
)

// headerPatience is how long a proxy may take for its PROXY header unless Options
// say otherwise: as long as Postfix waits (smtpd_upstream_proxy_timeout).
const headerPatience = 5 * time.Second

// announced reads who the client is from the PROXY header of a connection whose
// zone is trusted for one, before anything else is done for it: the origin must
// see that client. There must be a header then. Was it optional, whoever gets
// through the proxy's network without one would pass for the proxy. It returns
// false when the call is over.
func (c *call) announced() bool {
	if !c.flow.Zone.Trust.Has(zone.PROXY) {
		return true
	}
	c.client.SetReadDeadline(time.Now().Add(c.r.opts.Proxy))
	if c.r.draining.Load() { // asked after the deadline is set, which may have undone Drain's interrupt
		c.interrupt()
	}
	client, err := proxy.Read(c.client)
	if err != nil {
		c.unannounced(err)
		return false
	}
	if client.IsValid() { // else the proxy speaks for itself
		c.become(client)
	}
	return true
}

// become makes the call that of the client which the header names. The address
// that was connected to stays: a header must not choose where mail goes.
func (c *call) become(client netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flow.Via, c.flow.Client = c.flow.Client, client
	c.flow.Zone = c.r.zones.Load().Find(client.Addr())
}

// unannounced ends the call of a client that did not begin with a header.
func (c *call) unannounced(err error) {
	why := err.Error()
	late := errors.Is(err, os.ErrDeadlineExceeded)
	if late {
		why = "no PROXY header in time"
	}
	gone := !late && !errors.Is(err, proxy.ErrNone) && !errors.Is(err, proxy.ErrBroken)
	if !gone && !c.r.draining.Load() { // who merely tries whether we are alive is no news, nor whom a drain interrupted
		c.r.opts.Log.Warn("no PROXY header", "flow", c.flow.ID, "service", c.flow.Service, "client", c.flow.Client, "zone", c.flow.Zone.Name, "error", why)
	}
	told := wording.NoHeader
	if errors.Is(err, proxy.ErrBroken) {
		told = wording.BrokenHeader
	}
	c.close(session.Unannounced(c.options(), c.client, told, why, gone))
}
