package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

var own = plan.Settings{ClientMark: 1, OriginMark: 2, Heartbeat: 3 * time.Second}

// slotsOf is a kernel side with the place of each service. A service that it does
// not list is removed.
type slotsOf struct {
	settings plan.Settings
	places   map[string]steer.Place
	err      error
	steps    []string
	looked   int // services in the longest look
	held     int
	unpinned bool
	watcher  steer.Watcher
}

func (s *slotsOf) Hold() error    { s.held++; return nil }
func (s *slotsOf) Unpinned() bool { return s.unpinned }

func (s *slotsOf) Watcher() (steer.Watcher, error) { return s.watcher, nil }

func (s *slotsOf) Settings() (plan.Settings, error) { return s.settings, s.err }

func (s *slotsOf) Places(services []string) ([]steer.Place, error) {
	s.looked = max(s.looked, len(services))
	places := make([]steer.Place, len(services))
	for n, name := range services {
		place, known := s.places[name]
		if places[n] = place; !known {
			places[n] = steer.Removed
		}
	}
	return places, nil
}

func (s *slotsOf) Return(services []string) error {
	s.steps = append(s.steps, "return "+named(services))
	return s.move(services, steer.Emptied, steer.Held)
}

func (s *slotsOf) Register(services []string) error {
	s.steps = append(s.steps, "register "+named(services))
	return errors.Join(s.move(services, steer.Emptied, steer.Held), s.move(services, steer.Taken, steer.Held))
}

func (s *slotsOf) Unregister(services []string) error {
	s.steps = append(s.steps, "unregister "+named(services))
	return s.move(services, steer.Held, steer.Emptied)
}

func (s *slotsOf) move(services []string, from, to steer.Place) error {
	for _, name := range services {
		if place, known := s.places[name]; known && place == from {
			s.places[name] = to
		}
	}
	return nil
}

// watching is a watch on a kernel side in which all is well, with what it logs.
func watching(services ...string) (*watch, *slotsOf, *bytes.Buffer) {
	s := &slotsOf{settings: own, places: map[string]steer.Place{}}
	for _, name := range services {
		s.places[name] = steer.Held
	}
	var log bytes.Buffer
	return &watch{
		place: s, own: own, services: services, grace: time.Minute,
		log:      slog.New(slog.NewTextHandler(&log, nil)),
		replaced: func() error { return nil },
		removed:  map[string]bool{}, taken: map[string]time.Time{},
	}, s, &log
}

// looks looks n times, a second apart.
func (w *watch) looks(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := w.look(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}

func expectSteps(t *testing.T, s *slotsOf, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.steps); diff != "" {
		t.Error(diff)
	}
	s.steps = nil
}

func expectLog(t *testing.T, log *bytes.Buffer, want string, times int) {
	t.Helper()
	if n := strings.Count(log.String(), want); n != times {
		t.Errorf("%d times %q, want %d:\n%s", n, want, times, log)
	}
}

func TestWatchLeavesAloneWhatIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx", "mail")
		w.looks(t, 200)
		s.settings = plan.Settings{ClientMark: 5, OriginMark: 10, Heartbeat: time.Minute} // another takes over
		w.looks(t, 200)
		expectSteps(t, s)
		expectLog(t, log, "level", 0)
	})
}

func TestWatchTakesEmptySlotsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx", "mail")
		s.places["mail"] = steer.Emptied
		w.looks(t, 200)
		expectSteps(t, s, "return mail")
		expectLog(t, log, "taken again\" services=mail", 1)
	})
}

// A service that is gone is told once, and served again when it is back. The
// others are served all the time.
func TestWatchServesAServiceThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx", "mail")
		delete(s.places, "mail")
		w.looks(t, 200)
		expectSteps(t, s)
		expectLog(t, log, "level=ERROR", 1)
		s.places["mail"] = steer.Emptied
		w.looks(t, 200)
		expectSteps(t, s, "return mail")
		delete(s.places, "mail")
		w.looks(t, 1)
		expectLog(t, log, "level=ERROR", 2)
	})
}

func TestWatchEndsWhenAllServicesAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx", "mail")
		clear(s.places)
		w.looks(t, 60)
		expectLog(t, log, "level=ERROR", 1)
		err := w.look()
		if !errors.As(err, new(unserved)) || !strings.Contains(err.Error(), "for 1m0s") || !strings.Contains(err.Error(), "it does not know mx, mail any more") {
			t.Errorf("err %v", err)
		}
		s.places["mx"] = steer.Emptied // at the last moment
		w.looks(t, 200)
		expectSteps(t, s, "return mx")
	})
}

// With settings that do not fit, the slots are left at once, and taken again when
// the settings are as they were.
func TestWatchLeavesWhenSettingsDoNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx")
		s.settings.OriginMark = 4
		w.looks(t, 30)
		expectSteps(t, s, "unregister mx")
		expectLog(t, log, "level=ERROR", 1)
		s.settings = own
		w.looks(t, 200)
		expectSteps(t, s, "return mx")
		s.settings.ClientMark = 4
		w.looks(t, 60)
		if err := w.look(); !errors.As(err, new(unserved)) || !strings.Contains(err.Error(), "client mark 0x4") {
			t.Errorf("err %v", err)
		}
	})
}

