package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Snapshot is what the gateway's kernel holds that a gateway program could
// change: firewall, rules, routes, links, qdiscs, filters, BPF programs and
// pins, sysctls. Numbers that move by themselves are left out.
type Snapshot struct {
	sections map[string]string // by the command that shows it
}

// Snapshot looks at the gateway, once the kernel has done with links that were set
// up a moment ago.
func (e *Env) Snapshot(ctx context.Context) (Snapshot, error) {
	if err := e.Gateway.awaitLinks(ctx); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot: %w", err)
	}
	s := Snapshot{sections: make(map[string]string)}
	for _, command := range []string{
		"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
		"nft --stateless list ruleset",
		"ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all",
		"ip -oneline address", "ip -details link", "tc qdisc",
	} {
		if err := s.command(ctx, e.Gateway, command); err != nil {
			return Snapshot{}, err
		}
	}
	if err := s.filters(ctx, e.Gateway); err != nil {
		return Snapshot{}, err
	}
	if err := s.files(e); err != nil {
		return Snapshot{}, err
	}
	return s, nil
}

// Sections names what was looked at.
func (s Snapshot) Sections() []string { return slices.Sorted(maps.Keys(s.sections)) }

// command adds what a command of the gateway prints.
func (s *Snapshot) command(ctx context.Context, n *Node, command string) error {
	words := strings.Fields(command)
	text, err := n.Run(ctx, words[0], words[1:]...)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s.sections[command] = normalise(command, text)
	return nil
}

// filters adds the TC filters of every device.
func (s *Snapshot) filters(ctx context.Context, n *Node) error {
	listing, err := n.Run(ctx, "ip", "-brief", "link")
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for line := range strings.Lines(listing) {
		device, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		for _, side := range []string{"ingress", "egress"} {
			if err := s.command(ctx, n, "tc filter show dev "+device+" "+side); err != nil {
				return err
			}
		}
	}
	return nil
}

// files adds what is read rather than asked for: BPF programs, pins, sysctls.
func (s *Snapshot) files(e *Env) error {
	err := e.Gateway.Enter(func() (err error) {
		if s.sections["bpf programs"], err = attachments(); err != nil {
			return err
		}
		s.sections["sysctls"], err = sysctls()
		return err
	})
	if err == nil {
		s.sections["bpf pins"], err = tree(e.BPFFS)
	}
	if err == nil {
		s.sections["run directory"], err = tree(e.RunDir, ".watch") // there while a watcher works
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// tree lists a directory and what is below, but for files with some endings; nothing
// where it does not exist.
func tree(dir string, without ...string) (string, error) {
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && !slices.Contains(without, filepath.Ext(path)) {
			fmt.Fprintln(&list, "."+strings.TrimPrefix(path, dir))
		}
		return err
	})
	if list.Len() == 0 && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return list.String(), err
}

// sysctls lists the network sysctls of the calling thread's namespace that an
// administrator sets.
func sysctls() (string, error) {
	var list strings.Builder
	for _, dir := range []string{"/proc/sys/net/ipv4", "/proc/sys/net/ipv6"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || slices.Contains(volatile, entry.Name()) {
				return err
			}
			value, err := os.ReadFile(path)
			if err != nil {
				return nil // write-only ones, such as route/flush
			}
			fmt.Fprintf(&list, "%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"), strings.TrimSpace(string(value)))
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return list.String(), nil
}

// volatile sysctls change by themselves: stable_secret and the fast open key
// are made at first use.
var volatile = []string{"tcp_fastopen_key", "stable_secret"}

var (
	counters = regexp.MustCompile(`\[\d+:\d+\]`)
	promisc  = regexp.MustCompile(`(promiscuity|allmulti) \d+ ?`)
	counting = regexp.MustCompile(`^\s*elements = .* ct count `) // nftables forgets them by itself
)

// ipv6Multicast begins the route that the kernel makes for each device when it
// notices the carrier, on a busy machine after everything says that it is up.
const ipv6Multicast = "multicast ff00::/8 "

// normalise removes from a command's output what differs between two looks at
// the same thing.
func normalise(command, text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ipv6Multicast) || counting.MatchString(line) { // "#": dates of iptables-save
			continue
		}
		line = counters.ReplaceAllString(line, "[0:0]")
		kept = append(kept, promisc.ReplaceAllString(line, ""))
	}
	if strings.HasSuffix(command, "tables-legacy-save") {
		kept = withoutEmptyTables(kept)
	}
	return strings.Join(kept, "")
}

// withoutEmptyTables drops the tables of iptables-legacy-save that hold only
// base chains with policy ACCEPT. The kernel makes such a table at the first
// look at it and offers no way to remove it; it does nothing.
func withoutEmptyTables(lines []string) []string {
	var kept, table []string
	empty := true
	for _, line := range lines {
		table = append(table, line)
		switch {
		case strings.HasPrefix(line, "COMMIT"):
			if !empty {
				kept = append(kept, table...)
			}
			table, empty = nil, true
		case !strings.HasPrefix(line, "*") && !strings.HasSuffix(line, " ACCEPT [0:0]\n"):
			empty = false
		}
	}
	return append(kept, table...)
}

// Diff says what changed from s to after, section by section; the empty
// string when nothing did.
func (s Snapshot) Diff(after Snapshot) string {
	names := s.Sections()
	for name := range after.sections {
		if _, ok := s.sections[name]; !ok {
			names = append(names, name)
		}
	}
	var diff strings.Builder
	for _, name := range names {
		if before, now := s.sections[name], after.sections[name]; before != now {
			fmt.Fprintf(&diff, "%s:\n%s", name, diffLines(before, now))
		}
	}
	return diff.String()
}

// diffLines lists the lines that only one of two texts has.
func diffLines(before, after string) string {
	var diff strings.Builder
	old, now := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(after))
	for _, line := range without(old, now) {
		diff.WriteString("  - " + line)
	}
	for _, line := range without(now, old) {
		diff.WriteString("  + " + line)
	}
	if diff.Len() == 0 {
		return "  the same lines in another order\n"
	}
	return diff.String()
}

// without returns the lines of a that b lacks, counting repetitions.
func without(a, b []string) []string {
	count := make(map[string]int)
	for _, line := range b {
		count[line]++
	}
	var left []string
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			left = append(left, line)
		}
	}
	return left
}
