package differential

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/portreeve/portreeve/testenv/odd"
	"github.com/portreeve/portreeve/testenv/peer"
)

// parcel is an odd message on one way to an origin. Its recipient is its own.
type parcel struct {
	odd.Message
	to    string
	way   way
	chunk bool
}

// want is what must become of it.
func (p parcel) want() odd.Fate {
	content := p.Content
	if !p.chunk {
		content = odd.Ended(content)
	}
	return odd.Judge(content, odd.Policy{Normalize: p.way.name == normalizing.name})
}

// parcels sends each message by DATA or in chunks, in turn; all of them both ways if
// everything is asked for. What is refused for its newlines goes by the service that
// mends them, too.
func parcels(t *testing.T) (list []parcel) {
	t.Helper()
	all, err := odd.Messages()
	if err != nil {
		t.Fatal(err)
	}
	add := func(m odd.Message, w way, chunk bool) {
		list = append(list, parcel{m, fmt.Sprintf("m%04d@example.org", len(list)), w, chunk})
	}
	for n, m := range all {
		for _, chunk := range []bool{false, true} {
			if !*complete && chunk == (n%2 == 0) {
				continue
			}
			add(m, addressed, chunk)
			if odd.Judge(m.Content, odd.Policy{}).Why == odd.Bare {
				add(m, normalizing, chunk)
			}
		}
	}
	return list
}

// patient are settings for many messages in a session, and a hundred hops.
var patient = map[string][]string{
	"postfix": {"hopcount_limit = 1000"},
	"exim":    {"received_headers_max = 1000", "smtp_accept_queue_per_connection = 0"},
}

// TestOddMail sends the corpus of odd mail to Postfix and Exim. They store what was
// sent, octet for octet but for their own line ends and trace headers, or what they
// make of it when the gateway is not between; or it was refused, and they have
// nothing of it.
func TestOddMail(t *testing.T) {
	t.Parallel()
	for _, o := range origins {
		if o.name == "opensmtpd" { // refuses long lines, and has no BDAT
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			newStage(t, o, slices.Concat(o.large, patient[o.name])).oddMail(t)
		})
	}
}

func (s *stage) oddMail(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list := parcels(t)
	for _, w := range []way{addressed, normalizing} {
		s.dispatch(ctx, t, w, list)
	}
	stored := s.collect(ctx, t)
	var changed []parcel
	for _, p := range list {
		want := p.want()
		got, is := stored[p.to]
		if is != (want.Code == 250) {
			t.Errorf("%s: stored: %t, to be refused for: %q", p.Name, is, want.Why)
		}
		if asSent := (letter{content: want.Stored}).stored(); is && got != asSent {
			changed = append(changed, p)
		}
	}
	if len(list) < 600 || len(changed) > len(list)/10 {
		t.Errorf("%d messages, of which %d are stored changed", len(list), len(changed))
	}
	s.compareChanged(ctx, t, changed, stored)
}

// compareChanged sends directly what a server has stored in another form: it must
// have been the server's doing. They end a header with an empty line before what they
// take for none of its lines; Postfix drops Bcc, Content-Length and Return-Path and
// makes a header of a first line "From "; Exim drops folded lines of blanks at the end
// of a header, and both drop trace headers of their own kind.
func (s *stage) compareChanged(ctx context.Context, t *testing.T, changed []parcel, stored map[string]string) {
	t.Helper()
	again := slices.Clone(changed)
	for i, p := range changed {
		again[i].way, again[i].chunk, again[i].Content = direct, false, p.want().Stored
	}
	s.dispatch(ctx, t, direct, again)
	directly := s.collect(ctx, t)
	for _, p := range changed {
		t.Logf("%s itself changes %s", s.name, p.Name)
		if directly[p.to] != stored[p.to] {
			t.Errorf("%s, %s: stored is %.300q, directly %.300q", p.Name, p.way.name, stored[p.to], directly[p.to])
		}
	}
}

// dispatch sends the parcels that go a way.
func (s *stage) dispatch(ctx context.Context, t *testing.T, w way, list []parcel) {
	t.Helper()
	var c *peer.Client
	for n, p := range list {
		if p.way.name != w.name {
			continue
		}
		if c == nil || n%100 == 0 {
			conn, err := s.dial(ctx, w.to(s))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c = peer.NewClient(conn)
			if _, err := c.Open(helo); err != nil {
				t.Fatal(err)
			}
		}
		code, err := p.send(c)
		if want := p.want(); err != nil || code != want.Code {
			t.Errorf("%s: %d in place of %d %s, %v", p.Name, code, want.Code, want.Why, err)
		}
		if code != 250 {
			c = nil
		}
	}
}

// send sends the message and returns the code of the reply to it.
func (p parcel) send(c *peer.Client) (int, error) {
	m := peer.Message{From: "a@example.net", To: []string{p.to}, Content: odd.Wire(p.Content)}
	if !p.chunk {
		reply, err := c.Send(m)
		return reply.Code, err
	}
	for _, line := range []string{"MAIL FROM:<" + m.From + ">", "RCPT TO:<" + p.to + ">"} {
		if reply, err := c.Command(line); err != nil || reply.Code != 250 {
			return reply.Code, fmt.Errorf("%s: %q, %w", line, reply.Raw, err)
		}
	}
	for _, chunk := range odd.BDAT(odd.Cut(p.Content, 997, 16381)) {
		if err := c.Write(chunk); err != nil {
			return 0, err
		}
		reply, err := c.Reply()
		if err != nil || reply.Code != 250 {
			return reply.Code, err
		}
	}
	return 250, nil
}

// collect takes everything out of the origin's mailbox, by recipient.
func (s *stage) collect(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	taken, err := s.server.Taken(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	for _, d := range taken {
		if _, twice := stored[d.Recipient]; twice {
			t.Errorf("%s has two messages", d.Recipient)
		}
		stored[d.Recipient] = string(d.Content)
	}
	return stored
}
