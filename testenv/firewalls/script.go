package firewalls

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Addresses are those of one family that rules and probes name.
type Addresses struct {
	Clients               []netip.Addr // the cast
	Gateway, Origin, More netip.Addr
}

// Book has the addresses of each family.
type Book map[Family]Addresses

func (a Addresses) of(h Host) netip.Addr {
	switch h {
	case Gateway:
		return a.Gateway
	case Origin:
		return a.Origin
	case More:
		return a.More
	}
	return netip.Addr{}
}

// Ports that servers listen on, but 25.
const (
	OtherPort = 7777 // nothing to portreeve
	DNATPort  = 2222 // where nobody listens: DNAT leads from it to the origin's other port
)

// Install is a shell script that installs the ruleset where there is none.
func (r *Ruleset) Install(b Book) string {
	script := r.Before().file(b)
	if r.Mode != Whole {
		script += r.Add(b)
	}
	return script
}

// Show is the ruleset as a shell script for a reader.
func (r *Ruleset) Show(b Book) string {
	var s strings.Builder
	for line := range strings.Lines(r.file(b)) {
		s.WriteString("    " + line)
	}
	return s.String()
}

// file installs all rules at once.
func (r *Ruleset) file(b Book) string {
	if r.Flavour == NFT {
		return document("nft -f -", r.nft(b)) + r.apart(b)
	}
	script := r.ipsets(b)
	for _, f := range Families {
		script += document(r.tool(f)+"-restore", r.saved(f, b))
	}
	return script + r.apart(b)
}

// Add is a shell script that adds the bans to the ruleset without them, as its mode
// says.
func (r *Ruleset) Add(b Book) string {
	bans := r.part()
	bans.Rules = r.only(func(one *Rule) bool { return one.Class == Ban })
	script := bans.apart(b)
	if r.Flavour == NFT {
		return script + document("nft -f -", bans.nftAdded(b))
	}
	for _, f := range Families {
		script += bans.iptablesAdded(f, b)
	}
	return script
}

// Clear is a shell script that removes all rules of whatever flavour. What follows ends
// at the first command that fails.
const Clear = `set -e
nft flush ruleset
for tool in iptables-legacy-restore ip6tables-legacy-restore; do
	$tool <<'END'
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
COMMIT
END
done
ipset destroy
`

// document gives a command a text to read.
func document(command, text string) string {
	if text == "" {
		return ""
	}
	return command + " <<'END'\n" + text + "END\n"
}

// setName is the name of the set of some clients.
func setName(clients []int, f Family) string {
	name := "set"
	for _, c := range clients {
		name += strconv.Itoa(c)
	}
	return fmt.Sprintf("%sv%d", name, f)
}

// String says how the ruleset is drawn again, and what it does not show itself.
func (r *Ruleset) String() string {
	return fmt.Sprintf("-seed %d -ruleset %d: %s, bans %s, forge.port exact: %t, fail open: %t", r.Seed, r.Number, r.Flavour, r.Mode, r.Exact, r.Open)
}
