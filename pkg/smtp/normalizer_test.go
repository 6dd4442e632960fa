package smtp

import (
	"bytes"
	"testing"
)

func normalize(n *Normalizer, in []byte, cuts ...int) (out []byte, end int) {
	at := 0
	for _, cut := range append(cuts, len(in)) {
		piece := in[at:cut]
		dst := make([]byte, 0, Normalized(len(piece)))
		grown, used, ev := n.Next(dst, piece)
		if cap(grown) != cap(dst) {
			panic("Normalized promises too little")
		}
		out, at = append(out, grown...), at+used
		if ev == BodyEnd {
			return out, at
		}
	}
	return out, -1
}

func TestNormalizer(t *testing.T) {
	for _, c := range []struct {
		in, out string
		f       Fault
		end     int
	}{
		{".\r\n", "", NoFault, 3},
		{"a\r\n.\r\n", "a\r\n", NoFault, 6},
		{"a\nb\r\n.\r\n", "a\r\nb\r\n", NoFault, 8},
		{"a\rb\r\n.\r\n", "a b\r\n", NoFault, 8},
		{"a\r\r\n.\r\n", "a \r\n", NoFault, 7},
		{"a\n.\r\nb\r\n.\r\n", "a\r\n..\r\nb\r\n", NoFault, 11},
		{"a\n.\nb\r\n.\r\n", "a\r\n..\r\nb\r\n", NoFault, 10},
		{"a\r\n.\nb\r\n.\r\n", "a\r\n\r\nb\r\n", NoFault, 11},
		{"a\r\n.\r\r\nb\r\n.\r\n", "a\r\n \r\nb\r\n", NoFault, 13},
		{"a\r\n.\rb\r\n.\r\n", "a\r\n b\r\n", NoFault, 11},
		{"a\r.\r\nb\r\n.\r\n", "a .\r\nb\r\n", NoFault, 11},
		{"a\r\n..\nb\r\n.\r\n", "a\r\n..\r\nb\r\n", NoFault, 12},
		{"a\r\n.b\r\n.\r\n", "a\r\nb\r\n", NoFault, 10},
		{"a\n..b\r\n.\r\n", "a\r\n...b\r\n", NoFault, 10},
		{"\n.\r\n.\r\n", "\r\n..\r\n", NoFault, 7},
		{"a\x00\n.\r\n\r\n.\r\n", "", NUL, 11},
		{"01234567890\n\r\n.\r\n", "", LongLine, 17},
		{"a\r\n.", "a\r\n", NoFault, -1},
		{"a\r\n.\r", "a\r\n", NoFault, -1},
	} {
		in := []byte(c.in)
		for i := range len(in) + 1 {
			for j := i; j <= len(in); j++ {
				n := Normalizer{Dotted: true, MaxLine: 10}
				out, end := normalize(&n, in, i, j)
				if n.Fault != c.f || end != c.end || (c.f == NoFault && string(out) != c.out) {
					t.Fatalf("%q cut at %d and %d: %q, %v, %d", in, i, j, out, n.Fault, end)
				}
			}
		}
	}
}

func TestNormalizerInChunks(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a\r\n", "a\n.\nb": "a\r\n..\r\nb\r\n", "a\r": "a \r\n", ".\r\n": "..\r\n", ".": "..\r\n", "a\r\n.\r\n": "a\r\n..\r\n", "\r\r": "  \r\n",
	} {
		for i := range len(in) + 1 {
			var n Normalizer
			out, _ := normalize(&n, []byte(in), i)
			if out = n.Close(out); string(out) != want || n.Fault != NoFault {
				t.Errorf("%q cut at %d: %q, %v", in, i, out, n.Fault)
			}
		}
	}
}

// FuzzNormalizer: the output is one message for every reader, the true end is
// the strict one, and content that needs no normalizing is what Body makes of it.
func FuzzNormalizer(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.in), uint16(3), uint16(5))
		f.Add([]byte(v.in), uint16(3), uint16(1<<15+5))
		f.Add([]byte(v.in), uint16(1<<15+3), uint16(1<<15+5))
	}
	f.Fuzz(func(t *testing.T, in []byte, a, b uint16) {
		whole := Normalizer{Dotted: true, MaxLine: longest, RefuseBare: a >= 1<<15, RemoveNUL: b >= 1<<15}
		cut, body := whole, Body{MaxLine: longest}
		out, end := normalize(&whole, in)
		i := int(a) % (len(in) + 1)
		j := i + int(b)%(len(in)-i+1)
		out2, end2 := normalize(&cut, in, i, j)
		if end != end2 || whole.Fault != cut.Fault {
			t.Fatalf("%q: %v, %d; cut at %d and %d: %v, %d", in, whole.Fault, end, i, j, cut.Fault, end2)
		}
		if want := strictEnd(in); end != want {
			t.Fatalf("%q ends at %d, not %d", in, want, end)
		}
		if whole.Fault != NoFault || end < 0 {
			return
		}
		if !bytes.Equal(out, out2) {
			t.Fatalf("%q became %q, and cut %q", in, out, out2)
		}
		plain, _ := transcode(&body, in)
		if body.Fault == NoFault && !bytes.Equal(out, plain) {
			t.Fatalf("%q became %q, not %q", in, out, plain)
		}
		var again Body
		if through, e := transcode(&again, append(bytes.Clone(out), EndOfData...)); e != len(out)+3 || again.Fault != NoFault || !bytes.Equal(through, out) {
			t.Fatalf("%q became %q: %v", in, out, again.Fault)
		}
		checkReaders(t, in, out)
	})
}

