package chaos

import (
	"fmt"
	"strings"
)

// filterOperations are what others do to the packet filter.
var filterOperations = []operation{
	{name: "iptables -F of a table", weight: 5, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		table := pick(s, tables...)
		return table, s.restored(table), s.both("-t " + table + " -F")
	}},
	{name: "iptables -F and -X of all tables", weight: 4, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		var script strings.Builder
		for _, table := range tables {
			for _, c := range s.commands() {
				fmt.Fprintf(&script, "%s -w -t %s -F\n%[1]s -w -t %[2]s -X\n", c, table)
			}
		}
		return "", s.restored(tables...), s.attempts(script.String())
	}},
	{name: "iptables -F of a chain of portreeve's", weight: 3, class: filters, do: func(s *stage) (string, func() error, error) {
		chain, err := s.chainOfOurs()
		if chain == "" || err != nil {
			return "there is none", nil, err
		}
		return chain, nil, s.attempts(chain[:strings.IndexByte(chain, ' ')] + " -w -t " + strings.Replace(chain[strings.IndexByte(chain, ' ')+1:], " ", " -F ", 1))
	}},
	{name: "a jump of portreeve's deleted", weight: 4, class: filters, do: func(s *stage) (string, func() error, error) {
		rule, err := s.jumpOfOurs()
		if rule == "" || err != nil {
			return "there is none", nil, err
		}
		return rule, nil, s.attempts(rule)
	}},
	{name: "nft flush ruleset", weight: 4, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		return "", s.undoes(s.administration()), s.does("nft flush ruleset")
	}},
	{name: "iptables-restore of the administrator's rules", weight: 4, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		return "", nil, s.does(s.restore())
	}},
	{name: "reload of a firewall of nftables", weight: 4, class: filters, do: func(s *stage) (string, func() error, error) {
		var script strings.Builder
		for range 1 + s.rand.IntN(3) {
			script.WriteString(reload)
		}
		return "", nil, s.does(script.String())
	}},
	{name: "policies DROP", weight: 5, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		chain := pick(s, "INPUT", "FORWARD", "OUTPUT")
		return chain, s.undoes(s.neighbours("-D", chain) + s.each("-P "+chain+" "+s.policy())), s.does(s.neighbours("-I", chain) + s.each("-P "+chain+" DROP"))
	}},
	{name: "iptables -A of a DROP of everything", weight: 4, class: filters, do: func(s *stage) (string, func() error, error) {
		chain := pick(s, "INPUT", "FORWARD", "OUTPUT")
		return chain, s.undoes(s.each("-D "+chain+" -j DROP") + s.neighbours("-D", chain)),
			s.does(s.neighbours("-I", chain) + s.each("-A "+chain+" -j DROP"))
	}},
	{name: "iptables -I of MASQUERADE", weight: 4, class: filters, do: func(s *stage) (string, func() error, error) {
		rule := "POSTROUTING " + pick(s, "-o dmz0 ", "-o ext0 ", "") + "-j MASQUERADE"
		return rule, s.undoes(s.each("-t nat -D " + rule)), s.does(s.each("-t nat -I " + rule))
	}},
	{name: "iptables -I of an ACCEPT", weight: 3, class: filters, lifts: true, do: func(s *stage) (string, func() error, error) {
		rule := pick(s, "INPUT", "FORWARD", "OUTPUT", "PREROUTING -t raw", "PREROUTING -t mangle", "OUTPUT -t raw", "PREROUTING -t nat") + " -j ACCEPT"
		return rule, s.undoes(s.each("-D " + rule)), s.does(s.each("-I " + rule))
	}},
	{name: "iptables -I and -A of a ban", weight: 3, class: filters, do: func(s *stage) (string, func() error, error) {
		rule := pick(s, "INPUT", "FORWARD", "PREROUTING -t raw", "PREROUTING -t mangle") + " -p tcp --dport 25 -m mark --mark 0x77/0x77 -j DROP"
		how := pick(s, "-I ", "-A ")
		return how + rule, s.undoes(s.each("-D " + rule)), s.does(s.each(how + rule))
	}},
	{name: "a table of nftables stops port 25", weight: 2, class: filters, stops: true, do: func(s *stage) (string, func() error, error) {
		hook := pick(s, "prerouting", "input")
		return hook, s.undoes("nft delete table inet stopper\n"), s.does(fmt.Sprintf(`nft -f - <<END
table inet stopper {
	chain stop { type filter hook %s priority filter; tcp dport 25 drop; }
}
END
`, hook))
	}},
	{name: "the other iptables", weight: 2, class: filters, do: func(s *stage) (string, func() error, error) {
		other := "iptables-legacy"
		if s.manager.wanted().Legacy {
			other = "iptables-nft"
		}
		rule := pick(s, "INPUT", "FORWARD", "POSTROUTING -t nat", "PREROUTING -t raw") + " -s 203.0.113.99 -j RETURN"
		return other + " " + rule, s.undoes(other + " -w -D " + rule + "\n"), s.does(other + " -w -I " + rule + "\n")
	}},
	{name: "conntrack -F", weight: 2, class: filters, do: func(s *stage) (string, func() error, error) {
		return "", nil, s.attempts("conntrack -F")
	}},
}

