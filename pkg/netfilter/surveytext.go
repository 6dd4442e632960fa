package netfilter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// targets are what iptables calls the actions.
var targets = map[string]action{
	"ACCEPT": accept, "DROP": drop, "REJECT": reject, "RETURN": leave,
	"DNAT": dnat, "REDIRECT": redirect, "TPROXY": tproxy, "SNAT": snat, "MASQUERADE": masquerade,
	"NETMAP": dnat, "LOG": goOn, "NFLOG": goOn, "MARK": goOn, "CONNMARK": goOn, "CT": goOn, "TCPMSS": goOn,
	"SYNPROXY": synproxy, "TARPIT": drop, "NFQUEUE": accept, "SET": goOn, "CLASSIFY": goOn, "DSCP": goOn, "TOS": goOn, "TTL": goOn, "HL": goOn,
	"NOTRACK": goOn, "AUDIT": goOn, "TRACE": goOn, "TEE": goOn, "CONNSECMARK": goOn, "SECMARK": goOn, "CHECKSUM": goOn, "ULOG": goOn,
}

// understood are matches whose options are all read, or are conditions that we
// do not understand themselves.
var understood = []string{"comment", "tcp", "multiport", "conntrack", "state", "mark", "addrtype", "owner", "set", "recent", "hashlimit", "connlimit", "geoip", "iprange"}

// states are the words for what connection tracking says of a packet, with
// their bits.
var states = map[string]uint32{
	"INVALID": 1 << 0, "ESTABLISHED": 1 << 1, "RELATED": 1 << 2, "NEW": 1 << 3, "UNTRACKED": uint32(StateUntracked),
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

// textRule is a rule of iptables as words, while it is read.
type textRule struct {
	args []string
	not  bool
	entry
}

// entry reads the rule's conditions. A word that we do not know makes one
// that we do not understand.
func (r rule) entry() entry {
	t := textRule{args: words(r.spec), entry: entry{text: "-A " + r.chain + " " + r.spec, ourJump: r.isJump()}}
	for len(t.args) > 0 {
		word := t.next()
		if word == "!" {
			t.not = true
			continue
		}
		if word == "-j" || word == "-g" {
			t.target(word, t.next())
			break // what follows were the target's own options
		}
		t.option(word)
		t.not = false
	}
	return t.entry
}

func (t *textRule) next() string {
	if len(t.args) == 0 {
		return ""
	}
	word := t.args[0]
	t.args = t.args[1:]
	return word
}

func (t *textRule) require(c ...condition) { t.conditions = append(t.conditions, c...) }

func (t *textRule) option(word string) {
	switch word {
	case "-m":
		t.matching(t.next())
	case "--comment":
		t.next()
	case "--tcp-flags":
		mask, flags := flagBits(t.next()), flagBits(t.next())
		t.require(flagged(flags, mask, t.not))
	case "--match-set":
		t.next()
		t.require(setCondition(t.next()))
	default:
		if read, known := options[word]; known {
			t.require(read(t.next(), t.not))
		} else if strings.HasPrefix(word, "-") && !slices.Contains(counted, word) {
			t.require(opaque)
		}
	}
}

// counted are options of matches that count or know addresses of senders.
var counted = []string{
	"--name", "--mask", "--rsource", "--seconds", "--hitcount", "--update", "--set", "--rcheck", "--remove", "--rttl", "--reap",
	"--hashlimit-above", "--hashlimit-upto", "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-name", "--hashlimit-srcmask", "--hashlimit-htable-expire",
	"--connlimit-above", "--connlimit-upto", "--connlimit-mask", "--connlimit-saddr", "--src-cc", "--source-country",
}

// matching begins a match.
func (t *textRule) matching(name string) {
	switch {
	case slices.Contains([]string{"recent", "hashlimit", "connlimit", "geoip"}, name):
		t.require(condition{field: sourceSet})
	case !slices.Contains(understood, name):
		t.require(opaque)
	}
}

// setCondition reads "src,dst".
func setCondition(directions string) condition {
	if strings.HasPrefix(directions, "src") {
		return condition{field: sourceSet}
	}
	return condition{field: destinationSet}
}

// target reads what the rule does, which may be to go to a chain.
func (t *textRule) target(word, target string) {
	a, known := targets[target]
	switch {
	case known:
		t.action = a
	case word == "-g":
		t.action, t.to = goTo, target
	default:
		t.action, t.to = jumpTo, target
	}
	switch target {
	case "MARK":
		t.writes = t.marks("--set-xmark", "")
	case "CONNMARK":
		if slices.Contains(t.args, "--restore-mark") {
			t.writes = t.marks("", "--nfmask")
			t.require(isTracked())
		}
	case "CT":
		t.untracks = slices.Contains(t.args, "--notrack")
	case "NOTRACK":
		t.untracks = true
	}
}

// marks reads how the options of a target change a mark: --set-xmark value/mask, or a
// mask alone, under which a new connection's mark is 0.
func (t *textRule) marks(set, masked string) *write {
	for len(t.args) > 1 {
		word := t.next()
		if word == set {
			value, mask, _ := strings.Cut(t.args[0], "/")
			return &write{stay: ^number(mask), turn: number(value)}
		}
		if word == masked {
			return &write{stay: ^number(t.args[0])}
		}
	}
	return &write{unknown: true}
}

// number reads 0x1f or 31; of none, all bits are set.
func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return ^uint32(0)
	}
	return uint32(n)
}

