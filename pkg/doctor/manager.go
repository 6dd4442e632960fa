package doctor

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/netfilter"
	"github.com/portreeve/portreeve/pkg/plan"
)

// manager is a program that makes rules and makes them again: what is changed in them
// by hand does not last.
type manager uint8

const (
	nobody manager = iota
	firewalld
	ufw
	docker
	csf
)

// csfChains are those of ConfigServer Security & Firewall.
var csfChains = []string{"SMTPOUTPUT", "LOCALINPUT", "LOCALOUTPUT", "LOGDROPIN", "LOGDROPOUT", "DENYIN", "DENYOUT", "ALLOWIN", "ALLOWOUT", "INVALID"}

// managerOf knows a program by the names of its tables and chains.
func managerOf(names []string) manager {
	has := func(of func(string) bool) bool { return slices.ContainsFunc(names, of) }
	prefixed := func(prefixes ...string) bool {
		return has(func(n string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(n, p) })
		})
	}
	switch {
	case prefixed("inet firewalld", "ip firewalld", "ip6 firewalld"):
		return firewalld
	case prefixed("ufw-", "ufw6-"):
		return ufw
	case prefixed("DOCKER"):
		return docker
	case has(func(n string) bool { return slices.Contains(csfChains, n) }):
		return csf
	}
	return nobody
}

// managed is what is to be told to the program that made a rule; "" if none is known,
// or the program has no word for it.
func (c cures) managed(g group) string {
	switch managerOf(g.Names()) {
	case firewalld:
		return c.firewalld(g)
	case ufw:
		return c.ufw(g)
	case docker:
		return c.docker(g)
	case csf:
		return c.csf(g)
	}
	return ""
}

// Zones is what firewalld's files say of its zones.
type Zones struct {
	Default string
	Of      map[string]string // by interface
}

func readZones(dir string) Zones {
	z := Zones{Default: "public", Of: map[string]string{}}
	if text, err := os.ReadFile(filepath.Join(dir, "firewalld.conf")); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name == "DefaultZone" {
				z.Default = value
			}
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "zones", "*.xml"))
	for _, file := range files {
		var zone struct {
			Interfaces []struct {
				Name string `xml:"name,attr"`
			} `xml:"interface"`
		}
		if text, err := os.ReadFile(file); err == nil && xml.Unmarshal(text, &zone) == nil {
			for _, i := range zone.Interfaces {
				z.Of[i.Name] = strings.TrimSuffix(filepath.Base(file), ".xml")
			}
		}
	}
	return z
}

// zone is the zone of an interface: that whose chain its packets come to, else that of
// the files.
func (g *gateway) zone(name string) string {
	const prefix = "filter_IN_"
	p := netfilter.Packet{Family: plan.IPv4, In: name, State: netfilter.StateNew, Flags: netfilter.SYN}
	for _, chain := range g.m.Firewall.Entered("input", p) {
		if zone, is := strings.CutPrefix(chain, prefix); is && !strings.Contains(zone, "_") {
			return zone
		}
	}
	if zone, named := g.m.Zones.Of[name]; named {
		return zone
	}
	return g.m.Zones.Default
}

// firewalld lets services and ports in by zone; replies, where they are not tracked, by
// their source port; and what leaves by an interface by the zone of that.
func (c cures) firewalld(g group) string {
	const reload = "firewall-cmd --reload"
	options := map[string]bool{}
	for _, t := range g.members {
		switch {
		case t.harm != stops || t.hook != "input" && t.leg != loopSYN:
			return ""
		case t.leg == loopSYN:
			return c.loopZone()
		case t.leg == originReply:
			options[fmt.Sprintf("--zone=%s --add-source-port=%d/tcp", c.zone(t.by), t.to.Port)] = true
		case t.to.Port == 25:
			options[fmt.Sprintf("--zone=%s --add-service=smtp", c.zone(t.by))] = true
		default:
			options[fmt.Sprintf("--zone=%s --add-port=%d/tcp", c.zone(t.by), t.to.Port)] = true
		}
	}
	var commands []string
	for _, o := range slices.Sorted(maps.Keys(options)) {
		commands = append(commands, "firewall-cmd --permanent "+o)
	}
	return strings.Join(append(commands, reload), " && ")
}

// loopZone puts the loop link into the zone of the origin side, where firewalld looks
// for what leaves by it.
func (c cures) loopZone() string {
	return fmt.Sprintf("firewall-cmd --permanent --zone=%s --add-interface=%s && firewall-cmd --reload", c.zone(c.c.Interfaces.Origin[0]), plan.LoopLink)
}

