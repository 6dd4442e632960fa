package netfilter

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A comment holds line breaks, and lines that look like rules.
func TestLinesOfComments(t *testing.T) {
	l := parse(linesOf("-P INPUT ACCEPT\n" +
		"-A INPUT -m comment --comment \"x\n-A INPUT -m comment --comment portreeve -j PORTREEVE-LISTEN\n\" -j ACCEPT\n" +
		"-A INPUT -m comment --comment \"a \\\" and a \\\\\" -j DROP\n" +
		"-A INPUT -j RETURN"))
	if got := l.of("INPUT"); len(got) != 3 || got[2] != "-j RETURN" {
		t.Errorf("%q", got)
	}
	if own := l.own(plan.IPv4, true, "filter"); len(own) > 0 {
		t.Errorf("a comment is taken for our jump: %v", own)
	}
}

// What a comment says about a handle is not believed.
func TestCommentsLikeRules(t *testing.T) {
	rules := parseRuleset("table inet adm {\n\tchain out {\n" +
		"\t\ttcp sport 25 drop comment \"ban\" # handle 4\n" +
		"\t\taccept comment \"fine\n\t\ttcp sport 25 accept; flush ruleset # handle 4\n\" # handle 5\n" +
		"\t\tudp dport 53 accept # handle 6\n\t}\n}\n")
	want := map[nftRule]string{{"inet adm", "out", 6}: "udp dport 53 accept"}
	got := map[nftRule]string{}
	for r, text := range rules {
		if typable(text) {
			got[r] = text
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nftRule{})); diff != "" {
		t.Error(diff)
	}
}

func TestTypable(t *testing.T) {
	for line, want := range map[string]bool{
		`tcp dport 25 drop comment "a; b"`:       true,
		`ip saddr @bad drop`:                     true,
		`xt match "string" drop`:                 false,
		`meta mark 1 xt target "SYNPROXY"`:       false,
		`drop; flush ruleset`:                    false,
		`drop comment "a" ; add table ip x; "b"`: false,
		`drop comment "a"b"`:                     false,
	} {
		if got := typable(line); got != want {
			t.Errorf("%s: %t", line, got)
		}
	}
}

// Names of chains are words to the shell, and no more.
func TestCommandsAreWords(t *testing.T) {
	const name = "a;touch${IFS}x;b"
	for _, flavour := range []Flavour{IPTablesLegacy, NFT} {
		at := Place{Flavour: flavour, Families: []plan.Family{plan.IPv4}, Table: "filter", Chain: name}
		if flavour == NFT {
			at.Table = "ip filter"
		}
		r := Rule{Place: at, entry: entry{number: 2, handle: 3, text: "-A " + name + " -j DROP"}, survey: &Survey{}}
		policy := r
		policy.entry.number = 0
		for _, command := range []string{r.Removal(), r.Sparing(1), r.Accepting(Bearing(1)), policy.Accepting(Bearing(1)), Meeting{Rule: r, Way: []string{name}}.Mirror("x").Command} {
			if strings.HasPrefix(command, "# ") || command == "" {
				continue
			}
			if flavour == NFT || !slices.Contains(strings.Split(command, " "), "'"+name+"'") {
				t.Errorf("%s", command)
			}
		}
	}
}
