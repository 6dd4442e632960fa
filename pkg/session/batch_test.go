package session

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/portreeve/portreeve/pkg/event"
)

// TestChunksAreGathered: however small the chunks are, and whether the client waits
// for its replies or not, the origin gets the content in few writes, and each
// chunk has its reply.
func TestChunksAreGathered(t *testing.T) {
	const chunks = 20_000 // each becomes one octet, or with its dot two
	for _, c := range []struct {
		name, body, chunk string
		most              int // writes of content
	}{
		{"octets", "", "x", 1},
		{"lines", "", "x\r\n", 1},
		{"stuffed", "", ".\r\n", 2},
		{"binary", " BODY=BINARYMIME", "\x00", 1},
	} {
		for _, group := range []int{1, 100, chunks} {
			turns := []turn{{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>" + c.body + "\r\nRCPT TO:<b@d>\r\n", 2}}
			one := fmt.Sprintf("BDAT %d\r\n%s", len(c.chunk), c.chunk)
			for range chunks / group {
				turns = append(turns, turn{strings.Repeat(one, group), group})
			}
			p := newPlay(conversation{"x", chunkEHLO, append(turns, turn{"BDAT 0 LAST\r\nQUIT\r\n", 2}), nil, nil})
			p.rules.TinyChunks, p.rules.TextLine = 0, 0
			writes := 0
			p.origin.leg.heard = func(b []byte) {
				if len(p.origin.rcpts) > 0 && !strings.HasPrefix(string(b), "DATA") {
					writes++
				}
				p.origin.hear(b)
			}
			p.run()
			if p.outcome.End != event.EndQuit || len(p.origin.messages) != 1 {
				t.Fatalf("%s, groups of %d: %s, %d messages", c.name, group, p.outcome.End, len(p.origin.messages))
			}
			if writes > c.most {
				t.Errorf("%s, groups of %d: %d writes", c.name, group, writes)
			}
			if n := strings.Count(strings.Join(p.client.replies, "\n"), "Chunk taken"); n != chunks {
				t.Errorf("%s, groups of %d: %d replies to chunks", c.name, group, n)
			}
		}
	}
}

// TestSlowRepliesLeaveContentAlone: while the origin takes its time for a chunk of ours,
// the client's buffer is given back as far as that goes, and what is in it moves.
func TestSlowRepliesLeaveContentAlone(t *testing.T) {
	for _, size := range []int{50_000, 60_000, 65_000, 66_000, 133_000, 333_000} {
		synctest.Test(t, func(t *testing.T) {
			content := make([]byte, size)
			for i := range content {
				content[i] = byte(i>>8) ^ byte(i)*7
			}
			p := newPlay(conversation{"x", chunkEHLO, []turn{
				{"EHLO c\r\n", 1},
				{"MAIL FROM:<a@c> BODY=BINARYMIME\r\nRCPT TO:<b@d>\r\n", 2},
				{fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(content), content), 2},
			}, nil, nil})
			slow := 0
			p.origin.leg.heard = func(b []byte) {
				if strings.HasPrefix(string(b), "BDAT") {
					p.origin.leg.late = true
					slow++
				}
				p.origin.hear(b)
			}
			p.run()
			if slow < 2 || p.outcome.End != event.EndQuit || len(p.origin.messages) != 1 {
				t.Fatalf("%d octets: %d chunks, %s, %d messages", size, slow, p.outcome.End, len(p.origin.messages))
			}
			if got := p.origin.messages[0].content; got != string(content) {
				t.Errorf("%d octets: other content came, %d octets", size, len(got))
			}
		})
	}
}
