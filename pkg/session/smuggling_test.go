package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
)

// endings are what some server somewhere takes for an end of data, in the
// middle of content. Only the first is one.
var endings = []string{
	"\r\n.\r\n",
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\n", "\n.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\r\n.\r\n",
	"\n\r.\r\n", "\n\r.\n\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\x00x\r\n", "\r\x00\n.\r\n", "\n.\x00\n", "\r\n. \r\n", "\r\n.\t\r\n",
	"\r\n .\r\n", "\r\n.\v\r\n", "\r\n.\f\r\n", "\r\n.\x1a\r\n", "\x85.\x85", "\u2028.\u2028", "\r\n..\r\n", "\r\n...\r\n",
}

// smuggled is what an attacker wants to be taken for commands.
const smuggled = "MAIL FROM:<evil@c>\r\nRCPT TO:<victim@d>\r\nDATA\r\nevil\r\n.\r\n"

// TestEndings sends each sequence, with commands behind it, cut at every octet.
// The origin gets exactly one message with everything in it, or none.
func TestEndings(t *testing.T) {
	cases := 0
	for _, prefix := range []string{"Subject: a\r\n\r\nb", "", "Subject: a\nb", "x\r\n"} {
		for _, e := range endings[1:] {
			if e == "\r\r\n.\r\n" || prefix == "" && strings.HasPrefix(e, "\r\n.\r\n") {
				continue // there is a true end in it: see TestTrueEnd
			}
			content := prefix + e + smuggled
			for at := range len(content) {
				checkEnding(t, content, at)
				cases++
			}
		}
	}
	t.Logf("%d cases", cases)
}

func checkEnding(t *testing.T, content string, at int) {
	t.Helper()
	p := newPlay(conversation{"ending", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {content, 1}, {"QUIT\r\n", 1},
	}, nil, nil})
	p.client.leg.pause = content[at:]
	p.run()
	name := fmt.Sprintf("%q cut at %d", content, at)
	last := p.client.replies[len(p.client.replies)-2]
	if p.outcome.End != event.EndQuit {
		t.Errorf("%s: %s after %q", name, p.outcome.End, p.client.replies)
	}
	switch len(p.origin.messages) {
	case 0:
		if last[0] != '5' {
			t.Errorf("%s: nothing was delivered, and the client is told %q", name, last)
		}
	case 1:
		m := p.origin.messages[0]
		if m.sender != "<a@c>" || !strings.Contains(m.content, "evil@c") || strings.ContainsAny(strings.ReplaceAll(m.content, "\r\n", ""), "\r\n\x00") {
			t.Errorf("%s: the origin has %q", name, m)
		}
		if last[:3] != "250" {
			t.Errorf("%s: it was delivered, and the client is told %q", name, last)
		}
	default:
		t.Errorf("%s: the origin has %d messages: %q", name, len(p.origin.messages), p.origin.messages)
	}
}

// TestTrueEnd: a refused message ends where an accepted one would; what follows
// are commands, and the session does not carry them out.
func TestTrueEnd(t *testing.T) {
	for _, content := range []string{"a\r\r\n.\r\n", "a\nb\r\n.\r\n", "\n\r\n.\r\n", "\x00\r\n.\r\n"} {
		p := newPlay(conversation{"ending", fullEHLO, []turn{
			{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {content + smuggled, 2},
		}, nil, nil})
		p.run()
		if len(p.origin.messages) != 0 || p.outcome.End != event.EndContent || p.outcome.Origin != Abort {
			t.Errorf("%q: %s, the origin has %q", content, p.outcome.End, p.origin.messages)
		}
		got := p.client.replies[len(p.client.replies)-2:]
		if got[0][0] != '5' || got[1][:3] != "421" {
			t.Errorf("%q: the client reads %q", content, got)
		}
	}
}
