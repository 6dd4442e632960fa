package netfilter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// line is a rule, as far as the place of our jumps depends on it.
type line struct {
	jump   string // our jump: the chain that it leads to
	handle uint64 // nftables' number of the rule
	bare   bool   // it has no condition, and ends a packet's way, logs it, or does nothing
	to     string // a bare rule leads to this chain
	logs   bool   // whatever its conditions, it does no more than log
	back   bool   // a bare rule leads back to where its chain was called
}

// base is a base chain, as far as the place of our jumps depends on it.
type base struct {
	lines []line
	run   int // where the trailing run of bare rules begins; their number if there is none
}

// chains are what one look has read of a table's chains, and found out about them. A chain
// is read once, whatever leads to it: rules that jump to one chain from several others make
// more ways than there are rules.
type chains struct {
	read  func(chain string) ([]line, error)
	lines map[string][]line
	bare  map[string]bool
	does  map[string]does
}

// chainsBy begins a look at chains that read reads.
func chainsBy(read func(chain string) ([]line, error)) *chains {
	return &chains{read: read, lines: map[string][]line{}, bare: map[string]bool{}, does: map[string]does{}}
}

// chain returns the rules of a chain.
func (c *chains) chain(name string) ([]line, error) {
	if lines, read := c.lines[name]; read {
		return lines, nil
	}
	lines, err := c.read(name)
	if err == nil {
		c.lines[name] = lines
	}
	return lines, err
}

// base finds where a chain's trailing run begins: the rules at the end that are
// about every packet are a policy in all but name. A jump among them leads to
// chains that hold nothing else. Our own jumps do not count.
func (c *chains) base(name string) (base, error) {
	lines, err := c.chain(name)
	if err != nil {
		return base{}, err
	}
	b := base{lines, len(lines)}
	for i, l := range slices.Backward(lines) {
		if l.jump != "" {
			continue
		}
		all, err := c.allBare(l)
		if err != nil {
			return base{}, err
		}
		if !all {
			break
		}
		b.run = i
	}
	b.run, err = c.trim(b)
	return b, err
}

// trim begins the run behind chains in which nothing is, such as Docker's DOCKER-USER, and
// takes one for none that only logs: others put their bans there, which hold at once only
// before our jump.
func (c *chains) trim(b base) (begin int, err error) {
	begin = len(b.lines)
	ends := false
	for i := len(b.lines) - 1; i >= b.run; i-- {
		d, err := c.effect(b.lines[i])
		if err != nil {
			return 0, err
		}
		ends = ends || d.stops
		if d.any && ends {
			begin = i
		}
	}
	return begin, nil
}

// does is what the lines of a run do to packets.
type does struct {
	any   bool // they do not leave them alone
	stops bool // they do more than log them
}

// effect returns what a line of the run does, or one that it leads to.
func (c *chains) effect(l line) (does, error) {
	switch {
	case l.jump != "":
		return does{}, nil
	case l.to == "":
		return does{true, !l.logs}, nil
	}
	if d, found := c.does[l.to]; found {
		return d, nil
	}
	lines, err := c.chain(l.to)
	if err != nil {
		return does{}, err
	}
	var all does
	for _, next := range lines {
		if next.back {
			break
		}
		d, err := c.effect(next)
		if err != nil {
			return does{}, err
		}
		all = does{all.any || d.any, all.stops || d.stops}
	}
	c.does[l.to] = all
	return all, nil
}

// allBare reports whether a rule is bare, and all those that it leads to.
func (c *chains) allBare(l line) (bool, error) {
	if !l.bare || l.to == "" {
		return l.bare, nil
	}
	if all, found := c.bare[l.to]; found {
		return all, nil
	}
	// While a chain is looked through it counts as not bare: the kernel has no circle that
	// leads back to it, or the rules are not understood.
	c.bare[l.to] = false
	lines, err := c.chain(l.to)
	if err != nil {
		return false, err
	}
	for _, next := range lines {
		if next.logs {
			continue
		}
		if all, err := c.allBare(next); !all || err != nil {
			return false, err
		}
	}
	c.bare[l.to] = true
	return true, nil
}

// targetsOfJumps returns the chains that our jumps lead to, each once.
func (b base) targetsOfJumps() []string {
	var all []string
	for _, l := range b.lines {
		if l.jump != "" && !slices.Contains(all, l.jump) {
			all = append(all, l.jump)
		}
	}
	return all
}

// at returns where the jumps to a chain of ours are.
func (b base) at(own string) []int {
	var all []int
	for i, l := range b.lines {
		if l.jump == own {
			all = append(all, i)
		}
	}
	return all
}

