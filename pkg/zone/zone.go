// Package zone says which zone a client's address lies in, and what the clients
// of a zone are trusted for.
//
// It owns the table of networks and its lookup, nothing else: no input or
// output, and no opinion of what follows from trust. The daemon makes the table
// from the configuration, relay asks it for every connection.
package zone

import (
	"net/netip"
	"slices"
	"strings"
)

// Trust is a set of ways in which a client may speak for somebody else.
type Trust uint8

const (
	PROXY    Trust = 1 << iota // each connection begins with a header that names the client
	XCLIENT                    // the command that overrides what the origin knows of the client
	XFORWARD                   // the command that overrides what the origin logs of the client
)

// Every is each Trust in the order of its declaration.
var Every = []Trust{PROXY, XCLIENT, XFORWARD}

var words = map[Trust]string{PROXY: "PROXY", XCLIENT: "XCLIENT", XFORWARD: "XFORWARD"}

// Has reports whether all of u is in the set.
func (t Trust) Has(u Trust) bool { return t&u == u }

// String returns the words used in the file, separated by spaces.
func (t Trust) String() string {
	var in []string
	for _, u := range Every {
		if t.Has(u) {
			in = append(in, words[u])
		}
	}
	return strings.Join(in, " ")
}

// Zone is the zone of one client. The zero Zone is that of a client in none: it
// has no name and is trusted for nothing.
type Zone struct {
	Name  string
	Trust Trust
}

// Network is a prefix with the zone that it belongs to.
type Network struct {
	Prefix netip.Prefix
	Zone   Zone
}

// Table finds the zone of an address: that of the longest prefix around it. The
// zero Table has no zones. A Table does not change once made, so any number of
// goroutines may ask it.
type Table struct {
	v4, v6 prefixes
}

// prefixes are the networks of one family.
type prefixes struct {
	lengths []int // that occur, longest first
	zones   map[netip.Prefix]Zone
}

// NewTable returns the table of networks. Bits of a prefix beyond its length do
// not count, an IPv4 prefix may be written in IPv6, and of two networks that are
// the same the first counts. A prefix that is not valid holds no address.
func NewTable(networks []Network) *Table {
	t := new(Table)
	for _, n := range networks {
		t.add(n)
	}
	for _, p := range []*prefixes{&t.v4, &t.v6} {
		slices.SortFunc(p.lengths, func(a, b int) int { return b - a })
	}
	return t
}

// mappedBits is the length of ::ffff:0:0/96, under which IPv4 lives in IPv6.
const mappedBits = 96

func (t *Table) add(n Network) {
	key, p := n.Prefix.Masked(), &t.v6
	if key.Addr().Is4In6() && key.Bits() >= mappedBits {
		key = netip.PrefixFrom(key.Addr().Unmap(), key.Bits()-mappedBits)
	}
	if key.Addr().Is4() {
		p = &t.v4
	}
	if _, taken := p.zones[key]; taken || !key.IsValid() {
		return
	}
	if p.zones == nil {
		p.zones = make(map[netip.Prefix]Zone)
	}
	p.zones[key] = n.Zone
	if !slices.Contains(p.lengths, key.Bits()) {
		p.lengths = append(p.lengths, key.Bits())
	}
}

// Find returns the zone of an address, the zero Zone when it is in none. An
// IPv4 address in its IPv6 form is the IPv4 address. It does not allocate.
func (t *Table) Find(a netip.Addr) Zone {
	a = a.Unmap()
	p := &t.v6
	if a.Is4() {
		p = &t.v4
	}
	for _, bits := range p.lengths {
		key, err := a.Prefix(bits)
		if err != nil { // not an address at all: in no zone
			return Zone{}
		}
		if z, ok := p.zones[key]; ok {
			return z
		}
	}
	return Zone{}
}