// Who has the slots may be about to take over; who never beats loses them again.
func TestWatchIsPatientWithAnotherInspector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx")
		s.places["mx"] = steer.Taken
		w.looks(t, 60)
		expectSteps(t, s)
		s.places["mx"] = steer.Emptied // it has ended
		w.looks(t, 1)
		expectSteps(t, s, "return mx")
		s.places["mx"] = steer.Taken
		w.looks(t, 61)
		expectSteps(t, s, "register mx")
		expectLog(t, log, "does not beat", 1)
	})
}

// A service that comes back in another inspector's hands is not gone.
func TestWatchSeesWhoBroughtAServiceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := watching("mx")
		delete(s.places, "mx")
		w.looks(t, 30)
		s.places["mx"] = steer.Taken
		w.looks(t, 61) // it would have ended by now, as one to which nobody is led
		expectSteps(t, s, "register mx")
		expectLog(t, log, "does not beat", 1)
	})
}

// What a newer inspector has changed is its business.
func TestWatchGivesWay(t *testing.T) {
	for name, spoil := range map[string]func(*slotsOf){
		"removed":  func(s *slotsOf) { clear(s.places) },
		"emptied":  func(s *slotsOf) { s.places["mx"] = steer.Emptied },
		"settings": func(s *slotsOf) { s.settings = plan.Settings{} },
	} {
		w, s, log := watching("mx")
		w.replaced = func() error { return ErrReplaced }
		spoil(s)
		if err := w.look(); !errors.Is(err, ErrReplaced) {
			t.Errorf("%s: %v", name, err)
		}
		expectSteps(t, s)
		expectLog(t, log, "level", 0)
	}
}

func TestWatchEndsWhenItCannotLook(t *testing.T) {
	w, s, _ := watching("mx")
	s.err = errors.New("map is gone")
	if err := w.look(); !errors.Is(err, s.err) {
		t.Errorf("err %v", err)
	}
}

// Of many services some are looked at each time, and all of them in turn.
func TestWatchLooksAtManyInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many []string
		for n := range 3*looks + 1 {
			many = append(many, fmt.Sprint("s", n))
		}
		w, s, _ := watching(many...)
		w.looks(t, 4)
		for _, name := range many {
			s.places[name] = steer.Emptied
		}
		w.looks(t, 4)
		if left := slices.Collect(maps.Values(s.places)); slices.Contains(left, steer.Emptied) || s.looked != looks {
			t.Errorf("some were not looked at, or more than %d at once: %d", looks, s.looked)
		}
	})
}

// Inspectors know of each other who is older, until they end.
func TestPresence(t *testing.T) {
	expect := func(p *Presence, elders, heirs bool) {
		t.Helper()
		older, err := p.Elders()
		newer, failed := p.Heirs()
		if err != nil || failed != nil || older != elders || newer != heirs {
			t.Errorf("elders %v, heirs %v; want %v, %v; %v, %v", older, newer, elders, heirs, err, failed)
		}
	}
	first := appeared(t)
	expect(first, false, false)
	second := appeared(t)
	third := appeared(t)
	expect(first, false, true)
	expect(second, true, true)
	expect(third, true, false)
	first.Close()
	expect(second, false, true)
	third.Close()
	expect(second, false, false)
}

// Links are held as they come, and it is told once that nothing else holds them.
func TestWatchHolds(t *testing.T) {
	w, s, log := watching("mx")
	looks := func() {
		t.Helper()
		for range holdEvery {
			if err := w.look(); err != nil {
				t.Fatal(err)
			}
		}
	}
	looks()
	if s.held != 1 || log.Len() > 0 {
		t.Errorf("held %d times, said %q", s.held, log)
	}
	s.unpinned = true
	looks()
	looks()
	if s.held != 1 || strings.Count(log.String(), "pins of the kernel side are gone") != 1 {
		t.Errorf("held %d times, said %q", s.held, log)
	}
}

// A watcher that does not look any more is told of once, and once that there is one
// again; that there never was one is nobody's news.
func TestSilentWatcherIsNamed(t *testing.T) {
	w, s, log := watching("mx")
	rounds := func() {
		for range 3 * holdEvery {
			if err := w.look(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, watcher := range []steer.Watcher{{Age: time.Hour}, {Ever: true, Age: time.Second}} {
		s.watcher = watcher
		rounds()
	}
	if log.Len() > 0 {
		t.Errorf("in good order: %s", log)
	}
	s.watcher = steer.Watcher{Ever: true, Age: time.Minute}
	rounds()
	s.watcher.Age = time.Second
	rounds()
	for _, want := range []string{"the watcher of the kernel side has not looked for a while", "looks after the kernel side again"} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%q is told %d times:\n%s", want, n, log)
		}
	}
}
