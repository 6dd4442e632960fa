package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/accept"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/steer"
)

// looks is how many services are looked at with one beat. Each costs three
// system calls; where there are more they are looked at in turn.
const looks = 256

// place is what the inspector has in the kernel.
type place interface {
	Settings() (plan.Settings, error)
	Places(services []string) ([]steer.Place, error)
	Return(services []string) error   // to slots that are empty
	Register(services []string) error // to all slots, whoever has them
	Unregister(services []string) error
	Hold() error // links that are new
	Unpinned() bool
	Watcher() (steer.Watcher, error)
}

// seats are the slots in the kernel side with the listeners for them.
type seats struct {
	*steer.Inspector
	listeners *accept.Listeners
}

var _ place = seats{}

func (s seats) Return(services []string) error {
	return s.Inspector.Return(services, s.listeners.IPv4(), s.listeners.IPv6())
}

func (s seats) Register(services []string) error {
	return s.Inspector.Register(services, s.listeners.IPv4(), s.listeners.IPv6())
}

// watch sees whether the slots of the services are still this inspector's, and
// whether the settings in force are still such as it works with. An attach of
// another configuration changes both, and so may anybody who is root. What can
// be had again is taken again; when nothing can, the inspector ends with a
// sentence that says so, for the one who could be asked is not there.
type watch struct {
	place    place
	own      plan.Settings
	services []string
	grace    time.Duration // for what comes back, when nobody is served any more
	log      *slog.Logger
	replaced func() error // the error of an inspector that has to give way

	beats    int  // since links were looked for
	unpinned bool // the pins are gone, which was told
	silent   bool // nobody keeps the kernel side any more, which was told

	next    int                  // the first service of the next look
	misfit  bool                 // the slots were left, for the settings do not fit
	removed map[string]bool      // services that the kernel side does not know
	taken   map[string]time.Time // services whose slots another inspector has, and since when
	alone   time.Time            // since when nobody is served; zero: somebody is
}

// look looks once. It returns an error when the inspector has to end.
func (w *watch) look() error {
	w.hold()
	settings, err := w.place.Settings()
	if err != nil {
		return err
	}
	services := w.turn()
	places, err := w.place.Places(services)
	if err != nil {
		return err
	}
	if w.quiet(settings, places) {
		return nil
	}
	if err := w.replaced(); err != nil {
		return err // it was the one that takes over
	}
	w.judgeSettings(settings)
	if !w.misfit {
		w.judgePlaces(services, places)
	}
	return w.judge(settings)
}

// holdEvery is how many beats pass until links that attach has added meanwhile are
// looked for.
const holdEvery = 16

// hold keeps the links alive, and tells when nothing else does.
func (w *watch) hold() {
	if w.beats++; w.beats%holdEvery != 0 {
		return
	}
	w.judgeWatcher()
	if !w.place.Unpinned() {
		w.unpinned = false
		if err := w.place.Hold(); err != nil {
			w.log.Warn("what is attached may end when its pins are removed", "error", err)
		}
		return
	}
	if !w.unpinned {
		w.log.Error("the pins of the kernel side are gone: somebody removed them, or unmounted the BPF file system; what is attached lasts as long as this inspector; stop it, run portreeve attach, and start it again")
	}
	w.unpinned = true
}

// judgeWatcher tells when the process is gone or stuck that puts back what others take
// away, and when there is one again. Mail goes on without.
func (w *watch) judgeWatcher() {
	watcher, err := w.place.Watcher()
	silent := err == nil && watcher.Silent()
	switch {
	case silent && !w.silent:
		w.log.Error("the watcher of the kernel side has not looked for a while: what others take away is not put back; see whether it was stopped, and start another: portreeve watch", "since", watcher.Age.Round(time.Second))
	case err == nil && !silent && w.silent:
		w.log.Info("a watcher looks after the kernel side again")
	}
	w.silent = err == nil && silent
}

// turn returns the services that are to be looked at.
func (w *watch) turn() []string {
	from := w.next
	w.next = min(from+looks, len(w.services))
	services := w.services[from:w.next]
	if w.next == len(w.services) {
		w.next = 0
	}
	return services
}

