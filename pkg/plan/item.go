// Package plan says what portreeve wants the kernel to hold, and what has to
// change to get there.
//
// Build turns a configuration into items; Diff compares what is with what is
// wanted and returns the changes in an order in which traffic is never
// misdirected: additions in the order of Kind, so that the link that moves
// traffic comes last; removals in the reverse order. The package is pure: it
// reads and changes nothing. The hands (steer, route, netfilter) translate
// items into system calls, apply carries changes out, status prints them.
package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
)

// Kind orders items: an item may rely on items of lower kinds. Additions run
// upwards, removals downwards.
type Kind uint8

const (
	KindObjects  Kind = iota // BPF maps and programs, pinned, attached to nothing
	KindSettings             // marks and limits in a map
	KindService              // a service's slot and its fail policy
	KindOrigin               // a prefix whose packets the origin-side program looks at
	KindLink                 // an interface of our own, by which nothing gets anywhere
	KindRoute                // the local route in our own table, the route to our own link
	KindRule                 // an iif-scoped mark rule
	KindTable                // an nftables table or base chain that others may share
	KindChain                // a netfilter chain of ours
	KindFilter               // a rule in a netfilter chain
	KindRole                 // an interface's side
	KindBinding              // an address and port bound to a service: visible to attached programs at once
	KindLookup               // the sk_lookup link
	KindQdisc                // a clsact qdisc that others may share
	KindTC                   // a TC program on an interface: this moves transit traffic, or stops what was not moved. A switch of theirs
	KindForward              // a netfilter link at FORWARD: stops what leaves where no TC program looks
)

// Item is one thing in the kernel. The implementations are comparable values.
type Item interface {
	// Kind places the item in the order of activation.
	Kind() Kind
	// Key tells which thing it is; two items of one kind and key are two
	// states of the same thing.
	Key() string
	// String says what it is, in the words of the tool that shows it
	// (ip rule, tc, iptables), on one line.
	String() string
}

// Shared marks items that others may create and use too. Such an item is
// ours to remove only if the journal says that we made it, and only when
// nobody uses it any more.
type Shared interface {
	Item
	Shared()
}

// Side is the side of the gateway that an interface or a program is on.
type Side uint8

const (
	ClientSide Side = 1 << iota
	OriginSide
	BypassSide // neither: what comes in by it may be forwarded to origins uninspected
	LoopSide   // our own link, see Loop
)

// String returns "client", "origin", "client+origin", "bypass" or "loop".
func (s Side) String() string {
	switch s {
	case ClientSide:
		return "client"
	case OriginSide:
		return "origin"
	case ClientSide | OriginSide:
		return "client+origin"
	case BypassSide:
		return "bypass"
	case LoopSide:
		return "loop"
	}
	return fmt.Sprintf("side(%d)", uint8(s))
}

// Family is an IP version.
type Family uint8

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// Objects are the pinned BPF maps and programs.
type Objects struct {
	Fault string // why what is pinned is not what this build would pin; never wanted
	Other bool   // it is of another release or build; never wanted
}

// Settings are the values that the programs read at run time.
type Settings struct {
	ClientMark, OriginMark uint32        // one bit each, see config.Kernel
	Heartbeat              time.Duration // resolution: nanoseconds
}

// Service is a service's slot in the kernel; steer chooses its number.
type Service struct {
	Name string
	Open bool // forward or pass when no inspector is alive
}

// Origin is a prefix and port of origins.
type Origin struct {
	Prefix netip.Prefix
	Port   uint16
}

// LoopLink is the interface by which SYNs leave that go through FORWARD and back, see
// Loop. Rules of others may name it.
const LoopLink = "portreeve0"

// LoopPeer is its other end, where nobody is.
const LoopPeer = "portreeve1"

// Link is a pair of interfaces of ours, by the name of the first.
type Link struct {
	Name  string
	Fault string // why it carries nothing; never wanted
}

// Route is the only route in a table of ours, a default one. Through lo and of type
// local it makes marked packets ours; else it leads to a link of ours.
type Route struct {
	Family Family
	Table  uint32
	Link   string // empty: lo
}

// Rule sends packets that came in by an interface with a mark bit to our
// table.
type Rule struct {
	Family    Family
	Interface string
	Mark      uint32 // value and mask
	Table     uint32
	Priority  uint32
}

// Table is an nftables table that iptables-nft needs; it exists only in
// that flavour.
type Table struct {
	Family Family
	Name   string // filter, nat, raw
}

// BaseChain is a base chain of such a table.
type BaseChain struct {
	Family Family
	Table  string
	Name   string // INPUT, POSTROUTING, PREROUTING, OUTPUT
}

// Chain is a chain of ours, its name begins with PORTREEVE.
type Chain struct {
	Family Family
	Legacy bool // in iptables-legacy, else in iptables-nft
	Table  string
	Name   string
}

