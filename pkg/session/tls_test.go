package session

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// In dialogues TLS is played: the one who starts it sends the line HELLO, the
// other answers SHAKE, and from then on everything is as
// before. An end that is told is the line NOTIFY. The tests of packages secure and
// relay have the real one.

// setTLS reads a tls step: a mode and adjectives.
func (s *stage) setTLS(arg string) error {
	for _, word := range strings.Fields(arg) {
		switch word {
		case "mirror":
			s.tls.Client, s.tls.Origin = Mirror, Mirror
		case "client":
			s.tls.Client = Always
		case "origin":
			s.tls.Origin = Always
		case "passthrough":
			s.tls.Tunnel = s.tunnel
		case "off":
		case "clientmust":
			s.tls.ClientMust = true
		case "originmust":
			s.tls.OriginMust = true
		case "clientimplicit":
			s.tls.Client = Implicit
		case "originimplicit":
			s.tls.Origin = Implicit
		case "again":
			s.tls.Again = s.redial
		case "authentic":
			s.tls.OriginSide = &player{peer: event.Verified}
		default:
			return fmt.Errorf("unknown word %q", word)
		}
		if s.tls.Mode == "" {
			s.tls.Mode = word
		}
	}
	if s.tls.Client != Never {
		s.tls.ClientSide = &player{server: true}
	}
	if s.tls.Origin != Never && s.tls.OriginSide == nil {
		s.tls.OriginSide = &player{}
	}
	return nil
}

// redial makes another origin leg; the steps of the origin are about this one then.
func (s *stage) redial() (Leg, netip.AddrPort, error) {
	first := s.origin
	s.origin = newMemoryLeg()
	s.origin.atMost = first.atMost
	return s.origin, netip.MustParseAddrPort("192.0.2.1:50000"), nil
}

// expectTLS compares what the record says: client=ok origin=refused, "-" where
// nobody asked.
func (s *stage) expectTLS(want string) error {
	if s.record == nil {
		return errors.New("no session record yet")
	}
	word := func(t *event.TLS) string {
		switch {
		case t == nil:
			return "-"
		case t.Active():
			return "ok"
		}
		return t.Failure.String()
	}
	got := fmt.Sprintf("client=%s origin=%s", word(s.record.ClientTLS), word(s.record.OriginTLS))
	if o := s.record.Opaque; o != nil {
		got += fmt.Sprintf(" opaque=%d+%d", o.FromClient, o.FromOrigin)
	}
	if got != want {
		return fmt.Errorf("got %s", got)
	}
	return nil
}

// player plays the handshakes of one side.
type player struct {
	server bool
	peer   event.Verification
}

// Start plays a handshake.
func (p *player) Start(leg Leg, by time.Time) (Leg, event.TLS) {
	leg.SetReadDeadline(by)
	want := "HELLO\r\n"
	if !p.server {
		leg.Write([]byte(want))
		want = "SHAKE\r\n"
	}
	if f := listen(leg, want); f != event.NoFailure {
		return nil, event.TLS{Failure: f}
	}
	if p.server {
		leg.Write([]byte("SHAKE\r\n"))
	}
	return inside{leg.(*memoryLeg)}, event.TLS{Version: "played", Peer: p.peer}
}

// listen reads want, octet by octet so that nothing behind it is taken.
func listen(leg Leg, want string) event.Failure {
	for i := range len(want) {
		var octet [1]byte
		_, err := leg.Read(octet[:])
		switch {
		case timedOut(err):
			return event.FailureTimeout
		case err != nil:
			return event.FailureClosed
		case octet[0] != want[i]:
			return event.FailureNotTLS
		}
	}
	return event.NoFailure
}

// inside is a leg inside TLS that is played.
type inside struct{ *memoryLeg }

func (l inside) CloseNotify() error {
	_, err := l.Write([]byte("NOTIFY\r\n"))
	return err
}

// tunnel carries octets until both sides have ended.
func (s *stage) tunnel(idle time.Duration, _ time.Time) event.Opaque {
	var o event.Opaque
	var both sync.WaitGroup
	carry := func(to, from *memoryLeg, n *int64) {
		for {
			from.SetReadDeadline(time.Now().Add(idle))
			var p [100]byte
			k, err := from.Read(p[:])
			*n += int64(k)
			to.Write(p[:k])
			if err != nil && err != io.EOF {
				o.Detail = "broken off"
			}
			if err != nil {
				return
			}
		}
	}
	both.Go(func() { carry(s.origin, s.client, &o.FromClient) })
	both.Go(func() { carry(s.client, s.origin, &o.FromOrigin) })
	both.Wait()
	return o
}
