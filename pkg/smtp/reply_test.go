package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestReply(t *testing.T) {
	r := &Reply{421, Enhanced{4, 4, 2}, "lost\r\n250 ok\x1b"}
	if got := r.Error(); got != "421 4.4.2 lost??250 ok?" {
		t.Errorf("got %q", got)
	}
	if got := (&Reply{Code: 354, Text: "go"}).Error(); got != "354 go" {
		t.Errorf("got %q", got)
	}
}

func TestCutReply(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, c := range []struct {
		in string
		n  int
		f  Fault
	}{
		{"", 0, NoFault},
		{"250 ok", 0, NoFault},
		{"250 ok\r", 0, NoFault},
		{"250 ok\r\n", 8, NoFault},
		{"250\r\n", 5, NoFault},
		{"250 \r\n", 6, NoFault},
		{"250-a\r\n250 b\r\n", 14, NoFault},
		{"250-a\r\n", 0, NoFault},
		{"250-\r\n250-b\r\n250\r\n", 18, NoFault},
		{"250 a\r\n250 b\r\n", 7, NoFault},
		{"599 future\r\n", 12, NoFault},
		{"299 future\r\n", 0, BadCode},
		{"399 future\r\n", 0, BadCode},
		{"450-a\r\n452 b\r\n", 14, NoFault},
		{"450-a\r\n552 b\r\n", 0, MixedCodes},
		{"250-a\r\n251 b\r\n", 0, MixedCodes},
		{"559 future\r\n", 12, NoFault},
		{"250-a\r\n550 b\r\n", 0, MixedCodes},
		{"250-a\r\n250 b\n", 0, BareLF},
		{"250 a\n", 0, BareLF},
		{"250 a\rb\r\n", 0, BareCR},
		{"250 a\x00b\r\n", 0, NUL},
		{"250OK\r\n", 0, BadCode},
		{"250\tOK\r\n", 0, BadCode},
		{"25 OK\r\n", 0, BadCode},
		{"HTTP/1.1 200 OK\r\n", 0, BadCode},
		{"100 a\r\n", 0, BadCode},
		{"650 a\r\n", 0, BadCode},
		{"260 a\r\n", 0, BadCode},
		{"2x0 a\r\n", 0, BadCode},
		{"\r\n", 0, BadCode},
		{"250 " + long, 0, LongLine},
		{strings.Repeat("250-a\r\n", 199) + "250 a\r\n", 1400, NoFault},
		{strings.Repeat("250-a\r\n", 200) + "250 a\r\n", 0, LongReply},
		{strings.Repeat("250-"+long[:1900]+"\r\n", 18), 0, LongReply},
	} {
		_, n, f := CutReply([]byte(c.in), DefaultReplyLimits)
		if n != c.n || f != c.f {
			t.Errorf("%.60q: got %d, %v", c.in, n, f)
		}
	}
}

func TestWireReply(t *testing.T) {
	in := "550-5.1.1 a\r\n550-\r\n550 b\x1b[2J\tc\r\n"
	r, n, f := CutReply([]byte(in), DefaultReplyLimits)
	if n != len(in) || f != NoFault || r.Size() != len(in) {
		t.Fatalf("%d, %v", n, f)
	}
	if got := string(r.AppendTo(nil)); got != "550-5.1.1 a\r\n550-\r\n550 b?[2J\tc\r\n" {
		t.Errorf("got %q", got)
	}
	if got := string(r.AppendText(nil)); got != "5.1.1 a\n\nb\x1b[2J\tc" {
		t.Errorf("got %q", got)
	}
	short, _, _ := CutReply([]byte("250\r\n"), DefaultReplyLimits)
	if got := string(short.AppendTo(nil)); got != "250 \r\n" {
		t.Errorf("got %q", got)
	}
}

