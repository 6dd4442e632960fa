package smtp

import (
	"strings"
	"testing"
)

func TestCutLine(t *testing.T) {
	long := strings.Repeat("x", 30)
	for _, c := range []struct {
		in, line string
		n        int
		f        Fault
	}{
		{"", "", 0, NoFault},
		{"NOOP", "", 0, NoFault},
		{"NOOP\r", "", 0, NoFault},
		{"NOOP\r\n", "NOOP", 6, NoFault},
		{"\r\n", "", 2, NoFault},
		{"NOOP\r\nQUIT\r\n", "NOOP", 6, NoFault},
		{"NOOP\n", "", 0, BareLF},
		{"\n", "", 0, BareLF},
		{"NOOP\nQUIT\r\n", "", 0, BareLF},
		{"NO\rOP\r\n", "", 0, BareCR},
		{"NOOP\r\r\n", "", 0, BareCR},
		{"NO\x00OP\r\n", "", 0, NUL},
		{long[:18] + "\r\n", long[:18], 20, NoFault},
		{long[:19] + "\r\n", "", 0, LongLine},
		{long[:20], "", 0, LongLine},
		{long[:19], "", 0, NoFault},
		{long + "\r\n", "", 0, LongLine},
	} {
		line, n, f := CutLine([]byte(c.in), 20)
		if string(line) != c.line || n != c.n || f != c.f {
			t.Errorf("%q: got %q, %d, %v", c.in, line, n, f)
		}
	}
}
