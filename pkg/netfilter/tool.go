package netfilter

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-iptables/iptables"

	"github.com/portreeve/portreeve/pkg/plan"
)

// ErrMissing is the class of errors that say that the iptables command is not
// installed.
var ErrMissing = errors.New("not installed")

// lockWait is how long a command waits for another that holds the xtables
// lock, in seconds.
const lockWait = 20

// tool names one of the four iptables commands.
type tool struct {
	family plan.Family
	legacy bool
}

// String returns the command's name, such as "ip6tables-nft".
func (t tool) String() string {
	if t.legacy {
		return t.base() + "-legacy"
	}
	return t.base() + "-nft"
}

func (t tool) base() string {
	if t.family == plan.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

// path finds the command by its full name, or under the plain name where a
// distribution has only one flavour.
func (t tool) path() (string, error) {
	if p, err := lookPath(t.String()); err == nil {
		return p, nil
	}
	p, err := lookPath(t.base())
	if err == nil {
		var legacy bool
		if legacy, err = isLegacy(p); err == nil && legacy == t.legacy {
			return p, nil
		}
	}
	return "", fmt.Errorf("the command %s is %w: install it (apt-get install iptables), or set kernel.netfilter to off in the configuration", t, ErrMissing)
}

// Legacy reports whether `iptables` is the legacy flavour on this system, the
// one that the administrator's own rules are likely to be in.
func Legacy() (bool, error) {
	p, err := lookPath("iptables")
	if err != nil {
		return false, fmt.Errorf("the command iptables is %w: install it (apt-get install iptables), or set kernel.netfilter to off in the configuration", ErrMissing)
	}
	return isLegacy(p)
}

// lookPath finds a command in PATH and where root's commands are, which an
// ordinary user's PATH leaves out.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		p, err = exec.LookPath(filepath.Join(dir, name))
	}
	return p, err
}

// isLegacy asks a command for its flavour: "iptables v1.8.9 (nf_tables)".
// Before 1.8 there was no other than legacy, and nothing was said.
func isLegacy(path string) (bool, error) {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return false, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	return !strings.Contains(string(out), "nf_tables"), nil
}

// tools finds each command once.
type tools struct {
	mu    sync.Mutex
	found map[tool]found
}

type found struct {
	path string
	*iptables.IPTables
}

func (t *tools) get(which tool) (found, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f, known := t.found[which]; known {
		return f, nil
	}
	path, err := which.path()
	if err != nil {
		return found{}, err
	}
	protocol := iptables.ProtocolIPv4
	if which.family == plan.IPv6 {
		protocol = iptables.ProtocolIPv6
	}
	cmd, err := iptables.New(iptables.IPFamily(protocol), iptables.Path(path), iptables.Timeout(lockWait))
	if err != nil {
		return found{}, fmt.Errorf("prepare %s: %w", which, err)
	}
	if t.found == nil {
		t.found = map[tool]found{}
	}
	t.found[which] = found{path, cmd}
	return t.found[which], nil
}

// list returns what `iptables -S` shows of a table that exists, or of one of
// its chains.
func (t *tools) list(which tool, table, chain string) (listing, error) {
	f, err := t.get(which)
	if err != nil {
		return listing{}, err
	}
	args := []string{"--wait", strconv.Itoa(lockWait), "-t", table, "-S"}
	if chain != "" {
		args = append(args, chain)
	}
	var out, complaint bytes.Buffer
	cmd := exec.Command(f.path, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return listing{}, explain(which, table, fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes())), "")
	}
	return parse(linesOf(strings.TrimSpace(out.String()))), nil
}

// restore makes changes of a table as one: all or none.
func (t *tools) restore(which tool, table string, changes []string) error {
	return t.restoreAll(which, []tableChanges{{table, changes}})
}

// tableChanges are lines for a table, as iptables-restore reads them.
type tableChanges struct {
	table string
	lines []string
}

// restoreAll makes changes of tables, those of each table as one, by one command.
func (t *tools) restoreAll(which tool, all []tableChanges) error {
	f, err := t.get(which)
	if err != nil {
		return err
	}
	var script strings.Builder
	for _, c := range all {
		fmt.Fprintf(&script, "*%s\n%s\nCOMMIT\n", c.table, strings.Join(c.lines, "\n"))
	}
	var complaint bytes.Buffer
	cmd := exec.Command(f.path+"-restore", "--noflush", "--wait", strconv.Itoa(lockWait))
	cmd.Stdin, cmd.Stderr = strings.NewReader(script.String()), &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

// explain turns a failed command into a sentence with its remedy.
func explain(t tool, table string, err error, spec string) error {
	if err == nil || errors.Is(err, ErrMissing) {
		return err
	}
	err = oneLine{err}
	text := err.Error()
	switch {
	case strings.Contains(text, "is incompatible"):
		return fmt.Errorf("%s cannot use table %s: it holds rules made with nft: set kernel.netfilter to legacy, or to off and let the packets in by rules of your own: %w", t, table, err)
	case strings.Contains(text, "xtables lock"):
		return fmt.Errorf("%s waited %d s for the xtables lock: another program holds it: %w", t, lockWait, err)
	case strings.Contains(text, "you must be root"):
		return fmt.Errorf("%s needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root: %w", t, err)
	case lacksExtension(text):
		return fmt.Errorf("%s: the kernel lacks what the rule needs: load it (modprobe -a %s), or set kernel.netfilter to off: %w",
			t, strings.Join(modules(t, table, spec), " "), err)
	}
	return fmt.Errorf("%s -t %s: %w", t, table, err)
}

// oneLine prints what a command said on one line.
type oneLine struct{ error }

// Error joins the lines of the error.
func (e oneLine) Error() string {
	return strings.Join(strings.FieldsFunc(e.error.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// Unwrap returns the error as it was.
func (e oneLine) Unwrap() error { return e.error }

// lacksExtension recognises how the two flavours say that the kernel does not
// know a match, a target or a table.
func lacksExtension(text string) bool {
	for _, said := range []string{
		"missing kernel module",
		"do you need to insmod",
		"No chain/target/match by that name",
		"(No such file or directory): rule in chain",
		"Could not fetch rule set generation id",
	} {
		if strings.Contains(text, said) {
			return true
		}
	}
	return false
}

// modules names the kernel modules that a rule in a table needs.
func modules(t tool, table, spec string) []string {
	var names []string
	if t.legacy {
		names = append(names, strings.TrimSuffix(t.base(), "s")+"_"+table)
	} else {
		names = append(names, "nf_tables", "nft_compat")
	}
	args := words(spec)
	for i, a := range args[:max(0, len(args)-1)] {
		switch {
		case a == "-m" && args[i+1] == "tcp":
			names = append(names, "xt_tcpudp")
		case a == "-m":
			names = append(names, "xt_"+args[i+1])
		case a == "-j" && args[i+1] == "CT":
			names = append(names, "xt_CT")
		}
	}
	return names
}
