// Package finding is the sentence in which check and doctor speak to an
// operator: how bad, about which thing, what is the matter, what to do.
//
// Findings are values; whoever prints them decides how. The package does no
// input or output.
package finding

import (
	"fmt"
	"strings"
)

// Severity orders findings; only Error makes a command fail.
type Severity uint8

const (
	Info Severity = iota
	Warning
	Error
)

// String returns the word printed in front of a finding.
func (s Severity) String() string {
	return [...]string{"info", "warning", "error"}[s]
}

// MarshalText makes a Severity print as its word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one observation with its remedy.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code,omitempty"`   // stable, for scripts: "input-drops"; those of check have none
	Object   string   `json:"object"`           // what it is about: "portreeve.yaml: services[0].listen[1]", "interface ext0"
	Text     string   `json:"text"`             // one sentence without a final full stop
	Remedy   string   `json:"remedy,omitempty"` // the exact thing to do, a command where there is one
}

// String prints the finding on one line: "object: text; remedy". Severity and code are
// up to who prints it.
func (f Finding) String() string {
	var b strings.Builder
	if f.Object != "" {
		b.WriteString(f.Object)
		b.WriteString(": ")
	}
	b.WriteString(f.Text)
	if f.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(f.Remedy)
	}
	return b.String()
}

// List is the findings of one check, in the order in which they were made.
type List []Finding

// Add appends a finding.
func (l *List) Add(s Severity, object, text, remedy string) { l.AddAs("", s, object, text, remedy) }

// AddAs appends a finding that has a code.
func (l *List) AddAs(code string, s Severity, object, text, remedy string) {
	*l = append(*l, Finding{Severity: s, Code: code, Object: object, Text: text, Remedy: remedy})
}

// Failed reports whether any finding is an Error.
func (l List) Failed() bool {
	for _, f := range l {
		if f.Severity == Error {
			return true
		}
	}
	return false
}

// Error makes a List of findings an error: one finding a line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, f := range l {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Some names the first of many things, most of them at the most, and says how many
// more there are.
func Some(all []string, most int, separator string) string {
	if len(all) <= most {
		return strings.Join(all, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], separator), len(all)-most)
}
