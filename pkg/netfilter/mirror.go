package netfilter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Mirror is what stops connections of those for whom a rule stops packets.
type Mirror struct {
	Command string // makes it; empty: it cannot be written
	There   bool   // it is there already
}

// Mirror returns the rule that drops what the addresses begin that this one drops
// packets for, when it leaves by an interface. It stands first in the base chain from
// which the packet came, for what accepts a connection need not accept its answer.
func (m Meeting) Mirror(out string) Mirror {
	base := m.Way[0]
	if text, found := m.spec(); found {
		whose := mirrorSpec(text)
		if whose == "" {
			return Mirror{}
		}
		rule := arranged(whose, out)
		return Mirror{m.onChain("-I", base, 1, rule), m.survey.has(m.Place, base, rule)}
	}
	text, _ := m.line()
	whose := mirrorLine(text)
	if whose == "" {
		return Mirror{}
	}
	rule := fmt.Sprintf("%s oifname %q drop", whose, out)
	return Mirror{m.nft("insert", base, rule), m.survey.has(m.Place, base, rule)}
}

// has reports whether a chain has a rule, as its tool shows it.
func (s *Survey) has(beside Place, name, rule string) bool {
	c, found := s.chain(beside, name)
	return found && slices.Contains(s.shown(c), rule)
}

// mirrorSpec returns the condition on the destination of a rule of iptables as one on
// the source.
func mirrorSpec(spec string) string {
	words := strings.Split(spec, " ")
	for i := range len(words) - 1 {
		if strings.ContainsRune(words[i+1], '\'') {
			return "" // a name that is not one word
		}
		not := ""
		if i > 0 && words[i-1] == "!" {
			not = "! "
		}
		switch {
		case words[i] == "-d":
			return not + "-s " + words[i+1]
		case words[i] == "--match-set" && i+2 < len(words) && words[i+2] == "dst":
			return "-m set " + not + "--match-set " + words[i+1] + " src"
		}
	}
	return ""
}

// arranged is a dropping rule in the order in which iptables shows it.
func arranged(whose, out string) string {
	if strings.HasPrefix(whose, "-m ") {
		return "-o " + out + " " + whose + " -j DROP"
	}
	return whose + " -o " + out + " -j DROP"
}

var daddr = regexp.MustCompile(`\b(ip6?) daddr ((!= )?(@\S+|\{[^}]*\}|\S+))`)

// mirrorLine does the same for nftables.
func mirrorLine(line string) string {
	if m := daddr.FindStringSubmatch(line); m != nil {
		return m[1] + " saddr " + m[2]
	}
	return ""
}
