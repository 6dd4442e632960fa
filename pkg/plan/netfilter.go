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

// lastChains are, by base chain, our chains that are met behind the rules of
// others.
var lastChains = map[string]string{
	"INPUT":   ChainPrefix + "LISTEN",
	"FORWARD": ChainPrefix + "LOOP",
	"OUTPUT":  ChainPrefix + "SEND",
}

// mostOpenings is how many addresses an own chain lists one by one. Every
// packet that gets there passes all of them, and iptables takes a process for
// each; beyond that the socket decides, see openings.
const mostOpenings = 64

// Firewall is what netfilter has to know of the flows. Families are listed
// once each.
type Firewall struct {
	Legacy     bool     // keep the rules in iptables-legacy, else in iptables-nft
	Clients    []string // the client side's interfaces
	Origins    []string // the origin side's interfaces
	Addressed  []config.Target
	Open       []config.Target // intercepted, and forwarded where no inspector is alive
	Transit    []Family        // in which client legs bear ClientMark
	Forged     []Family        // in which origin legs bear OriginMark
	Sent       []Family        // in which the inspector sends to clients or origins
	SamePort   []Family        // in which an origin leg may have the client's own address and port
	ClientMark uint32          // one bit
	OriginMark uint32          // one bit
	LoopMark   uint32          // one bit: new connections on their way to Link; 0: they do not pass FORWARD
	Link       string          // the loop link
	Match      string          // the pinned program that tells what must not be forwarded; empty: a link does
}

// needs reads from the configuration what netfilter has to know.
func needs(c *config.Config, f Facts) Firewall {
	w := Firewall{
		Legacy:     f.Legacy,
		Clients:    c.Interfaces.Client,
		Origins:    c.Interfaces.Origin,
		Transit:    families(intercepts(c)),
		Forged:     families(forgedOrigins(c)),
		ClientMark: c.Kernel.ClientMark,
		OriginMark: c.Kernel.OriginMark,
	}
	if !ForwardByLink(c, f) {
		w.Match = f.Match
	}
	if Loops(c) {
		w.LoopMark, w.Link = c.Kernel.LoopMark, LoopLink
	}
	var met, samePort []config.Target
	for _, s := range c.Services {
		w.Addressed = append(w.Addressed, s.Listen...)
		if s.Fail == config.FailOpen {
			w.Open = append(w.Open, s.Intercept...)
		}
		met = slices.Concat(met, s.Listen, s.Intercept, Destinations(s))
		if s.Forge.Address != config.ForgeNever && s.Forge.Port.Mode != config.PortAny {
			samePort = append(samePort, Destinations(s)...)
		}
	}
	w.Sent, w.SamePort = families(met), families(samePort)
	return w
}

// Netfilter returns the chains and rules that keep a packet filter from
// breaking the flows, and, for iptables-nft, the tables and base chains that
// they hang from. Each rule is there only where something needs it.
//
// What the host's rules are not about is decided before them: packets that
// without us would have been forwarded, and that meet INPUT and OUTPUT only
// because we are in their way. All else is let through behind them: a policy is
// overruled, and no ban.
func Netfilter(f Firewall) []Item {
	var items []Item
	for _, family := range []Family{IPv4, IPv6} {
		b := chains{family: family, legacy: f.Legacy}
		b.first("raw", "PREROUTING", f.rawPrerouting(family))
		b.first("raw", "OUTPUT", f.rawOutput(family))
		b.first("mangle", "PREROUTING", f.manglePrerouting(family))
		b.first("nat", "PREROUTING", f.natPrerouting(family))
		b.first("nat", "POSTROUTING", f.postrouting(family))
		b.first("filter", "INPUT", f.input(family))
		b.last("filter", "INPUT", f.openings(family))
		b.first("filter", "FORWARD", f.wall(family))
		b.last("filter", "FORWARD", f.forward(family))
		b.first("filter", "OUTPUT", f.output(family))
		b.last("filter", "OUTPUT", f.send(family))
		items = append(items, b.items...)
	}
	return unique(items)
}

// transit reports whether client legs of a family bear the client mark.
func (f Firewall) transit(family Family) bool { return slices.Contains(f.Transit, family) }

// forged reports whether origin legs of a family bear the origin mark.
func (f Firewall) forged(family Family) bool { return slices.Contains(f.Forged, family) }

// loop reports whether new connections of a family pass FORWARD.
func (f Firewall) loop(family Family) bool { return f.LoopMark != 0 && f.transit(family) }

// samePort reports whether origin legs of a family are kept out of connection
// tracking. A new connection that passes FORWARD is tracked there, with the
// client's address and port. An origin leg that has the same ones would share
// its entry, and the states of both would mix.
func (f Firewall) samePort(family Family) bool {
	return f.loop(family) && f.forged(family) && slices.Contains(f.SamePort, family)
}

