package netfilter

import (
	"fmt"
	"slices"

	"github.com/google/nftables"

	"github.com/portreeve/portreeve/pkg/plan"
)

// lookNFT adds the chains of nftables, iptables-nft's among them. All are read
// as the kernel has them: iptables-nft shows rules made with nft as something
// else.
func (s *Survey) lookNFT(p patience) error {
	r, err := readRuleset(p)
	if err != nil {
		return err
	}
	err = p.unchanged(func(c *nftables.Conn) error {
		s.chains, s.flowtables = nil, nil
		sets := setsBy(c)
		unseen, err := readRaw()
		if err != nil {
			return err
		}
		for _, t := range r.tables {
			if err := s.addFlowtables(c, t); err != nil {
				return err
			}
		}
		for _, ch := range r.chains {
			if families := familiesOf(ch.Table.Family); families != nil {
				if err := s.addChain(c, sets, ch, families, unseen); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err = noNFTables(err); err != nil {
		return fmt.Errorf("read nftables: %w", err)
	}
	return nil
}

// familiesOf returns whose IP packets pass tables of a family, nil for none.
func familiesOf(f nftables.TableFamily) []plan.Family {
	if f == nftables.TableFamilyINet || f == nftables.TableFamilyNetdev {
		return []plan.Family{plan.IPv4, plan.IPv6}
	}
	if own := family(f); own != 0 {
		return []plan.Family{own}
	}
	return nil
}

// tableName is a table as nft calls it: "inet filter".
func tableName(t *nftables.Table) string { return familyWord(t.Family) + " " + t.Name }

func (s *Survey) addFlowtables(c *nftables.Conn, t *nftables.Table) error {
	if familiesOf(t.Family) == nil {
		return nil
	}
	all, err := c.ListFlowtables(t)
	for _, f := range all {
		s.flowtables = append(s.flowtables, Flowtable{
			Table: tableName(t), Name: f.Name, Devices: f.Devices,
			Hardware: f.Flags&nftables.FlowtableFlagsHWOffload != 0,
		})
	}
	return err
}

// hooks are the words for the kernel's numbers.
var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookPrerouting:  "prerouting",
	*nftables.ChainHookInput:       "input",
	*nftables.ChainHookForward:     "forward",
	*nftables.ChainHookOutput:      "output",
	*nftables.ChainHookPostrouting: "postrouting",
	inetIngress:                    "ingress",
}

// inetIngress is the ingress of an interface in tables of the family inet.
const inetIngress nftables.ChainHook = 5

// hookOf names the hook of a base chain.
func hookOf(ch *nftables.Chain) string {
	if ch.Table.Family != nftables.TableFamilyNetdev {
		return hooks[*ch.Hooknum]
	}
	if *ch.Hooknum == *nftables.ChainHookEgress {
		return "egress"
	}
	return "ingress"
}

func (s *Survey) addChain(c *nftables.Conn, sets *sets, ch *nftables.Chain, families []plan.Family, unseen raw) error {
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return err
	}
	one := chain{Place: placeOf(ch, families), rules: len(rules)}
	at := nftRule{table: tableName(ch.Table), chain: ch.Name}
	if ch.Hooknum != nil {
		one.hook, one.devices = hookOf(ch), unseen.devices[at]
		one.nat = ch.Type == nftables.ChainTypeNAT
		one.dropping = ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
	}
	if ch.Priority != nil {
		one.priority = int(*ch.Priority)
	}
	for i, r := range rules {
		d := decoder{sets: sets, table: ch.Table, family: ch.Table.Family}
		at.handle = r.Handle
		for _, e := range d.rule(r, one.Place, unseen.names[at]) {
			e.number = i + 1
			one.entries = append(one.entries, e)
		}
	}
	s.chains = append(s.chains, one)
	return nil
}

// placeOf tells whose a chain is: iptables-nft's base chains have names in
// capitals, in tables of the families ip and ip6.
func placeOf(ch *nftables.Chain, families []plan.Family) Place {
	builtin := []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
	known := []string{"filter", "nat", "raw", "mangle", "security"}
	if len(families) == 1 && slices.Contains(known, ch.Table.Name) && (ch.Hooknum == nil || slices.Contains(builtin, ch.Name)) {
		return Place{IPTablesNFT, families, ch.Table.Name, ch.Name}
	}
	return Place{NFT, families, tableName(ch.Table), ch.Name}
}
