// Package netfilter owns our chains in the kernel's packet filter: a few
// rules in chains whose names begin with PORTREEVE-, and one commented jump to
// each from a base chain, in iptables-nft or iptables-legacy. A jump has a place:
// before the rules of others, or behind them, see place.go. One that others have
// put out of its place is read as astray, and Replace moves it back.
//
// It never changes a policy, never flushes, never moves or removes a rule that
// it did not make. Which rules are needed is plan's business; apply calls the
// Hand to make them so. A [Survey] reads everybody's rules, and doctor asks it what
// a [Packet] of ours meets on its way.
//
// iptables-nft makes a table and its base chains when they are first used.
// Those are items of their own and leave again when they are empty. The tables
// of iptables-legacy cannot be taken away from a running kernel: once used,
// an empty one stays listed by iptables-legacy-save until the next boot.
//
// Everything acts in the network namespace of the calling thread; the
// commands that it starts inherit it.
package netfilter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/nftables"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Hand reads and changes netfilter for apply. It is safe for concurrent use.
type Hand struct {
	tools tools
	until context.Context // nil: forever

	mu     sync.Mutex
	read   uint32             // the generation of the ruleset in which nft was read; 0: not yet
	nft    []plan.Item        // what was ours there
	listed map[string]listing // our chains of nftables as iptables showed them, by what they held
}

// New returns a Hand. It looks for no command before one is needed.
func New() *Hand { return &Hand{} }

// Until makes Have give up, where others keep it from its end, when ctx ends. What is
// changed is changed all the same. It is called before the hand is used.
func (h *Hand) Until(ctx context.Context) *Hand {
	h.until = ctx
	return h
}

// Name returns "netfilter".
func (*Hand) Name() string { return "netfilter" }

// Owns reports whether items of kind k are kept by this hand.
func (*Hand) Owns(k plan.Kind) bool {
	return k == plan.KindTable || k == plan.KindChain || k == plan.KindFilter
}

// Have returns our chains, the rules in them and the jumps to them, and of
// the tables and base chains that iptables-nft would make those that exist,
// whoever made them. Looking makes no table.
func (h *Hand) Have() ([]plan.Item, error) {
	nft, err := h.haveNFT()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	legacy, err := h.haveLegacy()
	if err != nil {
		return nil, fmt.Errorf("list iptables-legacy: %w", err)
	}
	return append(nft, legacy...), nil
}

// haveNFT reads what is ours in nftables, unless the kernel says that nothing has
// changed since it was read last: who keeps an eye on it asks again and again.
func (h *Hand) haveNFT() ([]plan.Item, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, err := generation()
	if err != nil {
		return h.readNFT() // which says what is wrong
	}
	if h.read == now {
		return slices.Clone(h.nft), nil
	}
	items, err := h.readNFT()
	if then, again := generation(); err == nil && again == nil && then == now {
		h.read, h.nft = now, slices.Clone(items)
	}
	return items, err
}

// readNFT asks the kernel which tables and chains there are, and starts
// iptables-nft only for chains of ours that hold what it has not shown before.
func (h *Hand) readNFT() ([]plan.Item, error) {
	ctx := h.until
	if ctx == nil {
		ctx = context.Background()
	}
	p := patient(ctx)
	r, err := readRuleset(p)
	if err != nil {
		return nil, err
	}
	items := r.shared()
	before := h.listed
	h.listed = map[string]listing{}
	for _, t := range r.ownTables() {
		for _, c := range r.chainsOf(t) {
			found, err := h.haveIn(p, c, before)
			if err != nil {
				return nil, err
			}
			items = append(items, found...)
		}
	}
	return items, nil
}

// haveIn reads one of our chains, and from a base chain our jumps. iptables-nft
// is not asked about chains of others: it stumbles over rules made with nft, or
// shows them as something else.
func (h *Hand) haveIn(p patience, c *nftables.Chain, before map[string]listing) ([]plan.Item, error) {
	f := family(c.Table.Family)
	if strings.HasPrefix(c.Name, plan.ChainPrefix) {
		l, err := h.listOwn(p, c, before)
		if errors.Is(err, ErrMissing) {
			// The chain can be found and removed without iptables, and its
			// rules go with it.
			l, err = listing{chains: []string{c.Name}}, nil
		}
		return l.own(f, false, c.Table.Name), err
	}
	if c.Hooknum == nil {
		return nil, nil
	}
	b, err := readBase(p, c)
	return b.jumps(f, false, c.Table.Name, c.Name), err
}

