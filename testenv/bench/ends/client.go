package ends

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience bounds a whole session: longer than any that works.
const patience = 5 * time.Minute

// client carries out orders.
type client struct {
	held []*talk // sessions kept open
}

// carryOut does what it is told, and says how it went.
func (c *client) carryOut(o Order) Report {
	err := c.release() // of the order before
	if err == nil {
		err = o.check()
	}
	var r Report
	switch {
	case err != nil:
	case o.Connect:
		r.Connects, err = connectAll(o)
	default:
		r.Times, err = c.converse(o)
	}
	if err != nil {
		r.Failure = err.Error()
	}
	return r
}

func (o Order) check() error {
	switch {
	case o.Sessions < 0 || o.Sessions > 0 && o.Parallel < 1:
		return fmt.Errorf("%d sessions, %d at once", o.Sessions, o.Parallel)
	case o.Connect && (o.Hold || o.Timed || o.Messages > 0 || o.Parallel > 1):
		return errors.New("who only connects says nothing, and does it one at a time")
	case !o.Connect && !o.Hold && o.Sessions > 0 && o.Messages < 1:
		return fmt.Errorf("%d messages", o.Messages)
	case o.StartTLS && (o.Secure || o.Timed || o.Connect):
		return errors.New("who begins TLS is in clear before, is not timed, and does not only connect")
	case o.Timed && (o.Pipelined || o.Messages != 1):
		return errors.New("only sessions with one message, step by step, can be timed")
	}
	return nil
}

