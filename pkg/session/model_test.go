package session

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
)

// This file plays whole conversations without a script: a model client that
// knows what it wants to send, and a model origin that answers. Neither has a
// goroutine: they act when the session writes to them, so thousands of
// conversations run in a second, and each one is the same every time.

// modelLeg connects the session with a model.
type modelLeg struct {
	in        []byte         // to be read by the session
	atMost    int            // octets per read; 0: any number
	cutIn     int            // octets that may still be read; -1: any number
	cutOut    int            // octets that may still be written; -1: any number
	cutErr    error          // what a cut connection returns
	both      bool           // a cut in one direction is one in the other
	stalled   bool           // a cut connection is silent until the deadline
	heard     func(p []byte) // the peer reads
	pause     string         // a read ends where only this is left
	aborted   bool
	delivered int // octets that the session has read
	calls     int // reads and writes so far
	strikeAt  int // the call before which strike is called
	strike    func(l *modelLeg)
	onRead    bool // only if it is a read
	late      bool // the next call meets its deadline first
	readBy    time.Time
	writeBy   time.Time
	timeless  bool // the session waited without a deadline
}

func (l *modelLeg) Read(p []byte) (int, error) {
	l.call(true)
	if l.late {
		l.late = false
		return 0, l.sleep(l.readBy)
	}
	n := min(len(p), len(l.in))
	if i := len(l.in) - len(l.pause); i > 0 && l.pause != "" && string(l.in[i:]) == l.pause {
		n = min(n, i)
	}
	if l.atMost > 0 {
		n = min(n, l.atMost)
	}
	if l.cutIn >= 0 {
		n = min(n, l.cutIn)
		l.cutIn -= n
	}
	if n == 0 {
		return 0, l.silent()
	}
	copy(p, l.in[:n])
	l.in = l.in[n:]
	l.delivered += n
	return n, nil
}

// call counts a call, and lets its fault happen.
func (l *modelLeg) call(read bool) {
	if l.calls == l.strikeAt && (read || !l.onRead) {
		l.strike(l)
	}
	l.calls++
}

// silent is what a read finds when there is nothing to read.
func (l *modelLeg) silent() error {
	switch {
	case l.stalled && l.cutIn == 0:
		return l.sleep(l.readBy)
	case l.cutErr != nil:
		if l.both {
			l.cutOut = 0
		}
		return l.cutErr
	}
	return io.EOF // a model that has nothing more to say hangs up
}

// sleep waits for a deadline. Time is virtual.
func (l *modelLeg) sleep(until time.Time) error {
	if until.IsZero() {
		l.timeless = true
		return errReset
	}
	time.Sleep(time.Until(until))
	return os.ErrDeadlineExceeded
}

func (l *modelLeg) Write(p []byte) (int, error) {
	l.call(false)
	if l.late {
		l.late = false
		return 0, l.sleep(l.writeBy)
	}
	if passed(l.writeBy) {
		return 0, os.ErrDeadlineExceeded
	}
	n := len(p)
	if l.cutOut >= 0 {
		n = min(n, l.cutOut)
		l.cutOut -= n
	}
	if n > 0 {
		l.heard(bytes.Clone(p[:n]))
	}
	switch {
	case n == len(p):
		return n, nil
	case l.stalled:
		return n, l.sleep(l.writeBy)
	case l.both:
		l.cutIn, l.cutErr = 0, errReset
	}
	return n, errReset
}

func (l *modelLeg) SetReadDeadline(t time.Time) error  { l.readBy = t; return nil }
func (l *modelLeg) SetWriteDeadline(t time.Time) error { l.writeBy = t; return nil }

func (l *modelLeg) Pending() (int, error) {
	if len(l.in) > 0 && l.cutIn != 0 {
		return 1, nil
	}
	if l.cutIn == 0 && !l.stalled {
		return 0, l.cutErr
	}
	return 0, nil
}

func (l *modelLeg) Abort() error {
	l.aborted = true
	return nil
}

// dozingLeg is a client that is silent for a while before each thing that it
// sends, so that the session rests.
type dozingLeg struct {
	*modelLeg
	dozed bool
}

func (l *dozingLeg) Read(p []byte) (int, error) {
	if l.dozed = !l.dozed; l.dozed {
		return 0, l.sleep(l.readBy)
	}
	return l.modelLeg.Read(p)
}

// Sleep makes the session rest. To resume too early does no harm.
func (l *dozingLeg) Sleep() {}

