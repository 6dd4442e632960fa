package netfilter

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// lookLegacy adds the chains of iptables-legacy. Without its command they
// cannot be read, and nobody here can have made them.
func (s *Survey) lookLegacy() error {
	var t tools
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		names, err := legacyTables(f)
		if err != nil {
			return err
		}
		for _, name := range names {
			l, err := t.list(tool{f, true}, name, "")
			if errors.Is(err, ErrMissing) {
				break
			}
			if err != nil {
				return err
			}
			s.chains = append(s.chains, l.survey(f, name)...)
		}
	}
	return nil
}

// survey turns a listing into chains.
func (l listing) survey(f plan.Family, table string) []chain {
	var all []chain
	at := map[string]int{}
	add := func(name, hook string, dropping bool) {
		at[name] = len(all)
		place := Place{Flavour: IPTablesLegacy, Families: []plan.Family{f}, Table: table, Chain: name}
		all = append(all, chain{Place: place, hook: hook, dropping: dropping})
	}
	for name, policy := range l.policies {
		add(name, strings.ToLower(name), policy == "DROP")
	}
	for _, name := range l.chains {
		add(name, "", false)
	}
	for _, r := range l.rules {
		if i, known := at[r.chain]; known {
			all[i].entries = append(all[i].entries, r.entry())
		}
	}
	return all
}

// targets are what iptables calls the actions.
var targets = map[string]action{
	"ACCEPT": accept, "DROP": drop, "REJECT": reject, "RETURN": leave,
	"DNAT": dnat, "REDIRECT": redirect, "TPROXY": tproxy, "SNAT": snat, "MASQUERADE": masquerade,
	"NETMAP": dnat, "LOG": goOn, "NFLOG": goOn, "MARK": goOn, "CONNMARK": goOn, "CT": goOn, "TCPMSS": goOn,
}

// understood are matches whose options are all read, or are conditions that we
// do not understand themselves.
var understood = []string{"comment", "tcp", "multiport", "conntrack", "state"}

// states are the words for what connection tracking says of a packet, with
// their bits.
var states = map[string]uint32{
	"INVALID": 1 << 0, "ESTABLISHED": 1 << 1, "RELATED": 1 << 2, "NEW": 1 << 3, "UNTRACKED": stateUntracked,
	"SNAT": 0, "DNAT": 0, // of translated connections
}

// statesCondition reads "RELATED,ESTABLISHED".
func statesCondition(value string, not bool) condition {
	var bits uint32
	for _, word := range strings.Split(value, ",") {
		bit, known := states[word]
		if !known {
			return opaque
		}
		bits |= bit
	}
	return inState(bits, not)
}

// entry reads the rule's conditions. A word that we do not know makes one
// that we do not understand.
func (r rule) entry() entry {
	e := entry{text: "-A " + r.chain + " " + r.spec, ourJump: r.isJump()}
	args := words(r.spec)
	not := false
	for i := 0; i < len(args); i++ {
		word, value := args[i], ""
		if i+1 < len(args) {
			value = args[i+1]
		}
		switch word {
		case "!":
			not = true
			continue
		case "-j", "-g":
			e.act(word, value)
			return e // what follows are the target's own options
		case "-m":
			if !slices.Contains(understood, value) {
				e.conditions = append(e.conditions, opaque)
			}
			i++
		case "--comment":
			i++
		case "-i", "-o", "-s", "-d", "-p", "--dport", "--dports", "--ctstate", "--state":
			e.conditions = append(e.conditions, textCondition(word, value, not))
			i++
		default:
			if strings.HasPrefix(word, "-") {
				e.conditions = append(e.conditions, opaque)
			}
		}
		not = false
	}
	return e
}

// act reads a target, which may be a chain.
func (e *entry) act(word, target string) {
	a, known := targets[target]
	switch {
	case known:
		e.action = a
	case word == "-g":
		e.action, e.to = goTo, target
	default:
		e.action, e.to = jumpTo, target
	}
}

func textCondition(word, value string, not bool) condition {
	switch word {
	case "-i":
		return nameCondition(inName, value, not)
	case "-o":
		return nameCondition(outName, value, not)
	case "-p":
		if value == "tcp" {
			return condition{field: protocol, not: not, spans: exactly([]byte{unix.IPPROTO_TCP})}
		}
		return condition{field: protocol, not: not, spans: exactly([]byte{0})} // any other
	case "--dport", "--dports":
		return portCondition(value, not)
	case "--ctstate", "--state":
		return statesCondition(value, not)
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return opaque
	}
	if word == "-s" {
		return inPrefix(source4, source6, p, not)
	}
	return inPrefix(destination4, destination6, p, not)
}

// nameCondition reads an interface, in which a final + stands for anything.
func nameCondition(f field, value string, not bool) condition {
	v := name(value)
	if prefix, open := strings.CutSuffix(value, "+"); open {
		v = []byte(prefix)
	}
	return condition{field: f, not: not, spans: exactly(v)}
}

// portCondition reads "25", "25:26" and "25,80:90".
func portCondition(value string, not bool) condition {
	c := condition{field: port, not: not}
	for _, one := range strings.Split(value, ",") {
		low, high, ranged := strings.Cut(one, ":")
		if !ranged {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil {
			return opaque
		}
		c.spans = append(c.spans, span{[]byte{byte(from >> 8), byte(from)}, []byte{byte(to >> 8), byte(to)}})
	}
	return c
}
