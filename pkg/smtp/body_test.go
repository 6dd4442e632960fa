package smtp

import (
	"bytes"
	"fmt"
	"testing"
)

// transcode reads in the way a session does: in pieces that end at the given
// cuts, with what was not consumed kept in front of the next one. It returns
// what would be sent, the fault, and how many octets belong to the message; -1
// when it has no end.
func transcode(b *Body, in []byte, cuts ...int) (out []byte, end int) {
	in = bytes.Clone(in) // Next compacts in place
	var held []byte
	at := 0
	for _, cut := range append(cuts, len(in)) {
		window := append(held, in[at:cut]...)
		start := at - len(held)
		at = cut
		for done := 0; ; {
			piece, n, ev := b.Next(window[done:])
			if b.Fault == NoFault {
				out = append(out, piece...)
			}
			done += n
			if ev == BodyEnd {
				return out, start + done
			}
			if ev == BodyMore {
				held = bytes.Clone(window[done:])
				break
			}
		}
	}
	return out, -1
}

// vectors are contents with what strict reading makes of them: out is sent,
// end is the number of octets up to the end of data. They include every sequence
// that some server takes for an end of data.
var vectors = []struct {
	in, out string
	f       Fault
	end     int
}{
	{".\r\n", "", NoFault, 3},
	{"\r\n.\r\n", "\r\n", NoFault, 5},
	{"a\r\n.\r\n", "a\r\n", NoFault, 6},
	{"a\r\n.\r\nQUIT\r\n", "a\r\n", NoFault, 6},
	{"a\r\n..\r\n.\r\n", "a\r\n..\r\n", NoFault, 10},
	{"..\r\n.\r\n", "..\r\n", NoFault, 7},
	{"...a\r\n.\r\n", "...a\r\n", NoFault, 9},
	{".a\r\n.\r\n", "a\r\n", NoFault, 7},
	{". \r\n.\r\n", " \r\n", NoFault, 7},
	{".\t\r\n.\r\n", "\t\r\n", NoFault, 7},
	{" .\r\n.\r\n", " .\r\n", NoFault, 7},
	{"a.\r\n.\r\n", "a.\r\n", NoFault, 7},
	{"a\r\n.\x1a\r\n.\r\n", "a\r\n\x1a\r\n", NoFault, 10},
	{"\xe2\x80\xa8.\xe2\x80\xa8\x85.\x85\r\n.\r\n", "\xe2\x80\xa8.\xe2\x80\xa8\x85.\x85\r\n", NoFault, 15},
	{"", "", NoFault, -1},
	{"a", "a", NoFault, -1},
	{"a\r", "a", NoFault, -1},
	{"a\r\n", "a\r\n", NoFault, -1},
	{"a\r\n.", "a\r\n", NoFault, -1},
	{"a\r\n.\r", "a\r\n", NoFault, -1},

	{"a\n.\nb\r\n.\r\n", "", BareLF, 10},
	{"a\n.\r\nb\r\n.\r\n", "", BareLF, 11},
	{"a\r\n.\nb\r\n.\r\n", "", BareLF, 11},
	{"a\r.\rb\r\n.\r\n", "", BareCR, 10},
	{"a\r.\nb\r\n.\r\n", "", BareCR, 10},
	{"a\n.\rb\r\n.\r\n", "", BareLF, 10},
	{"a\r.\r\nb\r\n.\r\n", "", BareCR, 11},
	{"a\r\n.\rb\r\n.\r\n", "", BareCR, 11},
	{"a\r\n.\r\r\nb\r\n.\r\n", "", BareCR, 13},
	{"a\r\r\n.\r\r\nb\r\n.\r\n", "", BareCR, 14},
	{"a\r\r\n.\r\nb\r\n.\r\n", "", BareCR, 7},
	{"a\n\r.\r\nb\r\n.\r\n", "", BareLF, 12},
	{"a\n\r.\n\rb\r\n.\r\n", "", BareLF, 12},
	{"a\r\n\x00.\r\nb\r\n.\r\n", "", NUL, 13},
	{"a\r\n.\x00\r\nb\r\n.\r\n", "", NUL, 13},
	{"a\r\n.\x00x\r\nb\r\n.\r\n", "", NUL, 14},
	{"a\r\x00\n.\r\nb\r\n.\r\n", "", BareCR, 13},
	{"a\n.\x00\nb\r\n.\r\n", "", BareLF, 11},
	{".\nb\r\n.\r\n", "", BareLF, 8},
	{"\n.\nb\r\n.\r\n", "", BareLF, 9},
	{"\n.\r\nb\r\n.\r\n", "", BareLF, 10},
	{".\r\r\nb\r\n.\r\n", "", BareCR, 10},
	{".\x00\r\nb\r\n.\r\n", "", NUL, 10},
	{"Subject: a\nb\r\n\r\nc\n.\r\nd\r\n.\r\n", "", BareLF, 27},
	{"0123456789012345678901234567a\r\n.\r\n", "", LongLine, 34},
	{"0123456789012345678901234567\r\n.\r\n", "0123456789012345678901234567\r\n", NoFault, 33},
}

