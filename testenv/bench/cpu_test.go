package main

import (
	"testing"

	"github.com/portreeve/portreeve/testenv"
)

func TestMachineTime(t *testing.T) {
	got, err := machineTime("cpu  100 20 3 4000 50 6 7 80 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if want := 136 * tick; err != nil || got != want {
		t.Errorf("%v, %v; want %v: idle, iowait, steal and guest do not count", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu a 2 3 4 5 6 7 8"} {
		if _, err := machineTime(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestLookTellsThePartiesApart: what one party uses is not the others'.
func TestLookTellsThePartiesApart(t *testing.T) {
	e := testenv.ForTest(t)
	a, err := newAccounts(e)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	before, err := a.look()
	if err != nil {
		t.Fatal(err)
	}
	busy := e.Gateway.Command(t.Context(), "sh", "-c", "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); done")
	a.subject.Charge(busy)
	if err := busy.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := a.look()
	if err != nil {
		t.Fatal(err)
	}
	if after.subject <= before.subject || after.load != before.load || after.origin != before.origin || after.at.Before(before.at) {
		t.Errorf("%+v, then %+v", before, after)
	}
}
