package session

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// dialect is how a server reads its stream.
type dialect struct {
	name    string
	line    func(in []byte) (line, rest []byte, ok bool)
	message func(in []byte) (content, rest []byte, ok bool)
}

// strict is RFC 5321. The others are lenient in the ways that servers were found
// to be.
var strict = dialect{"strict", byCRLF, func(in []byte) (content, rest []byte, ok bool) {
	whole := append([]byte("\r\n"), in...)
	i := bytes.Index(whole, []byte("\r\n.\r\n"))
	if i < 0 {
		return nil, nil, false
	}
	return whole[2 : i+2], whole[i+5:], true
}}

var dialects = []dialect{
	strict,
	{"LF, CR and NUL stripped", byLF, untilLine("\n", func(l []byte) bool { return string(bytes.Trim(l, "\r\x00")) == "." })},
	{"LF, C strings", cString, untilLine("\n", func(l []byte) bool {
		l, _, _ = bytes.Cut(bytes.TrimSuffix(l, []byte("\r")), []byte{0})
		return string(l) == "."
	})},
	{"CR", byAny, untilLine("\r", func(l []byte) bool { return string(bytes.Trim(l, "\n\x00")) == "." })},
	{"first line decides", byLF, func(in []byte) ([]byte, []byte, bool) {
		sep := "\r\n"
		if i := bytes.IndexByte(in, '\n'); i == 0 || (i > 0 && in[i-1] != '\r') {
			sep = "\n"
		}
		return untilLine(sep, func(l []byte) bool { return string(bytes.TrimSuffix(l, []byte("\r"))) == "." })(in)
	}},
	{"dot after LF", byLF, untilLine("\n", func(l []byte) bool { return string(l) == ".\r" })},
}

func byCRLF(in []byte) (line, rest []byte, ok bool) { return bytes.Cut(in, []byte("\r\n")) }

func byLF(in []byte) (line, rest []byte, ok bool) {
	line, rest, ok = bytes.Cut(in, []byte("\n"))
	return bytes.Trim(line, "\r"), rest, ok
}

func cString(in []byte) (line, rest []byte, ok bool) {
	line, rest, ok = byLF(in)
	line, _, _ = bytes.Cut(line, []byte{0})
	return line, rest, ok
}

// byAny ends a command at CR or LF.
func byAny(in []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexAny(in, "\r\n")
	if i < 0 {
		return nil, nil, false
	}
	return in[:i], bytes.TrimPrefix(bytes.TrimPrefix(in[i:], []byte("\r")), []byte("\n")), true
}

func untilLine(sep string, lone func([]byte) bool) func(in []byte) (content, rest []byte, ok bool) {
	return func(in []byte) (content, rest []byte, ok bool) {
		for n := 0; ; {
			i := bytes.Index(in[n:], []byte(sep))
			if i < 0 {
				return nil, nil, false
			}
			if lone(in[n : n+i]) {
				return in[:n], bytes.TrimLeft(in[n+i+len(sep):], "\n"), true
			}
			n += i + len(sep)
		}
	}
}

// journal is what a server made of its stream.
func (o *modelOrigin) journal() string {
	var b strings.Builder
	for _, m := range o.messages {
		fmt.Fprintf(&b, "%s %s %q %s\n", m.sender, m.rcpts, bytes.Trim([]byte(m.content), "\r\n"), m.code)
	}
	return b.String()
}

// FuzzClient lets a client say anything: all servers, however lenient, take the
// same messages for the same recipients, and the client is told of no more.
func FuzzClient(f *testing.F) {
	for _, c := range conversations {
		var first, rest strings.Builder
		for i, t := range c.turns {
			if i < 2 {
				first.WriteString(t.send)
			} else {
				rest.WriteString(t.send)
			}
		}
		f.Add(first.String(), rest.String(), byte(0))
	}
	for _, e := range endings {
		f.Add("EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", "Subject: a\r\n\r\nb"+e+smuggled+"\r\n.\r\nQUIT\r\n", byte(len(e)))
	}
	f.Add("EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nBDAT 4294967301 LAST\r\nhello", smuggled, byte(1))
	f.Add("EHLO c\r\nMAIL FROM:<a@c>\nRCPT TO:<evil@d>\r\n", smuggled, byte(1))
	f.Fuzz(func(t *testing.T, first, rest string, size byte) {
		var want string
		for i, d := range dialects {
			p := newPlay(conversation{"fuzz", chunkEHLO, []turn{{first, strings.Count(first, "\r\n")}, {rest, -1}}, nil, nil})
			p.origin.dialect = d
			p.client.leg.atMost = int(size)
			p.run()
			if problem := p.lies(); problem != "" {
				t.Fatalf("%s: %s", d.name, problem)
			}
			if i == 0 {
				want = p.origin.journal()
			} else if got := p.origin.journal(); got != want {
				t.Fatalf("%s has\n%s\na strict server has\n%s", d.name, got, want)
			}
		}
	})
}

// lies checks what the client was told against what the origin did.
func (p *play) lies() string {
	taken, said := 0, 0
	for _, m := range p.origin.messages {
		if m.code == "250" {
			taken++
		}
	}
	for _, r := range p.client.replies {
		if strings.HasPrefix(r, "250 message") {
			said++
		}
	}
	if said > taken {
		return fmt.Sprintf("the client was told of %d messages, the origin took %d", said, taken)
	}
	if len(p.origin.faults) > 0 {
		return fmt.Sprint(p.origin.faults)
	}
	for _, c := range p.origin.all {
		if c == 0 && !bytes.Contains(p.origin.all, []byte("BDAT")) {
			return fmt.Sprintf("NUL in %q", p.origin.all)
		}
	}
	return ""
}
