package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/portreeve/portreeve/pkg/event"
)

// hostile is what a peer may send to get into a log or a terminal.
var hostile = event.Text("a\r\n{\"event\":\"fake\"}\x00\x1b[2J\x7f\xff\xc2\x9b31m\u202e\u2028\\x\"é")

// TestHostileText: whatever peers say, it ends neither a string nor a line.
func TestHostileText(t *testing.T) {
	for _, f := range []form{asJSON, asText} {
		var m event.Message
		var s event.Session
		fill(&m, func() event.Text { return hostile })
		fill(&s, func() event.Text { return hostile })
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

// TestEscaped says how some octets look in the value of a string.
func TestEscaped(t *testing.T) {
	for sent, want := range map[string]string{
		"alice@example.com":            `alice@example.com`,
		"Grüße, 世界 😀":                  `Grüße, 世界 😀`,
		"e\u0301":                      "e\u0301", // an é of two characters
		"\u0301e":                      `\u0301e`,
		"\"\u0338":                     `"\u0338`,
		"x\"\u0338":                    `x"\u0338`,
		"x\xff\u0338":                  `x\xff\u0338`,
		"x\u200b\u0338":                `x\u200b\u0338`,
		"one\ntwo":                     "one\ntwo",
		`"a\"b"@c`:                     `"a\\"b"@c`,
		`\x41`:                         `\\x41`,
		`\\`:                           `\\\\`,
		"a\r\x00\x1b\x7f\t":            `a\x0d\x00\x1b\x7f\x09`,
		"\xff\xe9\xed\xa0\x80\xc0\xaf": `\xff\xe9\xed\xa0\x80\xc0\xaf`,
		"\xc2\x9b\u00a0\u00ad":         `\u009b\u00a0\u00ad`,
		"a\u200bb\u2060\ufeff":         `a\u200bb\u2060\ufeff`,
		"\U000E0041\U000E0100":         `\U000e0041\U000e0100`,
		"\U0010FFFF\uE000\u0378":       `\U0010ffff\ue000\u0378`,
		hostileText:                    `a\x0d` + "\n" + `{"event":"fake"}\x00\x1b[2J\x7f\xff\u009b31m\u202e\u2028\\x"é`,
	} {
		if got := value(t, appendEscaped(nil, []byte(sent))); got != want {
			t.Errorf("%q became %s, not %s", sent, got, want)
		}
	}
}

var hostileText = string(hostile)

// TestHidden: whatever is invisible or changes the look of others is escaped, in
// these ranges and categories; what people write is not.
func TestHidden(t *testing.T) {
	for _, r := range [][2]rune{
		{0x80, 0xA0}, {0xAD, 0xAD}, {0x034F, 0x034F}, {0x061C, 0x061C}, {0x115F, 0x1160}, {0x1680, 0x1680}, {0x17B4, 0x17B5},
		{0x180B, 0x180F}, {0x2000, 0x200F}, {0x2028, 0x202F}, {0x205F, 0x206F}, {0x2800, 0x2800}, {0x3000, 0x3000}, {0x3164, 0x3164},
		{0xE000, 0xF8FF}, {0xFDD0, 0xFDEF}, {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB}, {0xFFFE, 0xFFFF},
		{0x13430, 0x1343F}, {0x13441, 0x13442}, {0x16FE4, 0x16FE4}, {0x1BCA0, 0x1BCA3}, {0x1D159, 0x1D159}, {0x1D173, 0x1D17A}, {0x1FFFE, 0x1FFFF}, {0xE0000, 0xE0FFF}, {0xF0000, 0x10FFFF},
	} {
		for c := r[0]; c <= r[1]; c++ {
			if got := appendEscaped(nil, utf8.AppendRune([]byte("x"), c)); bytes.ContainsRune(got, c) {
				t.Errorf("%U is written as it is", c)
			}
		}
	}
	for c := rune(0x80); c <= unicode.MaxRune; c++ {
		if unicode.In(c, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Zs, unicode.Noncharacter_Code_Point) && !hidden(c) {
			t.Errorf("%U is not hidden", c)
		}
		if unicode.In(c, unicode.L, unicode.N, unicode.P, unicode.S) && hidden(c) && !unicode.In(c, unicode.Other_Default_Ignorable_Code_Point, blank) {
			t.Errorf("%U is hidden", c)
		}
	}
}

// FuzzEscape: in both forms a reader gets back what two peers sent, and two strings
// never look the same.
func FuzzEscape(f *testing.F) {
	f.Add([]byte(hostile), []byte("plain"))
	f.Add([]byte(`\x41`), []byte("\x41"))
	f.Add([]byte("\\\x1b"), []byte(`\\x1b`))
	f.Add([]byte("\u200b\U000E0041\u0301"), []byte(`\u200b`))
	f.Add([]byte(`"a" outcome=accepted from="x" "b"@evil`), []byte(`{"a":"\\"}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		one, other := appendEscaped(nil, a), appendEscaped(nil, b)
		if bytes.Equal(a, b) != bytes.Equal(one, other) {
			t.Fatalf("%q and %q both became %s", a, b, one)
		}
		m := event.Message{Flow: someFlow, Sender: a, Recipients: []event.Recipient{{Address: b, Answer: event.Answer{Code: 250, Text: a}}}, Reply: event.Answer{Code: 550, Text: b}}
		m.Flow.Service = string(a)
		for _, form := range []form{asJSON, asText} {
			line := form.message(nil, &m)
			clean(t, line)
			got := map[string]string{}
			for _, x := range parse(t, form, line) {
				got[x.name] = string(undo(t, x.value))
			}
			for name, want := range map[string][]byte{"service": a, "from": a, "to.1.address": b, "to.1.text": a, "origin_reply.text": b} {
				if got[name] != string(want) {
					t.Fatalf("%s is %q, not %q: %s", name, got[name], want, line)
				}
				delete(got, name)
			}
			for name := range got {
				if !strings.Contains(" event time id way client server zone via number accepted refused size to.1.code outcome origin_reply.code ", " "+name+" ") {
					t.Fatalf("there is %s: %s", name, line)
				}
			}
		}
	})
}

// clean: a line shows what it has, and only that.
func clean(t *testing.T, line []byte) {
	t.Helper()
	before := '\n'
	for _, r := range strings.TrimSuffix(string(line), "\n") {
		if !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			t.Fatalf("%U in %s", r, line)
		}
		if unicode.Is(unicode.M, r) && strings.ContainsRune("\n\"\\", before) {
			t.Fatalf("%U joins %q in %s", r, before, line)
		}
		before = r
	}
}

// value is what a reader of JSON makes of the inside of a string.
func value(t *testing.T, inside []byte) (s string) {
	t.Helper()
	if err := json.Unmarshal(fmt.Appendf(nil, `"%s"`, inside), &s); err != nil {
		t.Fatalf("%s: %v", inside, err)
	}
	return s
}

// undo is the reader's side of escaping, as schema.md describes it.
func undo(t *testing.T, s string) (octets []byte) {
	t.Helper()
	for {
		shown, escape, more := strings.Cut(s, `\`)
		octets = append(octets, shown...)
		if !more {
			return octets
		}
		if escape == "" {
			t.Fatalf("%s ends in a backslash", s)
		}
		digits := map[byte]int{'\\': 0, 'x': 2, 'u': 4, 'U': 8}
		n, known := digits[escape[0]]
		if !known || len(escape) < 1+n {
			t.Fatalf("%s has an unknown escape at %s", s, escape)
		}
		code := escape[1 : 1+n]
		s = escape[1+n:]
		if n == 0 {
			octets = append(octets, '\\')
			continue
		}
		c, err := strconv.ParseUint(code, 16, 32)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", code, err)
		case n == 2:
			octets = append(octets, byte(c))
		default:
			octets = utf8.AppendRune(octets, rune(c))
		}
	}
}
