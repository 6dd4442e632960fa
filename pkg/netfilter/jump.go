package netfilter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// jump is a rule that leads to a chain of ours.
type jump struct {
	target string
	handle uint64 // the rule's number, never given to another
	ours   bool   // it has our comment and no condition
}

// jumpsIn returns the rules of an nftables chain that lead to chains of ours.
func jumpsIn(p patience, c *nftables.Chain) ([]jump, error) {
	rules, err := rulesOf(p, c)
	if err != nil {
		return nil, err
	}
	var jumps []jump
	for _, r := range rules {
		if j, found := readJump(r); found {
			jumps = append(jumps, j)
		}
	}
	return jumps, nil
}

func rulesOf(p patience, c *nftables.Chain) ([]*nftables.Rule, error) {
	var rules []*nftables.Rule
	err := p.unchanged(func(conn *nftables.Conn) (err error) {
		rules, err = conn.GetRules(c.Table, c)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list chain %s of table %s: %w", c.Name, c.Table.Name, err)
	}
	return rules, nil
}

// readJump recognises our jump as iptables-nft makes it: the comment as a
// match or, in other versions, beside the rule, a counter, the verdict.
func readJump(r *nftables.Rule) (jump, bool) {
	comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
	bare := true
	j := jump{handle: r.Handle}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
		case *expr.Match:
			if text, is := e.Info.(*xt.Comment); is {
				comment = strings.TrimRight(string(*text), "\x00")
				continue
			}
			bare = false
		case *expr.Verdict:
			if e.Kind == expr.VerdictJump || e.Kind == expr.VerdictGoto {
				j.target = e.Chain
			}
			bare = bare && e.Kind == expr.VerdictJump
		default:
			bare = false
		}
	}
	j.ours = bare && comment == plan.Comment
	return j, strings.HasPrefix(j.target, plan.ChainPrefix)
}

// removeJump deletes our jump from a base chain, by its handle.
func removeJump(f plan.Filter) error {
	r, err := readRuleset(forChange())
	if err != nil {
		return err
	}
	for _, c := range r.chainsOf(plan.Table{Family: f.Family, Name: f.Table}) {
		if c.Name != f.Chain {
			continue
		}
		jumps, err := jumpsIn(forChange(), c)
		if err != nil {
			return err
		}
		for _, j := range jumps {
			if !j.ours || plan.Jump(j.target) != f.Spec {
				continue
			}
			if err := deleteRule(c, j.handle); err != nil {
				return err
			}
		}
	}
	return nil
}

func deleteRule(c *nftables.Chain, handle uint64) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	if err := conn.DelRule(&nftables.Rule{Table: c.Table, Chain: c, Handle: handle}); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %d of chain %s: %w", handle, c.Name, err)
	}
	return nil
}
