package foreign

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// reason allows lines to differ: those of the outcome without the gateway by minus,
// those of the one with it by plus.
type reason struct {
	line        int // of the file
	why         string
	who         []*regexp.Regexp // CLIENT/ORIGIN/PLAY/WAY
	minus, plus []*regexp.Regexp
	apart       []*regexp.Regexp // parts of lines that may differ
	exact       []string         // of who, where it names one pairing
	met         map[*regexp.Regexp]bool
}

// reasons are all of them.
type reasons struct {
	mu     sync.Mutex
	list   []*reason
	played map[string]bool
}

// pairing is a client with an origin in a play by a way.
type pairing struct{ client, origin, play, way string }

func (p pairing) String() string { return p.client + "/" + p.origin + "/" + p.play + "/" + p.way }

// loadReasons reads the file: entries with an empty line between them. Each has a text
// that says why, lines "for CLIENT/ORIGIN/PLAY/WAY" with * for any text, and lines
// "- REGEXP" and "+ REGEXP" for all of a line that differs, or "~ REGEXP" for a part
// that is taken out of both sides first.
func loadReasons(path string) (*reasons, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all := &reasons{played: map[string]bool{}}
	r := &reason{}
	number := 0
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		number++
		if strings.TrimSpace(lines.Text()) == "" {
			r = &reason{}
			continue
		}
		if r.line == 0 && !strings.HasPrefix(lines.Text(), "#") {
			r.line, r.met = number, map[*regexp.Regexp]bool{}
			all.list = append(all.list, r)
		}
		if err := r.add(lines.Text()); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	for _, r := range all.list {
		if r.why == "" || len(r.who) == 0 || len(r.minus)+len(r.plus)+len(r.apart) == 0 {
			return nil, fmt.Errorf("%s:%d: an entry needs a text, a line \"for\", and one with -, + or ~", path, r.line)
		}
	}
	return all, lines.Err()
}

// add adds a line of the file.
func (r *reason) add(line string) error {
	mark, rest, _ := strings.Cut(line, " ")
	switch mark {
	case "#":
		return nil
	case "for":
		if strings.Count(rest, "/") != 3 {
			break // text
		}
		r.who = append(r.who, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(rest), `\*`, `[^/]*`)+"$"))
		r.exact = append(r.exact, rest)
		return nil
	case "-", "+":
		pattern, err := regexp.Compile("^(?:" + rest + ")$")
		if err != nil {
			return err
		}
		if mark == "-" {
			r.minus = append(r.minus, pattern)
		} else {
			r.plus = append(r.plus, pattern)
		}
		return nil
	}
	if mark == "~" {
		pattern, err := regexp.Compile(rest)
		r.apart = append(r.apart, pattern)
		return err
	}
	r.why += line + "\n"
	return nil
}

// judge fails the test for each line that differs without a reason, and returns how
// many differ.
func (all *reasons) judge(t *testing.T, who pairing, without, with outcome) int {
	t.Helper()
	all.mu.Lock()
	defer all.mu.Unlock()
	all.played[who.String()] = true
	open, differ := all.open(who, without, with)
	if len(open) > 0 {
		t.Errorf("%s, without the gateway (-) and with it (+), for no reason:\n%s", who, strings.Join(open, "\n"))
	}
	return differ
}

// open returns the lines that differ for no reason, and how many differ.
func (all *reasons) open(who pairing, without, with outcome) (open []string, count int) {
	minus, plus := all.without(who, without, with)
	for _, line := range minus {
		if !all.allow(who, line, func(r *reason) []*regexp.Regexp { return r.minus }) {
			open = append(open, "- "+line)
		}
	}
	for _, line := range plus {
		if !all.allow(who, line, func(r *reason) []*regexp.Regexp { return r.plus }) {
			open = append(open, "+ "+line)
		}
	}
	return open, len(minus) + len(plus)
}

// without takes out what may differ of lines, if lines differ, and returns those that
// still do. A part is needed if more lines would differ with it.
func (all *reasons) without(who pairing, a, b outcome) (minus, plus []string) {
	if minus, plus = differ(a, b); len(minus)+len(plus) == 0 {
		return nil, nil
	}
	var parts []*regexp.Regexp
	owner := map[*regexp.Regexp]*reason{}
	for _, r := range all.list {
		if r.about(who) {
			for _, part := range r.apart {
				parts, owner[part] = append(parts, part), r
			}
		}
	}
	minus, plus = differ(cut(a, parts), cut(b, parts))
	for n, part := range parts {
		others := slices.Delete(slices.Clone(parts), n, n+1)
		m, p := differ(cut(a, others), cut(b, others))
		if len(m)+len(p) > len(minus)+len(plus) {
			owner[part].met[part] = true
		}
	}
	return minus, plus
}

// cut takes parts out of each line.
func cut(o outcome, parts []*regexp.Regexp) outcome {
	rest := slices.Clone(o)
	for i := range rest {
		for _, part := range parts {
			rest[i] = part.ReplaceAllString(rest[i], "")
		}
	}
	return rest
}

// about says whether a reason is about a pairing.
func (r *reason) about(who pairing) bool {
	return slices.ContainsFunc(r.who, func(w *regexp.Regexp) bool { return w.MatchString(who.String()) })
}

// allow looks for a reason for a line.
func (all *reasons) allow(who pairing, line string, side func(*reason) []*regexp.Regexp) (allowed bool) {
	for _, r := range all.list {
		if !r.about(who) {
			continue
		}
		for _, pattern := range side(r) {
			if pattern.MatchString(line) {
				r.met[pattern] = true
				allowed = true
			}
		}
	}
	return allowed
}

// differ returns the lines that only one side has, in order.
func differ(a, b outcome) (minus, plus []string) {
	longest := make([][]int, len(a)+1) // common lines of what is left
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			minus, i = append(minus, a[i]), i+1
		default:
			plus, j = append(plus, b[j]), j+1
		}
	}
	return minus, plus
}

// checkStale fails the test for reasons that nothing has needed, of those that are
// about something that was played to the end.
func (all *reasons) checkStale(t *testing.T, about func(who string) bool) {
	t.Helper()
	for _, complaint := range all.stale(about) {
		t.Error(complaint)
	}
}

func (all *reasons) stale(about func(who string) bool) (complaints []string) {
	for _, r := range all.list {
		if !slices.ContainsFunc(r.exact, about) {
			continue
		}
		for _, pattern := range slices.Concat(r.minus, r.plus, r.apart) {
			if !r.met[pattern] {
				complaints = append(complaints, fmt.Sprintf("reasons:%d: nothing differs like this any more: %s\n%s", r.line, pattern, r.why))
			}
		}
	}
	return complaints
}

// ofSuite says whether a reason is about tests of a library.
func ofSuite(who string) bool { return strings.HasPrefix(who, suite+"/") }

// ofPlays says whether a reason is about plays that were all played.
func (all *reasons) ofPlays(who string) bool {
	return *onlyFlag == "" && !ofSuite(who) && (*complete || all.played[who])
}
