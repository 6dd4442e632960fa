package netfilter

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/portreeve/portreeve/pkg/plan"
)

// Rule is a rule in its place, or the policy of a base chain.
type Rule struct {
	Place
	entry  entry
	survey *Survey
}

// Policy reports whether it is a base chain's policy.
func (r Rule) Policy() bool { return r.entry.number == 0 }

// Same reports whether both are one rule.
func (r Rule) Same(o Rule) bool { return r.ID() == o.ID() }

// Unconditional reports whether the rule concerns every packet: it is a policy in all
// but name.
func (r Rule) Unconditional() bool { return len(r.entry.conditions) == 0 }

// String shows the rule as its tool does: with iptables, as a command that makes it;
// with nft, as a line of a listing, with its handle. Where the tool is missing, the
// handle must do.
func (r Rule) String() string {
	if r.Policy() {
		return "policy drop"
	}
	if text, found := r.spec(); found {
		return r.iptables("-A", text)
	}
	if text, found := r.line(); found {
		return fmt.Sprintf("%s # handle %d", text, r.entry.handle)
	}
	return fmt.Sprintf("rule with handle %d", r.entry.handle)
}

// command is the name of the iptables command that changes the rule.
func (r Rule) command() string { return r.tool().name() }

// spec is the rule as arguments of iptables, quoted for the shell.
func (r Rule) spec() (string, bool) {
	switch r.Flavour {
	case IPTablesLegacy:
		return quoted(strings.TrimPrefix(r.entry.text, "-A "+r.Chain+" ")), true
	case IPTablesNFT:
		return r.survey.printer.iptables(r.Place, r.entry.number, r.survey.length(r.Place))
	}
	return "", false
}

// line is the rule as nft shows it, without its handle.
func (r Rule) line() (string, bool) {
	return r.survey.printer.nft(r.nftTable(), r.Chain, r.entry.handle)
}

// nftTable is the table as nft calls it: "ip filter".
func (r Rule) nftTable() string {
	if r.Flavour == NFT {
		return r.Table
	}
	return tableName(&nftables.Table{Family: nftFamily(r.Families[0]), Name: r.Table})
}

// length is how many rules a chain has.
func (s *Survey) length(p Place) int {
	c, found := s.chain(p, p.Chain)
	if !found {
		return 0
	}
	return c.rules
}

// Conditions are those of a rule that is to be made, in both languages.
type Conditions struct {
	IPTables string // "-i ext0 -p tcp -m tcp --dport 25"
	NFT      string // "iifname ext0 tcp dport 25"
}

// Bearing asks for any of some marks.
func Bearing(marks uint32) Conditions {
	return Conditions{
		IPTables: fmt.Sprintf("-m mark ! --mark 0x0/0x%x", marks),
		NFT:      fmt.Sprintf("meta mark and 0x%x != 0", marks),
	}
}

// lacking asks for none of them.
func lacking(marks uint32) Conditions {
	return Conditions{
		IPTables: fmt.Sprintf("-m mark --mark 0x0/0x%x", marks),
		NFT:      fmt.Sprintf("meta mark and 0x%x == 0", marks),
	}
}

// Sparing is the command that puts the same rule in the rule's place, for packets
// without any of the marks. Where the rule cannot be read as its tool wants it, it
// is Accepting.
func (r Rule) Sparing(marks uint32) string {
	c := lacking(marks)
	if text, found := r.spec(); found && !r.Policy() {
		return r.iptables("-R", r.entry.number, c.IPTables, text)
	}
	if text, found := r.line(); found && !r.Policy() && typable(text) {
		return r.nft("replace", r.Chain, "handle", r.entry.handle, c.NFT, withoutCounts(text))
	}
	return r.Accepting(Bearing(marks))
}

// Accepting is the command that accepts packets before the rule sees them; before a
// policy, behind all other rules.
func (r Rule) Accepting(c Conditions) string {
	nft := r.Flavour == NFT || !r.survey.printer.canUse(r.Place)
	switch {
	case nft && r.Policy():
		return r.nft("add", r.Chain, c.NFT, "accept")
	case nft:
		return r.nft("insert", r.Chain, "handle", r.entry.handle, c.NFT, "accept")
	case r.Policy():
		return r.iptables("-A", c.IPTables, "-j ACCEPT")
	}
	return r.iptables("-I", r.entry.number, c.IPTables, "-j ACCEPT")
}

