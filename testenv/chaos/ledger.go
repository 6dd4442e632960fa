// Package chaos lets everything happen to a gateway that carries mail: processes are
// killed and stopped, links, addresses, rules, routes, chains, pins and files are taken
// away, other configurations are attached, others write in the packet filter. Whatever
// happens, no mail is lost or cut, no closed service is passed, and within ten seconds
// mail flows again.
//
// It owns letters that show whether they are whole, the ledger of what became of them,
// and the configurations that are attached; the tests have the network and the
// operations. It knows the product by its command line and by what the kernel holds.
package chaos

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Ledger has what clients sent and were told, and what the origin got. It judges.
type Ledger struct {
	mu       sync.Mutex
	letters  []*entry // by number
	flows    map[Way]time.Time
	tally    map[string]int
	failures []string
	changed  chan struct{} // closed and replaced when a letter was delivered

	passing span               // whether closed services may be passed
	lifted  map[Way]span       // whether the ban is lifted
	passed  map[port]time.Time // when a banned client began a connection that was let pass
}

// port is one that a client connects from, by a way.
type port struct {
	Way
	number uint16
}

type entry struct {
	way       Way
	kind      Kind
	begun     time.Time
	from      uint16 // a banned client's port
	arrived   int    // times
	whole     bool
	accepted  bool
	inspected bool
}

// span is a time in which something is meant to be.
type span struct {
	now   bool
	until time.Time // the end of the last one
}

const (
	// passGrace is for what was let past in a span and is seen behind its end.
	passGrace = 2 * time.Second
	// passAgain is how long the port of a connection that was let pass is let pass once
	// more, ban or not, and a little.
	passAgain = 61 * time.Second
	// clock shows when something was.
	clock = "15:04:05.000"
	// liftGrace is what portreeve has to find its place behind the ban again.
	liftGrace = 12 * time.Second
)

func (s span) covers(t time.Time, grace time.Duration) bool {
	return s.now || t.Before(s.until.Add(grace))
}

func (s *span) set(now bool) {
	if s.now && !now {
		s.until = time.Now()
	}
	s.now = now
}

// NewLedger returns an empty one: nothing may be passed.
func NewLedger() *Ledger {
	return &Ledger{
		flows: map[Way]time.Time{}, tally: map[string]int{}, lifted: map[Way]span{}, passed: map[port]time.Time{}, changed: make(chan struct{}),
		letters: []*entry{nil},
	}
}

// Begin enters a letter, of a connection that is about to be begun.
func (l *Ledger) Begin(way Way, kind Kind) (number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letters = append(l.letters, &entry{way: way, kind: kind, begun: time.Now()})
	l.tally[string(kind)]++
	return len(l.letters) - 1
}

// From enters the port that a connection comes from.
func (l *Ledger) From(number int, port uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letters[number].from = port
}

// refusedEvery is of how many letters the origin refuses one.
const refusedEvery = 13

// Arrived is what the origin does with a letter whose end of data it has: whether it
// accepts it. inspected is whether the connection was made by the gateway.
func (l *Ledger) Arrived(content string, inspected bool) (accepted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number, whole, err := Read(content)
	if err != nil || number <= 0 || number >= len(l.letters) {
		l.fail("the origin got what nobody sent: %.200q", content)
		return false
	}
	e := l.letters[number]
	e.arrived++
	e.whole, e.inspected = whole, inspected
	e.accepted = number%refusedEvery != 0
	l.judgeArrival(number, e)
	return e.accepted
}

func (l *Ledger) judgeArrival(number int, e *entry) {
	if e.arrived > 1 {
		l.fail("letter %d (%s, %s) came to the origin %d times, and was sent once", number, e.kind, e.way, e.arrived)
	}
	switch {
	case e.kind == Smuggled:
		l.judgePassed("what no inspector lets through came to the origin", number, e)
	case e.kind == Banned:
		s := l.lifted[e.way]
		if s.covers(e.begun, liftGrace) {
			l.passed[port{e.way, e.from}] = e.begun
		} else if !l.again(e) {
			l.fail("letter %d (%s) of a banned client came to the origin: it was begun at %s, and the ban was back at %s",
				number, e.way, e.begun.Format(clock), s.until.Format(clock))
		}
	case !e.whole:
		l.fail("letter %d (%s, %s) came to the origin truncated or changed", number, e.kind, e.way)
	}
}

// again reports whether a banned client uses the port of a connection that was let pass,
// which counts once.
func (l *Ledger) again(e *entry) bool {
	at := port{e.way, e.from}
	before, known := l.passed[at]
	delete(l.passed, at)
	return known && e.begun.Sub(before) <= passAgain
}

func (l *Ledger) judgePassed(what string, number int, e *entry) {
	if e.inspected || !l.passing.covers(time.Now(), passGrace) {
		l.fail("%s: letter %d (%s), inspected: %v", what, number, e.way, e.inspected)
	}
}

// Connected is told of each connection that the origin accepts.
func (l *Ledger) Connected(from string, inspected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if inspected {
		return
	}
	l.tally["past the inspector, as meant"]++
	if !l.passing.covers(time.Now(), passGrace) {
		l.fail("a connection from %s was forwarded to the origin past a closed service", from)
	}
}

// Told is what the client read at the end of its letter.
func (l *Ledger) Told(number, code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.letters[number]
	l.tally[fmt.Sprintf("told %dyz", code/100)]++
	switch {
	case code == 250 && !(e.accepted && e.arrived > 0):
		l.fail("letter %d (%s, %s) was told 250, and the origin did not accept it", number, e.kind, e.way)
	case code == 250 && e.kind.honest() && e.inspected:
		l.flow(e)
	case code/100 == 5 && e.kind.honest():
		l.fail("letter %d (%s, %s) was refused for good: %d", number, e.kind, e.way, code)
	}
}

// Refused is told of a refusal before the end of a letter.
func (l *Ledger) Refused(number int, what string, code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.letters[number]
	l.tally[fmt.Sprintf("told %dyz at %s", code/100, what)]++
	if code/100 == 5 && e.kind.honest() {
		l.fail("letter %d (%s, %s) was refused for good at %s: %d", number, e.kind, e.way, what, code)
	}
}

// Lost is told where a connection ended, or could not be made.
func (l *Ledger) Lost(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally["lost at "+what]++
}

func (l *Ledger) flow(e *entry) {
	if l.flows[e.way].Before(e.begun) {
		l.flows[e.way] = e.begun
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Flows returns the ways by which no letter was delivered of which the connection was
// begun after a time, and what is closed when that may be different.
func (l *Ledger) Flows(since time.Time) (missing []Way, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range Ways {
		if l.flows[w].Before(since) {
			missing = append(missing, w)
		}
	}
	return missing, l.changed
}

// Pass says whether closed services may be passed from now on.
func (l *Ledger) Pass(may bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passing.set(may)
}

// Lift says whether the ban is lifted from now on, for some ways.
func (l *Ledger) Lift(lifted bool, ways ...Way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range ways {
		s := l.lifted[w]
		s.set(lifted)
		l.lifted[w] = s
	}
}

// Fail enters a promise that was broken.
func (l *Ledger) Fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(format, args...)
}

func (l *Ledger) fail(format string, args ...any) {
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

// Failures returns what was broken so far.
func (l *Ledger) Failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failures)
}

// Tally returns how often what happened.
func (l *Ledger) Tally() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]int, len(l.tally))
	for what, count := range l.tally {
		all[what] = count
	}
	return all
}
