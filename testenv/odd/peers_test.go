package odd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// The peers of a session in memory. They have no goroutines: each acts when the
// session writes to it, so that tens of thousands of sessions are played in seconds.

// leg is one side of a session, a session.Leg.
type leg struct {
	in     []byte       // what the session has not read yet
	atMost int          // octets in a read; 0: any number
	slow   bool         // silent before each read, until it has waited long
	asked  bool         // has been silent
	heard  func([]byte) // the peer reads
	readBy time.Time
}

func (l *leg) Read(p []byte) (int, error) {
	if l.asked = l.slow && !l.asked; l.asked {
		time.Sleep(time.Until(l.readBy)) // time is virtual
		return 0, os.ErrDeadlineExceeded
	}
	n := min(len(p), len(l.in))
	if l.atMost > 0 {
		n = min(n, l.atMost)
	}
	if n == 0 {
		return 0, io.EOF // who has nothing more to say hangs up
	}
	copy(p, l.in[:n])
	l.in = l.in[n:]
	return n, nil
}

func (l *leg) Write(p []byte) (int, error) {
	l.heard(p)
	return len(p), nil
}

func (l *leg) Pending() (int, error) { return min(len(l.in), 1), nil }

func (l *leg) SetReadDeadline(t time.Time) error  { l.readBy = t; return nil }
func (l *leg) SetWriteDeadline(t time.Time) error { return nil }

// turn is what a client sends at once, and how many replies it waits for then.
type turn struct {
	octets  string
	replies int
}

// client sends its turns, and QUIT as soon as something is refused.
type client struct {
	leg
	turns []turn
	due   int
	line  []byte // of a reply, not yet complete
	codes []int  // of all replies
}

// newClient returns a client that waits for its greeting.
func newClient(atMost int, slow bool, turns []turn) *client {
	c := &client{turns: turns, due: 1}
	c.leg = leg{atMost: atMost, slow: slow, heard: c.hear}
	return c
}

func (c *client) hear(p []byte) {
	c.line = append(c.line, p...)
	for {
		line, rest, whole := bytes.Cut(c.line, []byte("\r\n"))
		if !whole {
			return
		}
		c.line = rest
		if len(line) > 3 && line[3] == ' ' {
			code, _ := strconv.Atoi(string(line[:3])) // 0 is none that is expected
			c.codes = append(c.codes, code)
			if c.due--; c.due == 0 {
				c.next(code > 399)
			}
		}
	}
}

func (c *client) next(refused bool) {
	if len(c.turns) == 0 {
		return
	}
	t := c.turns[0]
	if c.turns = c.turns[1:]; refused {
		t, c.turns = quit, nil
	}
	c.due = t.replies
	c.in = append(c.in, t.octets...)
}

var quit = turn{"QUIT\r\n", 1}

// origin is a strict server: only CRLF.CRLF ends a message.
type origin struct {
	leg
	ehlo     string
	stream   []byte // not yet understood
	content  bool   // after 354
	chunk    int    // octets of a chunk that are to come
	chunked  []byte // of the message so far
	last     bool
	messages []string
	faults   []string // what it should never have been sent
}

// newOrigin returns a server that has greeted.
func newOrigin(atMost int, keywords ...string) *origin {
	o := &origin{ehlo: "250-mx\r\n"}
	for _, k := range keywords {
		o.ehlo += "250-" + k + "\r\n"
	}
	o.ehlo += "250 HELP\r\n"
	o.leg = leg{atMost: atMost, heard: o.hear, in: []byte("220 mx\r\n")}
	return o
}

func (o *origin) say(reply string) { o.in = append(o.in, reply+"\r\n"...) }

func (o *origin) hear(p []byte) {
	o.stream = append(o.stream, p...)
	for o.step() {
	}
}

// step understands one thing in front of the stream.
func (o *origin) step() bool {
	switch {
	case o.content:
		return o.takeContent()
	case o.chunk > 0:
		return o.takeChunk()
	}
	line, rest, whole := bytes.Cut(o.stream, []byte("\r\n"))
	if !whole {
		return false
	}
	o.stream = rest
	o.command(string(line))
	return true
}

func (o *origin) command(line string) {
	verb, argument, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO":
		o.in = append(o.in, o.ehlo...)
	case "DATA":
		o.content = true
		o.say("354 go on")
	case "BDAT":
		size, last, _ := strings.Cut(argument, " ")
		o.chunk, _ = strconv.Atoi(size)
		o.last = last == "LAST"
		if o.chunk == 0 {
			o.endChunk()
		}
	case "MAIL", "RCPT", "RSET":
		o.say("250 ok")
	case "QUIT":
		o.say("221 bye")
	default:
		o.faults = append(o.faults, fmt.Sprintf("command %.80q", line))
		o.say("500 what")
	}
}

// takeContent takes what follows 354, once it is complete.
func (o *origin) takeContent() bool {
	raw, rest, ended := cutContent(o.stream)
	if !ended {
		return false
	}
	o.stream, o.content = rest, false
	if bytes.ContainsAny(bytes.ReplaceAll(raw, []byte("\r\n"), nil), "\r\n\x00") {
		o.faults = append(o.faults, "octets in DATA that each server reads in its own way")
	}
	o.messages = append(o.messages, Unstuffed(string(raw)))
	o.say("250 message taken")
	return true
}

// cutContent cuts at the end of data.
func cutContent(stream []byte) (raw, rest []byte, ended bool) {
	if rest, ended = bytes.CutPrefix(stream, []byte(".\r\n")); ended {
		return nil, rest, true
	}
	i := bytes.Index(stream, []byte("\r\n.\r\n"))
	if i < 0 {
		return nil, nil, false
	}
	return stream[:i+2], stream[i+5:], true
}

func (o *origin) takeChunk() bool {
	n := min(o.chunk, len(o.stream))
	o.chunked = append(o.chunked, o.stream[:n]...)
	o.stream, o.chunk = o.stream[n:], o.chunk-n
	if o.chunk > 0 {
		return false
	}
	o.endChunk()
	return true
}

func (o *origin) endChunk() {
	if o.last {
		o.messages = append(o.messages, string(o.chunked))
		o.chunked = nil
	}
	o.say("250 chunk taken")
}
