package chaos

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// proc is a process of portreeve's on the gateway.
type proc struct {
	pid, parent int
	name        string // as ps shows it
	args        []string
}

// The names of portreeve's processes. The kernel keeps 15 octets of one.
const (
	mainProcess     = "portreeve"
	watcherProcess  = "portreeve-watch"
	keysProcess     = "portreeve-keys"
	attacherProcess = "portreeve-attac"
)

func (p proc) String() string { return p.name + " " + strconv.Itoa(p.pid) }

// signal sends a signal; that the process has ended is no error.
func (p proc) signal(s unix.Signal) error {
	if err := unix.Kill(p.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func (p proc) runs() bool { return p.name == mainProcess && slices.Contains(p.args, "run") }

// bound reports whether a watcher ends with an inspector.
func (p proc) bound() bool { return slices.Contains(p.args, "--bound") }

// processes lists those of portreeve that are on the gateway. Others are left out, but
// what portreeve has started and has not yet become itself.
func (s *stage) processes() (all []proc, err error) {
	var home unix.Stat_t
	if err := unix.Stat(s.env.Gateway.Path(), &home); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		var net unix.Stat_t
		if unix.Stat(dir+"/ns/net", &net) != nil || net.Ino != home.Ino {
			continue
		}
		if p, ok := readProcess(dir); ok && strings.HasPrefix(p.name, mainProcess) {
			all = append(all, p)
		}
	}
	return all, nil
}

// readProcess reads what is known of a process; false where it ends meanwhile.
func readProcess(dir string) (p proc, ok bool) {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	args, err := os.ReadFile(dir + "/cmdline")
	if err != nil || len(args) == 0 { // it is dead, and nobody has asked for that yet
		return p, false
	}
	head, tail, _ := strings.Cut(string(stat), " (")
	name, rest, _ := strings.Cut(tail, ") ")
	words := strings.Fields(rest)
	if len(words) < 2 || words[0] == "Z" {
		return p, false
	}
	p.name, p.args = name, strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
	p.pid, _ = strconv.Atoi(head) // the kernel writes numbers
	p.parent, _ = strconv.Atoi(words[1])
	return p, true
}

// find returns the processes of a name.
func (s *stage) find(name string) ([]proc, error) {
	all, err := s.processes()
	return slices.DeleteFunc(all, func(p proc) bool { return p.name != name }), err
}

// watchers returns the watchers that work or wait for their turn, and those that stand
// by: the children of the former.
func (s *stage) watchers() (active, standby []proc, err error) {
	all, err := s.find(watcherProcess)
	for _, p := range all {
		if slices.ContainsFunc(all, func(o proc) bool { return o.pid == p.parent }) {
			standby = append(standby, p)
		} else {
			active = append(active, p)
		}
	}
	return active, standby, err
}
