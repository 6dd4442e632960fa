package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/testenv/descriptors"
	"github.com/portreeve/portreeve/testenv/peer"
)

func TestCarriesMailFromTheClientsAddress(t *testing.T) {
	g := start(t, peer.Behaviour{}, forging)
	from := netip.MustParseAddr("127.0.0.99")
	c := g.dialFrom(from, g.addr())
	reply, err := c.Deliver(mail)
	if err != nil || reply.Raw != "250 2.0.0 Queued as TEST1\r\n" {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
	c.expectEnd()
	g.empty()
	seen := g.await(over)[0]
	if seen.Client.Addr() != from || len(seen.Messages) != 1 || seen.Messages[0].Content != mail.Content {
		t.Errorf("origin saw %+v", seen)
	}
	if g.records.forged[0] != seen.Client || g.records.ends[0] != event.EndQuit {
		t.Errorf("recorded %+v", g.records)
	}
}

func TestCarriesMailOverIPv6(t *testing.T) {
	g := start(t, peer.Behaviour{}, notForging)
	c := g.dialFrom(netip.Addr{}, g.listeners.All()[1].Addr())
	if _, err := c.Deliver(mail); err != nil {
		t.Fatal(err)
	}
}

func TestSessionsTellsWhatIsUnderWay(t *testing.T) {
	g := start(t, peer.Behaviour{}, forging)
	first, second := g.open(), g.open()
	sessions := g.relay.Sessions()
	if len(sessions) != 2 || sessions[1].Start.Before(sessions[0].Start) {
		t.Fatalf("%+v", sessions)
	}
	for i, c := range []*client{first, second} {
		s := sessions[i]
		if s.Flow.Client.String() != c.conn.LocalAddr().String() || s.Flow.Service != "mx" || s.Flow.Server != g.addr() ||
			!s.Path.Forged() || s.Path.Source.Addr() != s.Flow.Client.Addr() {
			t.Errorf("session %d: %+v", i, s)
		}
		c.Command("QUIT")
	}
	g.empty()
	if left := g.relay.Sessions(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestLimitOfSessions(t *testing.T) {
	g := start(t, peer.Behaviour{}, func(o *Options) { o.Sessions = 2 })
	first, second := g.open(), g.open()
	third := g.dial()
	third.expect("421 4.3.2 ")
	third.expectEnd()
	first.Command("QUIT")
	second.Command("QUIT")
	g.empty()
	if _, err := g.dial().Deliver(mail); err != nil {
		t.Errorf("after the others have left: %v", err)
	}
}

// TestWithoutDescriptors: a client that comes when there is no descriptor left reads
// that it must come again, and is told of in the log.
func TestWithoutDescriptors(t *testing.T) {
	g := start(t, peer.Behaviour{})
	if _, err := g.dial().Deliver(mail); err != nil { // all that accept have begun to: else they meet an error at once
		t.Fatal(err)
	}
	g.await(over)
	g.empty()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	free := descriptors.Exhaust(t)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(g.addr().Port()), Addr: g.addr().Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)})
	said := make([]byte, 200)
	n, err := unix.Read(fd, said)
	if want := "421 4.3.2 Out of resources, please try again later [session "; err != nil || !strings.HasPrefix(string(said[:max(n, 0)]), want) {
		t.Errorf("it reads %q, %v", said[:max(n, 0)], err)
	}
	free()
	if _, err := g.dial().Deliver(mail); err != nil {
		t.Errorf("with descriptors again: %v", err)
	}
	if log := g.log.String(); !strings.Contains(log, "no descriptor left") {
		t.Errorf("log %q", log)
	}
}

func TestRefusesBeforeTheGreetingWithoutAnOrigin(t *testing.T) {
	g := start(t, peer.Behaviour{})
	g.origin.Close()
	c := g.dial()
	c.expect("421 4.4.1 The mail server refuses connections")
	c.expectEnd()
	g.empty()
	if g.records.ends[0] != event.EndNoOrigin {
		t.Errorf("recorded %+v", g.records.ends)
	}
	if log := g.log.String(); !strings.Contains(log, "connection refused") || !strings.Contains(log, "service=mx") {
		t.Errorf("log %q does not say why", log)
	}
}

