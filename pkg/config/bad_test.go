package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBad holds every broken configuration to the sentences beside it, all of
// them and no others. A new case is a pair of files.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Errorf("only %d broken configurations found", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			want := read(t, strings.TrimSuffix(file, ".yaml")+".txt")
			c, err := Parse(filepath.Base(file), []byte(read(t, file)), nil)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if got := err.Error() + "\n"; got != want {
				t.Errorf("\n got %swant %s", got, want)
			}
		})
	}
}

// TestBadHasNoOrphans: a sentence without its configuration tests nothing.
func TestBadHasNoOrphans(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		read(t, strings.TrimSuffix(file, ".txt")+".yaml")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
