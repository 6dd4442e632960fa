package session

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/protocol"
)

// dialect is how a server reads its stream.
type dialect struct {
	name    string
	line    func(in []byte) (line, rest []byte, ok bool)
	message func(in []byte) (content, rest []byte, ok bool)
}

// strict is RFC 5321, and how Sendmail 8.18, Postfix 3.9 and smtp-server read.
var strict = dialect{"strict", byCRLF, func(in []byte) (content, rest []byte, ok bool) {
	whole := append([]byte("\r\n"), in...)
	i := bytes.Index(whole, []byte("\r\n.\r\n"))
	if i < 0 {
		return nil, nil, false
	}
	return whole[2 : i+2], whole[i+5:], true
}}

// dialects are servers as they were measured to find the end of a message, see
// TestDialectsAreLenient, and two that are worse than any of them.
var dialects = []dialect{
	strict,
	{"Postfix 3.7", cString, untilLine("\n", func(l []byte) bool { return string(bytes.TrimRight(l, "\r")) == "." })},
	{"Exim 4.96", byLF, func(in []byte) ([]byte, []byte, bool) {
		// The first line of the header decides what ends a line.
		if i := bytes.IndexByte(in, '\n'); i == 0 || (i > 0 && in[i-1] != '\r') {
			return untilLine("\n", func(l []byte) bool { return string(bytes.TrimSuffix(l, []byte("\r"))) == "." })(in)
		}
		return untilLine("\r\n", func(l []byte) bool { return string(l) == "." })(in)
	}},
	{"OpenSMTPD 6.8", cString, untilLine("\n", func(l []byte) bool {
		// strcmp knows nothing behind a NUL.
		l, _, _ = bytes.Cut(bytes.TrimSuffix(l, []byte("\r")), []byte{0})
		return string(l) == "."
	})},
	{"Haraka 3.1.6", byLF, untilLine("\n", func(l []byte) bool { return string(l) == "." || string(l) == ".\r" })},
	{"aiosmtpd 1.4.4", byLF, untilLine("\n", func(l []byte) bool { return string(l) == ".\r" })},
	{"Sendmail before 8.18", cString, untilLine("\n", func(l []byte) bool { return string(bytes.TrimSuffix(l, []byte("\r"))) == "." })},
	{"CR ends a line", byAny, untilLine("\r", func(l []byte) bool { return string(bytes.Trim(l, "\n\x00")) == "." })},
	{"anything ends a line", byAny, untilAny},
}

// TestDialectsAreLenient holds the dialects to what the servers were seen to do:
// a model that is stricter than its server would prove nothing.
func TestDialectsAreLenient(t *testing.T) {
	const p, e, o, h, a = "Postfix 3.7", "Exim 4.96", "OpenSMTPD 6.8", "Haraka 3.1.6", "aiosmtpd 1.4.4"
	for _, c := range []struct {
		content string
		ends    string // the servers that see an end in it
	}{
		{"x\r\n.\r\n", p + e + o + h + a},
		{"x\r\na\n.\n", p + o + h},
		{"x\r\na\n.\r\n", p + o + h + a},
		{"x\r\n.\n", p + o + h},
		{"x\r.\r", ""},
		{"x\r\na\r.\n", ""},
		{"x\r\na\n.\r", ""},
		{"x\r\na\r.\r\n", ""},
		{"x\r\n.\rx", ""},
		{"x\r\n.\r\r\n", p},
		{"x\r\na\r\r\n.\r\r\n", p},
		{"x\r\na\n\r.\r\n", ""},
		{"x\r\na\n\r.\n\r", ""},
		{"x\r\n\x00.\r\n", ""},
		{"x\r\n.\x00\r\n", o},
		{"x\r\n.\x00junk\r\n", o},
		{"x\r\na\r\x00\n.\r\n", p + o + h + a},
		{"x\r\na\n.\x00\n", o},
		{"x\r\n. \r\n.\t\r\n.\v\r\n.\f\r\n.\x1a\r\n .\r\n", ""},
		{"x\r\n\u0085.\u0085\u2028.\u2028\r\n", ""},
		{".\n", p + e + o + h},
		{"\n.\n", p + e + o + h},
		{"\n.\r\n", p + e + o + h + a},
		{".\r\r\n", p},
		{".\x00\r\n", o},
		{"Subject: a\nx\r\n.\n", p + e + o + h},
	} {
		for _, d := range dialects[1:6] {
			if _, _, ends := d.message([]byte(c.content)); ends != strings.Contains(c.ends, d.name) {
				t.Errorf("%s: %q ends: %v", d.name, c.content, ends)
			}
		}
	}
}

func byCRLF(in []byte) (line, rest []byte, ok bool) { return bytes.Cut(in, []byte("\r\n")) }