var tables = []string{"raw", "mangle", "nat", "filter"}

// commands are those of the flavour that portreeve's chains are in.
func (s *stage) commands() []string {
	if s.manager.wanted().Legacy {
		return []string{"iptables-legacy", "ip6tables-legacy"}
	}
	return []string{"iptables-nft", "ip6tables-nft"}
}

// each is a script with the same words for both families.
func (s *stage) each(words string) string {
	var script strings.Builder
	for _, c := range s.commands() {
		fmt.Fprintf(&script, "%s -w %s\n", c, words)
	}
	return script.String()
}

// both does something in one family or in both. What it is about need not be there.
func (s *stage) both(words string) error {
	commands := s.commands()
	if n := s.rand.IntN(3); n < 2 {
		commands = commands[n : n+1]
	}
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s -w %s\n", c, words)
	}
	return s.attempts(script.String())
}

// policy is that of the administrator in INPUT, FORWARD and OUTPUT.
func (s *stage) policy() string {
	if s.strict {
		return "DROP"
	}
	return "ACCEPT"
}

// neighbours is a script that lets, or does not let any more, neighbours find each
// other, whatever a policy says.
func (s *stage) neighbours(how, chain string) string {
	return fmt.Sprintf("%s -w %s %s -p ipv6-icmp -j ACCEPT\n", s.commands()[1], how, chain)
}

// firewall is a table like those of a firewall manager.
const firewall = `table inet manager {
	set banned { type ipv4_addr; elements = { 203.0.113.1, 203.0.113.2 }; }
	chain mangle_PREROUTING { type filter hook prerouting priority -140; policy accept; ct state invalid counter; }
	chain filter_INPUT {
		type filter hook input priority 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		ip saddr @banned drop
		tcp dport 25 accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain filter_FORWARD {
		type filter hook forward priority 10; policy accept;
		ct state { established, related } accept
		ip saddr @banned drop
		iifname "ext0" accept
	}
	chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; oifname "nothing" masquerade; }
}
`

// reload replaces it as its manager does, in one step.
const reload = "nft -f - <<END\ntable inet manager\ndelete table inet manager\n" + firewall + "END\n"

