package smtp

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawPath draws a path as a client may write it, in canonical form.
func drawPath(t *rapid.T) string {
	local := rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,20}`),
		rapid.StringMatching(`"([ !#-\[\]-~]|\\["\\]){0,12}"`),
	).Draw(t, "local")
	domain := rapid.OneOf(
		rapid.StringMatching(`([a-z0-9][a-z0-9_-]{0,8}\.){0,3}[A-Za-z0-9]{1,8}`),
		rapid.StringMatching(`\[(1?[0-9]?[0-9]\.){3}[1-9][0-9]?\]`).Filter(func(s string) bool { return !strings.Contains(s, "[0") && !strings.Contains(s, ".0") }),
		rapid.Just("[IPv6:2001:db8::1]"),
	).Draw(t, "domain")
	return "<" + local + "@" + domain + ">"
}

// xtext as RFC 3461 section 4 has it.
const xtext = `([!-*,-<>-~]|\+[2-6][0-9A-F]){1,20}`

var canonicalParams = map[Verb][]string{
	MAIL: {
		`SIZE=(0|[1-9][0-9]{0,17})`, `BODY=(7BIT|8BITMIME|BINARYMIME)`, `SMTPUTF8`, `RET=(FULL|HDRS)`, `ENVID=` + xtext,
		`AUTH=(<>|` + xtext + `)`, `BY=-?[0-9]{1,9};[RN]T?`, `MT-PRIORITY=(0|-?[1-9])`, `HOLDFOR=(0|[1-9][0-9]{0,8})`, `REQUIRETLS`,
	},
	RCPT: {`NOTIFY=(NEVER|SUCCESS|SUCCESS,FAILURE|FAILURE,DELAY)`, `ORCPT=[a-z0-9]{1,8};` + xtext},
}

// drawCommand draws a command line in canonical form.
func drawCommand(t *rapid.T) string {
	verb := rapid.SampledFrom([]Verb{EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT, BDAT}).Draw(t, "verb")
	switch verb {
	case EHLO, HELO:
		return verb.String() + rapid.StringMatching(` [a-zA-Z0-9._:\[\]-]{1,60}`).Draw(t, "name")
	case BDAT:
		return rapid.StringMatching(`BDAT (0|[1-9][0-9]{0,9})( LAST)?`).Draw(t, "bdat")
	case MAIL, RCPT:
		line := map[Verb]string{MAIL: "MAIL FROM:", RCPT: "RCPT TO:"}[verb] + drawPath(t)
		for _, p := range canonicalParams[verb] {
			if rapid.Bool().Draw(t, "with "+p) {
				line += " " + rapid.StringMatching(p).Draw(t, "parameter")
			}
		}
		return line
	}
	return verb.String()
}

// TestCommandIdentity: a command in canonical form is written as it was read,
// and in any other letter case it means the same.
func TestCommandIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := drawCommand(t)
		var cmd Command
		if r := cmd.Parse([]byte(line), Grammar{Offered: everything}); r != nil {
			t.Fatalf("%s: %v", line, r)
		}
		if got := string(cmd.AppendTo(nil)); got != line+"\r\n" {
			t.Fatalf("%s was written as %q", line, got)
		}
		word, rest, _ := strings.Cut(line, " ")
		odd := strings.TrimRight(strings.ToLower(word)+" "+rest, " ") + "  "
		if r := cmd.Parse([]byte(odd), Grammar{Offered: everything}); r != nil || string(cmd.AppendTo(nil)) != line+"\r\n" {
			t.Fatalf("%q was written as %q, %v", odd, cmd.AppendTo(nil), r)
		}
	})
}

// TestReplyIdentity: a conforming reply is passed on octet for octet.
func TestReplyIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.StringMatching(`[2-5][0-5][0-9]`).Draw(t, "code")
		texts := rapid.SliceOfN(rapid.StringMatching("[\t -~]{0,80}"), 1, 20).Draw(t, "texts")
		var in string
		for i, text := range texts {
			sep := " "
			if i < len(texts)-1 {
				sep = "-"
			}
			in += code + sep + text + "\r\n"
		}
		r, n, f := CutReply([]byte(in+"250 next\r\n"), DefaultReplyLimits)
		if f != NoFault || n != len(in) {
			t.Fatalf("%q: %d, %v", in, n, f)
		}
		if got := r.AppendTo(nil); string(got) != in {
			t.Fatalf("%q became %q", in, got)
		}
	})
}

// TestBodyIdentity: conforming content is passed on octet for octet, however it
// is cut, and lenient readers see exactly one message.
func TestBodyIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`(\.\.)?[\t -~\x80-\xff.]{0,90}`), 0, 40).Draw(t, "lines")
		var content []byte
		for _, l := range lines {
			if strings.HasPrefix(l, ".") {
				l = "." + l
			}
			content = append(content, l+"\r\n"...)
		}
		in := append(bytes.Clone(content), EndOfData...)
		var cuts []int
		for at := 0; at < len(in); {
			at = min(at+rapid.IntRange(1, 200).Draw(t, "segment"), len(in))
			cuts = append(cuts, at)
		}
		var b Body
		out, end := transcode(&b, append(in, "QUIT\r\n"...), cuts...)
		if end != len(in) || !bytes.Equal(out, content) {
			t.Fatalf("%q became %q, ending at %d, %v", in, out, end, b.Fault)
		}
		sent := append(out, EndOfData...)
		for _, r := range readers {
			if got := r.end(sent); got < 0 || len(bytes.Trim(sent[got:], "\r\n")) > 0 {
				t.Fatalf("%q: %s sees its end at %d", sent, r.name, got)
			}
		}
	})
}