// Filter is one netfilter rule: in a chain of ours, or the jump to it from a
// base chain.
type Filter struct {
	Family Family
	Legacy bool
	Table  string
	Chain  string
	Spec   string // arguments as iptables takes them, separated by single spaces
	Place  Place
	Astray bool `json:"-"` // a jump that is not in its place, or is there twice; never wanted
}

// Place is where a rule stands in its chain.
type Place uint8

const (
	InChain Place = iota // a rule in a chain of ours
	First                // a jump before all rules of others
	Last                 // a jump behind the rules of others, but before a trailing run without conditions
)

// IsJump reports whether the rule leads from a base chain to a chain of ours.
func (f Filter) IsJump() bool { return f.Place != InChain }

// AsksProgram reports whether the rule asks a pinned program. The kernel opens the
// pin when the rule is made.
func (f Filter) AsksProgram() bool { return strings.Contains(f.Spec, pinned+" ") }

// GoesOn reports whether the packet meets the next rule of the chain too. Such a
// rule has to stand before those that end the chain.
func (f Filter) GoesOn() bool { return strings.Contains(f.Spec, untracked) }

// Role is the side of an interface, as sk_lookup sees it.
type Role struct {
	Interface string
	Side      Side
}

// Binding sends connections to an address and port to a service.
type Binding struct {
	Prefix    netip.Prefix
	Port      uint16
	Service   string // empty: leave alone what a wider binding would catch
	Addressed bool   // the prefix is ours
	Transit   bool   // the prefix is an origin's, packets pass through
}

// Target returns the address and port as the configuration writes them.
func (b Binding) Target() string { return config.Target{Prefix: b.Prefix, Port: b.Port}.String() }

// Lookup is the sk_lookup program's link to this network namespace.
type Lookup struct {
	Unpinned bool `json:"-"` // a link is at work that has no pin; never wanted
}

// Qdisc is the clsact qdisc of an interface.
type Qdisc struct {
	Interface string
}

// TC is a program of ours on an interface: the steering program of a side at
// its ingress, the wall at the egress of the origin side, or the one that fetches
// SYNs back at the egress of our own link.
type TC struct {
	Interface string
	Side      Side // ClientSide or OriginSide, not both; LoopSide
	Clsact    bool // as a filter of the clsact qdisc, else as a TCX link
	Egress    bool // the wall; its Side is OriginSide. The loop; its Side is LoopSide
	Behind    bool // programs of others come before it; never wanted
	Unpinned  bool `json:"-"` // a link is at work that has no pin; never wanted
}

// HangsOn names the interface with which an item comes and goes, "" where there is
// none. A rule waits for its interface to come back.
func HangsOn(i Item) string {
	switch i := i.(type) {
	case Route:
		return i.Link
	case Role:
		return i.Interface
	case Qdisc:
		return i.Interface
	case TC:
		return i.Interface
	}
	return ""
}

// Loop switches on that the SYNs of transit clients meet the host's packet filter:
// marked with a bit they are forwarded to LoopLink and fetched back.
type Loop struct {
	Mark uint32 // one bit
}

// Filter returns the name of the program's filter in a clsact qdisc.
func (t TC) Filter() string {
	if t.Egress && t.Side == OriginSide {
		return "portreeve_wall"
	}
	return "portreeve_" + t.Side.String()
}

// Forward is the wall at FORWARD as a netfilter link, which needs no iptables
// (kernel 6.4).
type Forward struct {
	Family   Family
	Unpinned bool `json:"-"` // a link is at work that has no pin; never wanted
}

func (Objects) Kind() Kind   { return KindObjects }
func (Settings) Kind() Kind  { return KindSettings }
func (Service) Kind() Kind   { return KindService }
func (Origin) Kind() Kind    { return KindOrigin }
func (Link) Kind() Kind      { return KindLink }
func (Route) Kind() Kind     { return KindRoute }
func (Rule) Kind() Kind      { return KindRule }
func (Table) Kind() Kind     { return KindTable }
func (BaseChain) Kind() Kind { return KindTable }
func (Chain) Kind() Kind     { return KindChain }
func (Filter) Kind() Kind    { return KindFilter }
func (Role) Kind() Kind      { return KindRole }
func (Binding) Kind() Kind   { return KindBinding }
func (Lookup) Kind() Kind    { return KindLookup }
func (Qdisc) Kind() Kind     { return KindQdisc }
func (TC) Kind() Kind        { return KindTC }
func (Loop) Kind() Kind      { return KindTC }
func (Forward) Kind() Kind   { return KindForward }

func (Table) Shared()     {}
func (BaseChain) Shared() {}
func (Qdisc) Shared()     {}