func TestRepliesToDialErrors(t *testing.T) {
	refused := &forward.Error{Class: forward.ErrRefused}
	for _, c := range []struct {
		err  error
		want string
	}{
		{refused, "421 4.4.1 The mail server refuses"},
		{&forward.Error{Class: forward.ErrTimeout}, "421 4.4.1 The mail server does not answer"},
		{&forward.Error{Class: forward.ErrUnreachable}, "421 4.4.1 The mail server cannot be reached,"},
		{&forward.Error{Class: forward.ErrNoAddress}, "421 4.4.5 "},
		{&forward.Error{Class: forward.ErrFamily}, "421 4.4.1 The mail server cannot be reached by this version of IP"},
		{&forward.Error{Class: forward.ErrLinkLocal}, "421 4.4.1 Your address is link-local"},
		{&forward.Error{Class: forward.ErrLoop}, "421 4.4.6 "},
		{&forward.Error{Class: forward.ErrOnLink}, "421 4.4.1 Your address is on the mail server's own network"},
		{forward.Failures{refused, &forward.Error{Class: forward.ErrOnLink}}, "421 4.4.1 Your address"},
		{&forward.Error{Class: forward.ErrResources}, "421 4.3.2 "},
		{&forward.Error{Class: context.Canceled}, "421 4.3.2 Service is restarting"},
		{errors.New("else"), "421 4.3.0 "},
		{forward.Failures{refused, &forward.Error{Class: forward.ErrLoop}}, "421 4.4.6 "},
	} {
		r := refusalFor(c.err)
		if got := r.Error(); !strings.HasPrefix(got, c.want) || r.Reason == event.NoReason {
			t.Errorf("%v: %q, want %s", c.err, got, c.want)
		}
	}
}

func TestServiceThatIsGone(t *testing.T) {
	g := start(t, peer.Behaviour{})
	services := *g.relay.services.Load()
	g.relay.Replace(map[string]Service{}, nil)
	g.dial().expect("421 4.3.0 ")
	g.relay.Replace(services, nil)
	if _, err := g.dial().Deliver(mail); err != nil {
		t.Error(err)
	}
}

// TestUnforgedIsRecorded: the records of session and message say that, and why, the
// origin saw the gateway's own address; for the log that is no news.
func TestUnforgedIsRecorded(t *testing.T) {
	for _, c := range []struct {
		want   event.Unforged
		adjust func(*forward.Dialer)
	}{
		{event.OtherFamily, func(d *forward.Dialer) { d.Forge.Address = config.ForgePrefer }}, // IPv6 to an IPv4 origin
		{event.UnforgedOnLink, func(d *forward.Dialer) {
			d.Forge.OnLink, d.OnLink = config.OnLinkPlain, func(netip.Addr, netip.Addr) bool { return true }
		}},
		{event.NotUnforged, func(d *forward.Dialer) { d.Forge.Address = config.ForgeNever }},
	} {
		g := start(t, peer.Behaviour{}, func(o *Options) { c.adjust(o.Services["mx"].Dialer) })
		if _, err := g.dialFrom(netip.Addr{}, g.listeners.All()[1].Addr()).Deliver(mail); err != nil {
			t.Fatal(err)
		}
		g.empty()
		if r := g.records; r.forged[0].IsValid() || r.full[0].Unforged != c.want || !slices.Equal(r.unforged, []event.Unforged{c.want}) {
			t.Errorf("%q: forged %v, session %q, messages %v", c.want, r.forged, r.full[0].Unforged, r.unforged)
		}
		if g.log.String() != "" {
			t.Errorf("%q is news: %s", c.want, g.log.String())
		}
	}
}

// TestOnLinkIsRefused: before an attempt, with a reason of its own.
func TestOnLinkIsRefused(t *testing.T) {
	g := start(t, peer.Behaviour{}, forging, func(o *Options) {
		o.Services["mx"].Dialer.OnLink = func(client, origin netip.Addr) bool { return client == origin }
	})
	c := g.dial()
	c.expect("421 4.4.1 Your address is on the mail server's own network, which answers it past this gateway: ")
	c.expectEnd()
	g.empty()
	r := g.records.full[0]
	if r.End != event.EndNoOrigin || !slices.Equal(r.Refusals, []event.Tally{{Reason: event.ReasonOnLink, Count: 1}}) ||
		len(r.Unreached) != 1 || r.Unreached[0].Trouble != event.TroubleOnLink || r.Unforged != event.NotUnforged {
		t.Errorf("recorded %+v", r)
	}
	if seen := g.origin.Sessions(); len(seen) != 0 {
		t.Errorf("the origin saw %+v", seen)
	}
}

// Whatever the client was still sending, it reads our last words.
func TestLastWordsSurviveUnreadInput(t *testing.T) {
	garbage := strings.Repeat("NOOP\r\n", 50_000)
	for name, sent := range map[string]string{"after QUIT": "QUIT\r\n" + garbage, "too many errors": strings.Repeat("WHAT\r\n", 30) + garbage} {
		t.Run(name, func(t *testing.T) {
			g := start(t, peer.Behaviour{})
			c := g.open()
			go c.Write(sent) // may block until the relay reads, or fail at the end
			last := peer.Reply{}
			for {
				reply, err := c.Reply()
				if err != nil {
					if err != io.EOF {
						t.Errorf("the stream ended with %v", err)
					}
					break
				}
				last = reply
			}
			if last.Code != 221 && last.Code != 421 {
				t.Errorf("last words were %q", last.Raw)
			}
		})
	}
}

