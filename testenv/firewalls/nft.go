package firewalls

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func addrPort(a netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }

// nftTable is the administrator's table.
const nftTable = "inet fw"

// nftChains are its base chains: name, and type, hook and priority.
var nftChains = map[Hook][2]string{
	RawPrerouting:    {"raw-arriving", "filter hook prerouting priority raw"},
	RawOutput:        {"raw-leaving", "filter hook output priority raw"},
	ManglePrerouting: {"mangle-arriving", "filter hook prerouting priority mangle"},
	MangleForward:    {"mangle-passing", "filter hook forward priority mangle"},
	NATPrerouting:    {"nat-arriving", "nat hook prerouting priority dstnat"},
	NATPostrouting:   {"nat-leaving", "nat hook postrouting priority srcnat"},
	Input:            {"incoming", "filter hook input priority filter"},
	Forward:          {"passing", "filter hook forward priority filter"},
	Output:           {"outgoing", "filter hook output priority filter"},
}

var (
	nftFamily = map[Family]string{4: "ip", 6: "ip6"}
	nftType   = map[Family]string{4: "ipv4_addr", 6: "ipv6_addr"}
)

// nft is the ruleset as nft reads it.
func (r *Ruleset) nft(b Book) string {
	var s strings.Builder
	if len(r.hooks()) == 0 {
		return ""
	}
	fmt.Fprintf(&s, "table %s {\n%s", nftTable, r.nftSets(b))
	for _, h := range r.hooks() {
		body, own := r.nftBody(h, b)
		for name, lines := range own {
			nftChain(&s, name, "", lines)
		}
		nftChain(&s, nftChains[h][0], r.nftHead(h), body)
	}
	s.WriteString("}\n")
	return s.String()
}

func nftChain(s *strings.Builder, name, head string, lines []string) {
	fmt.Fprintf(s, "\tchain %s {\n%s", name, head)
	for _, line := range lines {
		fmt.Fprintf(s, "\t\t%s\n", line)
	}
	s.WriteString("\t}\n")
}

// nftHead says where a base chain is hooked in.
func (r *Ruleset) nftHead(h Hook) string {
	policy, priority := "accept", ""
	if r.Closed[h] {
		policy = "drop"
	}
	if h.table() == "filter" && r.Priority != 0 {
		priority = fmt.Sprintf(" %+d", r.Priority)
		priority = strings.NewReplacer("+", "+ ", "-", "- ").Replace(priority)
	}
	return fmt.Sprintf("\t\ttype %s%s; policy %s;\n", nftChains[h][1], priority, policy)
}

// nftBody are the rules of a base chain, and the chains that it leads to.
func (r *Ruleset) nftBody(h Hook, b Book) (body []string, own map[string][]string) {
	own = make(map[string][]string)
	bans := r.nftLines(h, b, func(one *Rule) bool { return one.Class == Ban })
	body = r.nftLines(h, b, func(one *Rule) bool { return one.Class == Plain })
	if r.Wrapped[h] && len(body) > 0 {
		name := "fw-" + nftChains[h][0]
		own[name] = body
		body = []string{"jump " + name}
	}
	trailing := r.nftLines(h, b, func(one *Rule) bool { return one.Class == Trailing })
	if r.Mode == Appended {
		return slices.Concat(body, bans, trailing), own
	}
	return slices.Concat(bans, body, trailing), own
}

// nftSets makes the sets.
func (r *Ruleset) nftSets(b Book) string {
	var s strings.Builder
	for _, clients := range r.sets() {
		for _, f := range Families {
			var elements []string
			for _, c := range clients {
				elements = append(elements, b[f].Clients[c].String())
			}
			fmt.Fprintf(&s, "\tset %s { type %s; elements = { %s }; }\n", setName(clients, f),
				nftType[f], strings.Join(elements, ", "))
		}
	}
	for _, h := range r.hooks() {
		if len(r.of(h, func(one *Rule) bool { return one.Rate == Connlimit })) == 0 {
			continue
		}
		for _, f := range Families {
			fmt.Fprintf(&s, "\tset count-%s-v%d { type %s; flags dynamic; }\n", nftChains[h][0], f, nftType[f])
		}
	}
	return s.String()
}

// nftLines are the rules of a base chain that are wanted. Those with addresses are
// two, one for each family.
func (r *Ruleset) nftLines(h Hook, b Book, wanted func(*Rule) bool) (all []string) {
	for _, one := range r.of(h, wanted) {
		if one.Family == 0 && !one.needsFamily() {
			all = append(all, strings.Join(one.nft(0, Addresses{}), " "))
			continue
		}
		for _, f := range Families {
			if one.Family == 0 || one.Family == f {
				all = append(all, strings.Join(one.nft(f, b[f]), " "))
			}
		}
	}
	return all
}

// needsFamily reports whether the rule names an address.
func (one *Rule) needsFamily() bool {
	return len(one.Clients) > 0 || one.To != Anybody || one.From != Anybody || one.Do == ToMore || one.Do == ToOther || one.Proto == "icmp"
}

