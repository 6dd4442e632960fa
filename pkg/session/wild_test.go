package session

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/zone"
)

// This file lets a client and an origin say anything to each other, under any
// rules, and holds the session to its promises.

// Octets of a wild client that stand for something else.
const (
	waits  = 0xFE // what follows comes when the session has nothing to read
	dozes  = 0xFD // the same, and later: the first deadline passes before
	breaks = 0xFC // the connection is reset
	deaf   = 0xFB // from here on it takes nothing
)

// wild is a run with two wild peers.
type wild struct {
	client  *wildClient
	origins []*wildOrigin
	script  []byte // what origins answer, an octet for each write
	writes  int    // to all origins together
	commits []commit
	rules   protocol.Rules
	o       Options
	started int // handshakes so far
	failing byte

	outcome  Outcome
	sessions int
	records  []event.Message
}

// commit is a write that ended a message.
type commit struct {
	write   int
	content []byte // without dots stuffed
}

func (w *wild) Opened(*flow.Flow)                {}
func (w *wild) Refused(*flow.Flow, event.Reason) {}
func (w *wild) Session(*event.Session)           { w.sessions++ }

func (w *wild) Message(m *event.Message) {
	kept := *m
	kept.Reply.Text, kept.Sender = bytes.Clone(m.Reply.Text), bytes.Clone(m.Sender)
	w.records = append(w.records, kept)
}

// wildClient is the client's leg.
type wildClient struct {
	w      *wild
	script []byte // not yet sent
	all    []byte // sent
	out    []byte // written to it
	atMost int
	slept  bool
	readBy time.Time
	err    error
	deaf   bool
	naked  string // what is wrong with how the session waits
}

// ready returns the octets that are there now.
func (c *wildClient) ready() []byte {
	for i, b := range c.script {
		if b >= deaf && b <= waits {
			return c.script[:i]
		}
	}
	return c.script
}

func (c *wildClient) Read(p []byte) (int, error) {
	if c.readBy.IsZero() {
		c.naked = "the session reads from the client without a deadline"
	}
	c.w.late()
	for c.err == nil && len(c.ready()) == 0 {
		if len(c.script) == 0 {
			c.err = io.EOF
			break
		}
		switch c.script[0] {
		case dozes:
			if c.slept = !c.slept; c.slept {
				return 0, os.ErrDeadlineExceeded
			}
		case breaks:
			c.err = errReset
		case deaf:
			c.deaf = true
		}
		c.script = c.script[1:]
	}
	if c.err != nil {
		return 0, c.err
	}
	n := len(p)
	if c.atMost > 0 {
		n = min(n, c.atMost)
	}
	n = copy(p[:n], c.ready())
	c.all = append(c.all, c.script[:n]...)
	c.script = c.script[n:]
	return n, nil
}

