package smtp

import (
	"bytes"
	"strings"
	"testing"
)

// mendAll reads in with pieces of size octets.
func mendAll(in []byte, size int) (d *DamagedReply, n int, done bool, f Fault) {
	d = &DamagedReply{Limits: DefaultReplyLimits}
	for n < len(in) && !done && f == NoFault {
		var took int
		took, done, f = d.Next(in[n:min(n+size, len(in))])
		n += took
	}
	return d, n, done, f
}

func TestDamagedReply(t *testing.T) {
	long := strings.Repeat("word ", 1000)
	for in, want := range map[string]string{
		"\r\n220 mx\r\n":                "220 mx",
		"\n220 mx\n":                    "220 mx",
		"250 a\n":                       "250 a",
		"250-a\n250 b\r\n":              "250-a/250 b",
		"250 a\rb\r\n":                  "250 a?b",
		"250 a\r\r\n":                   "250 a",
		"250 a\x00b\r\n":                "250 a?b",
		"550 a\r12 b\r\n":               "550 a?12 b",
		"550No\r\n":                     "550 No",
		"550\tno\r\n":                   "550 \tno",
		"450:later\r\n":                 "450 :later",
		"550-a\r\nb\r\n550 c\r\n":       "550-a/550-b/550 c",
		"550-a\r\n\r\n550 c\r\n":        "550-a/550-/550 c",
		"550-a\r\n551 c\r\n":            "554-a/554 c",
		"571no\r\n":                     "554 no",
		"550 " + long + "\r\n":          "550 " + strings.TrimRight(long[:2040], " "),
		"250-" + long + "\r\n250 b\r\n": "250-" + strings.TrimRight(long[:2040], " ") + "/250 b",
		"250 " + strings.Repeat("x", 5000) + "\r\n": "250 " + strings.Repeat("x", 2042),
	} {
		for _, size := range []int{len(in), 1, 7} {
			d, n, done, f := mendAll([]byte(in+"250 next\r\n"), size)
			if !done || n != len(in) || f != NoFault {
				t.Errorf("%.60q by %d: %d, %v, %v", in, size, n, done, f)
				continue
			}
			r := d.Reply()
			got := strings.ReplaceAll(strings.TrimSuffix(string(r.AppendTo(nil)), "\r\n"), "\r\n", "/")
			if got != want || r.Faithful() || string(r.Raw()) != in[:min(len(in), maxSaid)] {
				t.Errorf("%.60q by %d became %.80q (%d), of %q", in, size, got, len(got), r.Raw())
			}
		}
	}
	for in, want := range map[string]Fault{
		"\r\n\r\n220 mx\r\n":             BadCode,
		"250OK\r\n":                      BadCode,
		"250\tok\r\n":                    BadCode,
		"5500 x\r\n":                     BadCode,
		"260 x\r\n":                      BadCode,
		"what\r\n":                       BadCode,
		"250-a\r\nb\r\n":                 BadCode,
		"250-a\r\n550 b\r\n":             MixedCodes,
		"550-a\r\n250 b\r\n":             MixedCodes,
		"250-a\r\n251 b\r\n":             MixedCodes,
		"250 a\r550 b\r\n":               BareCR,
		"550 a\r250 b\r\n":               BareCR,
		"550 a\r\r250-b\r\n":             BareCR,
		strings.Repeat("250-a\r\n", 2e5): LongReply,
		strings.Repeat("550 a", 3e5):     LongReply,
	} {
		for _, size := range []int{len(in), 1} {
			if _, _, done, f := mendAll([]byte(in), size); done || f != want {
				t.Errorf("%.60q by %d: %v, %v", in, size, done, f)
			}
		}
	}
}

// TestUnfinishedReply: what the origin could not finish says that the command has
// failed, or nothing.
func TestUnfinishedReply(t *testing.T) {
	for in, want := range map[string]string{
		"550":               "550 ",
		"550 no":            "550 no",
		"550 no\r":          "550 no",
		"450-a\r\n":         "450 a\r\n",
		"450-a\r\n450-b":    "450-a\r\n450 b",
		"550-a\r\nb\r\n":    "550-a\r\n550 b\r\n",
		"550-a\r\n55":       "550-a\r\n550 55",
		"":                  "",
		"55":                "",
		"\r\n":              "",
		"250 ok":            "",
		"250-a\r\n":         "",
		"250-a\r\n550 no":   "",
		"550-a\r\n250 fine": "",
		"5500":              "",
	} {
		d, _, _, _ := mendAll([]byte(in), 3)
		r, ok := d.Unfinished()
		if got := strings.TrimSuffix(string(r.AppendTo(nil)), "\r\n"); ok != (want != "") || ok && got != strings.TrimSuffix(want, "\r\n") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

// FuzzDamagedReply: how a reply is cut does not show. What is made of it is a reply
// of the class that its first line has, within the limits, and the same as that of
// CutReply where there is no fault.
func FuzzDamagedReply(f *testing.F) {
	f.Add([]byte("\r\n550-a\rb\nc\r\n550no\r\n"), 3)
	f.Add([]byte("250-a\r\n250 "+strings.Repeat("b ", 3000)+"\r\n"), 100)
	f.Add([]byte("571-a\r\n550 b\r\n"), 5)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		d, n, done, fault := mendAll(in, max(len(in), 1))
		p, m, again, f2 := mendAll(in, max(size, 1))
		if n != m || done != again || fault != f2 || done && p.Reply().Code != d.Reply().Code || !bytes.Equal(p.out, d.out) {
			t.Fatalf("%q: %d, %v, %v; in pieces of %d: %d, %v, %v", in, n, done, fault, size, m, again, f2)
		}
		if r, k, fault := CutReply(in, DefaultReplyLimits); fault == NoFault && k > 0 {
			if !done || n != k || d.Reply().Code != r.Code || !bytes.Equal(d.Reply().AppendTo(nil), r.AppendTo(nil)) {
				t.Fatalf("%q is %q, and became %q", in[:k], r.AppendTo(nil), d.Reply().AppendTo(nil))
			}
		}
		r := d.Reply()
		if fault != NoFault {
			return
		} else if !done {
			var ok bool
			if r, ok = d.Unfinished(); !ok {
				return
			}
		}
		out := r.AppendTo(nil)
		whole, k, fault := CutReply(out, DefaultReplyLimits)
		if fault != NoFault || k != len(out) || whole.Code.Class() != r.Code.Class() || !whole.Faithful() {
			t.Fatalf("%q became %q: %v", in, out, fault)
		}
		first := bytes.TrimLeft(in, "\r\n")
		if r.Code.Class() != int(first[0]-'0') {
			t.Fatalf("%q became %q", in, out)
		}
	})
}