func TestClientResetInContentLeavesNoMessage(t *testing.T) {
	g := start(t, peer.Behaviour{})
	c := g.open()
	if err := c.Envelope(mail); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(mail.Content); err != nil {
		t.Fatal(err)
	}
	peer.Reset(c.conn)
	g.empty()
	if seen := g.await(over)[0]; len(seen.Messages) != 0 {
		t.Errorf("origin took %+v", seen.Messages)
	}
	if !slices.Equal(g.records.messages, []event.Outcome{event.Aborted}) {
		t.Errorf("recorded %v", g.records.messages)
	}
}

func TestOriginResetNeverReadsAsSuccess(t *testing.T) {
	for _, point := range peer.Points {
		t.Run(string(point), func(t *testing.T) {
			g := start(t, peer.Behaviour{Reset: point})
			c := g.dial()
			reply, err := c.Deliver(mail)
			c.conn.Close()
			if err == nil && reply.Code/100 != 4 || reply.Code == 250 && point != peer.AtEHLO {
				t.Errorf("client read %q, %v", reply.Raw, err)
			}
			g.empty()
		})
	}
}

// trap is an inspector with a fault.
type trap struct{ *policy.Plain }

func (t trap) Open(*flow.Flow) (policy.Conversation, policy.Answer) { return t, policy.Answer{} }

func (trap) Command(*policy.Envelope, *smtp.Command) policy.Answer { panic("trap") }

func (trap) Close() { panic("trap") }

func TestFaultEndsOneSessionOnly(t *testing.T) {
	g := start(t, peer.Behaviour{}, func(o *Options) {
		o.Services["trap"] = Service{Dialer: o.Services["mx"].Dialer, Policy: trap{policy.New(protocol.Default())}}
	})
	other := g.open()
	services := *g.relay.services.Load()
	g.relay.Replace(map[string]Service{"mx": services["trap"]}, nil)
	if reply, err := g.dial().Open("client.example.net"); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("client read %q, %v; want a reset", reply.Raw, err)
	}
	g.await(func(s []peer.Session) bool { return len(s) == 2 && s[1].Done })
	if reply, err := other.Send(mail); err != nil || reply.Code != 250 {
		t.Errorf("the other session: %q, %v", reply.Raw, err)
	}
	other.Command("QUIT")
	g.empty()
	if log := g.log.String(); !strings.Contains(log, "fault=trap") || !strings.Contains(log, "relay_test.go") {
		t.Errorf("log %q does not say where the fault was", log)
	}
	if !slices.Contains(g.records.ends, event.EndFault) {
		t.Errorf("recorded %v, want the fault", g.records.ends)
	}
}

// faulty is a sink with a fault at one of its events.
type faulty struct {
	event.Sink
	event string
	log   *[]string
	mu    *sync.Mutex
}

func (f faulty) note(event string) {
	f.mu.Lock()
	*f.log = append(*f.log, event)
	f.mu.Unlock()
	if f.event == event {
		panic("faulty")
	}
}

func (f faulty) Opened(*flow.Flow)      { f.note("opened") }
func (f faulty) Session(*event.Session) { f.note("session") }

// TestFaultIsRecordedOnce: whenever a fault happens, a session that was opened is
// closed once, or the sessions that count as open are not those that are.
func TestFaultIsRecordedOnce(t *testing.T) {
	for _, at := range []string{"opened", "session"} {
		var log []string
		var mu sync.Mutex
		g := start(t, peer.Behaviour{}, func(o *Options) { o.Sink = faulty{o.Sink, at, &log, &mu} })
		if conn, err := net.Dial("tcp", g.addr().String()); err == nil { // else it was reset at once
			conn.Close()
		}
		g.waitFor(func() bool { return strings.Contains(g.log.String(), "fault=faulty") })
		g.empty()
		mu.Lock()
		if !slices.Equal(log, []string{"opened", "session"}) {
			t.Errorf("a fault at %s: %v", at, log)
		}
		mu.Unlock()
	}
}

func TestServeEndsWithItsListeners(t *testing.T) {
	g := start(t, peer.Behaviour{})
	g.listeners.Close()
	if err := <-g.served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v, want %v", err, net.ErrClosed)
	}
}

func TestManySessionsAtOnce(t *testing.T) {
	g := start(t, peer.Behaviour{}, forging)
	results := make(chan error, 50)
	for i := range cap(results) {
		c := g.dialFrom(netip.MustParseAddr(fmt.Sprintf("127.0.1.%d", i+1)), g.addr())
		go func() {
			_, err := c.Deliver(mail)
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	g.empty()
}
