package apply

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
)

// given is what makes a configuration out of every source that there is.
func given() Given {
	return Given{
		Name:      `/etc/"a" <b>.yaml`,
		Data:      config.Minimal,
		Environ:   []string{"PORTREEVE_HEARTBEAT=7s", "PORTREEVE_BPFFS=/mnt/a", "PORTREEVE_NEVER_HEARD_OF=", "PORTREEVE_ZONE=1"},
		Overrides: []config.Override{{Key: "kernel.bpffs", Value: "/mnt/b", Source: "--bpffs"}},
	}
}

func memory(t *testing.T, dir string) Memory {
	t.Helper()
	return NewMemory(filepath.Join(dir, "7"))
}

// remembers expects a memory of something; of nothing where that is nil.
func remembers(t *testing.T, m Memory, want *Given, detaching bool) {
	t.Helper()
	g, kept, err := m.Given()
	if err != nil || kept != (want != nil) {
		t.Errorf("kept %v, %v", kept, err)
	} else if kept {
		if diff := cmp.Diff(*want, g); diff != "" {
			t.Error(diff)
		}
	}
	if is, err := m.Detaching(); is != detaching || err != nil {
		t.Errorf("detaching: %v, %v, want %v", is, err, detaching)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// do expects a success.
func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMemoryFromAttachToDetach(t *testing.T) {
	dir := t.TempDir()
	m, first, second := memory(t, dir), given(), Given{Name: "other"}
	remembers(t, m, nil, false)
	do(t, m.Keep(first))
	remembers(t, m, &first, false)
	do(t, m.Keep(second))
	remembers(t, memory(t, dir), &second, false)
	do(t, m.BeginDetach())
	remembers(t, memory(t, dir), nil, true) // also where detach is killed now
	do(t, m.BeginDetach())
	remembers(t, m, nil, true)
	do(t, m.Keep(first))
	remembers(t, m, &first, false)
	do(t, m.BeginDetach())
	do(t, m.EndDetach())
	remembers(t, m, nil, false)
	if left := files(t, dir); left != nil {
		t.Errorf("left behind: %v", left)
	}
	do(t, m.BeginDetach()) // of what nobody remembers
	remembers(t, m, nil, true)
	do(t, m.EndDetach())
}

// Another process makes the very same configuration.
func TestMemoryMakesTheSameConfiguration(t *testing.T) {
	g := given()
	want, err := config.Parse(g.Name, g.Data, g.Environ, g.Overrides...)
	do(t, err)
	if want.Kernel.BPFFS != "/mnt/b" || want.Kernel.Heartbeat.Seconds() != 7 || len(want.Warnings) == 0 {
		t.Fatalf("the test's configuration is not made of all sources: %+v", want.Kernel)
	}
	m := memory(t, t.TempDir())
	do(t, m.Keep(g))
	back, _, err := m.Given()
	do(t, err)
	have, err := back.Config()
	do(t, err)
	if !reflect.DeepEqual(want, have) {
		t.Errorf("made %+v\nof   %+v", have, want)
	}
}

func TestMemoryIsForRootOnly(t *testing.T) {
	dir := t.TempDir()
	m := memory(t, dir)
	do(t, m.Keep(given()))
	do(t, m.BeginDetach())
	do(t, m.Keep(given()))
	for _, name := range files(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// What cannot be read names its file and what helps, whatever was cut off it.
func TestMemoryOfJunk(t *testing.T) {
	dir := t.TempDir()
	m := memory(t, dir)
	do(t, m.Keep(given()))
	whole, err := os.ReadFile(m.given)
	do(t, err)
	junk := []string{"null", "{}", "[]", `{"Name": 7}`, `{"Name": "x", "Data": "?"}`, "\x00\x00\x00", string(whole) + "{", string(whole[1:])}
	for size := range whole {
		junk = append(junk, string(whole[:size]))
	}
	for _, text := range junk {
		do(t, os.WriteFile(m.given, []byte(text), 0o600))
		if g, kept, err := m.Given(); err == nil || kept || g.Name != "" || !strings.Contains(err.Error(), m.given) || !strings.Contains(err.Error(), "run portreeve attach") {
			t.Errorf("%q: %+v, %v, %v", text, g, kept, err)
		}
	}
	do(t, m.Keep(given()))
	g := given()
	remembers(t, m, &g, false)
}

// What does not fit on the disk leaves no memory, least of all that of before; a
// detach can be told of on the same disk.
func TestMemoryOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	do(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,nr_inodes=8"))
	t.Cleanup(func() { do(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	m, small, large := memory(t, dir), given(), given()
	large.Data = bytes.Repeat([]byte("# long\n"), 4096)
	do(t, m.Keep(small))
	if err := m.Keep(large); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	remembers(t, m, nil, false)
	if left := files(t, dir); left != nil {
		t.Errorf("left behind: %v", left)
	}

	do(t, m.Keep(small))
	for n := 0; ; n++ { // no room for another file, however small
		f, err := os.Create(filepath.Join(dir, strings.Repeat("x", n+1)))
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		do(t, err)
		do(t, f.Close())
	}
	do(t, m.BeginDetach())
	remembers(t, m, nil, true)
	if err := m.Keep(small); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	remembers(t, m, nil, false) // it is attached, and nobody is to remove or keep it
}

// The same configuration may be given in two ways.
func TestSameConfiguration(t *testing.T) {
	g := Given{Name: "a.yaml", Data: config.Minimal, Environ: []string{"PORTREEVE_HEARTBEAT=7s"}}
	for _, c := range []struct {
		other Given
		want  bool
	}{
		{Given{Name: "b.yaml", Data: config.Minimal, Overrides: []config.Override{{Key: "kernel.heartbeat", Value: "7s", Source: "--heartbeat"}}}, true},
		{Given{Name: "a.yaml", Data: append([]byte("# a remark\n"), config.Minimal...), Environ: g.Environ}, true},
		{Given{Name: "a.yaml", Data: config.Minimal}, false},
		{Given{Name: "a.yaml", Data: []byte("nonsense")}, false},
	} {
		if got := g.Same(c.other); got != c.want {
			t.Errorf("%s: %t", c.other.Name, got)
		}
	}
}
