package doctor

import (
	"slices"
	"strings"
	"unicode"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
)

// exam is one examination; each topic adds its remarks.
type exam struct {
	*gateway
	remarks []remark
}

// begin begins an examination.
func begin(c *config.Config, m Machine) *exam {
	return &exam{gateway: &gateway{c: c, m: m}}
}

// remark is a finding before it is known what others say.
type remark struct {
	finding.Finding
	// subject is what the finding says of one of many: "{}" stands for it in object,
	// text and remedy. Those that differ in nothing else are told as one.
	subject string
	// about is what the finding explains, or has explained: "origin 192.0.2.1:25". A
	// remark about nothing is about everything.
	about []string
}

func (e *exam) info(code, object, text string) { e.add(code, finding.Info, object, text, "") }
func (e *exam) warn(code, object, text, remedy string) {
	e.add(code, finding.Warning, object, text, remedy)
}
func (e *exam) problem(code, object, text, remedy string) {
	e.add(code, finding.Error, object, text, remedy)
}

func (e *exam) add(code string, s finding.Severity, object, text, remedy string) {
	e.remark(remark{Finding: finding.Finding{Severity: s, Code: code, Object: object, Text: text, Remedy: remedy}})
}

// remark adds one that a terminal can show: origins and certificates have a say in
// its words. What services have in common is told once.
func (e *exam) remark(r remark) {
	r.Object, r.Text, r.Remedy, r.subject = printable(r.Object), printable(r.Text), printable(r.Remedy), printable(r.subject)
	if !slices.ContainsFunc(e.remarks, func(o remark) bool { return o.Finding == r.Finding && o.subject == r.subject }) {
		e.remarks = append(e.remarks, r)
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ReplaceAll(s, "\n", " "))
}

// report returns the findings: without those that others explain, and those about
// many things as one.
func (e *exam) report() finding.List {
	var list finding.List
	told := map[finding.Finding]bool{}
	for _, r := range e.remarks {
		switch {
		case e.explained(r):
		case r.subject == "":
			list = append(list, r.Finding)
		case !told[r.Finding]:
			told[r.Finding] = true
			list = append(list, r.of(e.subjects(r.Finding)))
		}
	}
	return list
}

// explained reports whether an error about the same thing is the cause.
func (e *exam) explained(r remark) bool {
	return slices.ContainsFunc(e.remarks, func(by remark) bool {
		return by.Severity == finding.Error && slices.Contains(hides(by.Code), r.Code) && by.concerns(r)
	})
}

func (r remark) concerns(o remark) bool {
	return r.about == nil || o.about == nil || slices.ContainsFunc(r.about, func(a string) bool { return slices.Contains(o.about, a) })
}

// subjects are those of which the same is to be told.
func (e *exam) subjects(f finding.Finding) []string {
	var all []string
	for _, r := range e.remarks {
		if r.Finding == f && r.subject != "" && !e.explained(r) {
			all = append(all, r.subject)
		}
	}
	return all
}

// of fills the subjects in. A remedy is a command for each.
func (r remark) of(subjects []string) finding.Finding {
	fill := func(text, what string) string { return strings.ReplaceAll(text, "{}", what) }
	f := r.Finding
	f.Object, f.Text = fill(f.Object, list(subjects)), fill(f.Text, list(subjects))
	if strings.Contains(f.Remedy, "{}") {
		var commands []string
		for _, s := range subjects {
			commands = append(commands, fill(f.Remedy, s))
		}
		f.Remedy = strings.Join(commands, " && ")
	}
	return f
}
