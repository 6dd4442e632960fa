package netfilter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// hookPoint is where iptables-nft hooks a base chain in.
type hookPoint struct {
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
}

// baseChains are the base chains of the tables that our rules live in, as
// iptables-nft makes them.
var baseChains = map[string]map[string]hookPoint{
	"filter": {
		"INPUT":   {nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter},
		"FORWARD": {nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter},
		"OUTPUT":  {nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter},
	},
	"nat": {
		"PREROUTING":  {nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest},
		"INPUT":       {nftables.ChainTypeNAT, nftables.ChainHookInput, nftables.ChainPriorityNATSource},
		"OUTPUT":      {nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest},
		"POSTROUTING": {nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource},
	},
	"mangle": {
		"PREROUTING":  {nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle},
		"INPUT":       {nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityMangle},
		"FORWARD":     {nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityMangle},
		"OUTPUT":      {nftables.ChainTypeRoute, nftables.ChainHookOutput, nftables.ChainPriorityMangle},
		"POSTROUTING": {nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityMangle},
	},
	"raw": {
		"PREROUTING": {nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw},
		"OUTPUT":     {nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw},
	},
}

// ruleset is what the kernel says of nftables tables and chains.
type ruleset struct {
	tables []*nftables.Table
	chains []*nftables.Chain
}

// readRuleset reads tables and chains of all families. A kernel without
// nftables has none.
func readRuleset(p patience) (ruleset, error) {
	var r ruleset
	err := p.unchanged(func(c *nftables.Conn) (err error) {
		if r.tables, err = c.ListTables(); err != nil {
			return err
		}
		r.chains, err = c.ListChains()
		return err
	})
	if err = noNFTables(err); err != nil {
		return ruleset{}, fmt.Errorf("list nftables: %w", permitted(err))
	}
	return r, nil
}

// noNFTables drops the errors that mean that the kernel has no nftables.
func noNFTables(err error) error {
	for _, absent := range []error{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EINVAL} {
		if errors.Is(err, absent) {
			return nil
		}
	}
	return err
}

// permitted adds the remedy to the refusal of an unprivileged caller.
func permitted(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: run it with CAP_NET_ADMIN, as root", err)
	}
	return err
}

// shared returns the tables and base chains that exist and that we could
// want.
func (r ruleset) shared() []plan.Item {
	var items []plan.Item
	for _, t := range r.tables {
		if _, known := baseChains[t.Name]; known && family(t.Family) != 0 {
			items = append(items, plan.Table{Family: family(t.Family), Name: t.Name})
		}
	}
	for _, c := range r.chains {
		if _, known := baseChains[c.Table.Name][c.Name]; known && family(c.Table.Family) != 0 && c.Hooknum != nil {
			items = append(items, plan.BaseChain{Family: family(c.Table.Family), Table: c.Table.Name, Name: c.Name})
		}
	}
	return items
}

// ownTables returns the tables that hold chains of ours.
func (r ruleset) ownTables() []plan.Table {
	var tables []plan.Table
	for _, c := range r.chains {
		t := plan.Table{Family: family(c.Table.Family), Name: c.Table.Name}
		if t.Family != 0 && strings.HasPrefix(c.Name, plan.ChainPrefix) && !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
	}
	return tables
}

func (r ruleset) hasTable(t plan.Table) bool {
	return slices.ContainsFunc(r.tables, func(n *nftables.Table) bool {
		return n.Family == nftFamily(t.Family) && n.Name == t.Name
	})
}

// chainsOf returns the chains of a table.
func (r ruleset) chainsOf(t plan.Table) []*nftables.Chain {
	return slices.DeleteFunc(slices.Clone(r.chains), func(c *nftables.Chain) bool {
		return c.Table.Family != nftFamily(t.Family) || c.Table.Name != t.Name
	})
}

// legacyTables returns the names of a family's iptables-legacy tables in the
// calling thread's network namespace. /proc/net would be that of the process.
func legacyTables(f plan.Family) ([]string, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if f == plan.IPv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list iptables-legacy tables: %w", permitted(err))
	}
	return strings.Fields(string(data)), nil
}

func family(f nftables.TableFamily) plan.Family {
	switch f {
	case nftables.TableFamilyIPv4:
		return plan.IPv4
	case nftables.TableFamilyIPv6:
		return plan.IPv6
	}
	return 0
}