// TestNormalizerRefuses: where bare CR and LF are refused, the Normalizer is a
// Body that can leave NUL out.
func TestNormalizerRefuses(t *testing.T) {
	for _, v := range vectors {
		for i := range len(v.in) + 1 {
			n := Normalizer{Dotted: true, RefuseBare: true, MaxLine: longest}
			out, end := normalize(&n, []byte(v.in), i)
			if n.Fault != v.f || end != v.end || (v.f == NoFault && v.end >= 0 && string(out) != v.out) {
				t.Errorf("%q cut at %d: %q, %v, %d", v.in, i, out, n.Fault, end)
			}
		}
	}
}

// TestRemoveNUL: without its NULs no line is another one than it was.
func TestRemoveNUL(t *testing.T) {
	for _, c := range []struct {
		in, out string
		f       Fault
		end     int
	}{
		{"a\x00b\r\n.\r\n", "ab\r\n", NoFault, 8},
		{"\x00\r\n.\r\n", "\r\n", NoFault, 6},
		{"\x00.\r\nb\r\n.\r\n", "..\r\nb\r\n", NoFault, 10},
		{".\x00\r\nb\r\n.\r\n", "\r\nb\r\n", NoFault, 10},
		{".\x00.\r\nb\r\n.\r\n", "..\r\nb\r\n", NoFault, 11},
		{"a\r\n.\r\x00\nb\r\n.\r\n", "", BareCR, 13},
		{"a\r\x00\n.\r\n\r\n.\r\n", "", BareCR, 12},
		{"a\n\x00\r\n.\r\n", "", BareLF, 8},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\r\n.\r\n", "", LongLine, 16},
	} {
		for i := range len(c.in) + 1 {
			n := Normalizer{Dotted: true, RefuseBare: true, RemoveNUL: true, MaxLine: 10}
			out, end := normalize(&n, []byte(c.in), i)
			if n.Fault != c.f || end != c.end || (c.f == NoFault && string(out) != c.out) {
				t.Errorf("%q cut at %d: %q, %v, %d", c.in, i, out, n.Fault, end)
			}
		}
	}
}

// TestDots: what is sent without its stuffed dots is what the message has.
func TestDots(t *testing.T) {
	for in, want := range map[string]int64{
		".\r\n": 0, "..\r\n.\r\n": 1, "...a\r\n.b\r\n..\r\n.\r\n": 2, "a..\r\n.\r\n": 0,
	} {
		for i := range len(in) + 1 {
			for j := i; j <= len(in); j++ {
				b, n := Body{}, Normalizer{Dotted: true}
				transcode(&b, []byte(in), i, j)
				normalize(&n, []byte(in), i, j)
				if b.Dots != want || n.Dots != want {
					t.Errorf("%q cut at %d and %d: %d, %d", in, i, j, b.Dots, n.Dots)
				}
			}
		}
	}
	s, n := Stuffer{}, Normalizer{}
	s.Append(nil, []byte(".a\r\nb.\r\n..\r\n"))
	n.Next(nil, []byte(".a\r\nb.\r\n..\r\n"))
	if s.Dots != 2 || n.Dots != 2 {
		t.Errorf("in chunks: %d, %d", s.Dots, n.Dots)
	}
}

// FuzzRemoveNUL: without its NULs content is still one message for every reader,
// with the end that it had, and nothing but NUL is left out of it.
func FuzzRemoveNUL(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.in), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, a uint16) {
		whole, cut := Normalizer{Dotted: true, RefuseBare: true, RemoveNUL: true}, Normalizer{Dotted: true, RefuseBare: true, RemoveNUL: true}
		out, end := normalize(&whole, in)
		out2, end2 := normalize(&cut, in, int(a)%(len(in)+1))
		if end != end2 || whole.Fault != cut.Fault || whole.Dots != cut.Dots || (whole.Fault == NoFault && !bytes.Equal(out, out2)) {
			t.Fatalf("%q: %q, %v, %d; cut: %q, %v, %d", in, out, whole.Fault, end, out2, cut.Fault, end2)
		}
		if want := strictEnd(in); end != want {
			t.Fatalf("%q ends at %d, not %d", in, want, end)
		}
		if whole.Fault != NoFault || end < 0 {
			return
		}
		var again Body
		if through, e := transcode(&again, append(bytes.Clone(out), EndOfData...)); e != len(out)+3 || again.Fault != NoFault || !bytes.Equal(through, out) || again.Dots != whole.Dots {
			t.Fatalf("%q became %q: %v", in, out, again.Fault)
		}
		if got, want := bytes.ReplaceAll(unstuffed(out), []byte{0}, nil), bytes.ReplaceAll(unstuffed(in[:end-3]), []byte{0}, nil); !bytes.Equal(got, want) {
			t.Fatalf("%q became %q", in, out)
		}
		checkReaders(t, in, out)
	})
}

// unstuffed takes the stuffed dots off.
func unstuffed(in []byte) (out []byte) {
	for line := range bytes.Lines(in) {
		out = append(out, bytes.TrimPrefix(line, []byte("."))...)
	}
	return out
}