// outInterfaceOf is what makes a manager's rules that ask for the origin's interface
// be about the loop link, too; "" where each rule needs its twin.
func (c cures) outInterfaceOf(chain []netfilter.Unmet) string {
	names := append([]string{chain[0].Table}, chain[0].Way...)
	switch managerOf(names) {
	case firewalld:
		return c.loopZone()
	case ufw:
		return ufwRoutes(chain)
	}
	return ""
}

// ufw takes rules in its own language.
func (c cures) ufw(g group) string {
	if g.harm != stops || strings.Contains(g.Chain, "-user-") {
		return "" // it was told to drop them: see the rule
	}
	commands := map[string]bool{}
	for _, t := range g.members {
		switch {
		case t.leg == addressedSYN && t.hook == "input":
			commands[fmt.Sprintf("ufw allow in on %s to any port %d proto tcp", t.by, t.to.Port)] = true
		case t.leg == loopSYN && t.hook == "forward":
			commands[fmt.Sprintf("ufw route allow in on %s out on %s to any port %d proto tcp", t.by, plan.LoopLink, t.to.Port)] = true
		case t.leg == openSYN:
			commands[fmt.Sprintf("ufw route allow in on %s out on %s to any port %d proto tcp", t.by, t.steps[0].Out, t.to.Port)] = true
		case t.leg == originSYN && t.hook == "output":
			commands[fmt.Sprintf("ufw allow out on %s to any port %d proto tcp", t.by, t.to.Port)] = true
		case t.leg != addressedLater && t.leg != addressedReply:
			return ""
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(commands)), " && ")
}

// ufwRoutes are ufw's commands for the twins of its own rules.
func ufwRoutes(chain []netfilter.Unmet) string {
	var commands []string
	for _, u := range chain {
		c, told := ufwRoute(strings.Fields(u.Twin))
		if !told {
			return ""
		}
		if !slices.Contains(commands, c) {
			commands = append(commands, c)
		}
	}
	return strings.Join(commands, " && ")
}

// ufwRoute says a rule of iptables in ufw's words, if it has them.
func ufwRoute(args []string) (string, bool) {
	verbs := map[string]string{"ACCEPT": "allow", "DROP": "deny", "REJECT": "reject"}
	words := map[string]string{"-i": "in on", "-o": "out on", "-s": "from", "-d": "to", "--dport": "port", "-p": "proto"}
	said := map[string]string{}
	verb := ""
	at := slices.Index(args, "-A")
	if at < 0 || at+2 > len(args) {
		return "", false
	}
	for rest := args[at+2:]; len(rest) > 1; rest = rest[2:] {
		option, value := rest[0], rest[1]
		switch {
		case option == "-j":
			verb = verbs[value]
		case option == "-m" && value == "tcp", option == "--reject-with":
		case words[option] == "" || value == "!":
			return "", false
		default:
			said[option] = strings.TrimSuffix(strings.TrimSuffix(value, "/32"), "/128")
		}
	}
	if verb == "" {
		return "", false
	}
	if said["--dport"] != "" && said["-d"] == "" {
		said["-d"] = "any"
	}
	text := "ufw route " + verb
	for _, option := range []string{"-i", "-o", "-s", "-d", "--dport", "-p"} {
		if said[option] != "" {
			text += " " + words[option] + " " + said[option]
		}
	}
	return text, true
}

// docker writes its rules anew, but for those in DOCKER-USER.
func (c cures) docker(g group) string {
	if g.harm == diverts && g.Chain == "DOCKER" {
		return "publish the container's port on another port, or another address (docker run -p 127.0.0.1:2525:25), and name it under origins: Docker makes its rules anew"
	}
	if g.Chain == "DOCKER-USER" || !g.only(loopSYN) {
		return ""
	}
	tool, _, _ := strings.Cut(g.Place.String(), " ")
	return fmt.Sprintf("%s -t filter -I DOCKER-USER -m mark ! --mark 0x0/0x%x -j ACCEPT", tool, c.c.Kernel.LoopMark)
}

// csf is told by its file.
func (c cures) csf(g group) string {
	const file = "/etc/csf/csf.conf && csf -r"
	switch {
	case g.harm != stops:
		return ""
	case slices.Contains(g.Names(), "SMTPOUTPUT") || g.only(originSYN):
		return `sed -i '/^SMTP_BLOCK = /s/".*"/"0"/' ` + file
	case g.only(addressedSYN, addressedLater):
		list, port := "TCP_IN", g.to.Port
		if g.to.Prefix.Addr().Is6() {
			list = "TCP6_IN"
		}
		return fmt.Sprintf(`sed -i '/^%s = /s/"$/,%d"/' %s`, list, port, file)
	}
	return ""
}