const longest = 28 // line in vectors

func TestBody(t *testing.T) {
	for _, v := range vectors {
		b := Body{MaxLine: longest}
		out, end := transcode(&b, []byte(v.in))
		if string(out) != v.out || b.Fault != v.f || end != v.end {
			t.Errorf("%q: got %q, %v, %d", v.in, out, b.Fault, end)
		}
	}
}

// TestBodyInSegments: the result is the same wherever the stream is cut.
func TestBodyInSegments(t *testing.T) {
	for _, v := range vectors {
		in := []byte(v.in)
		whole := Body{MaxLine: longest}
		_, end := transcode(&whole, in)
		check := func(cuts ...int) {
			b := Body{MaxLine: longest}
			out, gotEnd := transcode(&b, in, cuts...)
			if gotEnd != end || b.Fault != whole.Fault {
				t.Errorf("%q cut at %v: %v, %d; whole: %v, %d", in, cuts, b.Fault, gotEnd, whole.Fault, end)
			}
			if want := naive(in[:max(end, 0)]); b.Fault == NoFault && end >= 0 && !bytes.Equal(out, want) {
				t.Errorf("%q cut at %v: %q", in, cuts, out)
			}
		}
		every := []int{}
		for i := range in {
			every = append(every, i)
			for j := i; j < len(in); j++ {
				check(i, j)
			}
		}
		check(every...)
	}
}

// naive decodes conforming content with its end of data, and encodes it again,
// by the words of RFC 5321 section 4.5.2.
func naive(in []byte) (out []byte) {
	in = bytes.TrimSuffix(in, []byte(EndOfData))
	for line := range bytes.Lines(in) {
		line = bytes.TrimPrefix(line, []byte("."))
		if bytes.HasPrefix(line, []byte(".")) {
			out = append(out, '.')
		}
		out = append(out, line...)
	}
	return out
}

// reader is how some server finds the end of data; it returns the number of
// octets that belong to the message.
type reader struct {
	name string
	end  func(in []byte) int
}

// readers are the lenient servers of this world, and one that is worse than any
// of them.
var readers = []reader{
	{"strict", func(in []byte) int { return endByLines(in, "\r\n", func(l []byte) bool { return string(l) == "." }) }},
	{"LF, CRs and NULs stripped", func(in []byte) int {
		return endByLines(in, "\n", func(l []byte) bool { return string(bytes.Trim(l, "\r\x00")) == "." })
	}},
	{"LF, one CR stripped, cut at NUL", func(in []byte) int {
		return endByLines(in, "\n", func(l []byte) bool {
			l, _, _ = bytes.Cut(bytes.TrimSuffix(l, []byte("\r")), []byte{0})
			return string(l) == "."
		})
	}},
	{"first line decides", func(in []byte) int {
		sep := "\r\n"
		if i := bytes.IndexByte(in, '\n'); i == 0 || (i > 0 && in[i-1] != '\r') {
			sep = "\n"
		}
		return endByLines(in, sep, func(l []byte) bool { return string(bytes.TrimSuffix(l, []byte("\r"))) == "." })
	}},
	{"CRLF after LF", func(in []byte) int {
		return endByLines(in, "\n", func(l []byte) bool { return string(l) == ".\r" })
	}},
	{"CR", func(in []byte) int {
		return endByLines(in, "\r", func(l []byte) bool { return string(bytes.Trim(l, "\n")) == "." })
	}},
	{"anything", func(in []byte) int {
		in = bytes.Clone(in)
		for i, c := range in {
			if c == '\r' || c == 0 {
				in[i] = '\n'
			}
		}
		return endByLines(in, "\n", func(l []byte) bool { return string(l) == "." })
	}},
}