// converse holds the sessions of an order.
func (c *client) converse(o Order) ([]Times, error) {
	var (
		script  = newScript(o)
		times   = make([]Times, o.Sessions)
		next    atomic.Int64
		workers sync.WaitGroup
		mu      sync.Mutex // of what follows
		failed  error
	)
	for range o.Parallel {
		workers.Go(func() {
			for n := int(next.Add(1)) - 1; n < o.Sessions; n = int(next.Add(1)) - 1 {
				t, err := script.session(o, n, &times[n])
				mu.Lock()
				if t != nil {
					c.held = append(c.held, t)
				}
				if err != nil {
					failed = fmt.Errorf("session %d: %w", n+1, err)
					next.Store(int64(o.Sessions)) // for all: no more of them
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if !o.Timed {
		times = nil
	}
	return times, failed
}

// release ends the sessions that were held. It is an error when one of them is
// gone already.
func (c *client) release() error {
	var failed error
	for _, t := range c.held {
		if err := t.say([]byte("QUIT\r\n"), "221"); err != nil {
			failed = fmt.Errorf("end a session that was held: %w", err)
		}
		t.conn.Close()
	}
	c.held = nil
	return failed
}

// script is what is said in each session of an order.
type script struct {
	envelope string // MAIL, RCPT and DATA, each with its CRLF
	content  []byte // with the end of data
	last     []byte // the same, with QUIT behind it where that is pipelined
}

func newScript(o Order) *script {
	s := &script{envelope: "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"}
	s.content = content(o.Octets)
	s.last = s.content
	if o.Pipelined {
		s.last = append(bytes.Clone(s.content), "QUIT\r\n"...)
	}
	return s
}

// content makes a message of so many octets, or a few more where they are too
// few for one, and its end of data.
func content(octets int) []byte {
	const head, line = "Subject: load\r\n\r\n", 78
	text := append(make([]byte, 0, octets+line+5), head...)
	for len(text) < octets {
		n := min(max(octets-len(text), 3), line)
		text = append(text, strings.Repeat("x", n-2)...)
		text = append(text, "\r\n"...)
	}
	return append(text, ".\r\n"...)
}

// session holds session n, up to its end, or to the point where it is kept open.
func (s *script) session(o Order, n int, times *Times) (held *talk, err error) {
	t := &talk{times: times, since: time.Now()}
	if t.conn, err = dial(o, n); err != nil {
		return nil, err
	}
	t.conn.SetDeadline(t.since.Add(patience))
	if err := t.open(o.StartTLS); err != nil {
		t.conn.Close()
		return nil, err
	}
	if o.Hold {
		return t, nil
	}
	defer t.conn.Close()
	if o.Pipelined {
		return nil, s.inGroups(t, o.Messages)
	}
	return nil, s.stepByStep(t, o.Messages)
}

func dial(o Order, n int) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1, Timeout: patience}
	dialer.SetMultipathTCP(false)
	if len(o.Sources) > 0 {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Sources[n%len(o.Sources)], 0))
	}
	conn, err := dialer.Dial("tcp", o.To.String())
	if err != nil || !o.Secure {
		return conn, err
	}
	return tls.Client(conn, anybody), nil
}

// anybody is TLS with whoever the server is.
var anybody = &tls.Config{InsecureSkipVerify: true}

func (s *script) inGroups(t *talk, messages int) error {
	for n := range messages {
		if err := t.say([]byte(s.envelope), "250", "250", "354"); err != nil {
			return err
		}
		if n+1 == messages {
			return t.say(s.last, "250", "221")
		}
		if err := t.say(s.content, "250"); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) stepByStep(t *talk, messages int) error {
	for range messages {
		step := MAIL
		for line := range strings.Lines(s.envelope) {
			code := "250"
			if step == DATA {
				code = "354"
			}
			if err := t.step(step, []byte(line), code); err != nil {
				return err
			}
			step++
		}
		if err := t.step(Content, s.content, "250"); err != nil {
			return err
		}
	}
	return t.step(QUIT, []byte("QUIT\r\n"), "221")
}

// talk is one session.
type talk struct {
	conn  net.Conn
	times *Times
	since time.Time // end of the step before
}

// open reads the greeting and says EHLO, inside TLS once more where that is to be
// begun.
func (t *talk) open(startTLS bool) error {
	if err := t.step(Greeting, nil, "220"); err != nil {
		return err
	}
	if err := t.hello(); err != nil || !startTLS {
		return err
	}
	if err := t.startTLS(); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	return t.hello()
}

func (t *talk) hello() error { return t.step(EHLO, []byte("EHLO client.example.net\r\n"), "250") }

// startTLS begins TLS. match sees to it that nothing came behind the 220.
func (t *talk) startTLS() error {
	if err := t.say([]byte("STARTTLS\r\n"), "220"); err != nil {
		return err
	}
	inside := tls.Client(t.conn, anybody)
	t.conn = inside
	return inside.Handshake()
}

// step says something, waits for its reply, and notes how long that took.
func (t *talk) step(s Step, words []byte, code string) error {
	if err := t.say(words, code); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	now := time.Now()
	t.times[s], t.since = now.Sub(t.since), now
	return nil
}

// say writes words, if any, and reads one reply for each code.
func (t *talk) say(words []byte, codes ...string) error {
	if len(words) > 0 {
		if _, err := t.conn.Write(words); err != nil {
			return err
		}
	}
	var room [1024]byte
	for filled := 0; ; {
		n, err := t.conn.Read(room[filled:])
		if err != nil {
			return fmt.Errorf("%w after %q", err, room[:filled])
		}
		filled += n
		done, err := match(room[:filled], codes)
		if done || err != nil {
			return err
		}
	}
}

// match reports whether text is complete replies with the codes, no more and no
// less.
func match(text []byte, codes []string) (done bool, err error) {
	for rest := text; len(rest) > 0; {
		line, behind, complete := bytes.Cut(rest, []byte("\r\n"))
		if !complete {
			return false, nil
		}
		if len(codes) == 0 || !bytes.HasPrefix(line, []byte(codes[0])) {
			return false, fmt.Errorf("unexpected reply %q", text)
		}
		if len(line) == 3 || line[3] == ' ' {
			codes = codes[1:]
		}
		rest = behind
	}
	return len(codes) == 0, nil
}