// input lets in what used to be forwarded: with a policy of DROP it would not
// reach a socket.
func (f Firewall) input(family Family) []string {
	return f.either(family, " -j ACCEPT")
}

// either is a rule for each mark that packets of a family may bear, with the same
// end.
func (f Firewall) either(family Family, end string) []string {
	var specs []string
	if f.transit(family) {
		specs = append(specs, marked(f.ClientMark)+end)
	}
	if f.forged(family) {
		specs = append(specs, marked(f.OriginMark)+end)
	}
	return specs
}

// openings let in the connections to addressed services, which bear no mark.
// A long list would cost every packet to the gateway, so beyond mostOpenings
// the question is instead whether sk_lookup leads to a transparent socket, one
// rule for each interface and port. Then a policy of DROP also drops while no
// inspector is alive, where it would have been refused.
func (f Firewall) openings(family Family) []string {
	var listed, asked []string
	for _, t := range of(family, f.Addressed) {
		for _, i := range f.Clients {
			to := fmt.Sprintf("-i %s -p tcp -m tcp --dport %d", i, t.Port)
			listed = append(listed, only("-d", t.Prefix)+to+" -j ACCEPT")
			asked = append(asked, to+" -m socket --transparent -j ACCEPT")
		}
	}
	if len(listed) > mostOpenings {
		return unrepeated(asked)
	}
	return unrepeated(listed)
}

// wall drops what would begin a connection to an origin past the inspector.
// The program judges as the wall at the origin side's egress does; the rule asks
// it for all interfaces, so that one that is new is no way round. The loop link
// alone is none: what leaves by it comes back or is lost. Without the loop the rule
// is the same, for that of one configuration may stand beside the loop of another,
// while an inspector takes over or after an attach that was killed.
func (f Firewall) wall(family Family) []string {
	if f.Match == "" || !f.transit(family) {
		return nil
	}
	return []string{"! -o " + LoopLink + " -m bpf " + pinned + " " + f.Match + " -j DROP"}
}

// forward lets through what a policy of FORWARD would drop: new connections on
// their way to the loop link, and what is forwarded while no inspector of a
// service that fails open is alive. Replies are known by their flags, not by
// their state: a match for that would start tracking where there is none. More
// targets than mostOpenings are not listed, and a policy is not overruled for
// them.
func (f Firewall) forward(family Family) []string {
	var specs []string
	if f.loop(family) {
		specs = append(specs, marked(f.LoopMark)+" -j ACCEPT")
	}
	open := of(family, f.Open)
	if len(open) > mostOpenings {
		return specs
	}
	for _, t := range open {
		for _, i := range f.Clients {
			specs = append(specs, fmt.Sprintf("%s-i %s -p tcp -m tcp --dport %d -j ACCEPT", only("-d", t.Prefix), i, t.Port))
		}
		for _, i := range f.Origins {
			specs = append(specs, fmt.Sprintf("%s-i %s -p tcp -m tcp --sport %d ! %s -j ACCEPT", only("-s", t.Prefix), i, t.Port, syn))
		}
	}
	return unrepeated(specs)
}

// syn matches the first packet of a connection, after "-p tcp -m tcp".
const syn = "--tcp-flags FIN,SYN,RST,ACK SYN"

// came matches the first packet of a connection that passed FORWARD and was
// fetched back: it meets the chains of PREROUTING a second time.
func (f Firewall) came() string {
	return "-p tcp " + marked(f.ClientMark) + " -m tcp " + syn
}

// postrouting keeps MASQUERADE and SNAT off the connections that we forge: with
// another source, their replies would find no socket. Those that are fetched back
// from the loop link have to keep theirs too.
func (f Firewall) postrouting(family Family) []string {
	var specs []string
	if f.forged(family) {
		specs = append(specs, marked(f.OriginMark)+" -j ACCEPT")
	}
	if f.loop(family) {
		specs = append(specs, marked(f.LoopMark)+" -j ACCEPT")
	}
	return specs
}

// natPrerouting keeps DNAT off what is inspected here.
func (f Firewall) natPrerouting(family Family) []string {
	if !f.loop(family) {
		return nil
	}
	return []string{marked(f.LoopMark) + " -j ACCEPT"}
}

// manglePrerouting spares what was fetched back the rules that it has met.
func (f Firewall) manglePrerouting(family Family) []string {
	if !f.loop(family) {
		return nil
	}
	return []string{f.came() + " -j ACCEPT"}
}

// untracked keeps a packet out of connection tracking, without starting it
// where there is none.
const untracked = " -j CT --notrack"

