package config

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// judge refuses what no single value shows: services that are incomplete,
// that collide, or that would steer mail in a circle.
func judge(r *report, services []parsedService) {
	if len(services) == 0 && r.clean("services") && !r.reported[""] {
		r.refuse("services", `add one: "- name: mx" with listen or intercept`, "names no service")
	}
	judgeNames(r, services)
	for _, s := range services {
		judgeWays(r, s)
		judgeForge(r, s)
		judgeFamilies(r, s)
	}
	judgeOverlaps(r, services)
	judgeLoops(r, services)
}

// judgeNames holds names to what can stand in a pin's file name, a metric's
// label and a log line, and to one service each.
func judgeNames(r *report, services []parsedService) {
	seen := map[string]path{}
	for _, s := range services {
		at := s.at.key("name")
		if s.name == "" && r.clean(at) {
			r.refuse(at, `name it: "name: mx"`, "the service has no name")
		}
		if s.name == "" {
			continue
		}
		if wrong := judgeName(s.name); wrong != nil {
			r.refuse(at, wrong.remedy, "%s", wrong.text)
			continue
		}
		if first, again := seen[s.name]; again {
			r.refuse(at, "rename one of them", "name %s is taken by %s", quote(s.name), first)
			continue
		}
		seen[s.name] = s.at
	}
}

// maxName is the longest service name in octets, that of a DNS label.
const maxName = 63

func judgeName(name string) *fault {
	const remedy = `use letters, digits, "-", "_" and ".", a letter or digit first`
	for i, c := range name {
		if !nameRune(c) || i == 0 && strings.ContainsRune("-_.", c) {
			return faultf(remedy, "name %s has %q at octet %d", quote(name), c, i+1)
		}
	}
	if len(name) > maxName {
		return faultf("shorten it", "name %s is %d octets long, more than %d", quote(name), len(name), maxName)
	}
	return nil
}

func nameRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c)
}

// judgeInterface applies the kernel's own rule for names (dev_valid_name in
// net/core/dev.c): 1 to 15 octets, not "." or "..", no "/", ":" or space.
func judgeInterface(name string) *fault {
	switch {
	case name == "lo":
		return faultf("name the interface by which packets come from other machines",
			"interface lo carries this machine's own packets only")
	case name == "" || len(name) > 15 || name == "." || name == "..",
		strings.ContainsAny(name, "/:") || strings.ContainsFunc(name, unicode.IsSpace):
		return faultf(`copy the name from "ip link"`, "%s cannot be the name of an interface", quote(name))
	}
	return nil
}

// judgeWays requires a way in, and a way out for what came in addressed.
func judgeWays(r *report, s parsedService) {
	if !r.clean(s.ways()...) {
		return
	}
	switch {
	case len(s.listen) == 0 && len(s.intercept) == 0:
		r.refuse(s.at, "add listen (addresses of this gateway) or intercept (addresses of origins)",
			"the service has neither listen nor intercept, so no mail would reach it")
	case len(s.listen) > 0 && len(s.origins) == 0:
		r.refuse(s.at, "add origins, or use intercept in place of listen",
			"the service listens on the gateway's own addresses but has no origins to hand the mail to")
	}
}

// judgeForge refuses identities that the origin leg cannot have, and warns of those
// by which the origin may take strangers for the gateway.
func judgeForge(r *report, s parsedService) {
	at := s.at.key("forge")
	if s.forge.Address == ForgeNever {
		judgeNever(r, at, s.forge)
		return
	}
	for _, o := range s.origins {
		if o.value.Addr().IsLoopback() {
			r.refuse(o.at, "write the address of a server behind this gateway",
				"origin %s is a loopback address, which the kernel does not let a forged address reach", o.value)
		}
	}
	const trusting = `%s; an origin that trusts the gateway's address relays for them`
	if s.forge.Address == ForgePrefer {
		r.warn(at.key("address"), `set it to "always", unless the gateway's address has no rights at the origins`,
			trusting, "while replies to clients' addresses do not come back from an origin, all of its clients come from the gateway's own address")
	}
	if s.forge.OnLink == OnLinkPlain {
		r.warn(at.key("on_link"), `remove it, unless the gateway's address has no rights at the origins`,
			trusting, "clients in an origin's own network come from the gateway's own address")
	}
}

// judgeNever refuses what only a forged origin leg can have.
func judgeNever(r *report, at path, f Forge) {
	const remedy = `remove it, or set forge.address to "always"`
	if f.Port != (ForgePort{}) {
		r.refuse(at.key("port"), remedy, "port %s cannot be borne by an origin leg that never forges", f.Port)
	}
	if f.OnLink != OnLinkRefuse {
		r.refuse(at.key("on_link"), remedy, "%s is what every client gets where the origin leg never forges", f.OnLink)
	}
}

