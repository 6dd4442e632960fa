package daemon

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shared is a heartbeat that several inspectors write.
type shared struct {
	mu       sync.Mutex
	instance uint64
	age      time.Duration
	beats    map[uint64]int
	err      error
}

func (s *shared) Beat(instance uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beats == nil {
		s.beats = map[uint64]int{}
	}
	s.instance = instance
	s.beats[instance]++
	return s.err
}

func (s *shared) Owner() (uint64, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance, s.age, s.err
}

func newTestPulse(t *testing.T, s *shared) *pulse {
	t.Helper()
	p, err := newPulse(s, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.beat(); err != nil {
		t.Fatal(err)
	}
	return p
}

// idle sees nothing.
func idle() error { return nil }

func TestPulseBeatsWithinTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{}
		p := newTestPulse(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.run(ctx, idle) }()
		time.Sleep(3*time.Second + time.Millisecond)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if n := s.beats[p.instance]; n != beatsPerLimit+1 {
			t.Errorf("%d beats in one limit, want %d", n, beatsPerLimit+1)
		}
	})
}

func TestNewerInspectorReplacesOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{}
		old := newTestPulse(t, s)
		ended := make(chan error, 1)
		go func() { ended <- old.run(t.Context(), idle) }()
		time.Sleep(time.Second)
		newer := newTestPulse(t, s)
		if err := <-ended; !errors.Is(err, ErrReplaced) {
			t.Errorf("the older ended with %v", err)
		}
		if err := newer.beat(); err != nil {
			t.Errorf("the newer: %v", err)
		}
	})
}

// An older inspector that looked before the newer one wrote, and writes after
// it, does not make the newer one give way.
func TestOlderBeatDoesNotReplaceNewer(t *testing.T) {
	s := &shared{}
	old, newer := newTestPulse(t, s), newTestPulse(t, s)
	s.Beat(old.instance)
	if err := newer.beat(); err != nil {
		t.Errorf("the newer gives way: %v", err)
	}
	if err := old.beat(); !errors.Is(err, ErrReplaced) {
		t.Errorf("the older: %v", err)
	}
}

// After the clock was set back a new inspector is newer all the same.
func TestInstanceIsNewerThanAnyBefore(t *testing.T) {
	future := uint64(time.Now().Add(24 * time.Hour).UnixNano())
	s := &shared{instance: future}
	if p := newTestPulse(t, s); p.instance <= future {
		t.Errorf("instance %d is not after %d", p.instance, future)
	}
}

func TestPulseEndsWhenItCannotBeat(t *testing.T) {
	s := &shared{}
	p := newTestPulse(t, s)
	s.err = errors.New("map is gone")
	if err := p.beat(); !errors.Is(err, s.err) {
		t.Errorf("beat: %v", err)
	}
	if _, err := newPulse(s, time.Second); !errors.Is(err, s.err) {
		t.Errorf("newPulse: %v", err)
	}
}

// A heartbeat that nobody keeps alive must be begun before clients come.
func TestPulseKnowsWhetherItSucceedsAnother(t *testing.T) {
	for name, test := range map[string]struct {
		heart *shared
		want  bool
	}{
		"nobody ever":   {&shared{}, false},
		"one that died": {&shared{instance: 7, age: 4 * time.Second}, false},
		"one that runs": {&shared{instance: 7, age: time.Second}, true},
	} {
		p, err := newPulse(test.heart, 3*time.Second)
		if err != nil || p.succeeds != test.want {
			t.Errorf("%s: %v, %v", name, p.succeeds, err)
		}
	}
}
