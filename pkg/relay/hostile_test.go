package relay

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/peer"
)

// spoiler does something instead of a reply inside TLS; raw is what is below.
type spoiler func(raw *net.TCPConn, inside *tls.Conn)

// spoiled is an origin that starts TLS and takes mail, up to a command, or a line
// of content ("content"), or the end of data (".").
func spoiled(t *testing.T, at string, spoil spoiler) func(*Options) {
	t.Helper()
	return withOrigin(t, func(conn *net.TCPConn) {
		defer conn.Close()
		inside := tls.Server(conn, certificate(originName))
		io.WriteString(conn, "220 mx\r\n")
		if obey(bufio.NewReader(conn), conn, "STARTTLS") && obey(bufio.NewReader(inside), inside, at) {
			spoil(conn, inside)
		}
	})
}

// obey answers commands until one of them is until, which it answers only if it is
// STARTTLS.
func obey(in *bufio.Reader, out io.Writer, until string) bool {
	content := false
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if content && verb != "." {
			verb = "content"
		}
		switch {
		case verb == "STARTTLS":
			io.WriteString(out, "220 go\r\n")
			return true
		case verb == until:
			return true
		case verb == "EHLO":
			io.WriteString(out, "250-mx\r\n250 STARTTLS\r\n")
		case verb == "DATA":
			content = true
			io.WriteString(out, "354 go\r\n")
		case verb != "content":
			io.WriteString(out, "250 ok\r\n")
		}
	}
}

// say writes inside TLS, and then does something below.
func say(text string, then func(raw *net.TCPConn, inside *tls.Conn)) spoiler {
	return func(raw *net.TCPConn, inside *tls.Conn) {
		io.WriteString(inside, text)
		then(raw, inside)
	}
}

func notify(_ *net.TCPConn, inside *tls.Conn) { inside.CloseWrite() }
func end(*net.TCPConn, *tls.Conn)             {}
func reset(raw *net.TCPConn, _ *tls.Conn)     { raw.SetLinger(0) }
func below(p ...byte) spoiler                 { return func(raw *net.TCPConn, _ *tls.Conn) { raw.Write(p) } }

// TestOriginBreaksOffInsideTLS: however an origin ends its stream, told or not, a
// message counts as taken only after a whole reply.
func TestOriginBreaksOffInsideTLS(t *testing.T) {
	for name, k := range map[string]struct {
		at    string
		spoil spoiler
	}{
		"half a reply, no notice": {".", say("250 ok", end)},
		"half a reply, notice":    {".", say("250 ok\r", notify)},
		"half a reply, reset":     {".", say("250 ok", reset)},
		"no reply, notice":        {".", say("", notify)},
		"a reply below TLS":       {".", below([]byte("250 ok\r\n")...)},
		"an alert below TLS":      {".", below(21, 3, 3, 0, 2, 2, 0)},
		"half a record":           {".", below(23, 3, 3, 0, 30, '2', '5', '0')},
		"within the content":      {"content", say("", notify)},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, peer.Behaviour{}, withTLS(mirror, trust.Policy{}), spoiled(t, k.at, k.spoil))
			c := g.open()
			if err := c.StartTLS(believing()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Command("EHLO client.example.net"); err != nil {
				t.Fatal(err)
			}
			m := mail
			m.Content = strings.Repeat("content\r\n", 10000)
			if reply, err := c.Send(m); err != nil || reply.Code/100 != 4 {
				t.Errorf("the client was told %q, %v", reply.Raw, err)
			}
			c.conn.Close()
			if r := g.record(); r.Messages != 0 || slices.Contains(g.records.messages, event.Accepted) {
				t.Errorf("%d messages, %v", r.Messages, g.records.messages)
			}
		})
	}
}

// dripping sends octet by octet, from when it is told to.
type dripping struct {
	net.Conn
	drips bool
	wait  func() // before each octet
}

func (d *dripping) Write(p []byte) (int, error) {
	if !d.drips {
		return d.Conn.Write(p)
	}
	for i := range p {
		d.wait()
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TestRestWithPartOfARecord: what wakes a session may be nothing yet.
func TestRestWithPartOfARecord(t *testing.T) {
	g := start(t, peer.Behaviour{TLS: certificate(originName)}, withTLS(mirror, trust.Policy{}))
	conn := g.dial().conn
	d := &dripping{Conn: conn, wait: func() { time.Sleep(5 * time.Millisecond) }}
	c := peer.NewClient(d)
	if _, err := c.Open("client.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(believing()); err != nil {
		t.Fatal(err)
	}
	g.awaitRest(1)
	d.drips = true
	for range 2 {
		if reply, err := c.Command("EHLO client.example.net"); err != nil || reply.Code != 250 {
			t.Fatalf("%q, %v", reply.Raw, err)
		}
	}
	d.drips = false
	g.awaitRest(2)
	if reply, err := c.Send(mail); err != nil || reply.Code != 250 {
		t.Fatalf("%q, %v", reply.Raw, err)
	}
}
