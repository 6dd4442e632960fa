package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/config"
)

// ChainPrefix begins the name of every netfilter chain of ours.
const ChainPrefix = "PORTREEVE-"

// pinned is the option of iptables' match bpf that names a program by its pin.
const pinned = "--object-pinned"

// Comment is on every jump to a chain of ours: a jump without it was made by
// somebody else.
const Comment = "portreeve"

// mostOpenings is how many addresses an INPUT chain lists one by one. Every
// packet to the gateway passes all of them, and iptables takes a process for
// each; beyond that the socket decides, see openings.
const mostOpenings = 64

// Firewall is what netfilter has to know of the flows. Families are listed
// once each.
type Firewall struct {
	Legacy     bool     // keep the rules in iptables-legacy, else in iptables-nft
	Clients    []string // the client side's interfaces
	Addressed  []config.Target
	Transit    []Family // in which client legs bear ClientMark
	Forged     []Family // in which origin legs bear OriginMark
	ClientMark uint32   // one bit
	OriginMark uint32   // one bit
	Match      string   // the pinned program that tells what must not be forwarded; empty: a link does
}

// needs reads from the configuration what netfilter has to know.
func needs(c *config.Config, f Facts) Firewall {
	var addressed []config.Target
	for _, s := range c.Services {
		addressed = append(addressed, s.Listen...)
	}
	match := f.Match
	if ForwardByLink(c, f) {
		match = ""
	}
	return Firewall{
		Match:      match,
		Legacy:     f.Legacy,
		Clients:    c.Interfaces.Client,
		Addressed:  addressed,
		Transit:    families(intercepts(c)),
		Forged:     families(forgedOrigins(c)),
		ClientMark: c.Kernel.ClientMark,
		OriginMark: c.Kernel.OriginMark,
	}
}

// Netfilter returns the chains and rules that keep a packet filter from
// breaking the flows, and, for iptables-nft, the tables and base chains that
// they hang from. Each rule is there only where something needs it.
func Netfilter(f Firewall) []Item {
	var items []Item
	for _, family := range []Family{IPv4, IPv6} {
		b := chains{family: family, legacy: f.Legacy}
		b.add("filter", "INPUT", f.input(family))
		b.add("filter", "FORWARD", f.forward(family))
		b.add("filter", "OUTPUT", f.output(family))
		b.add("nat", "POSTROUTING", f.postrouting(family))
		b.add("raw", "PREROUTING", f.prerouting(family))
		b.add("raw", "OUTPUT", f.rawOutput(family))
		items = append(items, b.items...)
	}
	return unique(items)
}

// input lets in what used to be forwarded, and what is addressed to us: with
// a policy of DROP neither would reach a socket.
func (f Firewall) input(family Family) []string {
	var specs []string
	if slices.Contains(f.Transit, family) {
		specs = append(specs, marked(f.ClientMark)+" -j ACCEPT")
	}
	if slices.Contains(f.Forged, family) {
		specs = append(specs, marked(f.OriginMark)+" -j ACCEPT")
	}
	return append(specs, f.openings(family)...)
}

// openings let in the connections to addressed services, which bear no mark.
// A long list would cost every packet to the gateway, so beyond mostOpenings
// the question is instead whether sk_lookup leads to a transparent socket, one
// rule for each interface and port. Then a policy of DROP also drops while no
// inspector is alive, where it would have been refused.
func (f Firewall) openings(family Family) []string {
	var listed, asked []string
	for _, t := range f.Addressed {
		if FamilyOf(t.Prefix.Addr()) != family {
			continue
		}
		for _, i := range f.Clients {
			to := fmt.Sprintf("-i %s -p tcp -m tcp --dport %d", i, t.Port)
			listed = append(listed, destination(t.Prefix)+to+" -j ACCEPT")
			asked = append(asked, to+" -m socket --transparent -j ACCEPT")
		}
	}
	if len(listed) > mostOpenings {
		return unrepeated(asked)
	}
	return unrepeated(listed)
}

