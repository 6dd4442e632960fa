package relay

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/odd"
	"github.com/portreeve/portreeve/testenv/peer"
)

// secrecy is a way to send odd mail inside TLS.
type secrecy struct {
	name   string
	adjust []func(*Options)
	trusts *tls.Config // whose certificate the client is shown
	policy odd.Policy
	chunk  int // octets of each; 0: DATA
}

// inspecting gives the service a policy for octets that are none of text's.
func inspecting(p odd.Policy) func(*Options) {
	rules := protocol.Default()
	if p.Normalize {
		rules.Newlines = protocol.NormalizeNewlines
	}
	if p.Remove {
		rules.NUL = protocol.RemoveNUL
	}
	return func(o *Options) {
		mx := o.Services["mx"]
		mx.Policy = policy.New(rules)
		o.Services["mx"] = mx
	}
}

// TestOddMailInsideTLS sends the corpus of odd mail inside TLS on both sides. It
// arrives as the reference says, octet for octet, or is refused and does not arrive.
// What is passed through unseen always arrives.
func TestOddMailInsideTLS(t *testing.T) {
	mirrored := func(name string, p odd.Policy, chunk int) secrecy {
		return secrecy{name, []func(*Options){withTLS(mirror, trust.Policy{}), inspecting(p)}, believing(), p, chunk}
	}
	both := odd.Policy{Normalize: true, Remove: true}
	unseen := odd.Policy{Binary: true} // any octet may pass
	for _, s := range []secrecy{
		mirrored("DATA", odd.Policy{}, 0), mirrored("one chunk", odd.Policy{}, 1<<30), mirrored("odd chunks", odd.Policy{}, 16381),
		mirrored("DATA, normalize", both, 0), mirrored("odd chunks, normalize", both, 16381),
		{"passthrough", []func(*Options){passing}, &tls.Config{RootCAs: authority.Pool(), ServerName: originName}, unseen, 0},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.send(t)
		})
	}
}

func (s secrecy) send(t *testing.T) {
	all, err := odd.Messages()
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, peer.Behaviour{Extensions: []string{"8BITMIME", "CHUNKING"}, TLS: certificate(originName)}, s.adjust...)
	var c *client
	var stored, names []string
	for n, m := range all {
		if c == nil || n%50 == 0 { // none has all the patience
			c = s.open(g)
		}
		want := s.fate(m.Content)
		code, err := s.message(c, m.Content)
		if err != nil || code != want.Code {
			t.Errorf("%s: %d in place of %d %s, %v", m.Name, code, want.Code, want.Why, err)
		}
		if code == 250 {
			stored, names = append(stored, want.Stored), append(names, m.Name)
		} else {
			c.conn.Close()
			c = nil
		}
	}
	if len(stored) < len(all)/2 {
		t.Errorf("only %d of %d are taken", len(stored), len(all))
	}
	compareStored(t, g, names, stored)
}

// compareStored compares all that the origin has, which has taken one after the other.
func compareStored(t *testing.T, g *gate, names, want []string) {
	t.Helper()
	var got []peer.Message
	for _, s := range g.origin.Sessions() {
		got = append(got, s.Messages...)
	}
	if len(got) != len(want) {
		t.Fatalf("the origin has %d messages, %d were taken", len(got), len(want))
	}
	for i, m := range got {
		if odd.Unstuffed(m.Content) != want[i] {
			t.Errorf("%s: %d octets have become %d others", names[i], len(want[i]), len(m.Content))
		}
	}
}

// open begins a session inside TLS.
func (s secrecy) open(g *gate) *client {
	g.t.Helper()
	c := g.open()
	c.conn.SetDeadline(time.Now().Add(3 * patience))
	if err := c.StartTLS(s.trusts.Clone()); err != nil {
		g.t.Fatal(err)
	}
	if reply, err := c.Command("EHLO client.example.net"); err != nil || reply.Code != 250 {
		g.t.Fatalf("EHLO: %q, %v", reply.Raw, err)
	}
	return c
}

// fate is what must become of a message.
func (s secrecy) fate(content string) odd.Fate {
	if s.chunk == 0 {
		content = odd.Ended(content)
	}
	return odd.Judge(content, s.policy)
}

// message sends a message and returns the code of the reply to it.
func (s secrecy) message(c *client, content string) (int, error) {
	m := peer.Message{From: "a@example.net", To: []string{"b@example.org"}, Content: odd.Wire(content)}
	if s.chunk == 0 {
		reply, err := c.Send(m)
		return reply.Code, err
	}
	for _, line := range []string{"MAIL FROM:<" + m.From + ">", "RCPT TO:<" + m.To[0] + ">"} {
		if reply, err := c.Command(line); err != nil || reply.Code != 250 {
			return reply.Code, fmt.Errorf("%s: %q, %w", line, reply.Raw, err)
		}
	}
	for _, chunk := range odd.BDAT(odd.Cut(content, s.chunk)) {
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
