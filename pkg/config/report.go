package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/portreeve/portreeve/pkg/finding"
)

// path is where a value stands in the file: "services[0].listen[1]". The
// empty path is the file itself.
type path string

// key returns the path of a key in the mapping at p.
func (p path) key(k string) path {
	if !plainKey(k) {
		k = quote(k)
	}
	if p == "" {
		return path(k)
	}
	return p + "." + path(k)
}

// item returns the path of an entry in the list at p.
func (p path) item(i int) path { return p + path("["+strconv.Itoa(i)+"]") }

// parent returns the path of what p stands in.
func (p path) parent() path { return p[:max(0, strings.LastIndexAny(string(p), ".["))] }

// last returns the key that p ends with.
func (p path) last() string { return string(p[strings.LastIndex(string(p), ".")+1:]) }

// holds reports whether q is p or stands within it.
func (p path) holds(q path) bool {
	rest, found := strings.CutPrefix(string(q), string(p))
	return found && (p == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// plainKey reports whether a key can be printed as it is, without being taken
// for something else.
func plainKey(k string) bool {
	for _, r := range k {
		if !nameRune(r) || r == '.' {
			return false
		}
	}
	return k != ""
}

// report collects findings, so that one run shows everything that is wrong.
type report struct {
	file   string
	lines  map[path]int    // where a value begins; absent values have no line
	spelt  map[path]string // how the file writes what YAML takes for no text
	origin map[path]string // where values that are not the file's came from: "environment PORTREEVE_TABLE"
	found  []placed
	warned finding.List

	reported map[path]bool // where something was found
	strange  map[path]bool // mappings with a key that they cannot have
}

type placed struct {
	at   path
	line int
	finding.Finding
}

func newReport(file string) *report {
	return &report{
		file:     file,
		lines:    map[path]int{},
		spelt:    map[path]string{},
		origin:   map[path]string{},
		reported: map[path]bool{},
		strange:  map[path]bool{},
	}
}

// refuse adds an error about the value at a path.
func (r *report) refuse(at path, remedy, format string, args ...any) {
	r.refuseLine(at, r.line(at), remedy, fmt.Sprintf(format, args...))
}

func (r *report) refuseLine(at path, line int, remedy, text string) {
	r.add(at, line, r.object(at, line), text, remedy)
}

// warn adds a warning about the value at a path, which is taken all the same.
func (r *report) warn(at path, remedy, format string, args ...any) {
	r.warned.Add(finding.Warning, r.object(at, r.line(at)), fmt.Sprintf(format, args...), remedy)
}

// refuseElsewhere adds an error about something that is not in the file.
func (r *report) refuseElsewhere(object, remedy, text string) {
	r.add(elsewhere, 0, object, text, remedy)
}

// elsewhere is a path that no path of the file holds.
const elsewhere path = "-"

func (r *report) add(at path, line int, object, text, remedy string) {
	r.reported[at] = true
	r.found = append(r.found, placed{at, line, finding.Finding{
		Severity: finding.Error, Object: object, Text: text, Remedy: remedy,
	}})
}

// clean reports whether nothing was found at or within the paths, nor an
// unknown key beside them. What is missing there, or does not fit together, is
// only worth saying when it cannot be the consequence of a mistake that was
// already reported.
func (r *report) clean(paths ...path) bool {
	return !slices.ContainsFunc(paths, func(at path) bool {
		return at != "" && r.strange[at.parent()] ||
			slices.ContainsFunc(r.found, func(f placed) bool { return at.holds(f.at) })
	})
}

// line is where the value at a path begins, or what it is missing from.
func (r *report) line(at path) int {
	for ; at != ""; at = at.parent() {
		if line := r.lines[at]; line != 0 {
			return line
		}
	}
	return 0
}

// object names a place: "portreeve.yaml:7: services[0].listen[1]".
func (r *report) object(at path, line int) string {
	if name, found := r.origin[at]; found {
		return name
	}
	var b strings.Builder
	b.WriteString(printable(r.file))
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
	}
	if at != "" {
		b.WriteString(": ")
		b.WriteString(string(at))
	}
	return b.String()
}

// place says where the value at a path was given: "portreeve.yaml:7", or a variable; ""
// where it was not.
func (r *report) place(at path) string {
	if name, found := r.origin[at]; found {
		return name
	}
	if line := r.lines[at]; line > 0 {
		return fmt.Sprintf("%s:%d", r.file, line)
	}
	return ""
}

// err returns what was found as a finding.List in the order of the file, nil
// when nothing was.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	slices.SortStableFunc(r.found, func(a, b placed) int { return cmp.Compare(a.line, b.line) })
	list := make(finding.List, len(r.found))
	for i, f := range r.found {
		list[i] = f.Finding
	}
	return list
}

// quoteLimit bounds how much of a value is repeated in a message, in octets.
const quoteLimit = 80

// quote repeats a value in a message: in quotes, escaped and bounded.
func quote(s string) string {
	if len(s) > quoteLimit {
		s = s[:quoteLimit] + "…"
	}
	return strconv.Quote(s)
}

// printable returns s, quoted only if a terminal could misread it.
func printable(s string) string {
	if _, bad := unprintable(s); bad || s == "" {
		return quote(s)
	}
	return s
}

// unprintable returns the first character that does not print.
func unprintable(s string) (rune, bool) {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) || !unicode.IsPrint(r) {
			return r, true
		}
	}
	return 0, false
}
