// Package firewalls holds portreeve to the word of the gateway's administrator:
// whom his firewall keeps out stays out, whom it lets in is served, and what is no
// affair of portreeve fares as before.
//
// It owns random rulesets, as iptables-nft, iptables-legacy and nft take them, and
// the judgement of what clients met before and after attach. It has no idea of how
// netfilter decides: each ruleset is installed on a gateway, and the kernel is
// asked by real connections. The product is known by its command line alone.
package firewalls

import (
	"maps"
	"slices"
	"strings"
)

// Flavour is the tool that a ruleset is for.
type Flavour string

// The tools of administrators.
const (
	IPTablesNFT    Flavour = "iptables-nft"
	IPTablesLegacy Flavour = "iptables-legacy"
	NFT            Flavour = "nft"
)

// Family is that of addresses, 4 or 6; 0 in a rule: both.
type Family int

// Families are both.
var Families = []Family{4, 6}

// Hook is a base chain in the words of iptables: "filter FORWARD".
type Hook string

// The base chains that rules stand in.
const (
	RawPrerouting    Hook = "raw PREROUTING"
	RawOutput        Hook = "raw OUTPUT"
	ManglePrerouting Hook = "mangle PREROUTING"
	MangleForward    Hook = "mangle FORWARD"
	NATPrerouting    Hook = "nat PREROUTING"
	NATPostrouting   Hook = "nat POSTROUTING"
	Input            Hook = "filter INPUT"
	Forward          Hook = "filter FORWARD"
	Output           Hook = "filter OUTPUT"
)

// Hooks lists them in the order of printing.
var Hooks = []Hook{RawPrerouting, RawOutput, ManglePrerouting, MangleForward, NATPrerouting, NATPostrouting, Input, Forward, Output}

func (h Hook) table() string { return strings.Fields(string(h))[0] }
func (h Hook) chain() string { return strings.Fields(string(h))[1] }

// Host is one that packets are for.
type Host string

// The hosts that rules name.
const (
	Anybody Host = ""
	Gateway Host = "gateway"
	Origin  Host = "origin" // the address that portreeve intercepts
	More    Host = "more"   // the origin's other address, which is nothing to portreeve
)

// Rate is how a rule counts new connections.
type Rate string

// The matches that count.
const (
	Unlimited Rate = ""
	Limit     Rate = "limit"     // up to burst match
	Over      Rate = "over"      // all above burst match: hashlimit, limit rate over
	Connlimit Rate = "connlimit" // connections at the same time above burst match
)

// burst is how many connections a Rate lets pass before it says no, and once an hour
// one more.
const burst = 2

// Action is what a rule does.
type Action string

// The actions.
const (
	Accept     Action = "accept"
	Drop       Action = "drop"
	Reject     Action = "reject"
	RejectTCP  Action = "reset" // REJECT with a reset
	Log        Action = "log"
	LogDrop    Action = "logdrop" // by a chain of the administrator's that logs and drops
	NoTrack    Action = "notrack"
	Masquerade Action = "masquerade"
	MarkBits   Action = "mark bits"    // sets bits of the mark, and keeps the others
	MarkAll    Action = "mark all"     // writes the whole mark
	Restore    Action = "restore"      // the connection's mark, all bits
	RestoreLow Action = "restore low"  // its low bits, or it if it has one
	Redirect   Action = "redirect"     // to the gateway's other port
	ToMore     Action = "dnat to more" // the port stays
	ToOther    Action = "dnat to origin's other port"
)

// refuses reports whether the action is a no.
func (a Action) refuses() bool {
	return a == Drop || a == Reject || a == RejectTCP || a == LogDrop
}

// Class is what a rule is in its ruleset.
type Class string

// The classes.
const (
	Plain    Class = ""
	Ban      Class = "ban"      // what may be inserted or appended while portreeve is attached
	Trailing Class = "trailing" // without conditions at the end of its chain: a policy in all but name
)

// Rule is one rule. The zero value of a field asks for nothing.
type Rule struct {
	Hook    Hook
	Class   Class
	Family  Family
	Clients []int // of the cast: where packets come from
	Set     bool  // they stand in a set
	Except  bool  // all but them
	Toward  bool  // they are whom packets are for
	In, Out string
	To      Host
	From    Host
	Proto   string // tcp where Port is named and this is not
	Port    int
	Answers bool   // the port is the sender's
	States  string // as iptables has them: NEW, "ESTABLISHED,RELATED"
	SYN     bool
	User    int // of the socket that sends, plus one
	NotUser bool
	Mark    bool // is MarkValue
	Whole   bool // compared in all bits
	Rate    Rate
	Via     bool // in a chain of its own, for port 25, as fail2ban has it
	Apart   bool // in a table of nft of its own, as fail2ban has it
	Do      Action
}

// side is a word for the port of the receiver, or for that of the sender.
func (one *Rule) side(receiver, sender string) string {
	if one.Answers {
		return sender
	}
	return receiver
}

// MarkValue is what rules write into the mark and look for in it.
const MarkValue = 0x1

// low are the bits of the mark that an administrator uses who leaves others theirs.
const low = 0xff

// Mode is when the bans of a ruleset come.
type Mode string

