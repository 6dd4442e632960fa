package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/netfilter"
)

// Ruleset is a file that rules are loaded from.
type Ruleset struct {
	File string
	Text string
}

// rulesets are where rules are kept for the next start, or the next reload.
var rulesets = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/iptables/rules.v4", "/etc/iptables/rules.v6", "/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"}

func readRulesets() []Ruleset {
	var all []Ruleset
	for _, file := range rulesets {
		if text, err := os.ReadFile(file); err == nil {
			all = append(all, Ruleset{file, string(text)})
		}
	}
	return all
}

// cures are what is to be done about rules.
type cures struct{ *gateway }

// keep says, behind a command, in which file the same has to be written: without
// that it lasts until the next reload.
func (c cures) keep(p netfilter.Place) string {
	for _, r := range c.m.Rulesets {
		if r.holds(p) {
			return " # and write it into " + r.File + ", or the next reload undoes it"
		}
	}
	return ""
}

// holds reports whether the file makes a chain.
func (r Ruleset) holds(p netfilter.Place) bool {
	v6 := p.Flavour != netfilter.NFT && strings.HasPrefix(p.String(), "ip6")
	saved := strings.Contains(r.Text, "\n:"+p.Chain+" ") && strings.Contains("\n"+r.Text, "\n*"+p.Table+"\n")
	six := strings.HasSuffix(r.File, "v6") || strings.Contains(r.File, "ip6")
	if p.Flavour != netfilter.NFT {
		return saved && six == v6
	}
	return strings.Contains(strings.Join(strings.Fields(r.Text), " "), "table "+p.Table+" {")
}

// cure is what to do about a rule that does harm: what the program that made it keeps,
// else the rule's own command.
func (c cures) cure(g group) string {
	if command := c.managed(g); command != "" {
		return command
	}
	if g.harm == diverts && g.leg.client() {
		return g.Removal() + " # to serve the address where it points to, name that origin under origins" + c.keepAlso(g.Place)
	}
	if g.harm == setsMark {
		return "set kernel.client_mark, origin_mark and loop_mark to bits that nobody else uses"
	}
	return strings.Join(c.commands(g), " && ") + c.keep(g.Place)
}

// keepAlso is keep behind another remark.
func (c cures) keepAlso(p netfilter.Place) string {
	return strings.Replace(c.keep(p), " # and", "; and", 1)
}

// commands let the packets of a group pass a rule: those that bear marks of ours by
// those, others by where they go. Rules that concern every packet, and policies,
// leave the rest to others; others are made to spare them.
func (c cures) commands(g group) []string {
	var marks uint32
	for _, t := range g.members {
		marks |= t.mark
	}
	var commands []string
	switch {
	case marks == 0:
	case g.Policy() || g.Unconditional():
		commands = append(commands, g.Accepting(netfilter.Bearing(marks)))
	default:
		commands = append(commands, g.Sparing(marks))
	}
	for _, c := range openings(g.members) {
		commands = append(commands, g.Accepting(c))
	}
	return commands
}

// opening is what comes by one interface to one address, or from it.
type opening struct {
	in, out string
	at      netip.Prefix
	from    bool // at is the source
}

// openings are the conditions for packets without marks.
func openings(members []trouble) []netfilter.Conditions {
	ports := map[opening][]uint16{}
	var order []opening
	for _, t := range members {
		if t.mark != 0 {
			continue
		}
		p := t.steps[len(t.steps)-1]
		o := opening{in: p.In, at: t.to.Prefix, from: t.leg == openReply}
		if t.leg == openSYN || t.leg == openReply {
			o.out = p.Out
		}
		if _, known := ports[o]; !known {
			order = append(order, o)
		}
		if !slices.Contains(ports[o], t.to.Port) {
			ports[o] = append(ports[o], t.to.Port)
		}
	}
	var all []netfilter.Conditions
	for _, o := range order {
		for some := range slices.Chunk(ports[o], mostPorts) {
			all = append(all, o.conditions(some))
		}
	}
	return all
}

// mostPorts is how many ports iptables takes in one rule.
const mostPorts = 15

func (o opening) conditions(ports []uint16) netfilter.Conditions {
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprint(p))
	}
	iptables, nft := "", ""
	if o.out != "" {
		iptables, nft = "-o "+o.out+" ", "oifname "+o.out+" "
	}
	side, tcp, family := "-d", "dport", "ip daddr"
	if o.from {
		side, tcp, family = "-s", "sport", "ip saddr"
	}
	if o.at.Addr().Is6() {
		family = strings.Replace(family, "ip", "ip6", 1)
	}
	single, set := fmt.Sprintf("-m tcp --%s %s", tcp, words[0]), words[0]
	if len(words) > 1 {
		single, set = fmt.Sprintf("-m multiport --%ss %s", tcp, strings.Join(words, ",")), "{ "+strings.Join(words, ", ")+" }"
	}
	c := netfilter.Conditions{
		IPTables: fmt.Sprintf("-i %s %s%s %s -p tcp %s", o.in, iptables, side, o.at, single),
		NFT:      fmt.Sprintf("iifname %s %s%s %s tcp %s %s", o.in, nft, family, o.at, tcp, set),
	}
	if o.at.Bits() == 0 {
		c.IPTables = strings.Replace(c.IPTables, fmt.Sprintf("%s %s ", side, o.at), "", 1)
		c.NFT = strings.Replace(c.NFT, fmt.Sprintf("%s %s ", family, o.at), "meta nfproto ipv"+map[bool]string{true: "6", false: "4"}[o.at.Addr().Is6()]+" ", 1)
	}
	return c
}