// listOwn is what iptables shows of a chain of ours in nftables. It is not asked again
// about what it has shown: each answer is a process, which on a busy machine takes a
// while, and there are twenty such chains.
func (h *Hand) listOwn(p patience, c *nftables.Chain, before map[string]listing) (listing, error) {
	held, empty, err := contentOf(p, c)
	if err != nil {
		return listing{}, err
	}
	l, known := before[held]
	switch {
	case empty:
		return listing{chains: []string{c.Name}}, nil
	case !known:
		if l, err = h.tools.list(tool{family: family(c.Table.Family)}, c.Table.Name, c.Name); err != nil {
			return l, err
		}
		if again, _, err := contentOf(p, c); err != nil || again != held {
			return l, err // it was changed meanwhile: nobody knows what was shown
		}
	}
	if h.listed == nil {
		h.listed = map[string]listing{}
	}
	h.listed[held] = l
	return l, nil
}

// haveLegacy looks only into tables that exist already: iptables-legacy makes
// a table by looking at it. Without the command nothing there can be ours.
func (h *Hand) haveLegacy() ([]plan.Item, error) {
	var items []plan.Item
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		names, err := legacyTables(f)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			l, err := h.tools.list(tool{family: f, legacy: true}, name, "")
			if errors.Is(err, ErrMissing) {
				break
			}
			if err != nil {
				return nil, err
			}
			items = append(items, l.own(f, true, name)...)
		}
	}
	return items, nil
}

// Add makes an item. One that is present is left as it is, but for a jump that is
// not in its place: it is put there.
func (h *Hand) Add(i plan.Item) error {
	switch i := i.(type) {
	case plan.Table:
		return addTable(i)
	case plan.BaseChain:
		return addBaseChain(i)
	case plan.Chain:
		return h.addChain(i)
	case plan.Filter:
		return h.addFilter(i)
	}
	return fmt.Errorf("netfilter cannot add %s", i)
}

// Replace changes old to new. The only state of an item besides being there is
// that of a jump astray: to add the right one is to move it. A move is not taken
// back.
func (h *Hand) Replace(old, new plan.Item) error {
	if err := h.Add(new); err != nil {
		return err
	}
	if old.Key() == new.Key() {
		return nil
	}
	return h.Remove(old)
}

// Remove takes an item away. One that is absent is a success, and so is a
// table or base chain that somebody uses: it stays.
func (h *Hand) Remove(i plan.Item) error {
	switch i := i.(type) {
	case plan.Table:
		return removeTable(i)
	case plan.BaseChain:
		return removeBaseChain(i)
	case plan.Chain:
		return h.removeChain(i)
	case plan.Filter:
		return h.removeFilter(i)
	}
	return fmt.Errorf("netfilter cannot remove %s", i)
}

func (h *Hand) addChain(c plan.Chain) error {
	if err := ours(c.Name); err != nil {
		return err
	}
	if !c.Legacy {
		return addNFTChain(c)
	}
	t := tool{c.Family, true}
	l, err := h.listLegacy(t, c.Table)
	if err != nil || slices.Contains(l.chains, c.Name) {
		return err
	}
	cmd, err := h.tools.get(t)
	if err != nil {
		return err
	}
	if err := cmd.NewChain(c.Table, c.Name); err != nil {
		// Somebody was quicker with the same chain: that is a success too.
		if l, again := h.listLegacy(t, c.Table); again == nil && slices.Contains(l.chains, c.Name) {
			return nil
		}
		return explain(t, c.Table, err, "")
	}
	return nil
}

// removeChain deletes a chain of ours. The kernel refuses when a rule leads
// there that is not ours, and then that rule is named.
func (h *Hand) removeChain(c plan.Chain) error {
	if err := ours(c.Name); err != nil {
		return err
	}
	if !c.Legacy {
		return removeNFTChain(c)
	}
	t := tool{c.Family, true}
	l, err := h.listLegacy(t, c.Table)
	if err != nil || !slices.Contains(l.chains, c.Name) {
		return err
	}
	for _, r := range l.rules {
		if r.target() == c.Name {
			return usedBy(c, fmt.Sprintf("%s -t %s -D %s %s", t, c.Table, r.chain, r.spec))
		}
	}
	cmd, err := h.tools.get(t)
	if err != nil {
		return err
	}
	return explain(t, c.Table, cmd.DeleteChain(c.Table, c.Name), "")
}

// usedBy says that a rule of somebody leads to a chain, and how to remove it.
func usedBy(c plan.Chain, remove string) error {
	return fmt.Errorf("chain %s is still used by a rule that is not ours: remove it first: %s", c.Name, remove)
}

