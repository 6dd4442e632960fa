package testenv

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// begin starts a shell in an account; it does what it reads.
func begin(t *testing.T, e *Env, a *Account) (say func(string), end func()) {
	t.Helper()
	cmd := e.Client.Command(t.Context(), "sh")
	a.Charge(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	say = func(line string) {
		if _, err := in.Write([]byte(line + "\n")); err != nil {
			t.Error(err)
		}
	}
	return say, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func account(t *testing.T, e *Env, name string) *Account {
	t.Helper()
	a, err := e.Account(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// TestAccounts: what a process and its children use stands in their account, also when
// they are gone, and in no other.
func TestAccounts(t *testing.T) {
	e := ForTest(t)
	busy, idle := account(t, e, "busy"), account(t, e, "idle")
	say, end := begin(t, e, busy)
	sayIdle, endIdle := begin(t, e, idle)
	say("(n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done)")
	sayIdle(":")
	ids, err := busy.Processes()
	if err != nil || len(ids) == 0 {
		t.Errorf("processes %v, %v", ids, err)
	}
	if others, err := idle.Processes(); err != nil || slices.ContainsFunc(ids, func(id int) bool { return slices.Contains(others, id) }) {
		t.Errorf("processes %v are in both, %v", ids, err)
	}
	end()
	endIdle()
	used, err := busy.Used()
	little, err2 := idle.Used()
	if err != nil || err2 != nil || used < 5*time.Millisecond || little <= 0 || little > used/2 {
		t.Errorf("used %v, %v; beside it %v, %v", used, err, little, err2)
	}
}

// TestTally: the system calls of one account are counted, and those alone.
func TestTally(t *testing.T) {
	e := ForTest(t)
	a, other := account(t, e, "counted"), account(t, e, "not")
	counts := func(tracepoint string) (run func(in *Account, script string) uint64) {
		tally, err := a.Tally(tracepoint)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := tally.Close(); err != nil {
				t.Error(err)
			}
		})
		return func(in *Account, script string) uint64 {
			before, err := tally.Total()
			if err != nil {
				t.Fatal(err)
			}
			say, end := begin(t, e, in)
			say(script)
			end()
			after, err := tally.Total()
			if err != nil {
				t.Fatal(err)
			}
			return after - before
		}
	}
	const calls = "n=0; while [ $n -lt 2000 ]; do n=$((n + 1)); umask 22; done"
	run := counts(SystemCalls)
	little, much := run(a, ":"), run(a, calls)
	if more := much - little; more < 2000 || more > 8000 { // a shell makes up to three of one umask
		t.Errorf("%d system calls without 2,000 umask, %d with them", little, much)
	}
	if n := run(other, calls); n > 0 {
		t.Errorf("%d system calls of another account", n)
	}
	run = counts(ContextSwitches)
	if n := run(a, "sleep 0.01; sleep 0.01"); n < 2 || n > 200 {
		t.Errorf("%d context switches", n)
	}
	if n := run(other, "sleep 0.01"); n > 0 {
		t.Errorf("%d context switches of another account", n)
	}
}
