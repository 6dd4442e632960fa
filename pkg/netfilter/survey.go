package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Flavour is the program that a rule was made with, and has to be changed
// with.
type Flavour string

const (
	NFT            Flavour = "nft"
	IPTablesNFT    Flavour = "iptables-nft"
	IPTablesLegacy Flavour = "iptables-legacy"
)

// Place is a chain.
type Place struct {
	Flavour  Flavour
	Families []plan.Family // whose packets pass it
	Table    string        // as its tool calls it: "filter", "inet firewalld"
	Chain    string
}

// String returns the place in words: "iptables-legacy table filter chain INPUT".
func (p Place) String() string {
	tool := string(p.Flavour)
	if p.Flavour != NFT && len(p.Families) == 1 && p.Families[0] == plan.IPv6 {
		tool = strings.Replace(tool, "ip", "ip6", 1)
	}
	return fmt.Sprintf("%s table %s chain %s", tool, p.Table, p.Chain)
}

// Survey is the packet filter at one moment, everybody's rules of both
// flavours.
type Survey struct {
	chains     []chain
	flowtables []Flowtable
}

// chain is a chain of either flavour.
type chain struct {
	Place
	hook     string // "prerouting", "input", "output", "postrouting"; "" for one that is jumped to
	dropping bool   // policy drop
	entries  []entry
}

// Flowtable lets the packets of established flows pass by the rules, and by
// the routing rules: flows that it took up before attach stay unseen.
type Flowtable struct {
	Table    string // "inet filter"
	Name     string
	Devices  []string
	Hardware bool // the network card forwards them
}

// Look reads the packet filter. It makes no table and changes nothing.
func Look() (*Survey, error) {
	s := &Survey{}
	if err := s.lookNFT(); err != nil {
		return nil, err
	}
	if err := s.lookLegacy(); err != nil {
		return nil, err
	}
	return s, nil
}

// Flavours returns those that hold any rule, or a policy of drop. Our own
// count.
func (s *Survey) Flavours() []Flavour {
	var used []Flavour
	for _, c := range s.chains {
		if (c.dropping || len(c.entries) > 0) && !slices.Contains(used, c.Flavour) {
			used = append(used, c.Flavour)
		}
	}
	slices.Sort(used)
	return used
}

// Flowtables returns the flowtables of all families.
func (s *Survey) Flowtables() []Flowtable { return s.flowtables }

// Drop is a base chain that lets no packet through unless a rule accepts it.
type Drop struct {
	Place
	By      string // "policy drop", or the rule at its end
	Guarded bool   // our jump is at its head
	survey  *Survey
	at      chain
}

// Input returns the base chains that drop what is addressed to this machine.
func (s *Survey) Input() []Drop { return s.drops("input") }

// Output returns the base chains that drop what this machine sends.
func (s *Survey) Output() []Drop { return s.drops("output") }

func (s *Survey) drops(hook string) []Drop {
	var found []Drop
	for _, c := range s.chains {
		by := c.dropsBy()
		if c.hook == hook && by != "" {
			found = append(found, Drop{Place: c.Place, By: by, Guarded: c.guarded(), survey: s, at: c})
		}
	}
	return found
}

// dropsBy says what drops at the chain's end, "" for nothing.
func (c chain) dropsBy() string {
	if c.dropping {
		return "policy drop"
	}
	if n := len(c.entries); n > 0 {
		last := c.entries[n-1]
		if last.always() && (last.action == drop || last.action == reject) {
			return last.text
		}
	}
	return ""
}

// guarded reports whether our jump comes before every other rule.
func (c chain) guarded() bool { return len(c.entries) > 0 && c.entries[0].ourJump }

// LetsIn reports whether a rule is sure to accept the packet before another
// is sure to drop it. False may also mean that the conditions are beyond us.
func (d Drop) LetsIn(p Packet) bool {
	let := false
	d.survey.walk(d.at, p, surely, nil, func(_ chain, e entry, f fit) {
		let = let || e.action == accept && f == surely
	})
	return let
}

// Refusal is a rule that is sure to drop a packet because of what connection
// tracking says of it.
type Refusal struct {
	Place
	Hook string // "prerouting", "input" or "output"
	Rule string // as its tool shows or finds it
	// Guarded means that our jump is at the head of the base chain by which
	// the rule is reached.
	Guarded bool
}