// modelOrigin is a strict server. Its replies carry the number of the command
// that they answer.
type modelOrigin struct {
	leg       *modelLeg
	stream    []byte // not yet understood
	dialect   dialect
	all       []byte // everything that it was sent
	commands  int
	echo      bool // replies carry the command itself
	ehlo      string
	answers   map[string]string // code instead of 250 for the n-th use of a verb: "RCPT2" → "550"
	uses      map[string]int
	content   bool
	inChunk   bool
	responses int // of an authentication that are to come
	left      int
	last      bool
	chunks    string
	sender    string
	rcpts     []string
	messages  []received
	faults    []string // what a strict server finds wrong
}

// received is a message that the model origin was given completely.
type received struct {
	sender  string
	rcpts   []string
	content string
	code    string // its verdict
}

func (o *modelOrigin) say(code, text string) {
	o.leg.in = append(o.leg.in, code+" "+text+"\r\n"...)
}

func (o *modelOrigin) hear(p []byte) {
	o.all = append(o.all, p...)
	o.stream = append(o.stream, p...)
	for o.step() {
	}
}

// step understands one thing in front of the stream.
func (o *modelOrigin) step() bool {
	switch {
	case o.content:
		return o.message()
	case o.inChunk:
		return o.takeChunk()
	}
	line, rest, ok := o.dialect.line(o.stream)
	if !ok {
		return false
	}
	o.stream = rest
	if o.responses > 0 {
		o.response()
		return true
	}
	o.commands++
	if !isCommandText(line) {
		o.faults = append(o.faults, fmt.Sprintf("command %q", line))
	}
	o.command(string(line))
	return true
}

// isCommandText: printable ASCII, and UTF-8 where SMTPUTF8 lets it pass.
func isCommandText(line []byte) bool {
	for _, c := range line {
		if c < ' ' || c == 0x7F {
			return false
		}
	}
	return utf8.Valid(line)
}

// response takes a line as an answer to a challenge, whatever it looks like.
func (o *modelOrigin) response() {
	if o.responses--; o.responses > 0 {
		o.say("334", "go on")
		return
	}
	o.say("235", "welcome")
}

// message takes the content up to its end, in the server's dialect.
func (o *modelOrigin) message() bool {
	content, rest, ok := o.dialect.message(o.stream)
	if !ok {
		return false
	}
	o.stream, o.content = rest, false
	code := o.code("EOD", "250")
	o.messages = append(o.messages, received{o.sender, o.rcpts, string(content), code})
	o.sender, o.rcpts = "", nil
	o.say(code, fmt.Sprintf("message %d", len(o.messages)))
	return true
}

// chunk announces the octets that follow.
func (o *modelOrigin) chunk(line string) {
	var last string
	if n, _ := fmt.Sscanf(line, "BDAT %d %s", &o.left, &last); n < 1 {
		o.faults = append(o.faults, line)
	}
	if len(o.rcpts) == 0 {
		o.faults = append(o.faults, "BDAT without recipients")
	}
	o.inChunk, o.last = true, last == "LAST"
}

// takeChunk takes a chunk when it is there as a whole.
func (o *modelOrigin) takeChunk() bool {
	if len(o.stream) < o.left {
		return false
	}
	o.chunks += string(o.stream[:o.left])
	o.stream, o.inChunk = o.stream[o.left:], false
	if !o.last {
		o.say("250", "chunk")
		return true
	}
	o.messages = append(o.messages, received{o.sender, o.rcpts, o.chunks, "250"})
	o.sender, o.rcpts, o.chunks = "", nil, ""
	o.say("250", fmt.Sprintf("message %d", len(o.messages)))
	return true
}

func (o *modelOrigin) code(verb, normal string) string {
	o.uses[verb]++
	if c := o.answers[fmt.Sprintf("%s%d", verb, o.uses[verb])]; c != "" {
		return c
	}
	return normal
}

func (o *modelOrigin) command(line string) {
	verb := strings.ToUpper(line[:min(4, len(line))])
	text := fmt.Sprintf("for %d", o.commands)
	if o.echo {
		text = "echo " + line
	}
	switch verb {
	case "EHLO":
		o.sender, o.rcpts = "", nil
		o.leg.in = append(o.leg.in, o.ehlo...)
		return
	case "MAIL":
		code := o.code(verb, "250")
		if o.sender != "" {
			code = "503"
		}
		if code == "250" {
			o.sender, o.rcpts = line[10:], nil
		}
		o.say(code, text)
	case "RCPT":
		code := o.code(verb, "250")
		if o.sender == "" {
			code = "503"
		}
		if code == "250" {
			o.rcpts = append(o.rcpts, line[8:])
		}
		o.say(code, text)
	case "DATA":
		code := o.code(verb, "354")
		if len(o.rcpts) == 0 {
			o.faults = append(o.faults, "DATA without recipients")
			code = "503"
		}
		o.content = code == "354"
		o.say(code, text)
	case "RSET":
		o.sender, o.rcpts = "", nil
		o.say("250", text)
	case "QUIT":
		o.say("221", text)
	case "BDAT":
		o.chunk(line)
	case "AUTH":
		code := o.code(verb, "235")
		if line == "AUTH LOGIN" && code == "235" {
			o.responses, code = 2, "334"
		}
		o.say(code, text)
	default:
		o.say(o.code(verb, "250"), text)
	}
}

