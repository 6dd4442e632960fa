package session

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestReplyBelongsToCommand: in any mix of commands, in any grouping and any
// segments, the i-th reply is the one to the i-th command. The model origin puts
// the command that it answers into each reply.
func TestReplyBelongsToCommand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ehlo := rapid.SampledFrom([]string{fullEHLO, "250 mx\r\n"}).Draw(t, "ehlo")
		var sent []string
		turns := []turn{{"EHLO c\r\n", 1}}
		for g := range rapid.IntRange(1, 4).Draw(t, "groups") {
			group := rapid.SliceOfN(rapid.Custom(drawLine), 1, 60).Draw(t, "group")
			for i := range group {
				group[i] = strings.ReplaceAll(group[i], "#", fmt.Sprintf("%d.%d", g, i))
			}
			sent = append(sent, group...)
			turns = append(turns, turn{strings.Join(group, "\r\n") + "\r\n", len(group)})
		}
		turns = append(turns, turn{"QUIT\r\n", 1})
		p := newPlay(conversation{"mixed", ehlo, turns, nil, nil})
		p.origin.echo = true
		p.origin.answers = map[string]string{"RCPT2": "550", "MAIL2": "451", "RCPT5": "452"}
		p.client.leg.atMost = rapid.IntRange(0, 40).Draw(t, "octets per read")
		p.origin.leg.atMost = rapid.IntRange(0, 40).Draw(t, "octets per reply read")
		p.rules.Errors = 1000
		p.run()
		replies := p.client.replies[2 : len(p.client.replies)-1] // without greeting, EHLO, QUIT
		if len(replies) != len(sent) {
			t.Fatalf("%d replies to %d commands: %q", len(replies), len(sent), replies)
		}
		for i, r := range replies {
			_, echo, echoed := strings.Cut(r, "echo ")
			if echoed && echo != sent[i] {
				t.Fatalf("%q is answered by %q", sent[i], r)
			}
			if want := localReply(sent[i]); want != "" && (echoed || !strings.HasPrefix(r, want)) {
				t.Fatalf("%q is answered by %q, not %s", sent[i], r, want)
			}
		}
	})
}

func drawLine(t *rapid.T) string {
	return rapid.SampledFrom([]string{
		"MAIL FROM:<m#@c>", "RCPT TO:<r#@d>", "RCPT TO:<r#@d>", "RCPT TO:<r#@d>", "RSET", "NOOP", "VRFY v#", "HELP h#", "EXPN e#", "RCPT broken",
	}).Draw(t, "line")
}

// localReply is what we answer ourselves.
func localReply(line string) string {
	for verb, code := range map[string]string{"VRFY": "252", "HELP": "214", "EXPN": "502", "RCPT broken": "501"} {
		if strings.HasPrefix(line, verb) {
			return code
		}
	}
	return ""
}
