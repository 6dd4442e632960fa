package firewalls

import (
	"fmt"
	"slices"
	"strings"
)

// builtin are the chains of iptables' tables.
var builtin = map[string][]string{
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"raw":    {"PREROUTING", "OUTPUT"},
}

// tool is the program that has the rules of a family.
func (r *Ruleset) tool(f Family) string {
	if f == 6 {
		return strings.Replace(string(r.Flavour), "ip", "ip6", 1)
	}
	return string(r.Flavour)
}

// ipsets makes the sets.
func (r *Ruleset) ipsets(b Book) string {
	var s strings.Builder
	for _, clients := range r.sets() {
		for _, f := range Families {
			name := setName(clients, f)
			fmt.Fprintf(&s, "ipset create %s hash:ip family %s\n", name, map[Family]string{4: "inet", 6: "inet6"}[f])
			for _, c := range clients {
				fmt.Fprintf(&s, "ipset add %s %s\n", name, b[f].Clients[c])
			}
		}
	}
	return s.String()
}

// saved is the ruleset as iptables-save writes it.
func (r *Ruleset) saved(f Family, b Book) string {
	var s strings.Builder
	for _, table := range r.tables() {
		var hooks []Hook
		fmt.Fprintf(&s, "*%s\n", table)
		for _, chain := range builtin[table] {
			h := Hook(table + " " + chain)
			policy := "ACCEPT"
			if r.Closed[h] {
				policy = "DROP"
			}
			fmt.Fprintf(&s, ":%s %s [0:0]\n", chain, policy)
			hooks = append(hooks, h)
		}
		var lines []string
		for _, h := range hooks {
			lines = append(lines, r.chain(h, f, b)...)
		}
		s.WriteString(declared(lines))
		for _, line := range lines {
			s.WriteString(line + "\n")
		}
		s.WriteString("COMMIT\n")
	}
	return s.String()
}