// turn is what a model client sends when it has read so many replies to all
// before.
type turn struct {
	send    string
	replies int // that it waits for afterwards
}

// modelClient sends its turns, each when the one before is answered, and
// keeps all replies.
type modelClient struct {
	leg     *modelLeg
	turns   []turn
	waiting int
	sent    int
	stream  []byte
	replies []string // last lines
}

func (c *modelClient) hear(p []byte) {
	c.stream = append(c.stream, p...)
	for {
		line, rest, ok := bytes.Cut(c.stream, []byte("\r\n"))
		if !ok {
			return
		}
		c.stream = rest
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		c.replies = append(c.replies, string(line))
		if c.waiting--; c.waiting == 0 {
			c.next()
		}
	}
}

func (c *modelClient) next() {
	if len(c.turns) == 0 {
		return
	}
	t := c.turns[0]
	c.turns, c.waiting = c.turns[1:], t.replies
	c.leg.in = append(c.leg.in, t.send...)
	c.sent += len(t.send)
}

// conversation is a client's plan and an origin's manners.
type conversation struct {
	name    string
	ehlo    string
	turns   []turn
	answers map[string]string
	chunked *chunked
}

// chunked is a conversation whose content changes on its way.
type chunked struct {
	end     string // when the session has read this, the message is complete
	content string // as the origin must have it
	rules   func(p *protocol.Rules)
}

const fullEHLO = "250-mx\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"

// play is one run of a conversation.
type play struct {
	conversation
	client  *modelClient
	origin  *modelOrigin
	struck  *modelOrigin // whose leg faults are about
	first   *modelOrigin // whose leg another one took the place of
	tls     TLS
	rules   protocol.Rules
	outcome Outcome
	session event.Session
	ends    int // session records
	records []recorded
}

// recorded is what is kept of a message record.
type recorded struct {
	outcome event.Outcome
	reply   int
	sender  string
	rcpts   []string // accepted ones
}

func (p *play) Opened(*flow.Flow)                {}
func (p *play) Refused(*flow.Flow, event.Reason) {}
func (p *play) Session(s *event.Session)         { p.session, p.ends = *s, p.ends+1 }
func (p *play) Message(m *event.Message) {
	r := recorded{outcome: m.Outcome, reply: int(m.Client.Code), sender: string(m.Sender)}
	for _, to := range m.Recipients {
		if to.Answer.Code.Positive() {
			r.rcpts = append(r.rcpts, string(to.Address))
		}
	}
	p.records = append(p.records, r)
}

func newPlay(c conversation) *play {
	cl := &modelLeg{cutIn: -1, cutOut: -1, strikeAt: -1}
	p := &play{
		conversation: c,
		rules:        protocol.Default(),
		client:       &modelClient{leg: cl, turns: c.turns, waiting: 1},
		origin:       newModelOrigin(c.ehlo, c.answers),
	}
	if c.chunked != nil && c.chunked.rules != nil {
		c.chunked.rules(&p.rules)
	}
	cl.heard, p.struck = p.client.hear, p.origin
	return p
}

// newModelOrigin returns an origin that has greeted.
func newModelOrigin(ehlo string, answers map[string]string) *modelOrigin {
	l := &modelLeg{cutIn: -1, cutOut: -1, strikeAt: -1}
	o := &modelOrigin{leg: l, dialect: strict, ehlo: ehlo, answers: answers, uses: map[string]int{}}
	l.heard = o.hear
	o.say("220", "mx")
	return o
}

func (p *play) run() { p.runOn(p.client.leg) }

// runOn plays with the client's leg in another form.
func (p *play) runOn(client Leg) {
	p.outcome = Run(Options{Sink: p, Policy: policy.New(p.rules), Rules: &p.rules, Flow: flow.Flow{Service: "mx"}, TLS: p.tls}, client, p.origin.leg)
}

// content with every kind of line that conforms.
const content1 = "Subject: a\r\n\r\n..\r\n...two\r\n .\r\nlast.\r\n"