// rulesOf are the administrator's rules for iptables-restore, by table. The ban is of a
// client that goes on trying.
func (s *stage) rulesOf(family int, table string) string {
	ban, other := s.env.MoreClients[banned].String(), "203.0.113.66"
	if family == 6 {
		ban, other = s.env.MoreClients6[banned].String(), "2001:db8::66"
	}
	rules := map[string]string{
		"raw":    "-A PREROUTING -s %[2]s -j DROP\n-A OUTPUT -d %[2]s -j DROP\n",
		"mangle": "-A PREROUTING -s %[2]s -j DROP\n-A FORWARD -s %[2]s -j DROP\n",
		"nat":    "-A PREROUTING -d %[2]s -j RETURN\n-A POSTROUTING -s %[2]s -j RETURN\n",
		"filter": "-A INPUT -i lo -j ACCEPT\n-A INPUT -s %[1]s -j DROP\n-A FORWARD -s %[1]s -j DROP\n-A OUTPUT -d %[2]s -j DROP\n",
	}
	head := "*" + table + "\n"
	if table == "filter" {
		for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
			head += ":" + chain + " " + s.policy() + "\n"
		}
		if family == 6 && s.strict {
			head += "-A INPUT -p ipv6-icmp -j ACCEPT\n-A OUTPUT -p ipv6-icmp -j ACCEPT\n"
		}
	}
	return head + strings.NewReplacer("%[1]s", ban, "%[2]s", other).Replace(rules[table]) + "COMMIT\n"
}

// restored appends the administrator's rules of some tables, where they are gone.
func (s *stage) restored(which ...string) func() error {
	return func() error {
		var script strings.Builder
		for _, table := range which {
			for n, c := range []string{"iptables-nft", "ip6tables-nft"} {
				rules := s.rulesOf(4+2*n, table)
				for line := range strings.Lines(rules) {
					if strings.HasPrefix(line, "-A ") {
						line = strings.TrimSpace(line)
						fmt.Fprintf(&script, "%s -w -t %s -C %s 2>/dev/null || %[1]s -w -t %[2]s -A %[3]s\n", c, table, line[3:])
					}
				}
			}
		}
		return s.does(script.String())
	}
}

// restore is a script that puts the administrator's rules in the place of all others.
func (s *stage) restore() string {
	var script strings.Builder
	for n, c := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		fmt.Fprintf(&script, "%s -w <<END\n", c)
		for _, table := range tables {
			script.WriteString(s.rulesOf(4+2*n, table))
		}
		script.WriteString("END\n")
	}
	return script.String()
}

// administration is a script that installs all that the administrator has.
func (s *stage) administration() string { return s.restore() + reload }

func (s *stage) administer() error { return s.does(s.administration()) }

// listRules lists the administrator's rules, in their order.
func (s *stage) listRules() (string, error) {
	var script strings.Builder
	for _, c := range []string{"iptables-nft", "ip6tables-nft"} {
		for _, table := range tables {
			fmt.Fprintf(&script, "%s -w -t %s -S 2>/dev/null | sort -s -k2,2\n", c, table)
		}
	}
	return s.sh(script.String())
}

// chainOfOurs returns a command, a table and a chain of portreeve's.
func (s *stage) chainOfOurs() (string, error) {
	found, err := s.listed("-N PORTREEVE")
	if len(found) == 0 || err != nil {
		return "", err
	}
	return strings.Replace(pick(s, found...), "-N ", "", 1), nil
}

// jumpOfOurs returns a command that deletes a jump of portreeve's.
func (s *stage) jumpOfOurs() (string, error) {
	found, err := s.listed("-j PORTREEVE")
	if len(found) == 0 || err != nil {
		return "", err
	}
	words := strings.SplitN(pick(s, found...), " ", 3)
	return words[0] + " -w -t " + words[1] + " " + strings.Replace(words[2], "-A ", "-D ", 1), nil
}

// listed lists rules that have some words: command, table, rule.
func (s *stage) listed(having string) (found []string, err error) {
	var script strings.Builder
	for _, c := range s.commands() {
		for _, table := range tables {
			fmt.Fprintf(&script, "%s -w -t %s -S 2>/dev/null | grep -e '%s' | sed 's/^/%[1]s %[2]s /'\n", c, table, having)
		}
	}
	said, err := s.sh(script.String() + "true\n")
	for line := range strings.Lines(said) {
		found = append(found, strings.TrimSpace(line))
	}
	return found, err
}
