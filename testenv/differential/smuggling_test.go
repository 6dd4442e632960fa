package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
)

// endings are what some server takes for the end of a message, in the middle of
// it. Only CRLF.CRLF is one, and it is not among them.
var endings = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\n", "\n.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n",
	"\n\r.\r\n", "\n\r.\n\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\x00x\r\n", "\r\x00\n.\r\n", "\n.\x00\n", "\r\n. \r\n", "\r\n.\t\r\n",
	"\r\n .\r\n", "\r\n.\v\r\n", "\r\n.\f\r\n", "\r\n.\x1a\r\n", "\x85.\x85", "\u2028.\u2028", "\r\n..\r\n",
}

// starts are first octets of content that are an ending in themselves for some.
var starts = []string{".\n", "\n.\n", "\n.\r\n", ".\r\r\n", ".\x00\r\n", "\r\n.\x00\r\n"}

// The two addresses of an attack.
const (
	attacker = "a@example.net"
	victim   = "victim@example.org"
)

// smuggled are the lines that an attacker wants to be taken for commands. The
// last one ends the message that it really is.
var smuggled = []string{"MAIL FROM:<evil@example.net>\r\n", "RCPT TO:<" + victim + ">\r\n", "DATA\r\n", "Subject: evil\r\n\r\nevil\r\n.\r\n"}

// attack is content with something in it that is not the end.
type attack struct {
	until string // content up to and with what is not the end
	paced bool   // wait after each part, for servers that hang up on who does not
	chunk bool   // by BDAT
}

func (a attack) String() string {
	return fmt.Sprintf("%q paced=%t chunk=%t", a.until, a.paced, a.chunk)
}

// attacks are all that the short form tries: each ending behind each beginning.
func attacks() (list []string) {
	for _, beginning := range []string{"Subject: a\r\n\r\nb", "Subject: a\nX: y\r\n\r\nb"} {
		for _, ending := range endings {
			list = append(list, beginning+ending)
		}
	}
	return append(list, starts...)
}

// launch sends an attack and returns the codes of all replies after the reply to
// DATA, or to the last RCPT where there are chunks. Whoever closes the connection
// ends it.
func (s *stage) launch(ctx context.Context, w way, a attack) ([]int, error) {
	conn, err := s.dial(ctx, w.to(s))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &conversation{Client: peer.NewClient(conn)}
	if _, err := c.Open(helo); err != nil {
		return nil, err
	}
	parts := append([]string{a.until}, smuggled...)
	if a.chunk {
		whole := strings.TrimSuffix(strings.Join(parts, ""), ".\r\n")
		parts = []string{fmt.Sprintf("BDAT %d\r\n%s", len(a.until), a.until), fmt.Sprintf("BDAT %d LAST\r\n%s", len(whole)-len(a.until), whole[len(a.until):])}
	}
	for _, line := range []string{"MAIL FROM:<" + attacker + ">", "RCPT TO:<" + mailbox + ">", "DATA"} {
		if a.chunk && line == "DATA" {
			break
		}
		if reply, err := c.Command(line); err != nil || reply.Code > 354 {
			return nil, fmt.Errorf("%s: %q, %w", line, reply.Raw, err)
		}
	}
	return c.sendAll(ctx, s, append(parts, "QUIT\r\n"), a.paced)
}

// sendAll writes the parts and reads replies to the end of the connection.
func (c *conversation) sendAll(ctx context.Context, s *stage, parts []string, paced bool) ([]int, error) {
	if !paced {
		parts = []string{strings.Join(parts, "")}
	}
	for n, part := range parts {
		if err := c.Write(part); err != nil {
			break // closed: the replies say why
		}
		if n == len(parts)-1 {
			break
		}
		if err := s.quiet(ctx); err != nil {
			return nil, err
		}
	}
	for {
		reply, err := c.Reply()
		switch {
		case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return c.codes, errors.Join(errors.New("the connection stays open"), err)
		case errors.Is(err, io.EOF):
			return c.codes, nil
		case err != nil && reply.Raw == "": // reset
			return c.codes, nil
		case err != nil:
			return c.codes, err
		}
		c.codes = append(c.codes, reply.Code)
	}
}