// quiet reports whether all is as it should be, and was before.
func (w *watch) quiet(settings plan.Settings, places []steer.Place) bool {
	was := !w.misfit && len(w.removed) == 0 && len(w.taken) == 0
	return was && settings.Bear(w.own) && !slices.ContainsFunc(places, func(p steer.Place) bool { return p != steer.Held })
}

// judgeSettings leaves the slots when the settings do not fit: new connections
// then meet what was written down under fail, and not an inspector whose packets
// nobody knows.
func (w *watch) judgeSettings(settings plan.Settings) {
	fits := settings.Bear(w.own)
	switch {
	case !fits && !w.misfit:
		w.tell("cannot leave the slots", w.place.Unregister(w.services))
		w.log.Error("the kernel side has settings with which this inspector cannot work: it has left its slots, and new connections meet the fail policy; attach its configuration again, or start an inspector with the one that is attached",
			"settings", settings.String(), "own", w.own.String())
	case fits && w.misfit:
		w.log.Info("the settings fit again")
	}
	w.misfit = !fits
}

// judgePlaces takes again what can be had.
func (w *watch) judgePlaces(services []string, places []steer.Place) {
	by := map[steer.Place][]string{}
	for n, name := range services {
		by[places[n]] = append(by[places[n]], name)
	}
	w.judgeRemoved(by[steer.Removed])
	w.judgeTaken(by[steer.Taken])
	w.judgeEmptied(by[steer.Emptied])
	for n, name := range services {
		if places[n] != steer.Removed {
			delete(w.removed, name)
		}
		if places[n] != steer.Taken {
			delete(w.taken, name)
		}
	}
}

func (w *watch) judgeEmptied(services []string) {
	if len(services) == 0 {
		return
	}
	w.log.Warn("slots of services were empty, and are taken again", "services", named(services))
	w.tell("cannot take the slots", w.place.Return(services))
}

func (w *watch) judgeRemoved(services []string) {
	news := slices.DeleteFunc(slices.Clone(services), func(name string) bool { return w.removed[name] })
	if len(news) == 0 {
		return
	}
	for _, name := range news {
		w.removed[name] = true
	}
	w.log.Error("the kernel side does not know these services any more, and leads nobody to them; attach the configuration of this inspector again, or start one with the configuration that is attached",
		"services", named(news))
}

// judgeTaken is patient with an inspector that is about to take over. One that
// has the slots and never beats does not get further, and may not even accept.
func (w *watch) judgeTaken(services []string) {
	var overdue []string
	for _, name := range services {
		if w.taken[name].IsZero() {
			w.taken[name] = time.Now()
		}
		if time.Since(w.taken[name]) >= w.grace {
			overdue = append(overdue, name)
		}
	}
	if len(overdue) == 0 {
		return
	}
	w.log.Warn("another inspector has the slots of services and does not beat: they are taken again", "services", named(overdue))
	w.tell("cannot take the slots", w.place.Register(overdue))
}

// judge ends the inspector when nobody has been served for long enough.
func (w *watch) judge(settings plan.Settings) error {
	if !w.misfit && len(w.removed) < len(w.services) {
		w.alone = time.Time{}
		return nil
	}
	if w.alone.IsZero() {
		w.alone = time.Now()
	}
	if time.Since(w.alone) < w.grace {
		return nil
	}
	return unserved{w.grace, w.why(settings)}
}

func (w *watch) why(settings plan.Settings) string {
	if w.misfit {
		return fmt.Sprintf("it has %s, and this inspector works with %s", settings, w.own)
	}
	return "it does not know " + named(w.services) + " any more"
}

func (w *watch) tell(text string, err error) {
	if err != nil {
		w.log.Warn(text, "error", err)
	}
}

// unserved is the error of an inspector to which nobody is led.
type unserved struct {
	since time.Duration
	why   string
}

func (u unserved) Error() string {
	return fmt.Sprintf("for %s the kernel side has led nobody to this inspector: %s; start an inspector with the configuration that is attached, or attach this one's and start it again", u.since, u.why)
}

// named lists services, not all of many.
func named(services []string) string { return finding.Some(services, 5, ", ") }