// rawPrerouting keeps client legs of transit out of connection tracking. An entry
// for each SYN of a flood would fill the table of the whole gateway. And the
// origin leg may have the very same addresses and ports: one entry for both would
// mix their states.
// The socket match is there for what it brings along: fragments are put together
// before routing, without which they have no ports and no mark. It changes no
// packet, and starts no tracking either.
func (f Firewall) rawPrerouting(family Family) []string {
	var specs []string
	if f.transit(family) {
		specs = append(specs, marked(f.ClientMark)+untracked)
	}
	if f.loop(family) {
		specs = append(specs, f.came()+" -j ACCEPT")
	}
	if f.samePort(family) {
		specs = append(specs, marked(f.OriginMark)+untracked)
	}
	if f.transit(family) || f.forged(family) {
		specs = append(specs, marked(f.OriginMark)+" -m socket --transparent -j RETURN")
	}
	return specs
}

// foreign matches packets with a source that is not ours. A listener may serve
// addressed clients beside those of transit, and its mark is on their packets as
// well; those come from an address of our own, and are a matter of the host's
// rules and of connection tracking as anything else that is addressed to us.
const foreign = " -m addrtype ! --src-type LOCAL"

// rawOutput is the other direction of rawPrerouting.
func (f Firewall) rawOutput(family Family) []string {
	var specs []string
	if f.transit(family) {
		specs = append(specs, marked(f.ClientMark)+foreign+untracked)
	}
	if f.samePort(family) {
		specs = append(specs, marked(f.OriginMark)+foreign+untracked)
	}
	return specs
}

// output lets out what used to be forwarded: it is established to no rule where
// it is not tracked.
func (f Firewall) output(family Family) []string {
	return f.either(family, foreign+" -j ACCEPT")
}

// send lets out all else that the inspector sends, with its own address, unless a
// rule of the host drops it: with a policy of DROP there would be no mail.
func (f Firewall) send(family Family) []string {
	if !slices.Contains(f.Sent, family) {
		return nil
	}
	return []string{marked(f.ClientMark) + " -j ACCEPT", marked(f.OriginMark) + " -j ACCEPT"}
}

// marked matches one mark bit, whatever else the mark holds.
func marked(bit uint32) string { return fmt.Sprintf("-m mark --mark 0x%x/0x%x", bit, bit) }

// only matches a prefix by an option; all addresses need no match, and iptables
// would not show one.
func only(option string, p netip.Prefix) string {
	if p.Bits() == 0 {
		return ""
	}
	return option + " " + p.Masked().String() + " "
}

// of returns the targets of a family.
func of(family Family, targets []config.Target) []config.Target {
	return slices.DeleteFunc(slices.Clone(targets), func(t config.Target) bool {
		return FamilyOf(t.Prefix.Addr()) != family
	})
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

// first asks for a chain of ours that is met before the rules of others.
func (c *chains) first(table, base string, specs []string) {
	c.add(table, base, OwnChain(base), specs)
}

// last asks for a chain of ours that is met behind the rules of others.
func (c *chains) last(table, base string, specs []string) {
	c.add(table, base, LastChain(base), specs)
}

// add asks for a chain of ours with these rules, and for the jump to it from
// a base chain. Without rules it asks for nothing.
func (c *chains) add(table, base, own string, specs []string) {
	if len(specs) == 0 {
		return
	}
	if !c.legacy {
		c.items = append(c.items,
			Table{Family: c.family, Name: table},
			BaseChain{Family: c.family, Table: table, Name: base})
	}
	c.items = append(c.items, Chain{Family: c.family, Legacy: c.legacy, Table: table, Name: own})
	for _, spec := range specs {
		c.items = append(c.items, c.filter(table, own, spec))
	}
	jump := c.filter(table, base, Jump(own))
	jump.Place = PlaceOf(own)
	c.items = append(c.items, jump)
}

func (c *chains) filter(table, chain, spec string) Filter {
	return Filter{Family: c.family, Legacy: c.legacy, Table: table, Chain: chain, Spec: spec}
}

// OwnChain returns the name of our chain that a base chain leads to before the
// rules of others.
func OwnChain(base string) string { return ChainPrefix + base }

// LastChain returns the name of our chain that a base chain leads to behind the
// rules of others; "" if it has none.
func LastChain(base string) string { return lastChains[base] }

// PlaceOf returns where in its base chain the jump to a chain of ours belongs.
func PlaceOf(own string) Place {
	for _, last := range lastChains {
		if own == last {
			return Last
		}
	}
	return First
}

// Jump returns the rule that leads from a base chain to a chain of ours.
func Jump(own string) string {
	return strings.Join([]string{"-m comment --comment", Comment, "-j", own}, " ")
}