// Removal is the command that removes the rule.
func (r Rule) Removal() string {
	if r.Flavour == NFT {
		return r.nft("delete", r.Chain, "handle", r.entry.handle)
	}
	return r.iptables("-D", r.entry.number)
}

// iptables is a command for a shell that is about the rule's chain.
func (r Rule) iptables(verb string, args ...any) string { return r.onChain(verb, r.Chain, args...) }

// onChain is a command about a chain of the rule's table.
func (r Rule) onChain(verb, chain string, args ...any) string {
	words := append([]any{r.command(), "-t", shellWord(r.Table), verb, shellWord(chain)}, args...)
	return strings.TrimSuffix(fmt.Sprintln(words...), "\n")
}

// nft is a command for a shell, to which nft's signs mean something else, about a chain
// of the rule's table: "add rule TABLE CHAIN handle 3 …". Names that nft does not take
// are of other programs; then there is only a remark.
func (r Rule) nft(verb, chain string, args ...any) string {
	for name := range strings.FieldsSeq(r.nftTable() + " " + chain) {
		if !nftName.MatchString(name) {
			return fmt.Sprintf("# nft has no word for the chain %q", chain)
		}
	}
	words := append([]any{verb, "rule", r.nftTable(), chain}, args...)
	return "nft " + shellWord(strings.TrimSuffix(fmt.Sprintln(words...), "\n"))
}

var nftName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9/\\_.-]*$`)

// typable reports whether nft takes a line that it has shown: matches of iptables
// are shown, and not taken, and a comment is shown as it is.
func typable(line string) bool {
	bare := quotedText.ReplaceAllString(line, "")
	return !strings.Contains(" "+line, " xt ") && !strings.ContainsAny(bare, ";\"\n")
}

var quotedText = regexp.MustCompile(`"[^"\n]*"`)

// Names are those of the way's chains and the rule's table, by which the program is
// known that made it.
func (m Meeting) Names() []string { return append([]string{m.Table}, m.Way...) }

// Family is whose packets pass the rule's chain, 0 for both.
func (r Rule) Family() plan.Family {
	if len(r.Families) == 1 {
		return r.Families[0]
	}
	return 0
}

// Sources are the prefixes that a rule chooses sources by, if it asks for some.
func (r Rule) Sources() []netip.Prefix { return r.prefixes(source4, source6) }

// Recipients are the prefixes that a rule chooses destinations by, if it asks for some.
func (r Rule) Recipients() []netip.Prefix { return r.prefixes(destination4, destination6) }

func (r Rule) prefixes(at4, at6 field) []netip.Prefix {
	var all []netip.Prefix
	for _, c := range r.entry.conditions {
		if (c.field != at4 && c.field != at6) || c.not {
			continue
		}
		for _, s := range c.spans {
			if p, is := s.prefix(c.mask); is {
				all = append(all, p)
			}
		}
	}
	return all
}

// prefix is the smallest one that holds a span of addresses. An address under a mask
// of leading ones stands for a prefix; fewer octets than an address has, too.
func (s span) prefix(mask []byte) (netip.Prefix, bool) {
	full := 4
	if len(s.low) > 4 {
		full = 16
	}
	low, high := make([]byte, full), bytes.Repeat([]byte{0xff}, full)
	copy(low, s.low)
	copy(high, s.high)
	for i := range min(full, len(mask)) {
		high[i] |= ^mask[i]
	}
	bits := 0
	for bits < full*8 && (low[bits/8]^high[bits/8])&(0x80>>(bits%8)) == 0 {
		bits++
	}
	a, ok := netip.AddrFromSlice(low)
	return netip.PrefixFrom(a, bits).Masked(), ok
}

// asks reports whether the rule has a condition about a field.
func (e entry) asks(f field) bool {
	return slices.ContainsFunc(e.conditions, func(c condition) bool { return c.field == f })
}
