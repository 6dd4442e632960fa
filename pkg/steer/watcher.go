package steer

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Watcher is the state of the process that keeps the kernel side as it was attached.
type Watcher struct {
	Ever     bool          // it has looked at least once since the attach
	Age      time.Duration // of its last look
	Repairs  uint64        // things that it has put back since the attach
	Last     []Note        // the last of them, newest first
	Findings []Note        // what it found and cannot mend
}

// silence is after how long a watcher counts as one that does not look any more: four
// of its looks, and what a busy machine may add.
const silence = 15 * time.Second

// Silent reports whether there was a watcher and it has stopped to look.
func (w Watcher) Silent() bool { return w.Ever && w.Age > silence }

// Note is a sentence with the time at which it was written.
type Note struct {
	When time.Time
	Text string
}

// Watcher returns what the watcher has left for whoever asks. The error is
// ErrNotAttached where there is nothing to watch.
func (s *Steer) Watcher() (w Watcher, err error) {
	err = s.reading(func(set *pinSet) error {
		now, err := machineTime()
		if err != nil {
			return err
		}
		w, err = set.watcher(now)
		return err
	})
	return w, err
}

func (s *pinSet) watcher(now time.Duration) (_ Watcher, err error) {
	var v bpfWatcher
	if err := s.maps[bpfMapWatcher].Lookup(uint32(0), &v); err != nil {
		return Watcher{}, fmt.Errorf("read the state of the watcher: %w", err)
	}
	w := Watcher{Ever: v.LastNs != 0, Age: now - time.Duration(v.LastNs), Repairs: v.Repairs}
	notes := s.maps[bpfMapNotes]
	half := notes.MaxEntries() / 2
	for n := range uint64(half) {
		if n < v.Repairs {
			w.Last, err = appendNote(w.Last, notes, uint32((v.Repairs-1-n)%uint64(half)), err)
		}
		w.Findings, err = appendNote(w.Findings, notes, half+uint32(n), err)
	}
	return w, err
}

// machineTime reads the clock of the programs.
func machineTime() (time.Duration, error) {
	c, err := ourClock()
	if err != nil {
		return 0, err
	}
	return c.now()
}

// appendNote reads a note and appends it, if there is one.
func appendNote(list []Note, notes *ebpf.Map, at uint32, failed error) ([]Note, error) {
	var v bpfNote
	if failed != nil {
		return list, failed
	}
	if err := notes.Lookup(at, &v); err != nil {
		return list, fmt.Errorf("read note %d: %w", at, err)
	}
	if v.When == 0 {
		return list, nil
	}
	return append(list, Note{time.Unix(int64(v.When), 0), string(bytes.TrimRight(v.Text[:], "\x00"))}), nil
}

// Notes are what the watcher leaves for whoever asks. Only one may write them at a time.
type Notes struct{ steer *Steer }

// NewNotes returns the notes about the kernel side of a hand. Their errors are
// ErrNotAttached where there is none.
func NewNotes(s *Steer) Notes { return Notes{s} }

// Looked writes that the watcher has just looked, and what it found and cannot mend.
func (n Notes) Looked(findings []string) error {
	return n.change(func(set *pinSet, v *bpfWatcher) error {
		now, err := machineTime()
		if err != nil {
			return err
		}
		v.LastNs = uint64(now)
		notes := set.maps[bpfMapNotes]
		half := notes.MaxEntries() / 2
		for n := range half {
			text := ""
			if int(n) < len(findings) {
				text = findings[n]
			}
			if err := putNote(notes, half+n, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// Repaired counts things that the watcher has put back, and writes what they were.
func (n Notes) Repaired(texts ...string) error {
	return n.change(func(set *pinSet, v *bpfWatcher) error {
		notes := set.maps[bpfMapNotes]
		half := uint64(notes.MaxEntries() / 2)
		for _, text := range texts {
			if err := putNote(notes, uint32(v.Repairs%half), text); err != nil {
				return err
			}
			v.Repairs++
		}
		return nil
	})
}

// change changes the state of the watcher.
func (n Notes) change(f func(*pinSet, *bpfWatcher) error) error {
	return n.steer.reading(func(set *pinSet) error {
		var v bpfWatcher
		if err := set.maps[bpfMapWatcher].Lookup(uint32(0), &v); err != nil {
			return fmt.Errorf("read the state of the watcher: %w", err)
		}
		if err := f(set, &v); err != nil {
			return err
		}
		if err := set.maps[bpfMapWatcher].Put(uint32(0), v); err != nil {
			return fmt.Errorf("write the state of the watcher: %w", err)
		}
		return nil
	})
}

// putNote writes a note; an empty text removes it. One that is there keeps its time.
func putNote(notes *ebpf.Map, at uint32, text string) error {
	var old, v bpfNote
	if text != "" {
		v.When = uint64(time.Now().Unix())
		copy(v.Text[:len(v.Text)-1], text)
	}
	if err := notes.Lookup(at, &old); err != nil {
		return fmt.Errorf("read note %d: %w", at, err)
	}
	if old.Text == v.Text && at >= notes.MaxEntries()/2 {
		return nil
	}
	if err := notes.Put(at, v); err != nil {
		return fmt.Errorf("write note %d: %w", at, err)
	}
	return nil
}