// The modes.
const (
	Whole    Mode = "whole"    // the ruleset is there before portreeve
	Inserted Mode = "inserted" // bans are inserted at the head while it is attached
	Appended Mode = "appended" // bans are appended while it is attached, and it is attached again
)

// Ruleset is what an administrator has written, and the gateway's portreeve.
type Ruleset struct {
	Seed     uint64
	Number   int
	Flavour  Flavour
	Mode     Mode
	Rules    []Rule        // each chain has those of its hook, in this order
	Closed   map[Hook]bool // policy DROP
	Wrapped  map[Hook]bool // the rules but bans and trailing ones stand in a chain of their own
	Priority int           // of nft's filter chains
	Exact    bool          // portreeve forges the client's port too
	Open     bool          // portreeve's services fail open

	whole *Ruleset // what this one is a part of; nil: it is all
}

// Relaxed is the ruleset with nothing that stops everybody: what is kept out by it is
// banned.
func (r *Ruleset) Relaxed() *Ruleset {
	relaxed := r.part()
	relaxed.Closed = nil
	relaxed.Rules = r.only(func(one *Rule) bool { return one.Class != Trailing })
	return relaxed
}

// Before is the ruleset as it is when portreeve is attached.
func (r *Ruleset) Before() *Ruleset {
	if r.Mode == Whole {
		return r
	}
	before := r.part()
	before.Rules = r.only(func(one *Rule) bool { return one.Class != Ban })
	return before
}

// Relaxes reports whether Relaxed is another ruleset.
func (r *Ruleset) Relaxes() bool {
	for _, closed := range r.Closed {
		if closed {
			return true
		}
	}
	return len(r.Relaxed().Rules) < len(r.Rules)
}

// part is a copy that has the same chains, whatever rules it will have.
func (r *Ruleset) part() *Ruleset {
	part := *r
	part.whole = r
	return &part
}

// Without lacks one rule.
func (r *Ruleset) Without(n int) *Ruleset {
	without := *r
	without.Rules = slices.Delete(slices.Clone(r.Rules), n, n+1)
	return &without
}

// Smaller is the ruleset without one thing, the n-th of those that it could lack: all
// rules of a chain first, then each, then what is beside rules. nil: there are not so
// many.
func (r *Ruleset) Smaller(n int) *Ruleset {
	all := slices.Concat(r.lessChains(), r.lessRules(), r.lessSettings())
	if n >= len(all) {
		return nil
	}
	return all[n]
}

// lessChains lack the rules of a chain that has several.
func (r *Ruleset) lessChains() (all []*Ruleset) {
	for _, h := range Hooks {
		less := *r
		less.Rules = r.only(func(one *Rule) bool { return one.Hook != h })
		if len(r.Rules)-len(less.Rules) > 1 {
			all = append(all, &less)
		}
	}
	return all
}

func (r *Ruleset) lessRules() (all []*Ruleset) {
	for n := len(r.Rules) - 1; n >= 0; n-- {
		all = append(all, r.Without(n))
	}
	return all
}

// lessSettings have an open chain more, or one less that is wrapped, or forge and fail
// as is usual.
func (r *Ruleset) lessSettings() (all []*Ruleset) {
	for _, h := range Hooks {
		if r.Closed[h] {
			less := *r
			less.Closed = maps.Clone(r.Closed)
			delete(less.Closed, h)
			all = append(all, &less)
		}
		if r.Wrapped[h] {
			less := *r
			less.Wrapped = maps.Clone(r.Wrapped)
			delete(less.Wrapped, h)
			all = append(all, &less)
		}
	}
	if r.Exact || r.Open {
		less := *r
		less.Exact, less.Open = false, false
		all = append(all, &less)
	}
	return all
}

func (r *Ruleset) only(wanted func(*Rule) bool) (kept []Rule) {
	for i := range r.Rules {
		if wanted(&r.Rules[i]) {
			kept = append(kept, r.Rules[i])
		}
	}
	return kept
}

// of are the rules of a hook that are in its chain, not in a table of their own.
func (r *Ruleset) of(h Hook, wanted func(*Rule) bool) []Rule {
	return r.only(func(one *Rule) bool { return one.Hook == h && !one.Apart && wanted(one) })
}

// hooks are the chains that the ruleset has, also those without rules.
func (r *Ruleset) hooks() (used []Hook) {
	if r.whole != nil {
		return r.whole.hooks()
	}
	for _, h := range Hooks {
		if r.Closed[h] || len(r.of(h, anyRule)) > 0 {
			used = append(used, h)
		}
	}
	return used
}

// tables are those of iptables.
func (r *Ruleset) tables() (used []string) {
	for _, h := range r.hooks() {
		if !slices.Contains(used, h.table()) {
			used = append(used, h.table())
		}
	}
	return used
}

// sets are the groups of clients that rules have a set of.
func (r *Ruleset) sets() (all [][]int) {
	if r.whole != nil {
		return r.whole.sets()
	}
	for i := range r.Rules {
		one := &r.Rules[i]
		if one.Set && !slices.ContainsFunc(all, func(s []int) bool { return slices.Equal(s, one.Clients) }) {
			all = append(all, one.Clients)
		}
	}
	return all
}

func anyRule(*Rule) bool { return true }