// declared declares the administrator's own chains that rules stand in.
func declared(lines []string) string {
	var names []string
	for _, line := range lines {
		if name := strings.Fields(line)[1]; name != strings.ToUpper(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ":" + strings.Join(names, " - [0:0]\n:") + " - [0:0]\n"
}

// chain are the rules of a base chain and of the chains that it leads to.
func (r *Ruleset) chain(h Hook, f Family, b Book) []string {
	bans, jumps := r.bans(h, f, b)
	body := r.lines(h, f, b, func(one *Rule) bool { return one.Class == Plain })
	if r.Wrapped[h] && len(body) > 0 {
		own := "fw-" + strings.ToLower(h.chain())
		for _, line := range body {
			bans = append(bans, strings.Replace(line, "-A "+h.chain(), "-A "+own, 1))
		}
		body = []string{"-A " + h.chain() + " -j " + own}
	}
	trailing := r.lines(h, f, b, func(one *Rule) bool { return one.Class == Trailing })
	if r.Mode == Appended {
		return slices.Concat(bans, body, jumps, r.logDrop(h), trailing)
	}
	return slices.Concat(bans, jumps, body, r.logDrop(h), trailing)
}

// bans are the rules of the chain that fail2ban has for its bans, and the rules of the
// base chain: the jump to that one and other bans.
func (r *Ruleset) bans(h Hook, f Family, b Book) (own, base []string) {
	base = r.lines(h, f, b, func(one *Rule) bool { return one.Class == Ban && !one.Via })
	for _, line := range r.lines(h, f, b, func(one *Rule) bool { return one.Class == Ban && one.Via }) {
		if len(own) == 0 {
			base = append(base, fmt.Sprintf("-A %s -p tcp -m multiport --dports 25,%d -j %s", h.chain(), OtherPort, fail2ban(h)))
		}
		own = append(own, strings.Replace(line, "-A "+h.chain(), "-A "+fail2ban(h), 1))
	}
	if len(own) > 0 {
		own = append(own, "-A "+fail2ban(h)+" -j RETURN")
	}
	return own, base
}

func fail2ban(h Hook) string { return "f2b-" + strings.ToLower(h.chain()) }

// logDrop is the chain of rules that log and drop.
func (r *Ruleset) logDrop(h Hook) []string {
	if len(r.of(h, func(one *Rule) bool { return one.Do == LogDrop })) == 0 {
		return nil
	}
	name := logDropName(h)
	return []string{"-A " + name + " -m limit --limit 5/min -j LOG --log-prefix denied", "-A " + name + " -j DROP"}
}

func logDropName(h Hook) string { return "logdrop-" + strings.ToLower(h.chain()) }

// lines are the rules of a base chain that are wanted.
func (r *Ruleset) lines(h Hook, f Family, b Book, wanted func(*Rule) bool) (all []string) {
	for _, one := range r.of(h, wanted) {
		if one.Family == 0 || one.Family == f {
			all = append(all, "-A "+h.chain()+strings.Join(one.iptables(f, b[f]), ""))
		}
	}
	return all
}

// iptablesAdded are the commands that add bans.
func (r *Ruleset) iptablesAdded(f Family, b Book) string {
	var s strings.Builder
	for _, h := range r.hooks() {
		tool := r.tool(f) + " -t " + h.table()
		own, base := r.bans(h, f, b)
		if len(own) > 0 {
			fmt.Fprintf(&s, "%s -N %s\n", tool, fail2ban(h))
		}
		if r.Mode == Inserted {
			slices.Reverse(base)
		}
		for _, line := range own {
			fmt.Fprintf(&s, "%s %s\n", tool, line)
		}
		for _, line := range base {
			if r.Mode == Inserted {
				line = strings.Replace(line, "-A", "-I", 1)
			}
			fmt.Fprintf(&s, "%s %s\n", tool, line)
		}
	}
	return s.String()
}

// iptables are the conditions of a rule and what it does.
func (one *Rule) iptables(f Family, a Addresses) []string {
	var words []string
	say := func(format string, args ...any) { words = append(words, " "+fmt.Sprintf(format, args...)) }
	if one.From != Anybody {
		say("-s %s", a.of(one.From))
	}
	if one.To != Anybody {
		say("-d %s", a.of(one.To))
	}
	if len(one.Clients) > 0 {
		words = append(words, one.iptablesClients(f, a))
	}
	if one.In != "" {
		say("-i %s", one.In)
	}
	if one.Out != "" {
		say("-o %s", one.Out)
	}
	if p := one.protocol(); p != "" {
		say("-p %s", protocolWord(p, f))
	}
	if one.Port != 0 {
		say(one.side("--dport", "--sport")+" %d", one.Port)
	}
	if one.SYN {
		say("--syn")
	}
	if one.States != "" {
		say("-m conntrack --ctstate %s", one.States)
	}
	if one.User != 0 {
		say("-m owner%s --uid-owner %d", not(one.NotUser), one.User-1)
	}
	if one.Mark {
		say("-m mark --mark 0x%x", MarkValue)
		if !one.Whole {
			words[len(words)-1] += fmt.Sprintf("/0x%x", low)
		}
	}
	return append(words, one.iptablesRate(f), one.iptablesAction(f, a))
}

// protocol is the one that the rule asks for; ports belong to one.
func (one *Rule) protocol() string {
	if one.Proto == "" && (one.Port != 0 || one.SYN || one.Do == RejectTCP || one.Do == Redirect || one.Do == ToOther) {
		return "tcp"
	}
	return one.Proto
}

func protocolWord(p string, f Family) string {
	if p == "icmp" && f == 6 {
		return "ipv6-icmp"
	}
	return p
}

func not(is bool) string {
	if is {
		return " !"
	}
	return ""
}

// iptablesClients is the condition on clients. The restore tools take one address only.
func (one *Rule) iptablesClients(f Family, a Addresses) string {
	option, side := "-s", "src"
	if one.Toward {
		option, side = "-d", "dst"
	}
	if one.Set {
		return fmt.Sprintf(" -m set%s --match-set %s %s", not(one.Except), setName(one.Clients, f), side)
	}
	return fmt.Sprintf("%s %s %s", not(one.Except), option, a.Clients[one.Clients[0]])
}

func (one *Rule) iptablesRate(f Family) string {
	name := fmt.Sprintf("%s-%d", one.Rate, f)
	switch one.Rate {
	case Limit:
		return fmt.Sprintf(" -m limit --limit 1/hour --limit-burst %d", burst)
	case Over:
		return fmt.Sprintf(" -m hashlimit --hashlimit-above 1/hour --hashlimit-burst %d --hashlimit-mode srcip,dstip --hashlimit-name %s", burst, name)
	case Connlimit:
		return fmt.Sprintf(" -m connlimit --connlimit-above %d", burst)
	}
	return ""
}

func (one *Rule) iptablesAction(f Family, a Addresses) string {
	switch one.Do {
	case Accept, Drop, Reject, Masquerade, Log:
		return " -j " + strings.ToUpper(string(one.Do))
	case RejectTCP:
		return " -j REJECT --reject-with tcp-reset"
	case LogDrop:
		return " -j " + logDropName(one.Hook)
	case NoTrack:
		return " -j CT --notrack"
	case MarkBits:
		return fmt.Sprintf(" -j MARK --set-xmark 0x%x/0x%x", MarkValue, low)
	case MarkAll:
		return fmt.Sprintf(" -j MARK --set-mark 0x%x", MarkValue)
	case Restore:
		return " -j CONNMARK --restore-mark"
	case RestoreLow:
		return fmt.Sprintf(" -j CONNMARK --restore-mark --nfmask 0x%x --ctmask 0x%x", low, low)
	case Redirect:
		return fmt.Sprintf(" -j REDIRECT --to-ports %d", OtherPort)
	case ToMore:
		return " -j DNAT --to-destination " + a.More.String()
	case ToOther:
		return fmt.Sprintf(" -j DNAT --to-destination %s", addrPort(a.Origin, OtherPort))
	}
	panic("no action " + one.Do)
}
