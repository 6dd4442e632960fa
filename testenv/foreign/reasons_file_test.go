package foreign

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// load reads reasons from a text.
func load(t *testing.T, text string) (*reasons, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reasons")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return loadReasons(path)
}

func TestReasonsAllow(t *testing.T) {
	list, err := load(t, "# a comment\n\nThe gateway speaks\nfor itself.\nfor c/*/p/transit\n- client: old \\d\n+ client: new\n~ id=[0-9]+ \n")
	if err != nil {
		t.Fatal(err)
	}
	who := pairing{"c", "any", "p", "transit"}
	for _, test := range []struct {
		who           pairing
		without, with outcome
		open          int
	}{
		{who, outcome{"client: a", "client: old 1"}, outcome{"client: a", "client: new"}, 0},
		{who, outcome{"client: id=1 same"}, outcome{"client: id=22 same"}, 0},
		{who, outcome{"client: old 12"}, outcome{"client: newer"}, 2},
		{who, outcome{"client: a", "client: b"}, outcome{"client: b", "client: a"}, 2},
		{who, outcome{"client: new"}, outcome{"client: old 1"}, 2},
		{pairing{"other", "any", "p", "transit"}, outcome{"client: old 1"}, outcome{"client: new"}, 2},
	} {
		if open, _ := list.open(test.who, test.without, test.with); len(open) != test.open {
			t.Errorf("%s, %q and %q: %q are for no reason, want %d", test.who, test.without, test.with, open, test.open)
		}
	}
	if stale := list.stale(func(string) bool { return true }); len(stale) > 0 {
		t.Errorf("all were needed, but %q", stale)
	}
}

func TestReasonsGoStale(t *testing.T) {
	list, err := load(t, "Why.\nfor c/o/p/w\n- a\n+ b\n\nWhy.\nfor other/o/p/w\n+ c\n")
	if err != nil {
		t.Fatal(err)
	}
	list.open(pairing{"c", "o", "p", "w"}, outcome{"a"}, outcome{})
	stale := list.stale(func(who string) bool { return strings.HasPrefix(who, "c/") })
	if len(stale) != 1 || !strings.Contains(stale[0], "(?:b)") {
		t.Errorf("stale are %q", stale)
	}
}

func TestReasonsAreChecked(t *testing.T) {
	for _, text := range []string{"for a/b/c/d\n- x\n", "Why.\n- x\n", "Why.\nfor a/b/c/d\n", "Why.\nfor a/b\n- x\n", "Why.\nfor a/b/c/d\n+ (\n"} {
		if list, err := load(t, text); err == nil {
			t.Errorf("%q was read as %+v", text, list.list)
		}
	}
}

func TestKeywordsAreSorted(t *testing.T) {
	o := outcome{"client: < 250-name", "client: < 250-SIZE 1", "client: < 250 8BITMIME", "client: < 250 2.1.0 Ok", "client: < 250-b", "client: < 250 ETRN"}
	o.sortKeywords()
	want := outcome{"client: < 250-name", "client: < 250~8BITMIME", "client: < 250~SIZE 1", "client: < 250 2.1.0 Ok", "client: < 250-b", "client: < 250~ETRN"}
	if !slices.Equal(o, want) {
		t.Errorf("%q", o)
	}
}