// judgeFamilies requires that a forged client finds an origin of its own
// family, and that every origin finds a client.
func judgeFamilies(r *report, s parsedService) {
	if s.forge.Address == ForgeNever || len(s.origins) == 0 || !r.clean(append(s.ways(), s.at.key("forge"))...) {
		return
	}
	in := slices.Concat(s.listen, s.intercept)
	if len(in) == 0 {
		return
	}
	for _, t := range in {
		f := family(t.value.Prefix.Addr())
		if slices.ContainsFunc(s.origins, func(o located[netip.AddrPort]) bool { return family(o.value.Addr()) == f }) {
			continue
		}
		remedy := fmt.Sprintf("add an %s origin, or remove %s", f, t.value)
		if s.forge.Address == ForgePrefer {
			r.warn(t.at, remedy, "clients of %s are %s, and no origin of the service is: all of them come from the gateway's own address", t.value, f)
			return
		}
		r.refuse(t.at, remedy, "clients of %s are %s, and no origin of the service is: their address cannot be forged", t.value, f)
		return
	}
	if s.forge.Address == ForgePrefer {
		return
	}
	for _, o := range s.origins {
		f := family(o.value.Addr())
		if !slices.ContainsFunc(in, func(t located[Target]) bool { return family(t.value.Prefix.Addr()) == f }) {
			r.refuse(o.at, fmt.Sprintf("remove it, or add an %s address to listen or intercept", f),
				"origin %s is %s, and no client of the service is: it would never be used", o.value, f)
			return
		}
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// judgeOverlaps refuses a target that two services claim. A longer prefix
// within another's is no overlap: the longest prefix wins. Nor is one that a
// service both listens on and intercepts.
func judgeOverlaps(r *report, services []parsedService) {
	type claim struct {
		at      path
		service path
	}
	claims := map[Target]claim{}
	for _, s := range services {
		for _, t := range slices.Concat(s.listen, s.intercept) {
			first, taken := claims[t.value]
			if taken && first.service != s.at {
				r.refuse(t.at, "leave it to one of the services", "%s is claimed before, at %s", t.value, first.at)
				continue
			}
			claims[t.value] = claim{t.at, s.at}
		}
	}
}

// judgeLoops refuses an origin that some service listens on: the origin leg
// would come back to the gateway as a new client.
func judgeLoops(r *report, services []parsedService) {
	listens := map[Target]path{}
	for _, s := range services {
		for _, t := range s.listen {
			listens[t.value] = t.at
		}
	}
	for _, s := range services {
		for _, o := range s.origins {
			if t, found := covering(listens, o.value); found {
				r.refuse(o.at, "write the origin's own address, or narrow what is listened on",
					"origin %s lies within %s at %s: the gateway would deliver to itself", o.value, t, listens[t])
			}
		}
	}
}

// covering returns the longest target that an address and port lie within.
func covering(targets map[Target]path, o netip.AddrPort) (Target, bool) {
	for bits := o.Addr().BitLen(); bits >= 0; bits-- {
		p, err := o.Addr().Prefix(bits)
		if err != nil {
			return Target{}, false
		}
		t := Target{p, o.Port()}
		if _, found := targets[t]; found {
			return t, true
		}
	}
	return Target{}, false
}

// directory reads an absolute path in its shortest form.
func directory(r *report, at path, v scalar, dst *string) {
	s, ok := r.text(at, v)
	switch {
	case !ok:
	case !filepath.IsAbs(s) || s == "/":
		r.refuse(at, defaultRemedy(*dst), "%s is not an absolute path to a directory", quote(s))
	case s != filepath.Clean(s):
		r.refuse(at, fmt.Sprintf("write %q", filepath.Clean(s)), "%s is not in its shortest form", quote(s))
	default:
		*dst = s
	}
}

// judgeKernel refuses values that are in range but taken.
func judgeKernel(r *report, k *Kernel) {
	if k.ClientMark == k.OriginMark && r.clean("kernel.client_mark") && r.clean("kernel.origin_mark") {
		r.refuse("kernel.origin_mark", "choose two different bits",
			"client_mark and origin_mark are both 0x%x, so the two legs could not be told apart", k.ClientMark)
	}
	for _, leg := range []struct {
		at   path
		mark uint32
	}{{"kernel.client_mark", k.ClientMark}, {"kernel.origin_mark", k.OriginMark}} {
		if k.LoopMark == leg.mark && r.clean("kernel.loop_mark") && r.clean(leg.at) {
			r.refuse("kernel.loop_mark", "choose another bit", "it is 0x%x, as %s is", k.LoopMark, leg.at)
		}
	}
	judgeTables(r, k)
}

func judgeTables(r *report, k *Kernel) {
	defaults := Default().Kernel
	if name := reservedTables[k.Table]; name != "" {
		r.refuse("kernel.table", defaultRemedy(defaults.Table), "table %d is the kernel's own table %q", k.Table, name)
	}
	if name := reservedTables[k.LoopTable]; name != "" {
		r.refuse("kernel.loop_table", defaultRemedy(defaults.LoopTable), "table %d is the kernel's own table %q", k.LoopTable, name)
	}
	if k.Table == k.LoopTable && r.clean("kernel.table") && r.clean("kernel.loop_table") {
		r.refuse("kernel.loop_table", "choose another number", "it is %d, as kernel.table is", k.LoopTable)
	}
}

// tableAfter is the table that the loop uses where the file names none.
func tableAfter(table uint32) uint32 {
	next := table%math.MaxInt32 + 1
	for reservedTables[next] != "" {
		next++
	}
	return next
}

// reservedTables are those of /etc/iproute2/rt_tables that the kernel uses.
var reservedTables = map[uint32]string{253: "default", 254: "main", 255: "local"}