func (c *wildClient) Write(p []byte) (int, error) {
	if c.deaf || c.err == errReset {
		return 0, errReset
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

func (c *wildClient) SetReadDeadline(t time.Time) error { c.readBy = t; return nil }
func (c *wildClient) SetWriteDeadline(time.Time) error  { return nil }
func (c *wildClient) Sleep()                            {}

func (c *wildClient) Pending() (int, error) {
	switch {
	case len(c.ready()) > 0:
		return 1, nil
	case len(c.script) == 0:
		return 0, io.EOF
	}
	return 0, c.err
}

// wildOrigin is an origin's leg. It follows what it has said itself: it is inside
// content when the reply to DATA was 354.
type wildOrigin struct {
	w       *wild
	in      []byte // said and not yet read
	later   []byte // to be said while the session waits for its client
	err     error  // what follows
	dead    bool   // it can not be written to
	atMost  int
	aborted bool
	slow    bool // the next read meets its deadline first
	readBy  time.Time

	inContent bool
	inChunks  bool
	inAuth    bool
	content   []byte
	faults    []string
}

func (w *wild) origin() *wildOrigin { return w.origins[len(w.origins)-1] }

// late makes the origin say what it has kept back.
func (w *wild) late() {
	o := w.origin()
	o.in, o.later = append(o.in, o.later...), nil
}

func (w *wild) newOrigin(atMost int) *wildOrigin {
	o := &wildOrigin{w: w, atMost: atMost}
	w.origins = append(w.origins, o)
	o.say(w.next(), []string{"greeting"})
	return o
}

// next returns the next octet of the origins' script. Behind its end they behave.
func (w *wild) next() byte {
	if len(w.script) == 0 {
		return 0
	}
	b := w.script[0]
	w.script = w.script[1:]
	return b
}

func (o *wildOrigin) Read(p []byte) (int, error) {
	if o.readBy.IsZero() {
		o.faults = append(o.faults, "the session reads without a deadline")
	}
	if o.slow {
		o.slow = false
		return 0, os.ErrDeadlineExceeded
	}
	if len(o.in) == 0 {
		if o.err == nil {
			o.err = io.EOF // nothing more ever comes
		}
		return 0, o.err
	}
	n := len(p)
	if o.atMost > 0 {
		n = min(n, o.atMost)
	}
	n = copy(p[:n], o.in)
	o.in = o.in[n:]
	return n, nil
}

func (o *wildOrigin) SetReadDeadline(t time.Time) error { o.readBy = t; return nil }
func (o *wildOrigin) SetWriteDeadline(time.Time) error  { return nil }
func (o *wildOrigin) Abort() error                      { o.aborted = true; return nil }

func (o *wildOrigin) Pending() (int, error) {
	switch {
	case o.slow:
		return 0, nil
	case len(o.in) > 0:
		return 1, nil
	}
	return 0, o.err
}

func (o *wildOrigin) Write(p []byte) (int, error) {
	if o.dead || o.aborted {
		return 0, errReset
	}
	commands := o.hear(p)
	o.say(o.w.next(), commands)
	o.w.writes++
	return len(p), nil
}

// hear understands a write and returns what it asks to be answered.
func (o *wildOrigin) hear(p []byte) (commands []string) {
	if o.inContent {
		o.content = append(o.content, p...)
		if whole := append([]byte("\r\n"), o.content...); bytes.HasSuffix(whole, endOfData) {
			o.commit(bytes.ReplaceAll(whole[:len(whole)-3], []byte("\r\n."), []byte("\r\n"))[2:])
			o.inContent = false
			return []string{"end"}
		}
		return nil
	}
	for len(p) > 0 {
		line, rest, ok := bytes.Cut(p, []byte("\r\n"))
		if !ok || !isCommandText(line) || bytes.Equal(line, []byte(".")) {
			o.faults = append(o.faults, fmt.Sprintf("command %q", p))
			return commands
		}
		p = rest
		if o.inAuth {
			commands = append(commands, "response")
			continue
		}
		verb, size, _ := strings.Cut(string(line), " ")
		if verb == "BDAT" {
			var n int
			fmt.Sscan(size, &n)
			if n > len(p) {
				o.faults = append(o.faults, fmt.Sprintf("%q without its octets", line))
				return commands
			}
			o.content, p = append(o.content, p[:n]...), p[n:]
			if o.inChunks = !strings.HasSuffix(size, "LAST"); !o.inChunks {
				o.commit(o.content)
			}
		}
		commands = append(commands, verb)
	}
	return commands
}

func (o *wildOrigin) commit(content []byte) {
	o.w.commits = append(o.w.commits, commit{o.w.writes, content})
	o.content = nil
}

// moreAnswers are some that only wild origins give. What stands behind LATE is said while
// the session waits for its client.
var moreAnswers = append([]string{
	"250 w#\r\nLATE250 w#\r\n", "LATE250 w#\r\n", "LATE354 w#\r\n", "250 w#\r\nLATE421 w#\r\n", "LATE550 w#\r\nEOF", "250 w#\r\nLATE25", "354 w#\r\nLATE250 w#\r\n",
	"503 w#\r\n", "502 w#\r\n", "250-w#\r\n250 STARTTLS\r\n", "250-w#\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 8BITMIME\r\n", "454 w#\r\n", "530 w#\r\n",
}, hostileAnswers...)

// say answers commands: well where the octet is less than 128, else as it says.
func (o *wildOrigin) say(b byte, commands []string) {
	var text string
	if b < 128 {
		o.slow = b >= 112 && len(commands) > 0 && len(o.in) == 0
		for _, c := range commands {
			text += decent(c, b)
		}
	} else {
		text = moreAnswers[int(b-128)%len(moreAnswers)]
	}
	text = strings.ReplaceAll(text, "#", fmt.Sprint(o.w.writes))
	text, dead := strings.CutSuffix(text, "EOF")
	text, reset := strings.CutSuffix(text, "RST")
	text, later, _ := strings.Cut(text, "LATE")
	if dead || reset {
		o.err = io.EOF
	}
	if reset {
		o.err, o.dead = errReset, true
	}
	o.in, o.later = append(o.in, text...), append(o.later, later...)
	if len(commands) > 0 {
		o.follow(commands, text)
	}
}

// decent is how a command is answered in order.
func decent(command string, b byte) string {
	switch {
	case b&7 == 7:
		return "550 w#\r\n"
	case b&7 == 6:
		return "450 w#\r\n"
	}
	switch command {
	case "greeting", "STARTTLS", "XCLIENT":
		return "220 w#\r\n"
	case "EHLO":
		return "250-w#\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-BINARYMIME\r\n" +
			"250-AUTH PLAIN LOGIN\r\n250-STARTTLS\r\n250-XCLIENT NAME ADDR\r\n250 XFORWARD NAME\r\n"
	case "DATA":
		return "354 w#\r\n"
	case "AUTH":
		return "334 w#\r\n"
	case "response":
		return "235 w#\r\n"
	case "QUIT":
		return "221 w#\r\n"
	}
	return "250 w#\r\n"
}

// follow makes the origin be where its reply to the last command leads.
func (o *wildOrigin) follow(commands []string, said string) {
	var code smtp.Code
	in := []byte(said)
	for range commands {
		r, n, f := smtp.CutReply(in, smtp.DefaultReplyLimits)
		if n == 0 || f != smtp.NoFault {
			code = 0
			break
		}
		code, in = r.Code, in[n:]
	}
	switch last := commands[len(commands)-1]; last {
	case "DATA":
		o.inContent, o.content = code == 354, nil
	case "BDAT":
		o.inChunks = o.inChunks && code.Class() != 4 && code.Class() != 5 // what is refused is over
	case "AUTH", "response":
		o.inAuth = code == 334
	}
}

// Start makes a handshake, or does not.
func (w *wild) Start(leg Leg, by time.Time) (Leg, event.TLS) {
	w.started++
	if w.failing>>(w.started&7)&1 == 1 {
		return nil, event.TLS{Failure: event.FailureClosed}
	}
	return leg, event.TLS{Version: "played", Peer: event.Verified}
}

// newWild makes a run from what a fuzzer has made up.
func newWild(toggles, client, origin []byte) *wild {
	w := &wild{script: origin, rules: protocol.Default()}
	at := func(i int) byte {
		if i < len(toggles) {
			return toggles[i]
		}
		return 0
	}
	w.client = &wildClient{w: w, script: client, atMost: int(at(4) >> 4)}
	w.setRules(at(0), at(1), at(2))
	w.o = Options{Sink: w, Policy: policy.New(w.rules), Rules: &w.rules, Flow: flow.Flow{Service: "mx", Client: netip.MustParseAddrPort("192.0.2.1:4000")}}
	w.setTLS(at(3), at(4))
	if at(5)&1 != 0 {
		w.o.Flow.Zone = zone.Zone{Name: "lan", Trust: zone.XCLIENT | zone.XFORWARD}
	}
	w.failing = at(6)
	asked, drains := 0, int(at(5)>>1)
	w.o.Draining = func() bool {
		asked++
		return drains > 0 && asked > drains
	}
	w.newOrigin(int(at(4) & 15))
	return w
}

func (w *wild) setRules(a, b, c byte) {
	p := &w.rules
	p.Errors = 3
	for i, set := range []func(){
		func() { p.Newlines = protocol.NormalizeNewlines },
		func() { p.NUL = protocol.RemoveNUL },
		func() { p.EarlyTalkers = protocol.PassEarly },
		func() { p.Malformed = protocol.CloseReplies },
		func() { p.EightBit = protocol.RejectEightBit },
		func() { p.BareAddress = true },
		func() { p.RefuseRoutes, p.RefusePercent, p.RefuseBang = true, true, true },
		func() { p.StrictHello = true },
		func() { p.StrictPipelining = true },
		func() { p.AuthInClear = true },
		func() { p.Keywords = carried },
		func() { p.Forward = smtp.VerbsOf(smtp.VRFY, smtp.EXPN, smtp.HELP) },
		func() { p.Received = "gw.example" },
		func() { p.AppendDomain = "d.example" },
		func() { p.Errors = 1000 },
		func() { p.Mechanisms = []string{"PLAIN"} },
		func() { p.Size = 40 },
		func() { p.TextLine = 20 },
		func() { p.Messages = 1 },
		func() { p.Idle = 2 },
		func() { p.TinyChunks = 1 },
		func() { p.Drain = 30 },
		func() { p.Recipients = 2 },
		func() {
			p.Commands = []protocol.Command{
				{Verb: smtp.NOOP, Action: protocol.Reject, Reply: smtp.Reply{Code: 502, Enhanced: smtp.Enhanced{Class: 5, Subject: 5, Detail: 1}, Text: "No"}},
				{Verb: smtp.HELP, Action: protocol.Disconnect, Reply: smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: 7}, Text: "Go away"}},
			}
		},
	} {
		if [3]byte{a, b, c}[i/8]>>(i%8)&1 == 1 {
			set()
		}
	}
}

