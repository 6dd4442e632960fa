package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What older inspectors rely on is removed once, when none of them is left.
func TestSettleWaitsForElders(t *testing.T) {
	elder := appeared(t)
	var log bytes.Buffer
	calls, done := 0, false
	i := &inspector{unsettled: true, Options: Options{
		Presence: appeared(t), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Settle: func() (bool, error) { calls++; return done, nil },
	}}
	i.settle(true)
	i.settle(true)
	if calls != 0 || strings.Count(log.String(), "older inspector") != 1 {
		t.Errorf("called %d times beside an older inspector:\n%s", calls, log.String())
	}
	elder.Close()
	i.settle(true)
	if calls != 1 || !i.unsettled {
		t.Errorf("called %d times, unsettled %v, where it has to be called again", calls, i.unsettled)
	}
	done = true
	i.settle(true)
	if calls != 1 {
		t.Errorf("called %d times at once", calls)
	}
	i.retry.at = time.Time{}
	i.settle(true)
	i.settle(true)
	if calls != 2 || i.unsettled {
		t.Errorf("called %d times, unsettled %v, where it was done", calls, i.unsettled)
	}
}

// Where nothing was left for them, older inspectors are not waited for; and what
// cannot be removed for ever is told.
func TestSettleAtOnce(t *testing.T) {
	appeared(t)
	var log bytes.Buffer
	calls := 0
	i := &inspector{unsettled: true, Options: Options{
		Presence: appeared(t), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Settle: func() (bool, error) { calls++; return true, errors.New("no such rule") },
	}}
	i.settle(false)
	i.settle(true)
	if calls != 1 || i.unsettled || !strings.Contains(log.String(), "no such rule") {
		t.Errorf("called %d times:\n%s", calls, log.String())
	}
}

// What fails may work later, as where an interface is missing for a moment: it is tried
// again, less and less often, and told once.
func TestSettleIsTriedAgain(t *testing.T) {
	present := appeared(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		calls, missing := 0, true
		i := &inspector{unsettled: true, Options: Options{
			Presence: present, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Settle: func() (bool, error) {
				if calls++; missing {
					return false, errors.New("no such interface")
				}
				return true, nil
			},
		}}
		i.settle(false)
		for range 60 {
			time.Sleep(eldersPoll)
			i.settle(true)
		}
		if n := strings.Count(log.String(), "no such interface"); n != 1 || calls < 3 || calls > 10 {
			t.Errorf("called %d times within a minute, told %d times:\n%s", calls, n, log.String())
		}
		missing = false
		time.Sleep(longestPause)
		i.settle(true)
		if i.unsettled {
			t.Error("not settled when the interface is back")
		}
	})
}

// The heart beats while it is settled, which takes its time on a busy machine.
func TestHeartBeatsWhileSettling(t *testing.T) {
	appeared := appeared(t)
	synctest.Test(t, func(t *testing.T) {
		s := &shared{}
		i := &inspector{pulse: newTestPulse(t, s), Options: Options{
			Presence: appeared, Log: slog.New(slog.DiscardHandler),
			Settle: func() (bool, error) { time.Sleep(time.Minute); return true, nil },
		}}
		i.live(t.Context(), idle, false)
		s.mu.Lock()
		beats := s.beats[i.pulse.instance]
		s.mu.Unlock()
		if least := int(time.Minute / i.pulse.every); beats < least {
			t.Errorf("%d beats in a minute, want %d", beats, least)
		}
		i.heart.stop()
		if err := <-i.heart.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func appeared(t *testing.T) *Presence {
	t.Helper()
	p, err := Appear()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}
