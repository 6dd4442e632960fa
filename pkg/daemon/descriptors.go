package daemon

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/returns"
)

// What is kept free of sessions, in descriptors. Were they all in use, a client would
// read nothing in place of 421, and whoever scrapes would not learn why.
const (
	mostPipes = 256 // of splice(2) at once, two descriptors each: what moves in this moment, not what is open
	refusing  = 2   // one client for each listener, who is told 421
	reading   = 32  // by a scrape: the pins of the kernel side, and files of /proc
	passing   = 32  // for a moment: a certificate or the pins that are read anew
)

// descriptors is what the process may open, and for what.
type descriptors struct {
	limit  int  // of the process
	used   int  // by what is there before the first client
	opaque bool // some sessions are carried unseen, by splice(2)
	dns    bool // some sessions ask a name server
	pages  bool // metrics are served
	tries  bool // ways back from origins are tried
}

// each is what one session needs: its client, its origin, and a name server.
func (d descriptors) each() int {
	if d.dns {
		return 3
	}
	return 2
}

// pipes is how many there may be at once.
func (d descriptors) pipes() int {
	if !d.opaque {
		return 0
	}
	return max(1, min(mostPipes, d.limit/16))
}

// kept is what sessions do not get.
func (d descriptors) kept() int {
	n := d.used + refusing + passing
	if d.opaque {
		n += 2 * (d.pipes() + 2*runtime.GOMAXPROCS(0)) // the runtime's pool may keep two for each processor
	}
	if d.pages {
		n += 1 + scrapers + reading
	}
	if d.tries {
		n += returns.MaxTries
	}
	return n
}

// sessions is how many fit.
func (d descriptors) sessions() int { return (d.limit - d.kept()) / d.each() }

// limitFor is the limit that a number of sessions asks for.
func (d descriptors) limitFor(sessions int) int {
	d.limit = 16 * mostPipes // so that pipes are not less than they would be
	return d.kept() + d.each()*sessions
}

// ownDescriptors looks what there is. Go has raised the soft limit to the hard one when
// the process started.
func (i *inspector) ownDescriptors() (d descriptors, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return d, fmt.Errorf("read the limit of open files: %w", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return d, fmt.Errorf("count open files: %w", err)
	}
	d = descriptors{limit: int(min(limit.Cur, 1<<30)), used: len(open), pages: i.Config.Metrics.Listen.IsValid()}
	for _, s := range i.Config.Services {
		d.opaque = d.opaque || s.TLS.Mode == config.TLSPassthrough
		d.tries = d.tries || s.Forge.Address == config.ForgePrefer
		d.dns = d.dns || s.TLS.Originates() && s.TLS.Origin.Verify == config.OriginDANE
	}
	return d, nil
}

// fit returns how many sessions and pipes there may be at once: as the configuration
// says, or as many as fit.
func (i *inspector) fit() (sessions, pipes int, err error) {
	d, err := i.ownDescriptors()
	if err != nil {
		return 0, 0, err
	}
	wanted, fitting := i.Config.Limits.Sessions, d.sessions()
	if fitting < 1 {
		return 0, 0, fmt.Errorf("limits.sessions: no session fits into a limit of %d open files; raise it to %d (LimitNOFILE= in a unit of systemd, ulimit -Hn in a shell)", d.limit, d.limitFor(wanted))
	}
	if fitting < wanted {
		i.Log.Warn("limits.sessions is more than the limit of open files lets in, fewer are served at once",
			"wanted", wanted, "used", fitting, "open_files", d.limit,
			"remedy", fmt.Sprintf("raise the limit of open files to %d (LimitNOFILE= in a unit of systemd, ulimit -Hn in a shell), or write limits.sessions: %d", d.limitFor(wanted), fitting))
	}
	return min(wanted, fitting), d.pipes(), nil
}
