package netfilter

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/portreeve/portreeve/pkg/plan"
)

// printer shows rules as their tools do. It asks a tool when the first rule of its
// own is to be shown, and once.
type printer struct {
	tools  tools
	tables map[plan.Table]listing // of iptables-nft; empty: it does not understand the table
	lines  map[nftRule]string     // nil: not asked yet
}

// nftRule is what a handle is the number of.
type nftRule struct {
	table, chain string
	handle       uint64
}

// iptables returns the arguments of a rule of iptables-nft by its number in a
// chain that has so many rules. It has to see as many: it stumbles over rules that
// were made with nft.
func (p *printer) iptables(at Place, number, rules int) (string, bool) {
	if p == nil {
		return "", false
	}
	specs := p.table(at).of(at.Chain)
	if len(specs) != rules || number < 1 || number > rules {
		return "", false
	}
	return quoted(specs[number-1]), true
}

// canUse reports whether iptables can change a place.
func (p *printer) canUse(at Place) bool {
	return at.Flavour == IPTablesLegacy || p != nil && p.table(at).policies != nil
}

func (p *printer) table(at Place) listing {
	t := plan.Table{Family: at.Families[0], Name: at.Table}
	if l, asked := p.tables[t]; asked {
		return l
	}
	l, err := p.tools.list(at.tool(), at.Table, "")
	if err != nil {
		l = listing{}
	}
	if p.tables == nil {
		p.tables = map[plan.Table]listing{}
	}
	p.tables[t] = l
	return l
}

// nft returns a rule as `nft -a list ruleset` shows it.
func (p *printer) nft(table, chain string, handle uint64) (string, bool) {
	if p == nil {
		return "", false
	}
	if p.lines == nil {
		p.lines = map[nftRule]string{}
		if path, err := lookPath("nft"); err == nil {
			out, _ := exec.Command(path, "-a", "list", "ruleset").Output()
			p.lines = parseRuleset(string(out))
		}
	}
	line, found := p.lines[nftRule{table, chain, handle}]
	return line, found
}

var (
	tableLine = regexp.MustCompile(`^table (\S+ \S+) \{`)
	chainLine = regexp.MustCompile(`^\tchain (\S+) \{`)
	ruleLine  = regexp.MustCompile(`^\t\t(.*) # handle ([0-9]+)$`)
)

// parseRuleset finds the rules in what `nft -a list ruleset` prints. Comments are shown
// as they are, line breaks included, and may look like other rules: of a handle that is
// there twice in a chain neither is taken.
func parseRuleset(text string) map[nftRule]string {
	rules := map[nftRule]string{}
	twice := map[nftRule]bool{}
	var at nftRule
	var begun string // of a rule on several lines
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := tableLine.FindStringSubmatch(line); m != nil {
			at = nftRule{table: m[1]}
		} else if m := chainLine.FindStringSubmatch(line); m != nil {
			at.chain = m[1]
		} else if line == "\t}" {
			at.chain = ""
		} else if at.chain == "" {
			continue
		} else if m := ruleLine.FindStringSubmatch(begun + line); m != nil {
			begun = ""
			at.handle, _ = strconv.ParseUint(m[2], 10, 64)
			_, known := rules[at]
			twice[at] = twice[at] || known
			rules[at] = m[1]
		} else if strings.HasSuffix(line, ",") || begun != "" {
			begun += line
		}
	}
	maps.DeleteFunc(rules, func(r nftRule, _ string) bool { return twice[r] })
	return rules
}

var counts = regexp.MustCompile(`counter packets [0-9]+ bytes [0-9]+`)

// withoutCounts leaves out what a counter has counted.
func withoutCounts(line string) string { return counts.ReplaceAllString(line, "counter") }

// name is the command's name as it is found here.
func (t tool) name() string {
	path, err := t.path()
	if err != nil {
		return t.String()
	}
	return filepath.Base(path)
}

// quoted writes a rule of iptables for the shell: its own quotes are not the
// shell's in everything.
func quoted(spec string) string {
	all := words(spec)
	for i, w := range all {
		all[i] = shellWord(w)
	}
	return strings.Join(all, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./!-]+$`)

// shellWord writes a word for the shell.
func shellWord(w string) string {
	if plainWord.MatchString(w) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
