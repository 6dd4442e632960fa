package steer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/plan"
)

// What is kept can be pinned again, whatever became of the pins, and an inspector goes
// on with it.
func TestKeptIsPinnedAgain(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, s *Steer, dir string){
		"one pin":  func(t *testing.T, s *Steer, _ string) { must(t, os.Remove(s.dir().pin(bpfMapBindings))) },
		"all pins": func(t *testing.T, s *Steer, _ string) { must(t, os.RemoveAll(s.root())) },
		"unmounted": func(t *testing.T, _ *Steer, dir string) {
			must(t, unix.Unmount(dir, unix.MNT_DETACH))
			must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir, _ := gateway(t)
			want := everything(t)
			apply(t, s, want)
			i, err := s.Inspector()
			must(t, err)
			t.Cleanup(func() { i.Close() })
			must(t, i.Beat(1))
			must(t, i.Hold())
			k := NewKept(s)
			t.Cleanup(func() { must(t, k.Close()) })
			for n := range 3 { // what was pinned again can be lost again
				must(t, k.Follow())
				lose(t, s, dir)
				if n > 0 {
					must(t, k.Follow()) // it was lost behind the look for what is lost
				}
				if len(k.Lost()) == 0 {
					t.Fatal("nothing is lost")
				}
				if _, err := k.Restore(); err != nil {
					t.Fatal(err)
				}
				wantItems(t, s, want)
				if _, _, err := i.Owner(); err != nil {
					t.Errorf("the inspector: %v", err)
				}
				if i.Unpinned() {
					t.Error("the inspector misses the pins")
				}
			}
			must(t, k.Close())
			must(t, i.Close())
			apply(t, s, nil)
			wantNothing(t, s, dir)
		})
	}
}

// Nothing is put beside what somebody else has attached.
func TestKeptGivesWay(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	k := NewKept(s)
	t.Cleanup(func() { must(t, k.Close()) })
	must(t, k.Follow())
	must(t, os.Remove(s.dir().pin(bpfMapStats)))
	must(t, os.Rename(s.dir().pin(bpfMapOrigins), filepath.Join(s.root(), "aside")))
	pinSettings(t, s, 8, abi)
	restored, err := k.Restore()
	if err != nil || restored != nil {
		t.Errorf("restored %v, %v", restored, err)
	}
	must(t, k.Follow())
	if lost := k.Lost(); lost != nil {
		t.Errorf("what was replaced is lost for ever: %v", lost)
	}
}

func TestWatcherNotes(t *testing.T) {
	s, _, _ := gateway(t)
	apply(t, s, everything(t))
	w, err := s.Watcher()
	must(t, err)
	if diff := cmp.Diff(Watcher{Age: w.Age}, w); diff != "" {
		t.Error(diff)
	}
	notes := NewNotes(s)
	must(t, notes.Looked([]string{"one", "two"}))
	for _, text := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		must(t, notes.Repaired(text))
	}
	must(t, notes.Looked([]string{"two"}))
	w, err = s.Watcher()
	must(t, err)
	if !w.Ever || w.Age > time.Minute || w.Repairs != 9 || len(w.Last) != 8 || w.Last[0].Text != "i" || w.Last[7].Text != "b" {
		t.Errorf("%+v", w)
	}
	if len(w.Findings) != 1 || w.Findings[0].Text != "two" {
		t.Errorf("findings %v", w.Findings)
	}
}

// What an attach has taken away is not lost.
func TestKeptKnowsWhatWasEnded(t *testing.T) {
	s, _, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	k := NewKept(s)
	t.Cleanup(func() { must(t, k.Close()) })
	must(t, k.Follow())
	apply(t, s, slices.DeleteFunc(slices.Clone(want), func(i plan.Item) bool {
		return i.Kind() == plan.KindTC || i.Kind() == plan.KindForward || i.Kind() == plan.KindLookup
	}))
	if lost := k.Lost(); lost != nil {
		t.Errorf("lost: %v", lost)
	}
}

// While no BPF file system is mounted what is kept can be worked with in one that nobody
// else sees, and what was made there is pinned with the rest when there is one again.
func TestKeptWorksWithoutAMount(t *testing.T) {
	s, dir, _ := gateway(t)
	want := everything(t)
	apply(t, s, want)
	k := NewKept(s)
	t.Cleanup(func() { must(t, k.Close()) })
	must(t, k.Follow())
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	private, err := NewPrivateFS()
	must(t, err)
	hidden, err := New(private.Path())
	must(t, err)
	k.Use(hidden)
	_, err = k.Restore()
	must(t, err)
	links := func(i plan.Item) bool { return i.Kind() == plan.KindTC || i.Kind() == plan.KindLookup }
	apply(t, hidden, slices.DeleteFunc(slices.Clone(want), links))
	apply(t, hidden, want) // other links than before
	must(t, k.Follow())
	must(t, hidden.Close())

	must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	k.Use(s)
	must(t, private.Close())
	if _, err := k.Restore(); err != nil {
		t.Fatal(err)
	}
	wantItems(t, s, want)
	must(t, k.Close())
	apply(t, s, nil)
	wantNothing(t, s, dir)
}
