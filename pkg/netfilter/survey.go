package netfilter

import (
	"context"
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
	tool := string(NFT)
	if p.Flavour != NFT {
		tool = p.tool().String()
	}
	return fmt.Sprintf("%s table %s chain %s", tool, p.Table, p.Chain)
}

// tool is the command that the place's rules are changed with, if it is one of
// iptables'.
func (p Place) tool() tool {
	return tool{family: p.Families[0], legacy: p.Flavour == IPTablesLegacy}
}

// Survey is the packet filter at one moment, everybody's rules of both
// flavours.
type Survey struct {
	chains     []chain
	flowtables []Flowtable
	printer    *printer

	index    map[chainKey]int    // where chains are
	indexed  int                 // how many of them are in the index
	texts    map[*chain][]string // of rules, as their tools show them
	rules    int                 // how many there are, counted when the first packet is followed
	effort   *effort             // nil: no packet was followed yet
	shapes   *shapes             // nil: no packet was followed yet
	accepted map[plan.Family][]netip.Prefix
}

// chainKey is what chains are told apart by. Those that iptables-nft and nft made are in
// one place.
type chainKey struct {
	legacy       bool
	families     [2]plan.Family
	table, chain string
}

func (p Place) key() chainKey {
	k := chainKey{legacy: p.Flavour == IPTablesLegacy, table: p.Table, chain: p.Chain}
	copy(k.families[:], p.Families)
	return k
}

// chain is a chain of either flavour.
type chain struct {
	Place
	hook     string // "prerouting", "input", "output", "postrouting" …; "" for one that is jumped to
	devices  []string
	priority int
	nat      bool // asked for the first packet of a connection only
	dropping bool // policy drop
	rules    int  // that there are
	entries  []entry
}

// RuleID is what a rule is told apart by from all others of a survey.
type RuleID struct {
	chain  chainKey
	number int
}

// ID returns the rule's. That of a policy has no number.
func (r Rule) ID() RuleID { return RuleID{r.key(), r.entry.number} }

// Flowtable lets the packets of established flows pass by the rules, and by
// the routing rules: flows that it took up before attach stay unseen.
type Flowtable struct {
	Table    string // "inet filter"
	Name     string
	Devices  []string
	Hardware bool // the network card forwards them
}

// Look reads the packet filter. It makes no table and changes nothing. Where others change
// the rules meanwhile it does not wait for the end of that for long, and not when ctx ends.
func Look(ctx context.Context) (*Survey, error) {
	s := &Survey{printer: &printer{}}
	if err := s.lookNFT(patient(ctx)); err != nil {
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

// DiversionsInto returns the rules that may send connections to a port, at
// whatever address, into a prefix. Rules of nftables do not show where to, so
// each of them may.
func (s *Survey) DiversionsInto(to netip.Prefix, port uint16) []Meeting {
	p := Packet{Family: plan.FamilyOf(to.Addr()), In: AnyInterface, Port: port, State: StateNew}
	var found []Meeting
	for _, m := range s.Meet("prerouting", p) {
		if target, shown := destinationOf(m.Rule.entry.text); m.action == dnat && (!shown || to.Contains(target)) {
			found = append(found, m)
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

// concerns reports whether packets of this family pass the chain.
func (c chain) concerns(p Packet) bool {
	return p.Family == 0 || slices.Contains(c.Families, p.Family)
}

// ours reports whether a chain is one of ours.
func (p Place) ours() bool {
	return p.Flavour != NFT && strings.HasPrefix(p.Chain, plan.ChainPrefix)
}

// chain finds a chain of the same table.
func (s *Survey) chain(beside Place, name string) (*chain, bool) {
	if name == "" {
		return nil, false
	}
	if s.index == nil {
		s.index = map[chainKey]int{}
	}
	for ; s.indexed < len(s.chains); s.indexed++ {
		k := s.chains[s.indexed].key()
		if _, twice := s.index[k]; !twice {
			s.index[k] = s.indexed
		}
	}
	beside.Chain = name
	i, found := s.index[beside.key()]
	if !found {
		return nil, false
	}
	return &s.chains[i], true
}