// inPlace reports whether the jump to a chain of ours is there once, and where
// it belongs: a first one before all but others of its kind, a last one directly
// before the trailing run, or at the end.
func (b base) inPlace(own string) bool {
	at := b.at(own)
	if len(at) != 1 {
		return false
	}
	i := at[0]
	if plan.PlaceOf(own) == plan.First {
		return !slices.ContainsFunc(b.lines[:i], func(l line) bool {
			return l.jump == "" || plan.PlaceOf(l.jump) != plan.First
		})
	}
	return i < b.run && !slices.ContainsFunc(b.lines[i:b.run], func(l line) bool { return l.jump == "" })
}

// spot returns the index of the rule before which the jump to a chain of ours
// belongs; the number of rules for the end.
func (b base) spot(own string) int {
	if plan.PlaceOf(own) == plan.First {
		return 0
	}
	return b.run
}

// jumps returns the items of our jumps in the chain.
func (b base) jumps(f plan.Family, legacy bool, table, name string) []plan.Item {
	var items []plan.Item
	for _, own := range b.targetsOfJumps() {
		items = append(items, plan.Filter{
			Family: f, Legacy: legacy, Table: table, Chain: name,
			Spec: plan.Jump(own), Place: plan.PlaceOf(own), Astray: !b.inPlace(own),
		})
	}
	return items
}

// placeTries is how often a jump is put into its place while others change the
// chain.
const placeTries = 10

// place puts our jump where it belongs, once, unless it is there. The new one
// and the end of the old ones are one change, so that there is no moment without.
// Behind the change it looks again: somebody may have been quicker. If others
// change the chain each time, the jump is there all the same, and the next look
// finds it astray.
func (h *Hand) place(f plan.Filter) error {
	step := h.stepNFT
	if f.Legacy {
		step = h.stepLegacy
	}
	var err error
	for range placeTries {
		var settled bool
		if settled, err = step(f); settled {
			return nil
		}
		if err != nil && !errors.Is(err, errOutrun) {
			return err
		}
	}
	return err
}

// errOutrun is the class of errors that a change of somebody else may be the
// cause of: what was read is not there any more.
var errOutrun = errors.New("the chain may have been changed meanwhile")

// stepNFT puts our jump into its place by one look and one change. The place is
// told to the kernel by the rule that is to follow, which is right whatever is
// put in front of it meanwhile.
func (*Hand) stepNFT(f plan.Filter) (settled bool, err error) {
	c, err := baseOf(f)
	if err != nil {
		return false, err
	}
	b, err := readBase(forChange(), c)
	if err != nil {
		return false, err
	}
	own := targetOf(f)
	if b.inPlace(own) {
		return true, nil
	}
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	r := newJump(c, own)
	switch at := b.spot(own); {
	case plan.PlaceOf(own) == plan.First:
		conn.InsertRule(r)
	case at < len(b.lines):
		r.Position = b.lines[at].handle
		conn.InsertRule(r)
	default:
		conn.AddRule(r)
	}
	for _, i := range b.at(own) {
		if err := conn.DelRule(&nftables.Rule{Table: c.Table, Chain: c, Handle: b.lines[i].handle}); err != nil {
			return false, err
		}
	}
	if err := conn.Flush(); err != nil {
		err = fmt.Errorf("put the jump to %s into chain %s of table %s: %w", own, c.Name, c.Table.Name, permitted(err))
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w: %w", err, errOutrun)
		}
		return false, err
	}
	return false, nil
}

// newJump is our jump as iptables-nft makes it.
func newJump(c *nftables.Chain, own string) *nftables.Rule {
	comment := xt.Comment(plan.Comment)
	return &nftables.Rule{Table: c.Table, Chain: c, Exprs: []expr.Any{
		&expr.Match{Name: "comment", Info: &comment},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: own},
	}}
}

