package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// hostile is what a peer may send to get into a log or a terminal.
var hostile = Text("a\r\n{\"event\":\"fake\"}\x00\x1b[2J\x7f\xff\xc2\x9b31m\u202e\u2028\\x\"é")

// TestHostileText: whatever peers say, it ends neither a string nor a line.
func TestHostileText(t *testing.T) {
	for _, f := range []form{asJSON, asText} {
		var m Message
		var s Session
		fill(&m, func() Text { return hostile })
		fill(&s, func() Text { return hostile })
		for _, line := range [][]byte{f.message(nil, &m), f.session(nil, &s)} {
			if n := bytes.Count(line, []byte("\n")); n != 1 {
				t.Errorf("one record became %d lines: %s", n, line)
			}
			if strings.Contains(string(line), "\ufffd") {
				t.Errorf("not UTF-8: %s", line)
			}
			clean(t, line)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte(hostile))
	f.Add([]byte("plain"))
	f.Fuzz(func(t *testing.T, s []byte) {
		quoted := append(appendEscaped([]byte{'"'}, s), '"')
		var decoded string
		if err := json.Unmarshal(quoted, &decoded); err != nil {
			t.Fatalf("%q became %s: %v", s, quoted, err)
		}
		for _, r := range string(quoted) {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q became %q", s, quoted)
			}
		}
	})
}

// clean: a line shows what it has.
func clean(t *testing.T, line []byte) {
	t.Helper()
	for _, r := range strings.TrimSuffix(string(line), "\n") {
		if !unicode.IsPrint(r) {
			t.Fatalf("%U in %s", r, line)
		}
	}
}