// FuzzReply: what is taken for a reply is written as a reply of as many lines
// with the same code, and depends on nothing that follows it.
func FuzzReply(f *testing.F) {
	f.Add([]byte("250-mx.example\r\n250-SIZE 1\r\n250 DSN\r\n"))
	f.Add([]byte("550\r\n"))
	f.Add([]byte("250-a\r\n550 b\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, n, fault := CutReply(in, DefaultReplyLimits)
		if fault != NoFault || n == 0 {
			return
		}
		out := r.AppendTo(nil)
		again, m, fault := CutReply(append(bytes.Clone(out), "garbage"...), DefaultReplyLimits)
		if fault != NoFault || m != len(out) || again.Code != r.Code {
			t.Fatalf("%q became %q: %v", in, out, fault)
		}
		if bytes.Count(out, crlf) != bytes.Count(in[:n], crlf) {
			t.Fatalf("%q became %q", in, out)
		}
		for _, c := range bytes.ReplaceAll(out, crlf, nil) {
			if (c < ' ' && c != '\t') || c == 0x7F {
				t.Fatalf("%q became %q", in, out)
			}
		}
		for i := range n {
			if _, m, fault := CutReply(in[:i], DefaultReplyLimits); m != 0 || fault != NoFault {
				t.Fatalf("%q is decided before %q is there", in[:i], in[:n])
			}
		}
	})
}

func TestParseKeyword(t *testing.T) {
	for _, c := range []struct {
		in   string
		ok   bool
		want string
	}{
		{"SIZE 1000", true, "SIZE SIZE [1000]"},
		{"size", true, "size SIZE []"},
		{"8BITMIME ", true, "8BITMIME 8BITMIME []"},
		{"AUTH  PLAIN LOGIN", true, "AUTH AUTH [PLAIN LOGIN]"},
		{"X-EXPS GSSAPI", true, "X-EXPS - [GSSAPI]"},
		{"", false, ""},
		{"-x", false, ""},
		{"AUTH=LOGIN", false, ""},
		{"SIZE\t1", false, ""},
		{"SIZE 1\x1b", false, ""},
		{"a\xff", false, ""},
	} {
		k, ok := ParseKeyword([]byte(c.in))
		if ok != c.ok {
			t.Errorf("%q: %v", c.in, ok)
		}
		if !ok {
			continue
		}
		ext := "-"
		if k.Known {
			ext = k.Ext.String()
		}
		if got := fmt.Sprintf("%s %s [%s]", k.Name, ext, k.Args); got != c.want {
			t.Errorf("%q: %s", c.in, got)
		}
	}
}

func TestExtensions(t *testing.T) {
	s := SetOf(ExtDSN, ExtSize)
	if !s.Has(ExtDSN) || s.Has(ExtAuth) || s.Without(ExtDSN) != SetOf(ExtSize) {
		t.Errorf("%b", s)
	}
	if got := string(s.AppendTo([]byte("x"), ',')); got != "xSIZE,DSN" {
		t.Errorf("got %s", got)
	}
}

// TestOddReply: what the origin said wrongly, but clearly, keeps its class.
func TestOddReply(t *testing.T) {
	for in, want := range map[string]string{
		"571 5.7.1 no\r\n":            "554 5.7.1 no\r\n",
		"470 later\r\n":               "451 later\r\n",
		"550-a\r\n553-b\r\n550 c\r\n": "554-a\r\n554-b\r\n554 c\r\n",
		"421-a\r\n450 b\r\n":          "451-a\r\n451 b\r\n",
	} {
		r, n, f := CutReply([]byte(in), DefaultReplyLimits)
		if got := string(r.AppendTo(nil)); f != NoFault || n != len(in) || !r.Odd || r.Faithful() || got != want || string(r.Raw()) != in {
			t.Errorf("%q became %q, %+v, %v", in, got, r, f)
		}
	}
	for in, faithful := range map[string]bool{"559 a\r\n": true, "250-a\r\n250 b\r\n": true, "250 a\x1bb\r\n": false, "250-a\x7f\r\n250 b\r\n": false} {
		r, _, f := CutReply([]byte(in), DefaultReplyLimits)
		if f != NoFault || r.Odd || r.Faithful() != faithful {
			t.Errorf("%q: %+v, %v", in, r, f)
		}
	}
}

// TestReplyLimits: a reply is as long as it may be, and not longer.
func TestReplyLimits(t *testing.T) {
	max := ReplyLimits{Line: 10, Lines: 2, Octets: 16}
	for in, want := range map[string]Fault{
		"250 abcd\r\n": NoFault, "250 abcde\r\n": LongLine,
		"250-a\r\n250 b\r\n": NoFault, "250-a\r\n250-b\r\n250\r\n": LongReply, "250-abcd\r\n250 a\r\n": LongReply,
	} {
		if _, _, f := CutReply([]byte(in), max); f != want {
			t.Errorf("%q: %v", in, f)
		}
	}
}
