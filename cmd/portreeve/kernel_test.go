package main

import (
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/plan"
)

// A namespace that gets the inode of one that is no more does not get its
// journal.
func TestStateIsOfOneNamespaceOnly(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	seen := map[uint64]string{}
	for range 1000 {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatalf("unshare: %v; the tests need root", err)
		}
		path, err := statePath("/run")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := statePath("/run"); err != nil || again != path {
			t.Fatalf("state of one namespace is in %s and in %s, %v", path, again, err)
		}
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			t.Fatal(err)
		}
		if former, reused := seen[st.Ino]; reused {
			if former == path {
				t.Errorf("state of two namespaces is in %s", path)
			}
			return
		}
		seen[st.Ino] = path
	}
	t.Fatal("the kernel gave no inode twice")
}

// A rule is found by its table, also where its route is gone.
func TestTablesOfTheJournal(t *testing.T) {
	j, err := apply.OpenJournal(filepath.Join(t.TempDir(), "1.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []plan.Item{
		plan.Route{Family: plan.IPv4, Table: 3}, plan.Rule{Family: plan.IPv4, Interface: "ext0", Mark: 1, Table: 4, Priority: 5},
	} {
		if err := j.Intend(i); err != nil {
			t.Fatal(err)
		}
	}
	got := made(j)
	slices.Sort(got)
	if want := []uint32{3, 4}; !slices.Equal(got, want) {
		t.Errorf("tables %v, want %v", got, want)
	}
}
