package chaos

import (
	"strings"
	"testing"
	"time"
)

// begin enters letters until one has a number that the origin does not refuse.
func begin(l *Ledger, w Way, k Kind) int {
	for {
		if n := l.Begin(w, k); n%refusedEvery != 0 {
			return n
		}
	}
}

func TestLedgerJudges(t *testing.T) {
	transit := Ways[2]
	for name, c := range map[string]struct {
		happens func(l *Ledger)
		broken  string // a word of the failure; empty: nothing is
	}{
		"delivered": {func(l *Ledger) {
			n := begin(l, transit, Quick)
			l.Connected("a", true)
			l.Arrived(Content(n, 3), true)
			l.Told(n, 250)
		}, ""},
		"refused by the origin": {func(l *Ledger) {
			for range refusedEvery - 1 {
				l.Begin(transit, Quick)
			}
			n := l.Begin(transit, Quick)
			if l.Arrived(Content(n, 3), true) {
				t.Errorf("the origin accepts letter %d", n)
			}
			l.Told(n, 451)
		}, ""},
		"told 250 for what was refused": {func(l *Ledger) {
			for range refusedEvery - 1 {
				l.Begin(transit, Quick)
			}
			n := l.Begin(transit, Quick)
			l.Arrived(Content(n, 3), true)
			l.Told(n, 250)
		}, "did not accept it"},
		"told 250 for what did not come": {func(l *Ledger) { l.Told(begin(l, transit, Slow), 250) }, "did not accept it"},
		"told 550":                       {func(l *Ledger) { l.Told(begin(l, transit, Slow), 550) }, "for good"},
		"told 554 in the greeting":       {func(l *Ledger) { l.Refused(begin(l, transit, Slow), "greeting", 554) }, "for good"},
		"told 421":                       {func(l *Ledger) { l.Refused(begin(l, transit, Slow), "greeting", 421) }, ""},
		"refused, for it was smuggled":   {func(l *Ledger) { l.Told(begin(l, transit, Smuggled), 550) }, ""},
		"truncated":                      {func(l *Ledger) { l.Arrived(strings.TrimSuffix(Content(begin(l, transit, Broken), 3), "x\r\n"), true) }, "truncated"},
		"twice": {func(l *Ledger) {
			n := begin(l, transit, Quick)
			l.Arrived(Content(n, 3), true)
			l.Arrived(Content(n, 3), true)
		}, "2 times"},
		"what nobody sent":   {func(l *Ledger) { l.Arrived(Content(99, 3), true) }, "nobody sent"},
		"past the inspector": {func(l *Ledger) { l.Connected("a", false) }, "past a closed service"},
		"past the inspector, as meant": {func(l *Ledger) {
			l.Pass(true)
			l.Connected("a", false)
			l.Arrived(Smuggle(Content(begin(l, transit, Smuggled), 3)), false)
		}, ""},
		"past the inspector after it was meant": {func(l *Ledger) {
			l.Pass(true)
			l.Pass(false)
			l.passing.until = l.passing.until.Add(-passGrace)
			l.Connected("a", false)
		}, "past a closed service"},
		"smuggled past":             {func(l *Ledger) { l.Arrived(Smuggle(Content(begin(l, transit, Smuggled), 3)), false) }, "what no inspector lets through"},
		"smuggled by the inspector": {func(l *Ledger) { l.Pass(true); l.Arrived(Smuggle(Content(begin(l, transit, Smuggled), 3)), true) }, "what no inspector lets through"},
		"banned":                    {func(l *Ledger) { l.Arrived(Content(begin(l, transit, Banned), 3), true) }, "banned client"},
		"banned, and lifted": {func(l *Ledger) {
			l.Lift(true, transit)
			n := begin(l, transit, Banned)
			l.Lift(false, transit)
			l.Arrived(Content(n, 3), true)
		}, ""},
		"banned, by a port that was let pass": {func(l *Ledger) {
			l.Lift(true, transit)
			deliverFrom(l, transit, 40001)
			ban(l, transit)
			deliverFrom(l, transit, 40001)
		}, ""},
		"banned, by that port for the second time": {func(l *Ledger) {
			l.Lift(true, transit)
			deliverFrom(l, transit, 40001)
			ban(l, transit)
			deliverFrom(l, transit, 40001)
			deliverFrom(l, transit, 40001)
		}, "banned client"},
		"banned, by another port": {func(l *Ledger) {
			l.Lift(true, transit)
			deliverFrom(l, transit, 40001)
			ban(l, transit)
			deliverFrom(l, transit, 40002)
		}, "banned client"},
		"banned, by a port that was let pass long ago": {func(l *Ledger) {
			l.Lift(true, transit)
			deliverFrom(l, transit, 40001)
			ban(l, transit)
			l.passed[port{transit, 40001}] = time.Now().Add(-passAgain)
			deliverFrom(l, transit, 40001)
		}, "banned client"},
		"banned, and lifted for others": {func(l *Ledger) {
			l.Lift(true, Ways[0])
			l.Arrived(Content(begin(l, transit, Banned), 3), true)
		}, "banned client"},
	} {
		l := NewLedger()
		c.happens(l)
		got := strings.Join(l.Failures(), "; ")
		if c.broken == "" && got != "" || !strings.Contains(got, c.broken) {
			t.Errorf("%s: %q, want %q", name, got, c.broken)
		}
	}
}

// deliverFrom delivers a letter of the banned client.
func deliverFrom(l *Ledger, w Way, port uint16) {
	n := l.Begin(w, Banned)
	l.From(n, port)
	l.Arrived(Content(n, 3), true)
}

// ban ends a lift, and it is long ago.
func ban(l *Ledger, w Way) {
	l.Lift(false, w)
	s := l.lifted[w]
	s.until = s.until.Add(-liftGrace)
	l.lifted[w] = s
}

// Mail flows by a way when a letter was delivered whose connection was begun later, and
// that the gateway has made.
func TestLedgerSeesMailFlow(t *testing.T) {
	l := NewLedger()
	deliver := func(w Way, n int, inspected bool) {
		l.Arrived(Content(n, 3), inspected)
		l.Told(n, 250)
	}
	early := begin(l, Ways[0], Quick)
	time.Sleep(time.Millisecond)
	since := time.Now()
	l.Pass(true)
	deliver(Ways[0], early, true)
	deliver(Ways[2], begin(l, Ways[2], Quick), false)
	missing, changed := l.Flows(since)
	if len(missing) != len(Ways) {
		t.Errorf("missing %v", missing)
	}
	deliver(Ways[3], begin(l, Ways[3], Slow), true)
	select {
	case <-changed:
	default:
		t.Error("nobody is told")
	}
	if missing, _ = l.Flows(since); len(missing) != 3 || missing[2] != Ways[2] {
		t.Errorf("missing %v", missing)
	}
}
