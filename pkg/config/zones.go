package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/portreeve/portreeve/pkg/zone"
)

// Zone is a part of the network that clients come from.
type Zone struct {
	Name     string
	Networks []netip.Prefix // masked; in no other zone
	Trust    zone.Trust
}

// zones reads the section zones.
func zones(r *report, raw []rawZone) []Zone {
	if r.reported["zones"] {
		return nil
	}
	var all []Zone
	names, taken := map[string]path{}, map[netip.Prefix]path{}
	for i, z := range raw {
		at := path("zones").item(i)
		if r.reported[at] {
			continue
		}
		all = append(all, Zone{
			Name:     zoneName(r, at, z.Name, names),
			Networks: networks(r, at.key("networks"), z.Networks, taken),
			Trust:    trust(r, at.key("trust"), z.Trust),
		})
		judgeTrust(r, at, all[len(all)-1])
	}
	return all
}

// zoneName reads a name that no other zone has.
func zoneName(r *report, at path, v scalar, names map[string]path) string {
	name, ok := r.text(at.key("name"), v)
	switch {
	case name == "" && r.clean(at.key("name")):
		r.refuse(at, `name it: "name: balancers"`, "the zone has no name")
		return ""
	case !ok:
		return ""
	}
	if wrong := judgeName(name); wrong != nil {
		r.refuse(at.key("name"), wrong.remedy, "%s", wrong.text)
		return ""
	}
	if first, again := names[name]; again {
		r.refuse(at.key("name"), "rename one of them", "name %s is taken by %s", quote(name), first)
		return ""
	}
	names[name] = at
	return name
}

// networks reads the prefixes of a zone, which no zone before it has.
func networks(r *report, at path, raw []scalar, taken map[netip.Prefix]path) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range unique(r, at, raw, parseNetwork) {
		if first, again := taken[n.value]; again {
			r.refuse(n.at, "leave it to one of the zones", "%s is claimed before, at %s", n.value, first)
			continue
		}
		taken[n.value] = n.at
		all = append(all, n.value)
	}
	if len(all) == 0 && r.clean(at) {
		r.refuse(at.parent(), "add the prefixes or addresses of its clients: networks: [192.0.2.0/24]", "the zone has no networks")
	}
	return all
}

// parseNetwork reads "192.0.2.0/24", "192.0.2.1", "2001:db8::/32" or
// "2001:db8::1".
func parseNetwork(s string) (netip.Prefix, *fault) {
	p, wrong := parsePrefix(s)
	switch {
	case s == "":
		return p, faultf(`write it as "192.0.2.0/24" or "2001:db8::/32"`, "is empty")
	case strings.ContainsAny(s, "[]"), wrong != nil && strings.Count(s, ":") == 1:
		return p, faultf("write the address or prefix alone, without a port", "%s is not an address or prefix", quote(s))
	case wrong != nil:
		return p, wrong
	case p != p.Masked():
		return p, faultf(fmt.Sprintf("write %q for the network or %q for the address", p.Masked(), p.Addr()),
			"address %s has bits set beyond the %d of its prefix", p.Addr(), p.Bits())
	}
	if kind := specialKind(p); kind != "" {
		return p, faultf("write an address that a client can have", "%s is %s", s, kind)
	}
	return p, nil
}

func trust(r *report, at path, raw []scalar) (all zone.Trust) {
	for _, t := range unique(r, at, raw, parseTrust) {
		all |= t.value
	}
	return all
}

func parseTrust(s string) (zone.Trust, *fault) {
	return member(s, zone.Every, "what a zone can be trusted for")
}

// judgeTrust refuses to trust everybody, and warns of nearly everybody: who may
// speak for others is whoever he says he is.
func judgeTrust(r *report, at path, z Zone) {
	const remedy = "write the networks of your own proxies and filters"
	if z.Trust == 0 || !r.clean(at) {
		return
	}
	for i, n := range z.Networks {
		switch item := at.key("networks").item(i); {
		case n.Bits() == 0:
			r.refuse(item, remedy, "%s is everybody, and nobody trusts everybody for %s", n, z.Trust)
		case n.Bits() < ownBits(n):
			r.warn(item, remedy, "%s is more than one network of yours can have, and is trusted for %s", n, z.Trust)
		}
	}
}

// ownBits is the length of the shortest prefix that can be one's own: 10.0.0.0/8
// in IPv4, and in IPv6 what registries give to the largest.
func ownBits(n netip.Prefix) int {
	if n.Addr().Is4() {
		return 8
	}
	return 16
}
