package smtp

import (
	"bytes"
	"testing"
)

func stuff(s *Stuffer, in []byte, cuts ...int) []byte {
	var out []byte
	at := 0
	for _, cut := range append(cuts, len(in)) {
		piece := in[at:cut]
		dst := make([]byte, 0, Stuffed(len(piece)))
		grown := s.Append(dst, piece)
		if cap(grown) != cap(dst) {
			panic("Stuffed promises too little")
		}
		out, at = append(out, grown...), cut
	}
	return s.Close(out)
}

func TestStuffer(t *testing.T) {
	for _, c := range []struct {
		in, out string
		f       Fault
	}{
		{"", "", NoFault},
		{"a", "a\r\n", NoFault},
		{"a\r\n", "a\r\n", NoFault},
		{"\r\n", "\r\n", NoFault},
		{".", "..\r\n", NoFault},
		{".\r\n", "..\r\n", NoFault},
		{"..\r\n", "...\r\n", NoFault},
		{"a\r\n.\r\n", "a\r\n..\r\n", NoFault},
		{"a\r\n.\r\n.\r\nb", "a\r\n..\r\n..\r\nb\r\n", NoFault},
		{"a.\r\n", "a.\r\n", NoFault},
		{"a\nb", "", BareLF},
		{"\n", "", BareLF},
		{"a\r\n.\nb", "", BareLF},
		{"a\rb", "", BareCR},
		{"a\r", "", BareCR},
		{"a\r\r\n", "", BareCR},
		{"a\x00", "", NUL},
		{"a\x00\n", "", NUL},
		{"a\r\x00\n", "", BareCR},
		{"01234567890\r\n", "", LongLine},
		{"0123456789\r\n", "0123456789\r\n", NoFault},
	} {
		in := []byte(c.in)
		for i := range len(in) + 1 {
			for j := i; j <= len(in); j++ {
				s := Stuffer{MaxLine: 10}
				out := stuff(&s, in, i, j)
				if s.Fault != c.f || (c.f == NoFault && string(out) != c.out) {
					t.Errorf("%q cut at %d and %d: %q, %v", in, i, j, out, s.Fault)
				}
			}
		}
	}
}

// FuzzStuffer: what is stuffed is, for our own reader of DATA and for lenient
// ones, one message with that content.
func FuzzStuffer(f *testing.F) {
	f.Add([]byte(".\r\n..\r\na"), uint16(2), uint16(3))
	f.Add([]byte("a\r\n.\r\nb\r\n"), uint16(2), uint16(3))
	f.Add([]byte("a\rb\x00\n"), uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, in []byte, a, b uint16) {
		var whole, cut Stuffer
		out := stuff(&whole, in)
		i := int(a) % (len(in) + 1)
		j := i + int(b)%(len(in)-i+1)
		out2 := stuff(&cut, in, i, j)
		if whole.Fault != cut.Fault {
			t.Fatalf("%q: %v; cut at %d and %d: %v", in, whole.Fault, i, j, cut.Fault)
		}
		if whole.Fault != NoFault {
			return
		}
		if !bytes.Equal(out, out2) {
			t.Fatalf("%q became %q, and cut %q", in, out, out2)
		}
		want := in
		if len(in) > 0 && !bytes.HasSuffix(in, crlf) {
			want = append(bytes.Clone(in), crlf...)
		}
		if got := unstuff(out); !bytes.Equal(got, want) {
			t.Fatalf("%q became %q, which is %q", in, out, got)
		}
		var body Body
		through, end := transcode(&body, append(bytes.Clone(out), EndOfData...))
		if body.Fault != NoFault || end != len(out)+3 || !bytes.Equal(through, out) {
			t.Fatalf("%q became %q: %v, %d", in, out, body.Fault, end)
		}
		checkReaders(t, in, out)
	})
}

// unstuff is what a receiver makes of content, RFC 5321 section 4.5.2.
func unstuff(in []byte) (out []byte) {
	for line := range bytes.Lines(in) {
		out = append(out, bytes.TrimPrefix(line, []byte("."))...)
	}
	return out
}
