// Package route owns what makes marked packets ours: the default routes in our
// routing tables, the policy rules that lead to them, the link by which SYNs go
// through FORWARD and back, the clsact qdiscs and the BPF filters in them.
//
// It never flushes a table, never changes or removes a link, route, rule, qdisc or
// filter that it did not make, writes no sysctl, and knows nothing of BPF but
// a program's file descriptor and number. apply calls the Hand; steer attaches
// its programs through Filters; doctor and status ask the read-only questions
// about links, addresses, rules and routes.
//
// What is ours is recognised by its own marks, for detach has no
// configuration: the link by its alias and address, a route by its protocol
// number, a rule by the table that it leads to and its exact shape, a filter by
// name and program. Everything acts in the network namespace of the calling
// thread.
package route

import (
	"fmt"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Options say what the kernel cannot tell.
type Options struct {
	// Tables are routing tables known to be ours, from the journal or the
	// configuration. A table that holds our route need not be named; naming
	// it finds rules that are left when the route is gone.
	Tables []uint32

	// Made are those of them that the journal says we use: a route of ours goes back
	// there whatever others have put beside it since.
	Made []uint32
}

// Hand reads and changes routes, rules and qdiscs for apply. It holds no
// state and is safe for concurrent use.
type Hand struct {
	tables []uint32
	made   []uint32
}

// New returns a Hand.
func New(o Options) *Hand { return &Hand{tables: o.Tables, made: o.Made} }

// Name returns "routing".
func (*Hand) Name() string { return "routing" }

// Owns reports whether items of kind k are kept by this hand. TC filters are
// attached by steer, through Filters.
func (*Hand) Owns(k plan.Kind) bool {
	return k == plan.KindLink || k == plan.KindRoute || k == plan.KindRule || k == plan.KindQdisc
}

// Have returns our routes and rules, and the clsact qdiscs whoever made them.
func (h *Hand) Have() ([]plan.Item, error) {
	links, err := ownLinks()
	if err != nil {
		return nil, err
	}
	routes, err := ownRoutes()
	if err != nil {
		return nil, err
	}
	rules, err := h.ownRules(routes)
	if err != nil {
		return nil, err
	}
	qdiscs, err := haveQdiscs()
	if err != nil {
		return nil, err
	}
	var items []plan.Item
	for _, l := range links {
		items = append(items, l)
	}
	for _, r := range routes {
		items = append(items, r.item())
	}
	for _, r := range rules {
		items = append(items, r.item())
	}
	return append(items, qdiscs...), nil
}

// Add makes an item. One that is present is left as it is.
func (h *Hand) Add(i plan.Item) error {
	switch i := i.(type) {
	case plan.Link:
		return addLink(i)
	case plan.Route:
		return h.addRoute(i)
	case plan.Rule:
		return addRule(i)
	case plan.Qdisc:
		return addQdisc(i)
	}
	return fmt.Errorf("routing cannot add %s", i)
}

// Replace changes old to new. Two rules, routes or qdiscs may be there at
// once, so the new one is added before the old one goes. A link is mended.
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
// qdisc that holds anybody's filter: it stays.
func (h *Hand) Remove(i plan.Item) error {
	switch i := i.(type) {
	case plan.Link:
		return removeLinks()
	case plan.Route:
		return removeRoute(i)
	case plan.Rule:
		return removeRule(i)
	case plan.Qdisc:
		return removeQdisc(i)
	}
	return fmt.Errorf("routing cannot remove %s", i)
}