func (Objects) Key() string     { return "objects" }
func (Settings) Key() string    { return "settings" }
func (s Service) Key() string   { return "service " + s.Name }
func (o Origin) Key() string    { return fmt.Sprintf("origin %s port %d", o.Prefix, o.Port) }
func (l Link) Key() string      { return "link " + l.Name }
func (r Route) Key() string     { return r.String() }
func (r Rule) Key() string      { return r.String() }
func (t Table) Key() string     { return t.String() }
func (c BaseChain) Key() string { return c.String() }
func (c Chain) Key() string     { return c.String() }
func (f Filter) Key() string    { return f.command() }
func (r Role) Key() string      { return "interface " + r.Interface }
func (b Binding) Key() string   { return fmt.Sprintf("binding %s port %d", b.Prefix, b.Port) }
func (Lookup) Key() string      { return "sk_lookup" }
func (q Qdisc) Key() string     { return q.String() }
func (t TC) Key() string        { t.Behind, t.Unpinned = false, false; return t.String() }
func (Loop) Key() string        { return "loop" }
func (f Forward) Key() string   { f.Unpinned = false; return f.String() }

func (o Objects) String() string {
	if o.Fault != "" {
		return "bpf maps and programs (" + o.Fault + ")"
	}
	return "bpf maps and programs"
}

func (s Settings) String() string {
	return fmt.Sprintf("settings client mark 0x%x, origin mark 0x%x, heartbeat %s", s.ClientMark, s.OriginMark, s.Heartbeat)
}

func (s Service) String() string {
	if s.Open {
		return "service " + s.Name + " fail open"
	}
	return "service " + s.Name + " fail closed"
}

func (o Origin) String() string { return o.Key() }

func (l Link) String() string {
	text := fmt.Sprintf("link veth %s peer %s", l.Name, LoopPeer)
	if l.Fault != "" {
		text += " (" + l.Fault + ")"
	}
	return text
}

func (r Route) String() string {
	if r.Link != "" {
		return fmt.Sprintf("route %s default dev %s table %d", r.Family, r.Link, r.Table)
	}
	return fmt.Sprintf("route %s local default dev lo table %d", r.Family, r.Table)
}

func (r Rule) String() string {
	return fmt.Sprintf("rule %s pref %d iif %s fwmark 0x%x/0x%x lookup %d", r.Family, r.Priority, r.Interface, r.Mark, r.Mark, r.Table)
}

func (t Table) String() string { return fmt.Sprintf("nftables table %s %s", t.Family, t.Name) }
func (c BaseChain) String() string {
	return fmt.Sprintf("nftables base chain %s %s %s", c.Family, c.Table, c.Name)
}

func (c Chain) String() string {
	return fmt.Sprintf("%s -t %s -N %s", iptables(c.Family, c.Legacy), c.Table, c.Name)
}

func (f Filter) String() string {
	if f.Astray {
		return f.command() + " (not in its place)"
	}
	return f.command()
}

// command is how iptables is told to make the rule.
func (f Filter) command() string {
	verb := "-A"
	if f.Place == First {
		verb = "-I"
	}
	return fmt.Sprintf("%s -t %s %s %s %s", iptables(f.Family, f.Legacy), f.Table, verb, f.Chain, f.Spec)
}

func (r Role) String() string { return fmt.Sprintf("interface %s %s", r.Interface, r.Side) }

func (b Binding) String() string {
	service := b.Service
	if service == "" {
		service = "nobody"
	}
	ways := ""
	if b.Addressed {
		ways += " addressed"
	}
	if b.Transit {
		ways += " transit"
	}
	return fmt.Sprintf("%s to %s%s", b.Key(), service, ways)
}

func (l Lookup) String() string { return "link sk_lookup" + unpinned(l.Unpinned) }

// unpinned says of a link that it has no pin.
func unpinned(is bool) string {
	if is {
		return " (without a pin)"
	}
	return ""
}

func (q Qdisc) String() string { return "qdisc clsact dev " + q.Interface }

func (t TC) String() string {
	how := "tcx"
	if t.Clsact {
		how = "clsact"
	}
	what := fmt.Sprintf("ingress dev %s %s side", t.Interface, t.Side)
	switch {
	case t.Side == LoopSide:
		what = fmt.Sprintf("egress dev %s loop", t.Interface)
	case t.Egress:
		what = fmt.Sprintf("egress dev %s wall", t.Interface)
	}
	if t.Behind {
		what += " (behind a program of another)"
	}
	return "link " + how + " " + what + unpinned(t.Unpinned)
}

func (l Loop) String() string { return fmt.Sprintf("loop through FORWARD by mark 0x%x", l.Mark) }

func (f Forward) String() string {
	return fmt.Sprintf("link netfilter forward %s wall", f.Family) + unpinned(f.Unpinned)
}

// iptables names the command of a family and flavour.
func iptables(f Family, legacy bool) string {
	name := "iptables"
	if f == IPv6 {
		name = "ip6tables"
	}
	if legacy {
		return name + "-legacy"
	}
	return name + "-nft"
}
