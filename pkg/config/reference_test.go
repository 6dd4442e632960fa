package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/portreeve/portreeve/pkg/protocol"
)

// commented matches a key that the reference file shows but does not set.
var commented = regexp.MustCompile(`(?m)^(\s*)#((?:- )?\w+:)`)

// TestReferenceHasTheDefaults: what the reference file says is what a file that
// says nothing gets.
func TestReferenceHasTheDefaults(t *testing.T) {
	c, err := Parse("reference.yaml", Reference, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.File = c.File
	want.Interfaces = c.Interfaces // have no default
	for _, s := range c.Services {
		want.Services = append(want.Services, Service{
			Name: s.Name, Listen: s.Listen, Intercept: s.Intercept, Origins: s.Origins, // have no default
			SMTP: want.SMTP, TLS: TLS{Mode: TLSPassthrough},
		})
	}
	if diff := configDiff(&want, c); diff != "" {
		t.Error(diff)
	}
}

// TestReferenceIsComplete: every key stands in the reference file at its
// place, and every one has a comment.
func TestReferenceIsComplete(t *testing.T) {
	full := commented.ReplaceAll(Reference, []byte("$1$2"))
	if _, err := Parse("reference.yaml", full, nil); err != nil {
		t.Fatalf("with all keys: %v", err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(full, &root); err != nil {
		t.Fatal(err)
	}
	r := newReport("reference.yaml")
	shape{r}.value("", root.Content[0], reflect.TypeFor[rawConfig]())
	lines := strings.Split(string(full), "\n")
	for _, f := range schema() {
		if repeats(f.at) && !slices.Contains(repeated, f.at) {
			continue // stands at the top
		}
		at := path(strings.ReplaceAll(string(f.at), "[]", "[0]"))
		line := r.lines[at] // from 1; of a mapping, its first key's
		if line == 0 {
			t.Errorf("%s does not stand in the reference file", f.at)
			continue
		}
		if f.typ.Kind() != reflect.Struct && !slices.ContainsFunc(lines[max(0, line-3):line-1], isComment) {
			t.Errorf("%s has no comment above it, on line %d", f.at, line)
		}
	}
}

func isComment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "# ") }

// TestReferenceNamesVariables: each variable stands on the line of its key.
func TestReferenceNamesVariables(t *testing.T) {
	for _, v := range Variables() {
		key := path(v.Key).last()
		line := regexp.MustCompile(`(?m)^ *` + key + `: .*# ` + v.Name + `$`)
		if n := len(line.FindAll(Reference, -1)); n != 1 {
			t.Errorf("%s stands behind %q %d times", v.Name, key, n)
		}
	}
}

// TestEverySettingCanBeRead: each rule of package protocol has a field in the raw section,
// and each of these is a rule.
func TestEverySettingCanBeRead(t *testing.T) {
	missing := map[path]bool{}
	for _, f := range schema() {
		if path("smtp").holds(f.at) {
			missing[f.at] = true
		}
	}
	for _, s := range protocol.Settings {
		at := path("smtp." + s.Key)
		if !missing[at] {
			t.Errorf("%s: add it to rawSMTP or rawSMTPLimits in raw.go", at)
		}
		for inside := range missing {
			if inside == at || at.holds(inside) || inside.holds(at) {
				delete(missing, inside)
			}
		}
	}
	for at := range missing {
		t.Errorf("%s: raw.go reads it, and it is no rule: add it to Settings of package protocol", at)
	}
}
