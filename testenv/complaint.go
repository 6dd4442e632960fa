package testenv

import (
	"regexp"
	"strings"
)

// severities find lines in which servers say why they cannot serve, the worst first.
var severities = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\b(fatal|panic): |\[(alert|emerg)\]`),
	regexp.MustCompile(`(?i)\b(error|failed|cannot|denied|unknown|invalid|no such|not found|not there|in use|not permitted)\b`),
}

// Complaint returns the one line of a server's output that says why it cannot serve:
// the first of the worst ones, since what follows is mostly what comes of it. Where no
// line complains, it is the last one. A line that ends in a colon has the next one
// with it.
func Complaint(output string) string {
	lines := strings.FieldsFunc(output, func(r rune) bool { return r == '\n' })
	for _, severity := range severities {
		for i, line := range lines {
			if !severity.MatchString(line) {
				continue
			}
			if strings.HasSuffix(line, ":") && i+1 < len(lines) {
				line += " " + strings.TrimSpace(lines[i+1])
			}
			return strings.TrimSpace(line)
		}
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