func endByLines(in []byte, sep string, lone func([]byte) bool) int {
	for n := 0; ; {
		i := bytes.Index(in[n:], []byte(sep))
		if i < 0 {
			return -1
		}
		line := in[n : n+i]
		n += i + len(sep)
		if lone(line) {
			return n
		}
	}
}

// checkReaders: what we send for a message, up to and with our end of data, is
// one message for every reader.
func checkReaders(t *testing.T, in, sent []byte) {
	t.Helper()
	sent = append(bytes.Clone(sent), EndOfData...)
	for _, r := range readers {
		end := r.end(sent)
		if end < 0 || len(bytes.Trim(sent[end:], "\r\n")) > 0 {
			t.Errorf("%q was sent as %q: %s sees its end at %d", in, sent, r.name, end)
		}
	}
}

func TestReaders(t *testing.T) {
	for _, v := range vectors {
		if v.f != NoFault || v.end < 0 {
			continue
		}
		checkReaders(t, []byte(v.in), []byte(v.out))
	}
}

// TestNoEndBeforeCommit: whatever arrives, what we send before the commit is no
// complete message for any reader, also when it is cut anywhere.
func TestNoEndBeforeCommit(t *testing.T) {
	for _, v := range vectors {
		for cut := range len(v.in) + 1 {
			var b Body
			sent, _ := transcode(&b, []byte(v.in[:cut]))
			for _, r := range readers {
				if end := r.end(sent); end >= 0 {
					t.Errorf("%q was sent as %q, which %s takes for a message", v.in[:cut], sent, r.name)
				}
			}
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.in), uint16(3), uint16(5))
	}
	f.Fuzz(func(t *testing.T, in []byte, a, c uint16) {
		var whole, cut Body
		out, end := transcode(&whole, in)
		i := int(a) % (len(in) + 1)
		j := i + int(c)%(len(in)-i+1)
		out2, end2 := transcode(&cut, in, i, j)
		if end != end2 || whole.Fault != cut.Fault {
			t.Fatalf("%q: %v, %d; cut at %d and %d: %v, %d", in, whole.Fault, end, i, j, cut.Fault, end2)
		}
		if want := strictEnd(in); end != want {
			t.Fatalf("%q ends at %d, not %d", in, want, end)
		}
		if whole.Fault != NoFault {
			return
		}
		if !bytes.Equal(out, out2) {
			t.Fatalf("%q became %q, and cut %q", in, out, out2)
		}
		if end < 0 {
			return
		}
		if conforming(in[:end]) && !bytes.Equal(out, in[:end-3]) {
			t.Fatalf("%q became %q", in, out)
		}
		if want := naive(in[:end]); !bytes.Equal(out, want) {
			t.Fatalf("%q became %q, not %q", in, out, want)
		}
		var again Body
		if twice, _ := transcode(&again, append(bytes.Clone(out), EndOfData...)); again.Fault != NoFault || !bytes.Equal(twice, out) {
			t.Fatalf("%q became %q, and that %q, %v", in, out, twice, again.Fault)
		}
		checkReaders(t, in, out)
	})
}

// strictEnd finds CRLF.CRLF, with the content preceded by a CRLF.
func strictEnd(in []byte) int {
	in = append([]byte("\r\n"), in...)
	i := bytes.Index(in, []byte("\r\n.\r\n"))
	if i < 0 {
		return -1
	}
	return i + 3
}

// conforming: every line that starts with a dot starts with two.
func conforming(in []byte) bool {
	for line := range bytes.Lines(in[:len(in)-len(EndOfData)]) {
		if line[0] == '.' && !bytes.HasPrefix(line, []byte("..")) {
			return false
		}
	}
	return true
}

func BenchmarkBody(b *testing.B) {
	for _, length := range []int{0, 76, 998} {
		line := append(bytes.Repeat([]byte("x"), length), "\r\n"...)
		in := bytes.Repeat(line, 64*1024/len(line))
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			var body Body
			for b.Loop() {
				if _, n, _ := body.Next(in); n != len(in) {
					b.Fatal(n)
				}
			}
		})
	}
}
