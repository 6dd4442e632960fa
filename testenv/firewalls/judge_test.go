package firewalls

import (
	"net/netip"
	"testing"
)

// banned is whom the tests' rule is about.
var banned = netip.MustParseAddr("192.0.2.101")

// through is what a probe of banned meets, as often as told.
func through(times int, words string) Verdict { return Verdict{times, words} }

const (
	served      = "220 origin saw 192.0.2.101 ESMTP / 250-origin / 250 PIPELINING"
	uninspected = served + " / 250 XPROBE"
	byGateway   = "220 gateway saw 192.0.2.101 ESMTP / 250 XPROBE"
)

func TestJudge(t *testing.T) {
	drop := Rule{Hook: Forward, Clients: []int{1}, Do: Drop}
	out := Rule{Hook: Forward, Clients: []int{1}, Out: "dmz0", Do: Drop}
	all := Rule{Hook: Forward, Class: Trailing, Do: Drop}
	dnat := Rule{Hook: NATPrerouting, Port: 25, Do: ToMore}
	whole := Rule{Hook: ManglePrerouting, Do: MarkAll}
	named := func(object, text string) []Finding { return []Finding{{"warning", object, text, ""}} }
	tests := map[string]struct {
		flavour               Flavour
		way                   Way
		rules                 []Rule
		asItIs, relaxed, with Verdict
		findings              []Finding
		want                  Kind
	}{
		"served before and after":      {asItIs: through(1, uninspected), relaxed: through(1, uninspected), with: through(1, served)},
		"banned before and after":      {rules: []Rule{drop}},
		"a ban lifted":                 {rules: []Rule{drop}, with: through(1, served), want: Lifted},
		"a ban lifted at times":        {asItIs: through(2, uninspected), relaxed: through(2, uninspected), with: through(3, served), want: Lifted},
		"a ban lifted, its rule named": {rules: []Rule{out}, with: through(1, served), findings: named("iptables-nft table filter chain FORWARD", `the rule "-A FORWARD -s 192.0.2.101/32 -o dmz0 -j DROP" is not met`)},
		"a ban lifted, another named":  {rules: []Rule{out}, with: through(1, served), findings: named("iptables-nft table filter chain FORWARD", `the rule "-A FORWARD -s 192.0.2.102/32 -o dmz0 -j DROP" is not met`), want: Lifted},
		"a ban lifted, its chain only": {rules: []Rule{drop}, with: through(1, served), findings: named("iptables-nft table filter chain FORWARD", "it drops"), want: Lifted},
		"a ban lifted, one of two named": {rules: []Rule{out, drop}, with: through(1, served), want: Lifted,
			findings: named("iptables-nft table nat chain FORWARD", `the rule "-A FORWARD -s 192.0.2.101/32 -o dmz0 -j DROP" is not met`)},
		"an information names nothing": {rules: []Rule{out}, with: through(1, served), want: Lifted,
			findings: []Finding{{"info", "iptables-nft table filter chain FORWARD", `the rule "-A FORWARD -s 192.0.2.101/32 -o dmz0 -j DROP" is not met`, ""}}},
		"a policy cured":                      {rules: []Rule{all}, relaxed: through(1, uninspected), with: through(1, served)},
		"a policy not cured":                  {rules: []Rule{all}, relaxed: through(1, uninspected), want: Uncured},
		"a policy of nft":                     {flavour: NFT, rules: []Rule{all}, relaxed: through(1, uninspected)},
		"mail stopped":                        {asItIs: through(1, uninspected), relaxed: through(1, uninspected), want: Stopped},
		"mail stopped at times":               {asItIs: through(4, uninspected), relaxed: through(4, uninspected), with: through(2, served), want: Stopped},
		"mail stopped, a writer named":        {rules: []Rule{whole}, asItIs: through(1, uninspected), relaxed: through(1, uninspected), findings: named("iptables-nft table mangle chain PREROUTING", "it writes")},
		"mail stopped, another table":         {rules: []Rule{whole}, asItIs: through(1, uninspected), relaxed: through(1, uninspected), findings: named("iptables-nft table raw chain PREROUTING", "it writes"), want: Stopped},
		"mail stopped, what can stop nobody":  {rules: []Rule{drop}, asItIs: through(1, uninspected), relaxed: through(1, uninspected), findings: named("iptables-nft table filter chain FORWARD", "policy drop"), want: Stopped},
		"mail stopped in nft, named":          {flavour: NFT, rules: []Rule{drop}, asItIs: through(1, uninspected), relaxed: through(1, uninspected), findings: named("nft table inet fw chain passing", "it drops")},
		"mail stopped in nft, no such chain":  {flavour: NFT, rules: []Rule{drop}, asItIs: through(1, uninspected), relaxed: through(1, uninspected), findings: named("nft table inet fw chain incoming", "it drops"), want: Stopped},
		"uninspected":                         {asItIs: through(1, uninspected), relaxed: through(1, uninspected), with: through(1, uninspected), want: Uninspected},
		"served by another":                   {asItIs: through(1, byGateway), relaxed: through(1, byGateway), with: through(1, byGateway), want: Uninspected},
		"served by another, DNAT named":       {rules: []Rule{dnat}, asItIs: through(1, byGateway), relaxed: through(1, byGateway), with: through(1, byGateway), findings: named("iptables-nft table nat chain PREROUTING", "it diverts")},
		"unrelated, as before":                {way: Unrelated, asItIs: through(1, byGateway), with: through(1, byGateway)},
		"unrelated, served by another":        {way: Unrelated, asItIs: through(1, byGateway), with: through(1, uninspected), want: Disturbed},
		"unrelated, let in":                   {way: Unrelated, with: through(1, byGateway), want: Disturbed},
		"unrelated, stopped, whoever's named": {way: Unrelated, flavour: NFT, rules: []Rule{drop}, asItIs: through(1, byGateway), findings: named("nft table inet fw chain passing", "it drops"), want: Disturbed},
		"without policies fewer":              {asItIs: through(1, uninspected), with: through(1, served), want: Unsteady},
	}
	for name, one := range tests {
		t.Run(name, func(t *testing.T) {
			if one.flavour == "" {
				one.flavour = IPTablesNFT
			}
			if one.way == "" {
				one.way = Transit
			}
			p := Probe{Way: one.way, From: banned, To: netip.MustParseAddrPort("198.51.100.1:25"), Times: 1}
			o := &Outcome{Verdicts{p: one.asItIs}, Verdicts{p: one.relaxed}, Verdicts{p: one.with}, one.findings, ""}
			failures, err := o.Judge(&Ruleset{Flavour: one.flavour, Rules: one.rules}, func(Probe) ([]Rule, error) { return one.rules, nil })
			if err != nil {
				t.Fatal(err)
			}
			var got Kind
			if len(failures) > 0 {
				got = failures[0].Kind
			}
			if got != one.want {
				t.Errorf("%q, want %q", got, one.want)
			}
		})
	}
}

func TestLeftoverIsAFailure(t *testing.T) {
	failures, err := (&Outcome{Changed: "+ a rule"}).Judge(&Ruleset{}, nil)
	if err != nil || len(failures) != 1 || failures[0].Kind != Leftover {
		t.Errorf("%v, %v", failures, err)
	}
}