// addFilter adds a rule to a chain of ours, unless it is there already, or puts a
// jump into its place. A rule after which the packet goes on is put before the
// others, for it may be added when they are there.
func (h *Hand) addFilter(f plan.Filter) error {
	if err := mayTouch(f); err != nil {
		return err
	}
	if f.IsJump() {
		return h.place(f)
	}
	t := tool{f.Family, f.Legacy}
	l, err := h.listFor(t, f)
	switch {
	case err != nil:
		return err
	case !slices.Contains(l.chains, f.Chain):
		return errNoChain(t, f)
	case l.count(f.Chain, f.Spec) > 0:
		return nil
	}
	cmd, err := h.tools.get(t)
	if err != nil {
		return err
	}
	if f.GoesOn() {
		err = cmd.Insert(f.Table, f.Chain, 1, words(f.Spec)...)
	} else {
		err = cmd.Append(f.Table, f.Chain, words(f.Spec)...)
	}
	return explain(t, f.Table, err, f.Spec)
}

// errNoChain says that a rule has no chain: somebody has flushed the table since it was
// read. To find that out of iptables takes a process for each rule.
func errNoChain(t tool, f plan.Filter) error {
	return fmt.Errorf("%s -t %s: there is no chain %s: %w", t, f.Table, f.Chain, errOutrun)
}

// removeFilter deletes a rule as often as it is there. iptables is told its
// content, never its number: numbers move under a concurrent change, and the
// neighbour is not ours.
func (h *Hand) removeFilter(f plan.Filter) error {
	if err := mayTouch(f); err != nil {
		return err
	}
	if f.IsJump() && !f.Legacy {
		return removeJump(f)
	}
	if f.AsksProgram() {
		return h.removeByNumber(f)
	}
	t := tool{f.Family, f.Legacy}
	n, err := h.count(t, f)
	if err != nil {
		return err
	}
	for range n {
		cmd, err := h.tools.get(t)
		if err != nil {
			return err
		}
		if err := cmd.Delete(f.Table, f.Chain, words(f.Spec)...); err != nil {
			return explain(t, f.Table, err, f.Spec)
		}
	}
	return nil
}

// removeByNumber deletes a rule that asks a program: where the pin is gone,
// iptables does not understand its content. The chain is ours, and so are all that
// are in it.
func (h *Hand) removeByNumber(f plan.Filter) error {
	t := tool{f.Family, f.Legacy}
	for {
		l, err := h.listFor(t, f)
		if err != nil {
			return err
		}
		n := l.number(f.Chain, f.Spec)
		if n == 0 {
			return nil
		}
		cmd, err := h.tools.get(t)
		if err != nil {
			return err
		}
		if err := cmd.Delete(f.Table, f.Chain, strconv.Itoa(n)); err != nil {
			return explain(t, f.Table, err, f.Spec)
		}
	}
}

// count returns how often a rule is there.
func (h *Hand) count(t tool, f plan.Filter) (int, error) {
	l, err := h.listFor(t, f)
	return l.count(f.Chain, f.Spec), err
}

// listFor reads the rules of a chain of ours, in iptables-legacy with the table's
// others. A chain that does not exist is empty.
func (h *Hand) listFor(t tool, f plan.Filter) (listing, error) {
	if t.legacy {
		return h.listLegacy(t, f.Table)
	}
	p := forChange()
	r, err := readRuleset(p)
	if err != nil {
		return listing{}, err
	}
	for _, c := range r.chainsOf(plan.Table{Family: f.Family, Name: f.Table}) {
		if c.Name == f.Chain {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.listOwn(p, c, h.listed)
		}
	}
	return listing{}, nil
}

// listLegacy reads a table without making it. One that does not exist is
// empty.
func (h *Hand) listLegacy(t tool, table string) (listing, error) {
	names, err := legacyTables(t.family)
	if err != nil || !slices.Contains(names, table) {
		return listing{}, err
	}
	return h.tools.list(t, table, "")
}

// ours refuses the name of a chain that is not ours.
func ours(chain string) error {
	if strings.HasPrefix(chain, plan.ChainPrefix) {
		return nil
	}
	return fmt.Errorf("chain %s is not ours: our names begin with %s", chain, plan.ChainPrefix)
}

// mayTouch refuses everything but rules in our chains and our own jumps.
func mayTouch(f plan.Filter) error {
	if f.IsJump() && (rule{chain: f.Chain, spec: f.Spec}).isJump() {
		return nil
	}
	return ours(f.Chain)
}
