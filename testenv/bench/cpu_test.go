package main

import (
	"os"
	"testing"
	"time"
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

func TestParseProcess(t *testing.T) {
	const text = "42 (a (b) c) S 7 42 42 0 -1 4194304 100 0 0 0 10 20 30 40 20 0 1 0 5 0 0\n"
	pid, p, err := parseProcess(text)
	if want := (process{parent: 7, used: 100 * tick}); err != nil || pid != 42 || p != want {
		t.Errorf("%d %+v %v; want 42 %+v", pid, p, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 7", "x (x) S 7 42 42 0 -1 4194304 100 0 0 0 10 20 30 40 20"} {
		if _, _, err := parseProcess(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestUsedIsThatOfAllDescendants(t *testing.T) {
	all := processes{
		1: {parent: 0, used: time.Second},
		2: {parent: 1, used: 2 * time.Second},
		3: {parent: 2, used: 4 * time.Second},
		4: {parent: 1, used: 8 * time.Second},
	}
	for pid, want := range map[int]time.Duration{1: 15 * time.Second, 2: 6 * time.Second, 3: 4 * time.Second, 9: 0} {
		if got := all.used(pid); got != want {
			t.Errorf("%d: %v, want %v", pid, got, want)
		}
	}
}

func TestLookCountsOurOwnWork(t *testing.T) {
	before, err := look(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after.own-before.own < 2*tick; {
		if after, err = look(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if after.subject != after.own {
			t.Fatalf("our own process used %v and %v", after.subject, after.own)
		}
	}
}
