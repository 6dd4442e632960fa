package netfilter

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// listing is what `iptables -S` shows of a table.
type listing struct {
	policies map[string]string // of base chains
	chains   []string          // the others
	rules    []rule
}

// rule is a line "-A chain spec", the spec in the form that plan uses.
type rule struct {
	chain string
	spec  string
}

// parse reads the lines of `iptables -S`.
func parse(lines []string) listing {
	l := listing{policies: map[string]string{}}
	for _, line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		name, rest, _ := strings.Cut(rest, " ")
		switch verb {
		case "-P":
			l.policies[name], _, _ = strings.Cut(rest, " ")
		case "-N":
			l.chains = append(l.chains, name)
		case "-A":
			l.rules = append(l.rules, rule{chain: name, spec: canonical(rest)})
		}
	}
	return l
}

// linesOf splits a listing into lines. A line break between quotes belongs to a comment.
func linesOf(listing string) []string {
	var lines []string
	var quoted, escaped bool
	begin := 0
	for i, c := range listing {
		switch {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == '\n' && !quoted:
			lines = append(lines, listing[begin:i])
			begin = i + 1
		}
	}
	return append(lines, listing[begin:])
}

// own returns the items that are ours: chains by name, what is in them, and
// the jumps that bear our comment.
func (l listing) own(f plan.Family, legacy bool, table string) []plan.Item {
	var items []plan.Item
	for _, c := range l.chains {
		if strings.HasPrefix(c, plan.ChainPrefix) {
			items = append(items, plan.Chain{Family: f, Legacy: legacy, Table: table, Name: c})
		}
	}
	var from []string // the chains with jumps of ours
	for _, r := range l.rules {
		switch {
		case strings.HasPrefix(r.chain, plan.ChainPrefix):
			items = append(items, plan.Filter{Family: f, Legacy: legacy, Table: table, Chain: r.chain, Spec: r.spec})
		case r.isJump() && !slices.Contains(from, r.chain):
			from = append(from, r.chain)
		}
	}
	for _, c := range from {
		items = append(items, l.base(c).jumps(f, legacy, table, c)...)
	}
	return items
}

// of returns the rules of a chain.
func (l listing) of(chain string) []string {
	var specs []string
	for _, r := range l.rules {
		if r.chain == chain {
			specs = append(specs, r.spec)
		}
	}
	return specs
}

// count returns how often a chain has a rule.
func (l listing) count(chain, spec string) int {
	n := 0
	for _, other := range l.of(chain) {
		if other == spec {
			n++
		}
	}
	return n
}

// number returns the number of a rule in its chain, as iptables counts, or 0.
func (l listing) number(chain, spec string) int { return slices.Index(l.of(chain), spec) + 1 }

// isJump reports whether the rule is one of our jumps: it leads to a chain of
// ours and says so in its comment. Anything more or less is somebody else's.
func (r rule) isJump() bool {
	return strings.HasPrefix(r.target(), plan.ChainPrefix) && r.spec == plan.Jump(r.target())
}

// target returns where -j or -g leads, or "".
func (r rule) target() string {
	args := words(r.spec)
	for i, a := range args[:max(0, len(args)-1)] {
		if a == "-j" || a == "-g" {
			return args[i+1]
		}
	}
	return ""
}

// canonical writes addresses as netip does: inet_ntop, which iptables uses,
// shows the last 32 bits of some IPv6 addresses as an IPv4 address.
func canonical(spec string) string {
	args := strings.Split(spec, " ")
	for i, a := range args[:max(0, len(args)-1)] {
		if a != "-s" && a != "-d" {
			continue
		}
		if p, err := netip.ParsePrefix(args[i+1]); err == nil {
			args[i+1] = p.Masked().String()
		}
	}
	return strings.Join(args, " ")
}

// words splits a rule as the shell would: iptables quotes what holds spaces
// with ", and escapes ", ' and \ by a backslash.
func words(spec string) []string {
	var all []string
	var word strings.Builder
	var inWord, quoted, escaped bool
	for _, c := range spec {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\':
			escaped, inWord = true, true
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				all = append(all, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		all = append(all, word.String())
	}
	return all
}
