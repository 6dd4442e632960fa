package route

import (
	"cmp"
	"net/netip"
	"slices"
)

// Network is one that an interface is in, by an address of it.
type Network struct {
	Interface string
	Prefix    netip.Prefix // masked
}

// Connected are the networks that the gateway is in, longest prefix first. It is a
// value that never changes; the zero value is in none.
type Connected []Network

// ReadConnected returns the networks that the interfaces are in now.
func ReadConnected() (Connected, error) {
	links, err := Links()
	return ConnectedBy(links), err
}

// ConnectedBy returns the networks of some interfaces. Those without an Ethernet
// header are left out, and lo: what is in a network with them is not next to its
// neighbours, and reaches them through their end. So are link-local networks, of
// which each link has one, and addresses by themselves.
func ConnectedBy(links []Link) Connected {
	var all Connected
	for _, l := range links {
		for _, p := range l.Addresses {
			if n := p.Masked(); l.Ethernet && l.Name != "lo" && l.Up && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
				all = append(all, Network{l.Name, n})
			}
		}
	}
	slices.SortFunc(all, func(a, b Network) int {
		return cmp.Or(b.Prefix.Bits()-a.Prefix.Bits(), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Interface, b.Interface))
	})
	return slices.Compact(all)
}

// Find returns the network that an address is in: that of the longest prefix.
func (c Connected) Find(a netip.Addr) (Network, bool) {
	for _, n := range c {
		if n.Prefix.Contains(a) {
			return n, true
		}
	}
	return Network{}, false
}

// Has reports whether an address is in one of the networks.
func (c Connected) Has(a netip.Addr) bool {
	_, found := c.Find(a)
	return found
}

// Shared returns the network that two addresses are both in. A host there answers
// the other one by itself, whoever is its router.
func (c Connected) Shared(a, b netip.Addr) (Network, bool) {
	n, found := c.Find(a)
	if !found || !n.Prefix.Contains(b) {
		return Network{}, false
	}
	other, _ := c.Find(b)
	return n, n == other
}