// nftAdded is what nft reads to add bans.
func (r *Ruleset) nftAdded(b Book) string {
	var s strings.Builder
	for _, h := range r.hooks() {
		lines := r.nftLines(h, b, anyRule)
		verb := "add"
		if r.Mode == Inserted {
			verb = "insert"
			slices.Reverse(lines)
		}
		for _, line := range lines {
			fmt.Fprintf(&s, "%s rule %s %s %s\n", verb, nftTable, nftChains[h][0], line)
		}
	}
	return s.String()
}

// apart installs the bans of a table of their own.
func (r *Ruleset) apart(b Book) string {
	chains := make(map[Hook][]string)
	for _, one := range r.only(func(one *Rule) bool { return one.Apart }) {
		for _, f := range Families {
			if one.Family == 0 || one.Family == f {
				chains[one.Hook] = append(chains[one.Hook], strings.Join(one.nft(f, b[f]), " "))
			}
		}
	}
	if len(chains) == 0 {
		return ""
	}
	var s strings.Builder
	fmt.Fprintf(&s, "table %s {\n", apartTable)
	for _, h := range Hooks {
		if lines := chains[h]; len(lines) > 0 {
			nftChain(&s, apartChain(h), fmt.Sprintf("\t\ttype %s - 1;\n", nftChains[h][1]), lines)
		}
	}
	s.WriteString("}\n")
	return document("nft -f -", s.String())
}

// apartTable is the table that fail2ban's nftables actions have for themselves.
const apartTable = "inet f2b-table"

func apartChain(h Hook) string { return "f2b-" + nftChains[h][0] }

// nft are the conditions of a rule and what it does, for one family, or for both (0)
// where it names no address.
func (one *Rule) nft(f Family, a Addresses) []string {
	ip := nftFamily[f]
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if one.From != Anybody {
		say("%s saddr %s", ip, a.of(one.From))
	}
	if one.To != Anybody {
		say("%s daddr %s", ip, a.of(one.To))
	}
	if len(one.Clients) > 0 {
		words = append(words, ip+" "+one.nftClients(f, a))
	} else if f != 0 && one.From == Anybody && one.To == Anybody {
		say("meta nfproto ipv%d", f)
	}
	if one.In != "" {
		say("iifname %q", one.In)
	}
	if one.Out != "" {
		say("oifname %q", one.Out)
	}
	if p := one.protocol(); p != "" {
		say("meta l4proto %s", protocolWord(p, f))
	}
	if one.Port != 0 {
		say("%s %s %d", one.protocol(), one.side("dport", "sport"), one.Port)
	}
	if one.SYN {
		say("tcp flags & (fin | syn | rst | ack) == syn")
	}
	if one.States != "" {
		say("ct state %s", strings.ToLower(one.States))
	}
	if one.User != 0 {
		say("meta skuid %s%d", strings.TrimSpace(strings.Replace(not(one.NotUser), "!", "!=", 1))+" ", one.User-1)
	}
	if one.Mark && one.Whole {
		say("meta mark 0x%x", MarkValue)
	} else if one.Mark {
		say("meta mark & 0x%x == 0x%x", low, MarkValue)
	}
	return append(words, strings.TrimSpace(one.nftRate(f)+" "+one.nftAction(f, a)))
}

func (one *Rule) nftClients(f Family, a Addresses) string {
	side, unequal := "saddr", ""
	if one.Toward {
		side = "daddr"
	}
	if one.Except {
		unequal = "!= "
	}
	if one.Set {
		return fmt.Sprintf("%s %s@%s", side, unequal, setName(one.Clients, f))
	}
	return fmt.Sprintf("%s %s%s", side, unequal, a.Clients[one.Clients[0]])
}

// nftRate counts.
func (one *Rule) nftRate(f Family) string {
	switch one.Rate {
	case Limit:
		return fmt.Sprintf("limit rate 1/hour burst %d packets", burst)
	case Over:
		return fmt.Sprintf("limit rate over 1/hour burst %d packets", burst)
	case Connlimit:
		return fmt.Sprintf("add @count-%s-v%d { %s saddr ct count over %d }", nftChains[one.Hook][0], f, nftFamily[f], burst)
	}
	return ""
}

func (one *Rule) nftAction(f Family, a Addresses) string {
	ip := nftFamily[f]
	switch one.Do {
	case Accept, Drop, Reject, Masquerade:
		return string(one.Do)
	case NoTrack:
		return "notrack"
	case RejectTCP:
		return "reject with tcp reset"
	case Log:
		return `log prefix "denied "`
	case LogDrop:
		return `log prefix "denied " drop`
	case MarkBits:
		return fmt.Sprintf("meta mark set meta mark & 0x%x | 0x%x", ^uint32(low), MarkValue)
	case MarkAll:
		return fmt.Sprintf("meta mark set 0x%x", MarkValue)
	case Restore:
		return "meta mark set ct mark"
	case RestoreLow:
		return "ct mark != 0 meta mark set ct mark" // a part of it cannot be put in place of a part
	case Redirect:
		return fmt.Sprintf("redirect to :%d", OtherPort)
	case ToMore:
		return fmt.Sprintf("dnat %s to %s", ip, a.More)
	case ToOther:
		return fmt.Sprintf("dnat %s to %s", ip, addrPort(a.Origin, OtherPort))
	}
	panic("no action " + one.Do)
}