func (w *wild) setTLS(mode, more byte) {
	t := TLS{Mode: "wild", Client: When(mode & 3), Origin: When(mode >> 2 & 3), ClientMust: mode&16 != 0, OriginMust: mode&32 != 0, ClientSide: w}
	if t.Origin != Never || t.OriginMust {
		t.OriginSide = w
	}
	if mode&64 != 0 {
		t.Again = func() (Leg, netip.AddrPort, error) {
			return w.newOrigin(int(more & 15)), netip.AddrPort{}, nil
		}
	}
	if mode == 128 {
		t.Tunnel = func(time.Duration, time.Time) event.Opaque { return event.Opaque{} }
	}
	w.o.TLS = t
}

func (w *wild) run() {
	w.outcome = Run(w.o, w.client, w.origin())
}

// broken returns which promise did not hold.
func (w *wild) broken() string {
	for _, check := range []func() string{w.framed, w.replied, w.honest, w.whole, w.closed} {
		if problem := check(); problem != "" {
			return problem
		}
	}
	return w.client.naked
}

// framed: an origin is sent commands, and content where it has asked for it.
func (w *wild) framed() string {
	for _, o := range w.origins {
		if len(o.faults) > 0 {
			return fmt.Sprint(o.faults)
		}
	}
	return ""
}