// quiet waits until gateway and origin have read what they were sent.
func (s *stage) quiet(ctx context.Context) error {
	return s.await(ctx, func() (bool, error) {
		for _, n := range []*testenv.Node{s.Gateway, s.Origin} {
			if unsent, unread, err := n.Pending(); err != nil || unsent+unread > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// TestNothingIsSmuggled sends everything that servers were seen to take for an
// end through the gateway to each. They are as they are by default: lenient.
func TestNothingIsSmuggled(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		for n, until := range attacks() {
			short := !*complete && n >= len(endings)
			for _, w := range []way{addressed, normalizing} {
				s.withstand(t, w, attack{until: until})
				if short {
					continue
				}
				if *complete || w.name == addressed.name {
					s.withstand(t, w, attack{until: until, paced: true})
				}
				if s.name != "opensmtpd" { // has no BDAT
					s.withstand(t, w, attack{until: until, chunk: true})
				}
			}
		}
	})
}

// withstand launches an attack at the gateway. The origin has what the gateway's
// records call accepted, and what the client was told: one message or none.
func (s *stage) withstand(t *testing.T, w way, a attack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	codes, err := s.launch(ctx, w, a)
	if err != nil {
		t.Fatalf("%s, %s, %s: %v", s.name, w.name, a, err)
	}
	records, err := s.recorded(ctx)
	if err != nil {
		t.Fatalf("%s, %s, %s: %v", s.name, w.name, a, err)
	}
	taken, err := s.server.Taken(ctx)
	if err != nil {
		t.Fatalf("%s, %s, %s: %v", s.name, w.name, a, err)
	}
	if problem := a.judge(w, codes, records, taken); problem != "" {
		t.Errorf("%s, %s, %s: %s; replies %v, records %+v, stored %+q", s.name, w.name, a, problem, codes, records, taken)
	}
}

// judge says what is wrong, "" for nothing.
func (a attack) judge(w way, codes []int, records []record, taken []mta.Delivery) string {
	messages := records[:len(records)-1]
	verdict := 0 // index of the reply to the end of the content
	if a.chunk {
		verdict = 1
	}
	switch {
	case len(messages) != 1 || messages[0].From != attacker:
		return "the records are not of one message"
	case len(codes) != verdict+2:
		return "the replies are not one for each command"
	case (codes[verdict] == 250) != (messages[0].Outcome == "accepted"):
		return "the client was told what the record does not say"
	case len(taken) != messages[0].Accepted && messages[0].Outcome == "accepted", len(taken) != 0 && messages[0].Outcome != "accepted":
		return "the origin has what the record does not say"
	case len(taken) == 0:
		return ""
	case len(taken) > 1 || taken[0].Recipient != mailbox || taken[0].Sender != attacker:
		return "the origin has another message"
	case !strings.HasSuffix(string(taken[0].Content), "\nSubject: evil\n\nevil\n"):
		return "the message is cut"
	case w.name != normalizing.name && a.whole() != string(taken[0].Content):
		return "the message is changed"
	}
	return ""
}

// whole is the content as it is stored when nothing touches it.
func (a attack) whole() string {
	text := a.until + strings.TrimSuffix(strings.Join(smuggled, ""), ".\r\n")
	if !a.chunk {
		text = strings.ReplaceAll(text, "\r\n.", "\r\n")
	}
	return strings.ReplaceAll(text, "\r\n", "\n")
}

// TestOriginsCanBeSmuggledTo launches the same attacks at the origins
// themselves. Were none successful, the test before would prove nothing.
func TestOriginsCanBeSmuggledTo(t *testing.T) {
	onStage(t, large, func(t *testing.T, s *stage) {
		var successes []string
		for _, until := range attacks() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := s.launch(ctx, direct, attack{until: until, paced: true}); err != nil {
				t.Fatalf("%s, %q: %v", s.name, until, err)
			}
			taken, err := s.server.Taken(ctx)
			if err != nil {
				t.Fatalf("%s, %q: %v", s.name, until, err)
			}
			for _, d := range taken {
				if d.Recipient == victim {
					successes = append(successes, until)
				}
			}
		}
		if len(successes) == 0 {
			t.Errorf("%s takes none of the endings", s.name)
		}
		t.Logf("%s takes %d of %d for the end of a message: %q", s.name, len(successes), len(attacks()), successes)
	})
}