func byLF(in []byte) (line, rest []byte, ok bool) {
	line, rest, ok = bytes.Cut(in, []byte("\n"))
	return bytes.Trim(line, "\r"), rest, ok
}

// cString ends a command at a NUL.
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

// untilAny ends a message at a dot between any two of CR, LF and NUL.
func untilAny(in []byte) (content, rest []byte, ok bool) {
	same := bytes.Clone(in)
	for i, c := range same {
		if c == '\r' || c == 0 {
			same[i] = '\n'
		}
	}
	content, rest, ok = untilLine("\n", func(l []byte) bool { return string(l) == "." })(same)
	return in[:len(content)], in[len(in)-len(rest):], ok
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

// taken are the envelopes of the messages that a server took.
func (o *modelOrigin) taken() string {
	var b strings.Builder
	for _, m := range o.messages {
		if m.code != "250" {
			continue
		}
		for _, path := range append([]string{m.sender}, m.rcpts...) {
			path, _, _ = strings.Cut(path, "> ") // its parameters
			fmt.Fprintf(&b, "%s> ", strings.TrimSuffix(path, ">"))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// recordedEnvelopes are the envelopes of the messages that the records say were taken.
func (p *play) recordedEnvelopes() string {
	var b strings.Builder
	for _, r := range p.records {
		if r.outcome != event.Accepted {
			continue
		}
		fmt.Fprintf(&b, "<%s> ", r.sender)
		for _, to := range r.rcpts {
			fmt.Fprintf(&b, "<%s> ", to)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestNoDifferential plays every conversation and every ending to every server:
// all of them take the same messages, which are those in our records.
func TestNoDifferential(t *testing.T) {
	for _, c := range conversations {
		checkDialects(t, c, 0)
		checkDialects(t, c, 1)
	}
	for _, prefix := range []string{"", "a", "Subject: a\nb", "Subject: a\r\n\r\nb"} {
		for _, e := range endings {
			for _, rules := range lenientRules {
				content := prefix + e + smuggled
				c := conversation{fmt.Sprintf("%q", content), chunkEHLO, []turn{{"EHLO c\r\n", 1}, envelope, {content + "\r\n.\r\nQUIT\r\n", -1}}, nil, &chunked{rules: rules}}
				checkDialects(t, c, 0)
				chunk := fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n", len(prefix+e), prefix+e, len(smuggled), smuggled)
				c.turns = []turn{{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\n" + chunk, -1}}
				checkDialects(t, c, 0)
			}
		}
	}
}

// lenientRules are the ways in which content may be changed on its way.
var lenientRules = []func(*protocol.Rules){
	nil,
	func(p *protocol.Rules) { p.Newlines = protocol.NormalizeNewlines },
	func(p *protocol.Rules) { p.NUL = protocol.RemoveNUL },
	func(p *protocol.Rules) { p.Newlines, p.NUL = protocol.NormalizeNewlines, protocol.RemoveNUL },
}

func checkDialects(t *testing.T, c conversation, atMost int) {
	t.Helper()
	var want string
	for i, d := range dialects {
		p := newPlay(c)
		p.origin.dialect = d
		p.client.leg.atMost = atMost
		p.run()
		got := p.origin.journal()
		if i == 0 {
			want = got
		}
		switch problem := p.lies(); {
		case problem != "":
			t.Errorf("%s, %s: %s", c.name, d.name, problem)
		case got != want:
			t.Errorf("%s: %s has\n%s\na strict server has\n%s", c.name, d.name, got, want)
		case p.origin.taken() != p.recordedEnvelopes():
			t.Errorf("%s: %s has\n%s\nthe records have\n%s", c.name, d.name, p.origin.taken(), p.recordedEnvelopes())
		}
	}
}

// FuzzClient lets a client say anything: all servers, however lenient, take the
// same messages for the same recipients, which are those in our records, and the
// client is told of no more.
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
		checkDialects(t, conversation{"fuzz", chunkEHLO, []turn{{first, strings.Count(first, "\r\n")}, {rest, -1}}, nil, nil}, int(size))
	})
}

// taken is how many messages the origin accepted.
func (p *play) taken() (n int) {
	for _, m := range p.origin.messages {
		if m.code == "250" {
			n++
		}
	}
	return n
}

// said is of how many the client was told so.
func (p *play) said() (n int) {
	for _, r := range p.client.replies {
		if strings.HasPrefix(r, "250 message") {
			n++
		}
	}
	return n
}

// lies checks what the client was told against what the origin did.
func (p *play) lies() string {
	taken, said := p.taken(), p.said()
	if said > taken {
		return fmt.Sprintf("the client was told of %d messages, the origin took %d", said, taken)
	}
	if len(p.origin.faults) > 0 {
		return fmt.Sprint(p.origin.faults)
	}
	if err := alphabet(p.origin.all); err != nil {
		return err.Error()
	}
	return ""
}