// familyWord is how nft calls a family.
func familyWord(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}

func nftFamily(f plan.Family) nftables.TableFamily {
	if f == plan.IPv6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// addTable makes a table unless it exists. One that exists is not even asked
// for again: the request carries flags, which would wake up a dormant table.
func addTable(t plan.Table) error {
	r, err := readRuleset(forChange())
	if err != nil || r.hasTable(t) {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(&nftables.Table{Family: nftFamily(t.Family), Name: t.Name})
	return permitted(c.Flush())
}

// addNFTChain makes a chain of ours unless it exists.
func addNFTChain(ch plan.Chain) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddChain(&nftables.Chain{Name: ch.Name, Table: &nftables.Table{Family: nftFamily(ch.Family), Name: ch.Table}})
	return c.Flush()
}

// removeNFTChain deletes a chain of ours with what somebody may have put into
// it. The kernel refuses while a rule leads there.
func removeNFTChain(ch plan.Chain) error {
	r, err := readRuleset(forChange())
	if err != nil {
		return err
	}
	all := r.chainsOf(plan.Table{Family: ch.Family, Name: ch.Table})
	for _, own := range all {
		if own.Name != ch.Name {
			continue
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelChain(own)
		err = c.Flush()
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if errors.Is(err, unix.EBUSY) {
			return nameUser(ch, all, err)
		}
		return err
	}
	return nil
}

// nameUser finds the rule because of which a chain cannot be deleted.
func nameUser(ch plan.Chain, all []*nftables.Chain, busy error) error {
	for _, c := range all {
		jumps, err := jumpsIn(forChange(), c)
		if err != nil {
			return err
		}
		for _, j := range jumps {
			if j.target == ch.Name {
				return usedBy(ch, fmt.Sprintf("nft delete rule %s %s %s handle %d", familyWord(c.Table.Family), c.Table.Name, c.Name, j.handle))
			}
		}
	}
	return fmt.Errorf("chain %s is still used: %w", ch.Name, busy)
}

// addBaseChain makes a base chain unless it exists. No policy is sent: a new
// chain's is accept, and one that somebody made meanwhile keeps its own.
func addBaseChain(b plan.BaseChain) error {
	at, known := baseChains[b.Table][b.Name]
	if !known {
		return fmt.Errorf("iptables has no base chain %s in table %s", b.Name, b.Table)
	}
	r, err := readRuleset(forChange())
	if err != nil {
		return err
	}
	if slices.Contains(r.shared(), plan.Item(b)) {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddChain(&nftables.Chain{
		Name: b.Name, Table: &nftables.Table{Family: nftFamily(b.Family), Name: b.Table},
		Type: at.kind, Hooknum: at.hook, Priority: at.priority,
	})
	return c.Flush()
}

// removeBaseChain deletes a base chain that is as iptables-nft made it and
// holds nothing; any other stays.
func removeBaseChain(b plan.BaseChain) error {
	r, err := readRuleset(forChange())
	if err != nil {
		return err
	}
	for _, c := range r.chainsOf(plan.Table{Family: b.Family, Name: b.Table}) {
		if c.Name == b.Name && pristine(c) {
			return keepUsed(deleteAtOnce(chainDeletion(c)))
		}
	}
	return nil
}

// removeTable deletes a table that holds nothing but base chains as
// iptables-nft makes them, all empty: old versions make all of a table's base
// chains when they need one. Any other table stays.
func removeTable(t plan.Table) error {
	r, err := readRuleset(forChange())
	if err != nil || !r.hasTable(t) {
		return err
	}
	var deletions []deletion
	for _, c := range r.chainsOf(t) {
		if !pristine(c) {
			return nil
		}
		deletions = append(deletions, chainDeletion(c))
	}
	return keepUsed(deleteAtOnce(append(deletions, tableDeletion(t))...))
}

// pristine reports whether a chain is a base chain that iptables-nft makes by
// itself, with the policy that it gives.
func pristine(c *nftables.Chain) bool {
	at, known := baseChains[c.Table.Name][c.Name]
	return known && c.Hooknum != nil && *c.Hooknum == *at.hook && c.Type == at.kind &&
		*c.Priority == *at.priority && c.Policy != nil && *c.Policy == nftables.ChainPolicyAccept
}

// keepUsed makes a success of the refusal to delete what is used or gone.
func keepUsed(err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