// baseOf finds the base chain of a jump.
func baseOf(f plan.Filter) (*nftables.Chain, error) {
	r, err := readRuleset(forChange())
	if err != nil {
		return nil, err
	}
	for _, c := range r.chainsOf(plan.Table{Family: f.Family, Name: f.Table}) {
		if c.Name == f.Chain && c.Hooknum != nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("nftables table %s %s has no base chain %s: %w", familyWord(nftFamily(f.Family)), f.Table, f.Chain, errOutrun)
}

// readBase reads a base chain of nftables, and the chains that its last rules
// lead to, of one moment.
func readBase(p patience, c *nftables.Chain) (b base, err error) {
	err = p.unchanged(func(conn *nftables.Conn) (err error) {
		b, err = chainsBy(func(name string) ([]line, error) {
			rules, err := conn.GetRules(c.Table, &nftables.Chain{Table: c.Table, Name: name})
			var lines []line
			for _, r := range rules {
				lines = append(lines, lineOf(r))
			}
			return lines, err
		}).base(c.Name)
		return err
	})
	if err != nil {
		return base{}, fmt.Errorf("list chain %s of table %s: %w", c.Name, c.Table.Name, err)
	}
	return b, nil
}

// bareTargets are the targets that end a packet's way by themselves, or do
// nothing to it.
var bareTargets = []string{"ACCEPT", "DROP", "REJECT", "RETURN", "LOG", "NFLOG", "ULOG", "AUDIT", "TRACE"}

// logTargets are those of them that log.
var logTargets = []string{"LOG", "NFLOG", "ULOG"}

// onlyLogs reports whether a rule of nftables does no more than log, under whatever
// conditions. What may do something else is not known to do nothing.
func onlyLogs(r *nftables.Rule) bool {
	logs := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Log:
			logs = true
		case *expr.Target:
			if logs = slices.Contains(logTargets, e.Name); !logs {
				return false
			}
		case *expr.Meta:
			if e.SourceRegister {
				return false
			}
		case *expr.Ct:
			if e.SourceRegister {
				return false
			}
		case *expr.Match, *expr.Counter, *expr.Limit, *expr.Cmp, *expr.Bitwise, *expr.Range:
		default:
			return false
		}
	}
	return logs
}

// lineOf reads a rule of nftables. Only what is known to be no condition is none:
// the library leaves out what it does not know, but not what compares it.
func lineOf(r *nftables.Rule) line {
	if j, found := readJump(r); found && j.ours {
		return line{jump: j.target, handle: r.Handle}
	}
	l := line{handle: r.Handle, bare: len(r.Exprs) > 0, logs: onlyLogs(r)}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Reject:
		case *expr.Match:
			_, comment := e.Info.(*xt.Comment)
			l.bare = l.bare && comment
		case *expr.Target:
			l.bare = l.bare && slices.Contains(bareTargets, e.Name)
		case *expr.Verdict:
			l.bare = l.bare && e.Kind != expr.VerdictQueue // a program decides by conditions of its own
			l.to, l.back = e.Chain, e.Kind == expr.VerdictReturn
		default:
			l.bare = false
		}
	}
	l.back = l.back && l.bare
	return l
}

// stepLegacy is stepNFT in iptables-legacy. iptables-restore makes a table's
// changes as one, and is told the content of what goes, never its number: the
// neighbour is not ours.
func (h *Hand) stepLegacy(f plan.Filter) (settled bool, err error) {
	t := tool{f.Family, true}
	l, err := h.listLegacy(t, f.Table)
	if err != nil {
		return false, err
	}
	b := l.base(f.Chain)
	own := targetOf(f)
	if b.inPlace(own) {
		return true, nil
	}
	var changes []string
	at := b.spot(own)
	for _, i := range b.at(own) {
		changes = append(changes, fmt.Sprintf("-D %s %s", f.Chain, f.Spec))
		if i < b.spot(own) {
			at-- // it stood before the spot
		}
	}
	if b.spot(own) < len(b.lines) {
		changes = append(changes, fmt.Sprintf("-I %s %d %s", f.Chain, at+1, f.Spec))
	} else {
		changes = append(changes, fmt.Sprintf("-A %s %s", f.Chain, f.Spec))
	}
	if err := h.tools.restore(t, f.Table, changes); err != nil {
		return false, fmt.Errorf("%w: %w", explain(t, f.Table, err, f.Spec), errOutrun)
	}
	return false, nil
}

// base reads a chain of iptables-legacy.
func (l listing) base(name string) base {
	b, _ := chainsBy(func(name string) ([]line, error) { // nothing is read any more that could fail
		var lines []line
		for _, spec := range l.of(name) {
			lines = append(lines, rule{name, spec}.line(l.chains))
		}
		return lines, nil
	}).base(name)
	return b
}

// line reads a rule of iptables-legacy, in a table with these chains.
func (r rule) line(chains []string) line {
	if r.isJump() {
		return line{jump: r.target()}
	}
	args := words(r.spec)
	for len(args) >= 4 && args[0] == "-m" && args[1] == "comment" && args[2] == "--comment" {
		args = args[4:]
	}
	switch {
	case len(args) == 0:
		return line{bare: true}
	case slices.Contains(logTargets, r.target()) && !slices.Contains(chains, r.target()):
		return line{bare: args[0] == "-j", logs: true}
	case len(args) < 2 || args[0] != "-j" && args[0] != "-g":
		return line{}
	case slices.Contains(chains, args[1]):
		return line{bare: true, to: args[1]}
	}
	return line{bare: slices.Contains(bareTargets, args[1]), back: args[1] == "RETURN"}
}

// targetOf returns the chain of ours that a jump leads to.
func targetOf(f plan.Filter) string { return rule{chain: f.Chain, spec: f.Spec}.target() }
