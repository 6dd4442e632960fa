package peer

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listen starts an origin and returns its address.
func listen(t *testing.T, b Behaviour) (*Origin, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := Serve(b, listener)
	t.Cleanup(func() { origin.Close() })
	return origin, listener.Addr().String()
}

// serve starts an origin and connects a client to it.
func serve(t *testing.T, b Behaviour) (*Origin, *Client, net.Conn) {
	t.Helper()
	origin, address := listen(t, b)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return origin, NewClient(conn), conn
}

// finished waits for the end of the only session and returns it.
func finished(t *testing.T, o *Origin) Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sessions, err := o.Await(ctx, func(s []Session) bool { return len(s) == 1 && s[0].Done })
	if err != nil {
		t.Fatal(err)
	}
	return sessions[0]
}

// letter has everything that a careless end would change.
var letter = Message{
	From: "a@example.net", To: []string{"b@example.org", "c@example.org"},
	Content: "Subject: x\r\n\r\n..dot\r\nbare\nLF\rCR\x00NUL\n.\n\r\n",
}

func TestDeliverIsExact(t *testing.T) {
	origin, client, _ := serve(t, Behaviour{Extensions: []string{"PIPELINING"}})
	reply, err := client.Deliver(letter)
	if err != nil || reply.Code != 250 {
		t.Fatalf("%+v, %v", reply, err)
	}
	s := finished(t, origin)
	if diff := cmp.Diff([]Message{letter}, s.Messages); diff != "" {
		t.Error(diff)
	}
	if got := strings.Join(s.Commands, ";"); !strings.HasPrefix(got, "EHLO client.example.net;MAIL FROM:<a@example.net>;") {
		t.Errorf("commands %s", got)
	}
}

// deliver sends the letter over a connection of its own. A reset at once may
// already fail the dial.
func deliver(address string) (Reply, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return Reply{}, err
	}
	defer conn.Close()
	return NewClient(conn).Deliver(letter)
}

func TestOriginResetsAtEachPoint(t *testing.T) {
	for _, point := range Points {
		t.Run(string(point), func(t *testing.T) {
			origin, address := listen(t, Behaviour{Reset: point})
			if reply, err := deliver(address); err == nil || reply.Code != 0 {
				t.Errorf("%+v, %v; want an error", reply, err)
			}
			s := finished(t, origin)
			accepted := point == AtEnd || point == InEndReply
			if (len(s.Messages) == 1) != accepted {
				t.Errorf("%d messages ended", len(s.Messages))
			}
		})
	}
}

func TestOriginKeepsUnfinishedContent(t *testing.T) {
	origin, client, conn := serve(t, Behaviour{})
	if _, err := client.Open("c"); err != nil {
		t.Fatal(err)
	}
	if err := client.Envelope(letter); err != nil {
		t.Fatal(err)
	}
	if err := client.Write("half a line\r\n.\r"); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	s := finished(t, origin)
	if s.Content != "half a line\r\n.\r" || len(s.Messages) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRepliesCanBeReplaced(t *testing.T) {
	origin, client, _ := serve(t, Behaviour{Replies: map[string]string{".": "451-4.3.0 later\r\n451 4.3.0 please\r\n"}})
	reply, err := client.Deliver(letter)
	if err != nil || reply.Raw != "451-4.3.0 later\r\n451 4.3.0 please\r\n" || reply.Code != 451 {
		t.Errorf("%+v, %v", reply, err)
	}
	finished(t, origin)
}

func TestReplyLinesAreChecked(t *testing.T) {
	for _, line := range []string{"", "250\n", "25x ok\r\n", "250_ok\r\n", "250 ok\n"} {
		if _, _, err := parseReplyLine(line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}