// Refusals returns the rules that drop a packet, which is not tracked, for its
// being so: those that let certain states through, and it has none of them.
func (s *Survey) Refusals(hook string, p Packet) []Refusal {
	p.Untracked = true
	var found []Refusal
	for _, base := range s.chains {
		if base.hook != hook {
			continue
		}
		s.walk(base, p, surely, nil, func(c chain, e entry, f fit) {
			if (e.action == drop || e.action == reject) && f == surely && e.asks(ctState) {
				found = append(found, Refusal{Place: c.Place, Hook: hook, Rule: e.text, Guarded: base.guarded()})
			}
		})
	}
	return found
}

// Translation is a rule that changes a packet's addresses, or hands it to
// another proxy.
type Translation struct {
	Place
	Action string // "dnat", "redirect", "tproxy", "snat", "masquerade"
	Rule   string // as its tool shows or finds it
	// Guarded means that our jump is at the head of the base chain by which
	// the rule is reached: what bears our mark is accepted before it.
	Guarded bool
}

// Diversions returns the rules that may send a packet from outside somewhere
// else than it is addressed to.
func (s *Survey) Diversions(p Packet) []Translation {
	return s.translations("prerouting", p, dnat, redirect, tproxy)
}

// DiversionsInto returns the rules that may send connections to a port, at
// whatever address, into a prefix. Rules of nftables do not show where to, so
// each of them may.
func (s *Survey) DiversionsInto(to netip.Prefix, port uint16) []Translation {
	var found []Translation
	for _, t := range s.translations("prerouting", Packet{Port: port}, dnat) {
		if target, shown := destinationOf(t.Rule); !shown || to.Contains(target) {
			found = append(found, t)
		}
	}
	return found
}

// destinationOf reads where a rule of iptables sends packets.
func destinationOf(rule string) (netip.Addr, bool) {
	_, rest, found := strings.Cut(rule, "--to-destination ")
	word, _, _ := strings.Cut(rest, " ")
	word, _, _ = strings.Cut(word, "-") // a range begins in the prefix, or does not matter much
	if !found {
		return netip.Addr{}, false
	}
	if a, err := netip.ParseAddr(word); err == nil {
		return a, true
	}
	ap, err := netip.ParseAddrPort(word)
	return ap.Addr(), err == nil
}

// DiversionsOfOurs returns the rules that may send a connection that this
// machine opens somewhere else.
func (s *Survey) DiversionsOfOurs(p Packet) []Translation {
	return s.translations("output", p, dnat, redirect)
}

// Rewrites returns the rules that may give a leaving packet another source.
func (s *Survey) Rewrites(p Packet) []Translation {
	return s.translations("postrouting", p, snat, masquerade)
}

func (s *Survey) translations(hook string, p Packet, wanted ...action) []Translation {
	var found []Translation
	for _, base := range s.chains {
		if base.hook != hook {
			continue
		}
		s.walk(base, p, surely, nil, func(c chain, e entry, _ fit) {
			if slices.Contains(wanted, e.action) {
				found = append(found, Translation{
					Place: c.Place, Action: e.action.String(), Rule: e.text, Guarded: base.guarded(),
				})
			}
		})
	}
	return found
}

// walk calls see with every rule that may concern the packet, in a chain and
// in those that it leads to; a rule is as sure as the jumps on the way to it.
// It ends where the packet's way is sure to end, and reports whether it may go
// on behind the chain. Chains on the way are not entered again.
func (s *Survey) walk(c chain, p Packet, sure fit, way []string, see func(chain, entry, fit)) bool {
	if !c.concerns(p) || slices.Contains(way, c.Chain) {
		return true
	}
	way = append(slices.Clone(way), c.Chain)
	for _, e := range c.entries {
		f := min(sure, e.fit(p))
		if f == never {
			continue
		}
		see(c, e, f)
		if next, found := s.chain(c.Place, e.to); found && !s.walk(next, p, f, way, see) {
			return false
		}
		if f == surely && e.action.final() {
			return false
		}
		if f == surely && (e.action == leave || e.action == goTo) {
			return true
		}
	}
	return true
}

// concerns reports whether packets of this family pass the chain.
func (c chain) concerns(p Packet) bool {
	a := p.To
	if !a.IsValid() {
		a = p.From
	}
	return !a.IsValid() || slices.Contains(c.Families, plan.FamilyOf(a))
}

// chain finds a chain of the same table.
func (s *Survey) chain(beside Place, name string) (chain, bool) {
	i := slices.IndexFunc(s.chains, func(c chain) bool {
		return name != "" && c.Chain == name && c.Table == beside.Table && slices.Equal(c.Families, beside.Families) &&
			(c.Flavour == IPTablesLegacy) == (beside.Flavour == IPTablesLegacy)
	})
	if i < 0 {
		return chain{}, false
	}
	return s.chains[i], true
}
