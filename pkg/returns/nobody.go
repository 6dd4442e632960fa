package returns

import (
	"crypto/rand"
	"net/netip"
)

// Networks that belong to nobody: RFC 5737 and RFC 3849.
var (
	nobody4 = []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	}
	nobody6 = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}
)

// choices bounds how many addresses are looked at.
const choices = 32

// Nobody returns an address that belongs to nobody, of the origin's family, another
// one each time: should an origin shut out one that connects and says nothing, the
// next is not affected. An origin answers it by the same default route as its
// clients, and no client can receive that answer, or keep it away. taken, if not
// nil, reports addresses that somebody has here all the same; where all are, the
// result is not valid.
func Nobody(origin netip.Addr, taken func(netip.Addr) bool) netip.Addr {
	networks := nobody6
	if origin.Unmap().Is4() {
		networks = nobody4
	}
	for n := range choices {
		if a := within(networks[n%len(networks)]); taken == nil || !taken(a) {
			return a
		}
	}
	return netip.Addr{}
}

// within returns an unpredictable address of a network whose prefix ends between
// octets. It is neither the first nor, in IPv4, the last.
func within(network netip.Prefix) netip.Addr {
	octets := network.Addr().AsSlice()
	host := octets[network.Bits()/8:]
	rand.Read(host) // never fails, Go 1.24
	last := &host[len(host)-1]
	*last = 1 + *last%254
	a, _ := netip.AddrFromSlice(octets) // as long as it was
	return a
}
