package session

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// base is a conversation in which faults happen, and what is done about TLS in it.
type base struct {
	conversation
	tls   TLS
	again bool // another leg to the origin is there when the first is lost
	late  bool // the origin's faults happen on that one
}

// bases are the conversations without TLS and those with it.
func bases() (list []base) {
	for _, c := range conversations {
		list = append(list, base{conversation: c})
	}
	return slices.Concat(list, secured)
}

var (
	tlsMirror = TLS{Client: Mirror, Origin: Mirror, ClientSide: spoken{server: true}, OriginSide: spoken{}}
	tlsOrigin = TLS{Origin: Always, OriginSide: spoken{}}
)

const startEHLO = "250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"

// How the origin answers STARTTLS and HELLO: "250 for 3" is no handshake.
var (
	shakes  = map[string]string{"STAR1": "220", "HELL1": "SHAKE"}
	mumbles = map[string]string{"STAR1": "220"}
)

// What the client says: with TLS, after 454, and not knowing of any.
var (
	letterOut = []turn{{"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {content1 + ".\r\n", 1}, {"QUIT\r\n", 1}}

	throughout = append([]turn{{"EHLO c\r\n", 1}, {"STARTTLS\r\n", 1}, {"HELLO\r\n", 1}, {"EHLO c\r\n", 1}}, letterOut...)
	refused    = append([]turn{{"EHLO c\r\n", 1}, {"STARTTLS\r\n", 1}}, letterOut...)
	unasked    = append([]turn{{"EHLO c\r\n", 1}}, letterOut...)
)

// secured are as the dialogues tls-mirror, tls-origin, tls-again and
// tls-again-origin, with a message.
var secured = []base{
	{conversation: conversation{"TLS on both sides", startEHLO, throughout, shakes, nil}, tls: tlsMirror},
	{conversation: conversation{"TLS with the origin", startEHLO, unasked, shakes, nil}, tls: tlsOrigin},
	{conversation: conversation{"TLS fails, in clear again", startEHLO, refused, mumbles, nil}, tls: tlsMirror, again: true},
	{conversation: conversation{"TLS fails, in clear again, late", startEHLO, refused, mumbles, nil}, tls: tlsMirror, again: true, late: true},
	{conversation: conversation{"TLS with the origin fails, in clear again", startEHLO, unasked, mumbles, nil}, tls: tlsOrigin, again: true},
	{conversation: conversation{"TLS with the origin fails, in clear again, late", startEHLO, unasked, mumbles, nil}, tls: tlsOrigin, again: true, late: true},
}

// play returns a run of the conversation that has not begun.
func (b base) play() *play {
	p := newPlay(b.conversation)
	p.tls = b.tls
	if !b.again {
		return p
	}
	second := newModelOrigin(b.ehlo, nil)
	if b.late {
		p.struck = second
	}
	p.tls.Again = func() (Leg, netip.AddrPort, error) {
		second.leg.atMost = p.origin.leg.atMost
		p.first, p.origin = p.origin, second
		return second.leg, netip.AddrPort{}, nil
	}
	return p
}

// spoken plays handshakes on the legs of models, as player does in dialogues. What
// cannot be written shows in what is read next.
type spoken struct{ server bool }

func (s spoken) Start(leg Leg, by time.Time) (Leg, event.TLS) {
	awake := leg
	if d, ok := leg.(*dozingLeg); ok { // nobody dozes in a handshake
		awake = d.modelLeg
	}
	awake.SetReadDeadline(by)
	awake.SetWriteDeadline(by)
	want := "HELLO\r\n"
	if !s.server {
		awake.Write([]byte(want))
		want = "SHAKE for 3\r\n" // it is the third command
	}
	if f := listen(awake, want); f != event.NoFailure {
		return nil, event.TLS{Failure: f}
	}
	if s.server {
		awake.Write([]byte("SHAKE\r\n"))
	}
	return leg, event.TLS{Version: "played"}
}

// TestSecured plays the conversations with TLS undisturbed: each comes to its end
// with its message, over the leg that is meant.
func TestSecured(t *testing.T) {
	for _, b := range secured {
		p := b.play()
		p.run()
		if p.outcome.End != event.EndQuit || len(p.client.turns) != 0 || len(p.origin.messages) != 1 || p.recorded(event.Accepted) != 1 {
			t.Errorf("%s: %s, %d turns left, replies %q", b.name, p.outcome.End, len(p.client.turns), p.client.replies)
		}
		if again := p.first != nil; again != b.again || p.session.OriginTLS.Active() == again {
			t.Errorf("%s: another leg: %t; TLS %+v", b.name, again, p.session.OriginTLS)
		}
		if problem := p.promises(fault{}); problem != "" {
			t.Errorf("%s: %s", b.name, problem)
		}
	}
}