// forward drops what would begin a connection to an origin past the inspector.
// The program judges as the wall at the origin side's egress does; the rule asks
// it for all interfaces, so that one that is new is no way round.
func (f Firewall) forward(family Family) []string {
	if f.Match == "" || !slices.Contains(f.Transit, family) {
		return nil
	}
	return []string{"-m bpf " + pinned + " " + f.Match + " -j DROP"}
}

// postrouting keeps MASQUERADE and SNAT off the connections that we forge:
// with another source, their replies would find no socket.
func (f Firewall) postrouting(family Family) []string {
	if !slices.Contains(f.Forged, family) {
		return nil
	}
	return []string{marked(f.OriginMark) + " -j ACCEPT"}
}

// untracked keeps a packet out of connection tracking, without starting it
// where there is none.
const untracked = " -j CT --notrack"

// prerouting keeps client legs of transit out of connection tracking. An entry
// for each SYN of a flood would fill the table of the whole gateway. And the
// origin leg may have the very same addresses and ports: one entry for both would
// mix their states.
// The socket match is there for what it brings along: fragments are put together
// before routing, without which they have no ports and no mark. It changes no
// packet, and starts no tracking either.
func (f Firewall) prerouting(family Family) []string {
	var specs []string
	transit := slices.Contains(f.Transit, family)
	if transit {
		specs = append(specs, marked(f.ClientMark)+untracked)
	}
	if transit || slices.Contains(f.Forged, family) {
		specs = append(specs, marked(f.OriginMark)+" -m socket --transparent -j RETURN")
	}
	return specs
}

// rawOutput is the other direction of prerouting. A listener may serve addressed
// clients too, and its mark is on their packets as well; those come from an
// address of our own, and are tracked as anything else that is addressed to us.
func (f Firewall) rawOutput(family Family) []string {
	if !slices.Contains(f.Transit, family) {
		return nil
	}
	return []string{marked(f.ClientMark) + " -m addrtype ! --src-type LOCAL" + untracked}
}

// output lets out what used to be forwarded: replies to clients that are not
// tracked are established to no rule, and a policy of DROP would keep them.
func (f Firewall) output(family Family) []string {
	if !slices.Contains(f.Transit, family) {
		return nil
	}
	return []string{marked(f.ClientMark) + " -j ACCEPT"}
}

// marked matches one mark bit, whatever else the mark holds.
func marked(bit uint32) string { return fmt.Sprintf("-m mark --mark 0x%x/0x%x", bit, bit) }

// destination matches a prefix; all addresses need no match, and iptables
// would not show one.
func destination(p netip.Prefix) string {
	if p.Bits() == 0 {
		return ""
	}
	return "-d " + p.Masked().String() + " "
}

// unrepeated sorts rules and drops repetitions.
func unrepeated(specs []string) []string {
	slices.SortFunc(specs, cmp.Compare[string])
	return slices.Compact(specs)
}

// chains collects the items of one family.
type chains struct {
	family Family
	legacy bool
	items  []Item
}

// add asks for a chain of ours with these rules, and for the jump to it from
// a base chain. Without rules it asks for nothing.
func (c *chains) add(table, base string, specs []string) {
	if len(specs) == 0 {
		return
	}
	if !c.legacy {
		c.items = append(c.items,
			Table{Family: c.family, Name: table},
			BaseChain{Family: c.family, Table: table, Name: base})
	}
	own := OwnChain(base)
	c.items = append(c.items, Chain{Family: c.family, Legacy: c.legacy, Table: table, Name: own})
	for _, spec := range specs {
		c.items = append(c.items, c.filter(table, own, spec))
	}
	jump := c.filter(table, base, Jump(own))
	jump.First = true
	c.items = append(c.items, jump)
}

func (c *chains) filter(table, chain, spec string) Filter {
	return Filter{Family: c.family, Legacy: c.legacy, Table: table, Chain: chain, Spec: spec}
}

// OwnChain returns the name of our chain for a base chain.
func OwnChain(base string) string { return ChainPrefix + base }

// Jump returns the rule that leads from a base chain to a chain of ours.
func Jump(own string) string {
	return strings.Join([]string{"-m comment --comment", Comment, "-j", own}, " ")
}
