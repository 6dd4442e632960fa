package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/route"
)

// neighbours judges origins that may answer clients past the gateway, for they share
// a link with them. Where clients choose their origins, those do not come here for
// one that is next to them.
func (e *exam) neighbours() {
	here := route.ConnectedBy(e.m.Links)
	for _, s := range e.c.Services {
		if s.Forge.Address == config.ForgeNever {
			continue
		}
		for _, o := range s.Origins {
			e.neighbourhood(here, o, s.Forge.OnLink)
		}
	}
}

// neighbourhood judges the link that an origin is reached by, if clients come in by
// it, too.
func (e *exam) neighbourhood(here route.Connected, origin netip.AddrPort, asked config.OnLink) {
	object := "origin " + origin.String()
	own, next := here.Find(origin.Addr())
	if !next {
		e.behindRouter(here, origin)
		return
	}
	if !slices.Contains(e.c.Interfaces.Client, own.Interface) {
		return
	}
	text := fmt.Sprintf("it is in the network %s of %s, where clients come in, too, and answers clients in there past this gateway", own.Prefix, own.Interface)
	if asked == config.OnLinkPlain {
		e.info("on-link", object, text+": they come from this gateway's own address, as forge.on_link asks for; see that it has no rights at the origin")
	} else {
		e.warn("on-link", object, text+": they are refused", fmt.Sprintf("let hosts in %s connect to it directly, or give it a network of its own behind this gateway", own.Prefix))
	}
	for _, other := range here {
		if other.Interface == own.Interface && other != own && other.Prefix.Addr().Is4() == own.Prefix.Addr().Is4() {
			e.warn("on-link-network", object, fmt.Sprintf("clients in the network %s are on the same link, %s: should it have an address or a route there, it answers them past this gateway, and they are refused after timeouts.connect", other.Prefix, other.Interface),
				fmt.Sprintf("see that its route to %s leads through this gateway", other.Prefix))
		}
	}
}

// behindRouter judges a router before an origin that is next to clients.
func (e *exam) behindRouter(here route.Connected, origin netip.AddrPort) {
	router := e.m.Routes[origin.Addr()].Gateway
	if !router.IsValid() {
		return
	}
	link, next := here.Find(router)
	if next && slices.Contains(e.c.Interfaces.Client, link.Interface) {
		e.warn("on-link-router", "origin "+origin.String(), fmt.Sprintf("it is reached by the router %s in the network %s of %s, where clients come in, too: the router may hand its replies to clients in there to them, past this gateway, and they are refused after timeouts.connect", router, link.Prefix, link.Interface),
			fmt.Sprintf("let hosts in %s connect to it directly, or put this gateway between them and the router", link.Prefix))
	}
}
