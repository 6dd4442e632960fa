package chaos

import (
	"slices"
	"time"
)

// operation is something that happens to a gateway.
type operation struct {
	name   string
	weight int
	// class keeps two of a kind from happening at the same time: what ends the one may not
	// be possible during the other.
	class string
	stops bool // mail is meant to stop until the end of it
	opens bool // closed services may be passed until mail flows again
	lifts bool // the administrator's ban is lifted meanwhile
	// fits reports whether the operation makes sense now; nil: always.
	fits func(*stage) bool
	// do begins it, and returns what it chose, and what ends it; nil: nothing does.
	do func(*stage) (what string, end func() error, err error)
}

// The classes.
const (
	verbs     = "verbs"
	processes = "processes"
	links     = "links"
	filters   = "filters"
	routing   = "routing"
	pinned    = "pins"
	runDir    = "run directory"
	holders   = "holders" // the end of processes that hold, or know, what is lost with pins and files
)

// clashes are classes of which two operations at once take away what nobody has any more.
var clashes = [][2]string{{holders, pinned}, {holders, runDir}, {holders, processes}, {verbs, runDir}}

// operations are all.
var operations = slices.Concat(verbOperations, processOperations, linkOperations, filterOperations, routeOperations, fileOperations)

// The packet filter is not touched more often: a watcher takes what is removed ten times
// within a minute for something that somebody means to remove.
const (
	mostFilters = 7
	filterTime  = time.Minute
)

// choose draws an operation that fits, and is of another class than one that is under
// way.
func (s *stage) choose(beside *operation) *operation {
	var total int
	for i := range operations {
		total += operations[i].weight
	}
	for {
		n := s.rand.IntN(total)
		i := slices.IndexFunc(operations, func(o operation) bool {
			n -= o.weight
			return n < 0
		})
		if o := &operations[i]; s.may(o, beside) {
			return o
		}
	}
}

func (s *stage) may(o, beside *operation) bool {
	if beside != nil && (o.class == beside.class || o.opens || beside.opens || clash(o, beside)) {
		return false
	}
	if o.class == filters {
		s.filters = slices.DeleteFunc(s.filters, func(t time.Time) bool { return time.Since(t) > filterTime })
		if len(s.filters) >= mostFilters {
			return false
		}
	}
	return o.fits == nil || o.fits(s)
}

func clash(a, b *operation) bool {
	return slices.ContainsFunc(clashes, func(c [2]string) bool {
		return c == [2]string{a.class, b.class} || c == [2]string{b.class, a.class}
	})
}

// known is how long it takes at most until a watcher holds and knows what there is: it
// looks every three seconds.
const known = 4 * time.Second

// begun is an operation that is under way.
type begun struct {
	*operation
	end func() error
}

// begin does an operation.
func (s *stage) begin(o *operation) (begun, error) {
	if o.opens {
		s.ledger.Pass(true)
	}
	if o.lifts {
		s.ledger.Lift(true, Ways...)
	}
	if o.class == filters {
		s.filters = append(s.filters, time.Now())
	}
	if o.class == runDir || o.class == pinned {
		time.Sleep(time.Until(s.changed.Add(known)))
	}
	s.note("%s", o.name)
	what, end, err := o.do(s)
	if what != "" {
		s.note("  %s", what)
	}
	return begun{o, end}, err
}