// conversations that a session must survive being cut anywhere.
var conversations = []conversation{
	{"step by step", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c> SIZE=40\r\n", 1}, {"RCPT TO:<b@d>\r\n", 1}, {"DATA\r\n", 1},
		{content1 + ".\r\n", 1}, {"QUIT\r\n", 1},
	}, nil, nil},
	{"in groups", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n", 4},
		{content1 + ".\r\nQUIT\r\n", 2},
	}, map[string]string{"RCPT1": "550"}, nil},
	{"two messages", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {".\r\n", 1},
		{"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\n", 4}, {"x\r\n.\r\nQUIT\r\n", 2},
	}, map[string]string{"EOD1": "452"}, nil},
	{"without pipelining", "250 mx\r\n", []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nNOOP\r\nVRFY x\r\nRCPT TO:<e@f>\r\nDATA\r\n", 6},
		{content1 + ".\r\n", 1}, {"RSET\r\nQUIT\r\n", 2},
	}, map[string]string{"EOD1": "554"}, nil},
	{"refused at MAIL", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {"QUIT\r\n", 1},
	}, map[string]string{"MAIL1": "451"}, nil},
	{"refused at DATA", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {"RSET\r\n", 1},
		{"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {"y\r\n.\r\n", 1}, {"QUIT\r\n", 1},
	}, map[string]string{"DATA1": "450"}, nil},
	{"forbidden content", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3},
		{"x\n.\r\nMAIL FROM:<evil@c>\r\nRCPT TO:<b@d>\r\nDATA\r\nevil\r\n.\r\n", 1}, {"QUIT\r\n", 1},
	}, nil, nil},
	{"in chunks", chunkEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nBDAT 7\r\nabc\r\n.\rBDAT 0\r\nBDAT 6 LAST\r\n\nQUIT.QUIT\r\n", 6},
	}, nil, &chunked{"LAST\r\n\nQUIT.", "abc\r\n..\r\nQUIT.\r\n", nil}},
	{"in chunks, refused", chunkEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nBDAT 6\r\nRSET\r\nBDAT 20 LAST\r\nMAIL FROM:<evil@c>\r\nRSET\r\nQUIT\r\n", 6},
	}, map[string]string{"DATA1": "451"}, &chunked{"no such thing", "", nil}},
	{"in chunks, binary", chunkEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c> BODY=BINARYMIME\r\nRCPT TO:<b@d>\r\nBDAT 7\r\n\nabc\x00\n.BDAT 6 LAST\r\n\nQUIT\nQUIT\r\n", 5},
	}, nil, &chunked{"LAST\r\n\nQUIT\n", "\nabc\x00\n.\nQUIT\n", nil}},
	{"normalized", fullEHLO, []turn{
		{"EHLO c\r\n", 1}, {"MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3}, {"a\nb\rc\n.\r\n\r\n.\r\nQUIT\r\n", 2},
	}, nil, &chunked{"\n.\r\n\r\n.\r\n", "a\r\nb c\r\n..\r\n\r\n", func(p *protocol.Rules) { p.Newlines = protocol.NormalizeNewlines }}},
	{"authenticated", "250-mx\r\n250-PIPELINING\r\n250 AUTH LOGIN\r\n", []turn{
		{"EHLO c\r\n", 1}, {"AUTH LOGIN\r\n", 1}, {"QUIT\r\n", 1}, {"DATA\r\n", 1}, {"MAIL FROM:<a@c> AUTH=<>\r\nRCPT TO:<b@d>\r\nDATA\r\n", 3},
		{"a\r\n.\r\nQUIT\r\n", 2},
	}, nil, &chunked{"\r\na\r\n.\r\n", "a\r\n", func(p *protocol.Rules) { p.AuthInClear, p.Keywords = true, carried }}},
}

const chunkEHLO = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"

// TestConversations plays each conversation undisturbed, in segments of every
// kind: what both sides see is the same.
func TestConversations(t *testing.T) {
	for _, c := range conversations {
		whole := newPlay(c)
		whole.run()
		if whole.outcome.End != event.EndQuit || len(whole.client.turns) != 0 {
			t.Errorf("%s: %s, %d turns left, replies %q", c.name, whole.outcome.End, len(whole.client.turns), whole.client.replies)
		}
		for _, size := range []int{1, 2, 3, 5, 100} {
			p := newPlay(c)
			p.client.leg.atMost, p.origin.leg.atMost = size, size
			p.run()
			if fmt.Sprint(codes(p.client.replies)) != fmt.Sprint(codes(whole.client.replies)) {
				t.Errorf("%s in segments of %d: the client reads %q, not %q", c.name, size, p.client.replies, whole.client.replies)
			}
			if c.name == "forbidden content" || c.name == "refused at MAIL" || c.name == "in chunks, binary" {
				continue // how it reached the origin depends on the segments
			}
			if !bytes.Equal(p.origin.all, whole.origin.all) {
				t.Errorf("%s in segments of %d: the origin reads %q, not %q", c.name, size, p.origin.all, whole.origin.all)
			}
		}
	}
}

func codes(replies []string) (list []string) {
	for _, r := range replies {
		list = append(list, r[:3])
	}
	return list
}
