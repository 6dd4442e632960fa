package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// member is what an archive holds under a name.
type member struct {
	Mode    uint64
	Content string
}

// unpack reads an archive back, by the format's description and not by how it
// was written.
func unpack(t *testing.T, archive []byte) (names []string, members map[string]member) {
	t.Helper()
	members = make(map[string]member)
	for at := 0; ; {
		header := archive[at : at+110]
		if string(header[:6]) != "070701" {
			t.Fatalf("no header at %d: %q", at, header)
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(header[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		name := string(archive[at+110 : at+110+field(11)-1])
		content := (at + 110 + field(11) + 3) / 4 * 4
		if name == "TRAILER!!!" {
			return names, members
		}
		names = append(names, name)
		members[name] = member{uint64(field(1)), string(archive[content : content+field(6)])}
		at = (content + field(6) + 3) / 4 * 4
	}
}

func TestArchive(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr := make(tree)
	tr.link("bin", "usr/bin")
	tr.dir("tmp", 0o777)
	if err := tr.copy("usr/bin/script", script); err != nil {
		t.Fatal(err)
	}
	tr.text("usr/bin/script", "too late", 0o600)
	tr.text("/etc/empty", "", 0o644)
	if err := tr.copy("/", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var archive, again bytes.Buffer
	for _, to := range []*bytes.Buffer{&archive, &again} {
		if err := tr.write(to); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("the same tree gave other bytes")
	}
	names, members := unpack(t, archive.Bytes())
	if diff := cmp.Diff([]string{"bin", "etc", "etc/empty", "tmp", "usr", "usr/bin", "usr/bin/script"}, names); diff != "" {
		t.Error(diff)
	}
	want := map[string]member{
		"bin":            {0o120777, "usr/bin"},
		"etc":            {0o040755, ""},
		"etc/empty":      {0o100644, ""},
		"tmp":            {0o040777, ""},
		"usr":            {0o040755, ""},
		"usr/bin":        {0o040755, ""},
		"usr/bin/script": {0o100755, "#!/bin/sh\n"},
	}
	if diff := cmp.Diff(want, members); diff != "" {
		t.Error(diff)
	}
}

func TestAddLibrary(t *testing.T) {
	real, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for line, ok := range map[string]bool{
		"\tlibc.so.6 => " + real + " (0x00007f)": true,
		"\t" + real + " (0x00007f)":              true,
		"\tlinux-vdso.so.1 (0x00007f)":           true,
		"\tlibown.so => not found":               true,
		"\tlibgone.so => not found":              false,
		real + ":":                               true,
	} {
		if err := make(tree).addLibrary(line, map[string]bool{"libown.so": true}); (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
}
