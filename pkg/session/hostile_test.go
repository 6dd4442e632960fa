package session

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
)

// hostileOrigin answers each write of the session with whatever its script says.
// "#" in an answer becomes the number of the write, so that it can be told which
// reply came from where.
type hostileOrigin struct {
	leg    *modelLeg
	script []byte // one octet per write
	writes [][]byte
}

// answers that a hostile, broken or dying origin may give.
var hostileAnswers = []string{
	"250 w#\r\n", "250 w#\r\n", "354 w#\r\n", "550 w#\r\n", "451 w#\r\n", "421 w#\r\n", "235 w#\r\n", "334 w#\r\n", "220 w#\r\n", "221 w#\r\n",
	"250-PIPELINING\r\n250 SIZE\r\n", "250-w#\r\n250-CHUNKING\r\n250 PIPELINING\r\n", "250 w#\r\n250 w#\r\n", "250 w#\r\n250 w#\r\n250 w#\r\n",
	"250 w#\r\n550 w#\r\n354 w#\r\n", "354 w#\r\n250 w#\r\n", "", "250-w#\r\n", "250-w#\r\n550 w#\r\n", "250 w#\n", "250 w#\r250 w#\r\n", "25", "\r\n",
	"250\r\n", "garbage\r\n", "250w#\r\n", "999 w#\r\n", "250 w#\x00\r\n", "EOF", "RST", "250 w#\r\nEOF", "250 w#\r\nRST",
}

func (o *hostileOrigin) hear(p []byte) {
	o.writes = append(o.writes, p)
	if len(o.script) == 0 {
		o.leg.cutIn, o.leg.cutErr = len(o.leg.in), io.EOF
		return
	}
	answer := hostileAnswers[int(o.script[0])%len(hostileAnswers)]
	o.script = o.script[1:]
	text, dead := strings.CutSuffix(answer, "EOF")
	text, reset := strings.CutSuffix(text, "RST")
	o.leg.in = append(o.leg.in, strings.ReplaceAll(text, "#", fmt.Sprint(len(o.writes)-1))...)
	if dead {
		o.leg.cutIn, o.leg.cutErr = len(o.leg.in), io.EOF
	}
	if reset {
		o.leg.cutIn, o.leg.cutErr, o.leg.cutOut = len(o.leg.in), errReset, 0
	}
}

// playHostile runs a conversation against a hostile origin.
func playHostile(c conversation, script []byte, atMost int) (*play, *hostileOrigin) {
	p := newPlay(c)
	o := &hostileOrigin{leg: p.origin.leg, script: script}
	o.leg.heard = o.hear
	p.client.leg.atMost, o.leg.atMost = atMost, atMost
	p.run()
	return p, o
}

// holds checks that each reply of the origin that the client read came from the
// write that carried the command, and that no message counts as taken without
// the origin's 2yz to the write that committed it.
func (o *hostileOrigin) holds(p *play) string {
	var commands []string
	for _, t := range p.turns {
		commands = append(commands, split(t.send)...)
	}
	for i, r := range p.client.replies[1:] {
		var w int
		at := strings.LastIndex(r, " w")
		if i >= len(commands) || at < 0 {
			continue
		}
		if commands[i] == "." && r[0] != '2' {
			continue // a refusal may come from anywhere in the content
		}
		if n, _ := fmt.Sscanf(r[at:], " w%d", &w); n != 1 {
			continue
		}
		if !carries(string(o.writes[w]), commands[i]) {
			return fmt.Sprintf("%q was answered by %q, which answers %q", commands[i], r, o.writes[w])
		}
	}
	for _, r := range p.records {
		if r.outcome == event.Accepted && !o.committed() {
			return "a message counts as accepted that was never committed"
		}
	}
	return ""
}

// split cuts what a client sends into what gets a reply each.
func split(send string) []string {
	if strings.HasSuffix(send, "\r\n.\r\n") || send == ".\r\n" {
		return []string{"."}
	}
	if content, after, ok := strings.Cut(send, "\r\n.\r\n"); ok && content != "" {
		return append([]string{"."}, strings.Split(strings.TrimSuffix(after, "\r\n"), "\r\n")...)
	}
	return strings.Split(strings.TrimSuffix(send, "\r\n"), "\r\n")
}