// options read a condition each.
var options = map[string]func(value string, not bool) condition{
	"-i":          func(v string, not bool) condition { return nameCondition(inName, v, not) },
	"-o":          func(v string, not bool) condition { return nameCondition(outName, v, not) },
	"-s":          func(v string, not bool) condition { return prefixCondition(source4, source6, v, not) },
	"-d":          func(v string, not bool) condition { return prefixCondition(destination4, destination6, v, not) },
	"-p":          protocolCondition,
	"--dport":     func(v string, not bool) condition { return portCondition(port, v, not) },
	"--dports":    func(v string, not bool) condition { return portCondition(port, v, not) },
	"--sport":     func(v string, not bool) condition { return portCondition(sourcePort, v, not) },
	"--sports":    func(v string, not bool) condition { return portCondition(sourcePort, v, not) },
	"--ctstate":   statesCondition,
	"--state":     statesCondition,
	"--ctstatus":  func(string, bool) condition { return condition{field: ctOther} },
	"--mark":      markCondition,
	"--src-type":  func(v string, not bool) condition { return typeCondition(sourceType, v, not) },
	"--dst-type":  func(v string, not bool) condition { return typeCondition(destinationType, v, not) },
	"--uid-owner": func(v string, not bool) condition { return ownerCondition(user, v, not) },
	"--gid-owner": func(v string, not bool) condition { return ownerCondition(group, v, not) },
	"--src-range": func(string, bool) condition { return condition{field: sourceSet} },
	"--dst-range": func(string, bool) condition { return condition{field: destinationSet} },
}

func protocolCondition(value string, not bool) condition {
	if value == "tcp" {
		return condition{field: protocol, not: not, spans: exactly([]byte{unix.IPPROTO_TCP})}
	}
	return condition{field: protocol, not: not, spans: exactly([]byte{0})} // any other
}

func prefixCondition(at4, at6 field, value string, not bool) condition {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return opaque
	}
	return inPrefix(at4, at6, p, not)
}

// nameCondition reads an interface, in which a final + stands for anything.
func nameCondition(f field, value string, not bool) condition {
	v := nameOctets(value)
	if prefix, open := strings.CutSuffix(value, "+"); open {
		v = []byte(prefix)
	}
	return condition{field: f, not: not, spans: exactly(v)}
}

// portCondition reads "25", "25:26" and "25,80:90".
func portCondition(f field, value string, not bool) condition {
	c := condition{field: f, not: not}
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

// markCondition reads "0x1/0xff".
func markCondition(value string, not bool) condition {
	mark, mask, _ := strings.Cut(value, "/")
	return marked(number(mark), number(mask), not)
}

// addressTypeNames are the types that addresses of a packet may have, as RTN numbers.
var addressTypeNames = map[string]uint32{
	"UNICAST": unix.RTN_UNICAST, "LOCAL": unix.RTN_LOCAL, "BROADCAST": unix.RTN_BROADCAST, "ANYCAST": unix.RTN_ANYCAST,
	"MULTICAST": unix.RTN_MULTICAST, "BLACKHOLE": unix.RTN_BLACKHOLE, "UNREACHABLE": unix.RTN_UNREACHABLE, "PROHIBIT": unix.RTN_PROHIBIT,
}

func typeCondition(f field, value string, not bool) condition {
	c := condition{field: f, not: not}
	for _, word := range strings.Split(value, ",") {
		n, known := addressTypeNames[word]
		if !known {
			return opaque
		}
		c.spans = append(c.spans, exactly(native(n))...)
	}
	return c
}

// ownerCondition reads "0" and "0-99": iptables shows numbers.
func ownerCondition(f field, value string, not bool) condition {
	low, high, ranged := strings.Cut(value, "-")
	if !ranged {
		high = low
	}
	return condition{field: f, not: not, spans: []span{{numberOctets(number(low)), numberOctets(number(high))}}}
}

// flagBits reads "SYN,ACK".
func flagBits(value string) byte {
	bits := map[string]byte{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63}
	var all byte
	for _, word := range strings.Split(value, ",") {
		all |= bits[word]
	}
	return all
}