// replied: a client reads whole replies, and nothing else.
func (w *wild) replied() string {
	for in := w.client.out; len(in) > 0; {
		r, n, f := smtp.CutReply(in, smtp.DefaultReplyLimits)
		if n == 0 || f != smtp.NoFault || !r.Faithful() {
			return fmt.Sprintf("the client reads %q", in)
		}
		in = in[n:]
	}
	return ""
}

// ended reports whether a write ended a message.
func (w *wild) ended(write int) bool {
	for _, c := range w.commits {
		if c.write == write {
			return true
		}
	}
	return false
}

// honest: a message counts as taken when the origin has said 2yz to the write that
// ended it, once, and the client reads no other 2yz as an answer to that.
func (w *wild) honest() string {
	accepted, unknown := map[int]bool{}, 0
	for i := range w.records {
		m := &w.records[i]
		switch m.Outcome {
		case event.Accepted:
			write, ok := tagOf(string(m.Reply.Text))
			if !m.Reply.Code.Positive() || m.Client.Code != m.Reply.Code {
				return fmt.Sprintf("accepted with %d, and the client reads %d", m.Reply.Code, m.Client.Code)
			}
			if ok && (!w.ended(write) || accepted[write]) {
				return fmt.Sprintf("%q is taken for the answer to the end of data; ends are %v", m.Reply.Text, w.commits)
			}
			accepted[write] = true
		case event.Unknown:
			unknown++
		}
	}
	told := 0
	for in := w.client.out; len(in) > 0; {
		r, n, _ := smtp.CutReply(in, smtp.DefaultReplyLimits)
		in = in[n:]
		if write, ok := tagOf(string(r.Raw())); ok && r.Code.Positive() && w.ended(write) {
			told++
		}
	}
	switch {
	case told > len(accepted):
		return fmt.Sprintf("the client was told of %d messages, the records of %d", told, len(accepted))
	case unknown > 1:
		return fmt.Sprintf("%d messages in doubt", unknown)
	case unknown == 1 && !w.client.deaf && w.client.err != errReset && !bytes.Contains(w.client.out, []byte("421 ")):
		return fmt.Sprintf("in doubt, the client reads %q", w.client.out)
	case w.sessions != 1:
		return fmt.Sprintf("%d records of the session", w.sessions)
	case len(w.commits) > len(w.records):
		return fmt.Sprintf("%d messages were ended, %d recorded", len(w.commits), len(w.records))
	}
	return ""
}

// tagOf returns the number of the write that a reply answers.
func tagOf(text string) (write int, ok bool) {
	i := strings.LastIndexByte(text, 'w')
	if i < 0 {
		return 0, false
	}
	n, _ := fmt.Sscanf(text[i:], "w%d", &write)
	return write, n == 1
}

