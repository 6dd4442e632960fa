package testenv

import "testing"

func TestRunStatsOfAProgram(t *testing.T) {
	needTCX(t)
	e := open(t, Options{})
	empty, err := e.Gateway.AttachEmptyTCX("ext0")
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	counting, err := EnableRunStats()
	if err != nil {
		t.Fatal(err)
	}
	before, err := empty.RunStats()
	if err != nil {
		t.Fatal(err)
	}
	hello(t, e, e.Client4, e.Origin4)
	after, err := empty.RunStats()
	if err != nil {
		t.Fatal(err)
	}
	if ran := after.Sub(before); ran.Runs < 2 || ran.Time <= 0 {
		t.Errorf("a handshake made %d runs of %v", ran.Runs, ran.Time)
	}
	if err := counting.Close(); err != nil {
		t.Error(err)
	}
}

func TestPinnedRunStatsWithoutPins(t *testing.T) {
	e := open(t, Options{})
	stats, err := e.PinnedRunStats()
	if err != nil || len(stats) != 0 {
		t.Errorf("%v, %v; want none", stats, err)
	}
}
