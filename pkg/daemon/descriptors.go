package daemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/descriptors"
)

// ownDescriptors looks what there is. Go has raised the soft limit to the hard one when
// the process started.
func (i *inspector) ownDescriptors() (n descriptors.Need, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return n, fmt.Errorf("read the limit of open files: %w", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return n, fmt.Errorf("count open files: %w", err)
	}
	n = descriptors.Of(i.Config)
	n.Limit, n.Used = int(min(limit.Cur, 1<<30)), len(open)
	return n, nil
}

// fit returns how many sessions and pipes there may be at once: as the configuration
// says, or as many as fit.
func (i *inspector) fit() (sessions, pipes int, err error) {
	n, err := i.ownDescriptors()
	if err != nil {
		return 0, 0, err
	}
	wanted, fitting := i.Config.Limits.Sessions, n.Sessions()
	if fitting < 1 {
		return 0, 0, fmt.Errorf("limits.sessions: no session fits into a limit of %d open files; raise it to %d (LimitNOFILE= in a unit of systemd, ulimit -Hn in a shell)", n.Limit, n.LimitFor(wanted))
	}
	if fitting < wanted {
		i.Log.Warn("limits.sessions is more than the limit of open files lets in, fewer are served at once",
			"wanted", wanted, "used", fitting, "open_files", n.Limit,
			"remedy", fmt.Sprintf("raise the limit of open files to %d (LimitNOFILE= in a unit of systemd, ulimit -Hn in a shell), or write limits.sessions: %d", n.LimitFor(wanted), fitting))
	}
	return min(wanted, fitting), n.Pipes(), nil
}