// whole: what an origin has of a message is what the client has sent, in its order, with an end.
func (w *wild) whole() string {
	plain := func(p []byte) []byte { // what normalizing may change stays out
		return bytes.Map(func(r rune) rune {
			if strings.ContainsRune("\r\n \x00", r) {
				return -1
			}
			return r
		}, bytes.ToValidUTF8(p, []byte("?")))
	}
	sent := plain(w.client.all)
	for _, c := range w.commits {
		content := c.content
		if w.rules.Received != "" {
			_, content, _ = bytes.Cut(content, []byte("+0000\r\n"))
		}
		rest := sent
		for _, octet := range plain(content) {
			i := bytes.IndexByte(rest, octet)
			if i < 0 {
				return fmt.Sprintf("the origin has content %q", c.content)
			}
			rest = rest[i+1:]
		}
		if !bytes.Contains(w.client.all, []byte(".\r\n")) && !bytes.Contains(bytes.ToUpper(w.client.all), []byte("LAST")) {
			return fmt.Sprintf("the origin has %q, which has no end", c.content)
		}
	}
	return ""
}

// closed: an origin that is inside a message sees a broken connection.
func (w *wild) closed() string {
	for i, o := range w.origins {
		last := i == len(w.origins)-1
		if (o.inContent || o.inChunks) && !o.aborted && !(last && w.outcome.Origin == Abort) {
			return "the origin's connection ends gracefully inside a message"
		}
		if !last && !o.aborted {
			return "the first connection to the origin is still there"
		}
	}
	return ""
}

// wildSeeds are conversations with a rule or two, and a spoilt answer in some.
func wildSeeds() (list [][3][]byte) {
	all := []byte{0xFF, 0x7F, 0, 0, 0, 1, 0}
	for _, c := range conversations {
		var says []byte
		for _, t := range c.turns {
			says = append(append(says, waits), t.send...)
		}
		list = append(list, [3][]byte{nil, says, nil}, [3][]byte{all, says, {0, 0, 0, 0, 0, 128}}, [3][]byte{{0, 0x40}, bytes.ReplaceAll(says, []byte{waits}, []byte{dozes}), {0, 0, 0, 0, 131}})
	}
	const mail = "MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\n"
	for i, says := range []string{
		"\xFEEHLO c\r\n\xFE" + mail + "DATA\r\n\xFEa\r\n.b\r\n\xFD..\r\n.\r\n\xFDRSET\r\n\xFEQUIT\r\n",
		"\xFEEHLO c\r\n\xFE" + mail + "BDAT 3\r\na\r\n\xFDBDAT 2\r\n.x\xFEBDAT 0 LAST\r\n\xFEQUIT\r\n",
		"\xFEEHLO c\r\n\xFEMAIL FROM:<a@c> BODY=BINARYMIME\r\nRCPT TO:<b@d>\r\nBDAT 3\r\na\x00\n\xFDBDAT 2 LAST\r\n\n.\xFEQUIT\r\n",
		"\xFEEHLO c\r\n\xFESTARTTLS\r\n\xFEEHLO c\r\n\xFEAUTH LOGIN\r\n\xFEAA==\r\n\xFE" + mail + "DATA\r\n\xFEx\r\n.\r\n\xFEQUIT\r\n",
		"\xFEEHLO c\r\n\xFEXCLIENT NAME=a\r\n\xFEEHLO c\r\n\xFEXFORWARD NAME=b\r\n\xFE" + mail + "DATA\r\n\xFEx\n.\r\n.\r\n\xFC",
		"\xFEEHLO c\r\n\xFE" + mail + "DATA\r\n\xFEx\r\n.\r\n\xFB",
	} {
		list = append(list, [3][]byte{{0, 0x44, 0, 5, 0, 1, 0}, []byte(says), nil}, [3][]byte{{0, 0x44, byte(1 << i), 0x49, byte(i), 0, byte(i)}, []byte(says), {0, 0, 0, 0, 0, byte(128 + 3*i)}},
			[3][]byte{{0, 0x44, 0, 0, 0, 0, 0}, []byte(says), bytes.Repeat([]byte{112}, 12)})
	}
	return list
}

// FuzzWild lets a client and an origin say anything, under all rules.
func FuzzWild(f *testing.F) {
	for _, s := range wildSeeds() {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, toggles, client, origin []byte) {
		w := newWild(toggles, client, origin)
		w.run()
		if problem := w.broken(); problem != "" {
			t.Fatalf("%s\nend %s, client reads %q", problem, w.outcome.End, w.client.out)
		}
	})
}