// carries reports whether a write has the command in it.
func carries(write, command string) bool {
	if command == "." {
		return strings.HasSuffix(write, "\r\n.\r\n") || write == ".\r\n"
	}
	verb, _, _ := strings.Cut(command, " ")
	return strings.Contains("\r\n"+write, "\r\n"+verb)
}

func (o *hostileOrigin) committed() bool {
	for _, w := range o.writes {
		if bytes.HasSuffix(w, []byte("\r\n.\r\n")) || string(w) == ".\r\n" {
			return true
		}
	}
	return false
}

// hostileConversations have nothing that we answer ourselves, so that replies
// can be counted.
func hostileConversations() []conversation {
	return conversations[:3]
}

// good are scripts of an origin that behaves, to be spoilt at one place.
func goodScript(c conversation) []byte {
	var script []byte
	for i := 1; ; i++ {
		p, o := playHostile(c, bytes.Clone(script), 0)
		if p.outcome.End == event.EndQuit && len(o.script) == 0 && len(p.client.turns) == 0 {
			return script
		}
		if i > 40 {
			return script
		}
		script = append(script, nextGood(o))
	}
}

// nextGood chooses the answer that a good origin gives to the last write.
func nextGood(o *hostileOrigin) byte {
	last := string(o.writes[len(o.writes)-1])
	replies := strings.Count(last, "\r\n")
	want := "250 w#\r\n"
	switch {
	case strings.HasPrefix(last, "DATA"):
		want = "354 w#\r\n"
	case strings.HasPrefix(last, "EHLO"):
		want = "250-PIPELINING\r\n250 SIZE\r\n"
	case strings.HasPrefix(last, "QUIT"):
		want = "221 w#\r\n"
	case replies == 2 && !strings.HasSuffix(last, "\r\n.\r\n"):
		want = "250 w#\r\n250 w#\r\n"
	case replies == 3 && !strings.HasSuffix(last, "\r\n.\r\n"):
		want = "250 w#\r\n250 w#\r\n250 w#\r\n"
	}
	for i, a := range hostileAnswers {
		if a == want {
			return byte(i)
		}
	}
	panic(want)
}

// TestHostileOrigin spoils one and then two answers of a good origin in every
// way.
func TestHostileOrigin(t *testing.T) {
	cases := 0
	for _, c := range hostileConversations() {
		good := goodScript(c)
		if p, _ := playHostile(c, bytes.Clone(good), 0); p.outcome.End != event.EndQuit {
			t.Fatalf("%s: a good origin leads to %s: %q", c.name, p.outcome.End, p.client.replies)
		}
		for i := range good {
			for a := range hostileAnswers {
				for _, atMost := range []int{0, 1} {
					script := bytes.Clone(good)
					script[i] = byte(a)
					p, o := playHostile(c, script, atMost)
					cases++
					if problem := o.holds(p); problem != "" {
						t.Errorf("%s, answer %d is %q: %s", c.name, i, hostileAnswers[a], problem)
					}
				}
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			script := bytes.Clone(good)
			for range 2 {
				script[r.IntN(len(script))] = byte(r.IntN(len(hostileAnswers)))
			}
			p, o := playHostile(c, bytes.Clone(script), 0)
			cases++
			if problem := o.holds(p); problem != "" {
				t.Errorf("%s, script %v: %s", c.name, script, problem)
			}
		}
	}
	t.Logf("%d cases", cases)
}

func FuzzOrigin(f *testing.F) {
	for i, c := range hostileConversations() {
		f.Add(byte(i), byte(0), goodScript(c))
	}
	f.Fuzz(func(t *testing.T, which, atMost byte, script []byte) {
		list := hostileConversations()
		p, o := playHostile(list[int(which)%len(list)], script, int(atMost))
		if problem := o.holds(p); problem != "" {
			t.Fatal(problem)
		}
	})
}
