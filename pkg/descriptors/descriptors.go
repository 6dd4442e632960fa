// Package descriptors says how many file descriptors an inspector needs: how many
// sessions fit into a limit, and which limit a number of sessions asks for.
//
// It is arithmetic and a configuration. daemon counts what is open and keeps to the
// result; doctor tells the same before anything runs.
package descriptors

import (
	"runtime"

	"github.com/portreeve/portreeve/pkg/config"
)

// Scrapers is how many connections to the metrics there are at once.
const Scrapers = 32

// Tries is how many connections there are at once that find out whether ways back
// from origins work.
const Tries = 32

// What is kept free of sessions, in descriptors. Were they all in use, a client would
// read nothing in place of 421, and whoever scrapes would not learn why.
const (
	mostPipes = 256 // of splice(2) at once, two descriptors each: what moves in this moment, not what is open
	refusing  = 2   // one client for each listener, who is told 421
	reading   = 32  // by a scrape: the pins of the kernel side, and files of /proc
	passing   = 32  // for a moment: a certificate or the pins that are read anew
)

// Need is what the process may open, and for what.
type Need struct {
	Limit int // of the process
	Used  int // by what is there before the first client

	opaque bool // some sessions are carried unseen, by splice(2)
	dns    bool // some sessions ask a name server
	pages  bool // metrics are served
	tries  bool // ways back from origins are tried
}

// Of returns what a configuration needs; Limit and Used are the caller's.
func Of(c *config.Config) Need {
	n := Need{pages: c.Metrics.Listen.IsValid()}
	for _, s := range c.Services {
		n.opaque = n.opaque || s.TLS.Mode == config.TLSPassthrough
		n.tries = n.tries || s.Forge.Address == config.ForgePrefer
		n.dns = n.dns || s.TLS.Originates() && s.TLS.Origin.Verify == config.OriginDANE
	}
	return n
}

// each is what one session needs: its client, its origin, and a name server.
func (n Need) each() int {
	if n.dns {
		return 3
	}
	return 2
}

// Pipes is how many pipes of splice(2) there may be at once.
func (n Need) Pipes() int {
	if !n.opaque {
		return 0
	}
	return max(1, min(mostPipes, n.Limit/16))
}

// kept is what sessions do not get.
func (n Need) kept() int {
	kept := n.Used + refusing + passing
	if n.opaque {
		kept += 2 * (n.Pipes() + 2*runtime.GOMAXPROCS(0)) // the runtime's pool may keep two for each processor
	}
	if n.pages {
		kept += 1 + Scrapers + reading
	}
	if n.tries {
		kept += Tries
	}
	return kept
}

// Sessions is how many fit; less than 1: none does.
func (n Need) Sessions() int { return (n.Limit - n.kept()) / n.each() }

// LimitFor is the limit that a number of sessions asks for.
func (n Need) LimitFor(sessions int) int {
	n.Limit = 16 * mostPipes // so that pipes are not less than they would be
	return n.kept() + n.each()*sessions
}
