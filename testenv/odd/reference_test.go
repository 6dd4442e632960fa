package odd

import (
	"strings"
	"testing"
)

// This file says what must become of content, in the plainest words. It shares
// nothing with the product.

// policy is what an operator has chosen.
type policy struct {
	normalize bool // bare_newlines: normalize
	remove    bool // nul: remove
	binary    bool // the client has said BODY=BINARYMIME
}

// fate is what must become of a message.
type fate struct {
	code   string // that its client reads in the end
	why    string // in words, for a refused one
	stored string // by the origin, for one that is not
}

// longest is the longest line that is let pass by default.
const longest = 64 << 10

// reasons are those of refusals, with their codes.
var reasons = map[string]string{"bare CR or LF": "550", "NUL": "554", "long line": "554"}

// judge says what becomes of content that came in chunks, or that was unstuffed
// after DATA.
func judge(content string, p policy) fate {
	if p.binary {
		return fate{code: "250", stored: content}
	}
	var out strings.Builder
	column := 0
	for i := 0; i < len(content); i++ {
		why := ""
		switch c := content[i]; {
		case c == '\r' && i+1 < len(content) && content[i+1] == '\n':
			out.WriteString("\r\n")
			i++
			column = -1
		case c == '\r' && p.normalize:
			out.WriteByte(' ')
		case c == '\n' && p.normalize:
			out.WriteString("\r\n")
			column = -1
		case c == '\r' || c == '\n':
			why = "bare CR or LF"
		case c == 0 && p.remove:
		case c == 0:
			why = "NUL"
		default:
			out.WriteByte(c)
		}
		if column++; column > longest && why == "" {
			why = "long line"
		}
		if why != "" {
			return fate{code: reasons[why], why: why}
		}
	}
	stored := out.String()
	if stored != "" && !strings.HasSuffix(stored, "\r\n") {
		stored += "\r\n" // DATA has no other way to end
	}
	return fate{code: "250", stored: stored}
}

// wire is how a client sends content after DATA: with the CRLF that the end of data
// needs before it.
func wire(content string) string {
	if content != "" && !strings.HasSuffix(content, "\r\n") {
		content += "\r\n"
	}
	return stuffed(content)
}

// TestReference: the reference itself, by hand.
func TestReference(t *testing.T) {
	both := policy{normalize: true, remove: true}
	for _, c := range []struct {
		content string
		policy
		want fate
	}{
		{"a\r\n", policy{}, fate{code: "250", stored: "a\r\n"}},
		{"", policy{}, fate{code: "250"}},
		{"a", policy{}, fate{code: "250", stored: "a\r\n"}},
		{"a\rb\n", policy{}, fate{code: "550", why: "bare CR or LF"}},
		{"a\r", policy{}, fate{code: "550", why: "bare CR or LF"}},
		{"a\x00\n", policy{}, fate{code: "554", why: "NUL"}},
		{"a\x00\n", policy{remove: true}, fate{code: "550", why: "bare CR or LF"}},
		{strings.Repeat("x", longest) + "\r\n", policy{}, fate{code: "250", stored: strings.Repeat("x", longest) + "\r\n"}},
		{strings.Repeat("x", longest+1) + "\r\n", both, fate{code: "554", why: "long line"}},
		{strings.Repeat("x", longest) + "\r", policy{}, fate{code: "550", why: "bare CR or LF"}},
		{"a\nb\rc\r\r\nd\n\r", both, fate{code: "250", stored: "a\r\nb c \r\nd\r\n \r\n"}},
		{"\x00.\r\n\r\x00\n", both, fate{code: "250", stored: ".\r\n \r\n"}},
		{"a\r\x00\n\r", policy{binary: true}, fate{code: "250", stored: "a\r\x00\n\r"}},
	} {
		if got := judge(c.content, c.policy); got != c.want {
			t.Errorf("%.40q %+v: %.80q", c.content, c.policy, got)
		}
	}
	if got := wire(".a\r\n..\n.b"); got != "..a\r\n...\n.b\r\n" {
		t.Errorf("on the wire: %q", got)
	}
}
