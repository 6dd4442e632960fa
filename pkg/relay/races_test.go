package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/stream"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/peer"
)

// This file lets both peers be wayward at once, over real TCP and at random moments: they
// close, end their half, reset, stall, say garbage, speak early, late and twice, and
// cut what they say anywhere. The promises must hold however that meets.

var (
	raceCount = flag.Int("races", 1500, "how many races there are")
	raceSeed  = flag.Uint64("seed", 0, "of the first race; 0: any")
)

// TestRaces runs races, many at once.
func TestRaces(t *testing.T) {
	seed := *raceSeed
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	t.Logf("seed %d: repeat one race by -races=1 -seed=N", seed)
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	c := newCourse(t)
	var running sync.WaitGroup
	turn := make(chan bool, 32)
	for i := range *raceCount {
		turn <- true
		running.Go(func() {
			c.run(seed+uint64(i), i)
			<-turn
		})
	}
	running.Wait()
	c.gate.empty()
	t.Logf("%d messages: %d were taken, and the clients of %d were told so; %d in doubt. Of %d strays inside content %d passed for the answer, said when the origin's host had the end of data",
		c.sent.Load(), c.taken.Load(), c.told.Load(), c.unknown.Load(), c.strays.Load(), c.slips.Load())
	c.close()
	c.gate.waitFor(func() bool { return runtime.NumGoroutine() <= goroutines+1 && openFiles(t) <= descriptors+2 }) // the watch of sleepers stays
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// course is the gate and the origin's listener, with the races that are under way, each by
// the address of its client.
type course struct {
	t      *testing.T
	gate   *gate
	ln     net.Listener
	origin *tls.Config

	mu    sync.Mutex
	races map[netip.Addr]*race

	sent, taken, told, unknown, strays, slips atomic.Int64
}

func newCourse(t *testing.T) *course {
	t.Helper()
	c := &course{t: t, races: map[netip.Addr]*race{}, origin: certificate(originName)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.ln = ln
	go c.accept()
	c.gate = start(t, peer.Behaviour{}, withTLS(mirror, trust.Policy{}), forging, func(o *Options) {
		o.Services["mx"].Dialer.Origins = []netip.AddrPort{netip.MustParseAddrPort(ln.Addr().String())}
		o.Sink = c
		o.Timeouts = session.Timeouts{Greet: 2 * time.Second, Command: 3 * time.Second, Reply: 2 * time.Second, Data: 2 * time.Second,
			Block: 2 * time.Second, End: 2 * time.Second, Rest: time.Second, Handshake: 2 * time.Second}
	})
	return c
}

func (c *course) close() {
	c.ln.Close()
	c.gate.listeners.Close()
	c.gate.origin.Close()
}

func (c *course) accept() {
	for {
		conn, err := c.ln.Accept()
		if err != nil {
			return
		}
		r := c.of(conn.RemoteAddr())
		r.origins.Go(func() { r.serve(conn.(*net.TCPConn)) })
	}
}

func (c *course) of(a net.Addr) *race {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.races[netip.MustParseAddrPort(a.String()).Addr()]
}

func (c *course) Opened(*flow.Flow)                {}
func (c *course) Refused(*flow.Flow, event.Reason) {}

func (c *course) Session(s *event.Session) {
	r := c.of(net.TCPAddrFromAddrPort(s.Flow.Client))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions++
	r.end = s.End
}

func (c *course) Message(m *event.Message) {
	r := c.of(net.TCPAddrFromAddrPort(m.Flow.Client))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, raceRecord{string(m.Sender), m.Outcome})
}

// race is one session with its peers.
type race struct {
	course  *course
	origins sync.WaitGroup
	client  *racer
	seed    uint64

	mu       sync.Mutex
	log      strings.Builder
	verdicts map[string]int // what the origin has said, or was about to say, to the end of data of each sender
	queue    []raceMessage  // what the origin has
	unclean  string         // what it should not have been sent
	lied     bool           // the origin said what nobody asked for
	sessions int
	end      event.End
	records  []raceRecord

	arrived atomic.Bool // a stray 2yz has arrived at the gate
}

type raceRecord struct {
	sender  string
	outcome event.Outcome
}

type raceMessage struct{ sender, content string }

// note keeps what happened, for the log of a race that went wrong.
func (r *race) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, format+"\n", args...)
}

func (c *course) run(seed uint64, i int) {
	from := netip.AddrFrom4([4]byte{127, 1 + byte(i>>14), byte(i >> 7 & 127), 1 + byte(i&127)})
	r := &race{course: c, seed: seed, verdicts: map[string]int{}}
	c.mu.Lock()
	c.races[from] = r
	c.mu.Unlock()
	d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	conn, err := d.Dial("tcp", c.gate.addr().String())
	if err != nil {
		c.t.Error(err)
		return
	}
	conn.SetDeadline(time.Now().Add(patience))
	r.client = newRacer(r, conn.(*net.TCPConn))
	r.client.race()
	conn.Close()
	c.gate.waitFor(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.sessions > 0
	})
	r.origins.Wait()
	c.mu.Lock()
	delete(c.races, from)
	c.mu.Unlock()
	if problem := r.judge(); problem != "" {
		c.t.Errorf("seed %d: %s\n%s\nend %s, records %v, client told %v", seed, problem, r.log.String(), r.end, r.records, r.client.told)
	}
}

// judge returns which promise was broken.
func (r *race) judge() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, check := range []func() string{r.honest, r.whole, r.recorded} {
		if problem := check(); problem != "" {
			return problem
		}
	}
	return r.unclean
}

// honest: the client reads 2yz to its end of data only as the origin's word about this message.
func (r *race) honest() string {
	for sender, reply := range r.client.told {
		r.course.told.Add(1)
		switch {
		case strings.Contains(reply, "stray") && r.client.warned[sender]:
			return fmt.Sprintf("%s: %q came before the end of data was sent", sender, reply)
		case strings.Contains(reply, "stray"):
			r.course.slips.Add(1)
		case !strings.Contains(reply, "taken "+sender) && !r.lied:
			return fmt.Sprintf("%s: the client read %q", sender, reply)
		case r.verdicts[sender]/100 != 2 && !r.lied:
			return fmt.Sprintf("%s: the client read %q, and the origin had said %d", sender, reply, r.verdicts[sender])
		}
	}
	return r.client.problem
}

// whole: what the origin has was sent completely, and is as it was sent.
func (r *race) whole() string {
	seen := map[string]bool{}
	for _, m := range r.queue {
		sent, done := r.client.content[m.sender]
		switch {
		case seen[m.sender]:
			return m.sender + ": the origin has it twice"
		case r.client.garbled && !r.client.mayHaveSent(m.content):
			return fmt.Sprintf("%s: the origin has %q, of which not all was sent", m.sender, m.content)
		case r.client.garbled: // who knows what it meant
		case !done:
			return m.sender + ": the origin has it, and its end was not sent"
		case m.content != sent:
			return fmt.Sprintf("%s: %d octets became %d", m.sender, len(sent), len(m.content))
		}
		seen[m.sender] = true
	}
	return ""
}

// mayHaveSent reports whether content can be what was sent: all of its octets, in their
// order, and an end.
func (c *racer) mayHaveSent(content string) bool {
	sent := c.sent.String()
	if strings.Contains(strings.ReplaceAll(sent, "\r\n.", "\r\n"), content+"\r\n") {
		return true
	}
	for _, octet := range []byte(strings.TrimSuffix(content, "\r\n")) {
		i := strings.IndexByte(sent, octet)
		if i < 0 {
			return false
		}
		sent = sent[i+1:]
	}
	return strings.Contains(c.sent.String(), " LAST\r\n")
}

// recorded: one record of each message, which agrees with the origin.
func (r *race) recorded() string {
	if r.sessions != 1 {
		return fmt.Sprintf("%d records of the session", r.sessions)
	}
	seen := map[string]event.Outcome{}
	for _, m := range r.records {
		if _, twice := seen[m.sender]; twice && !r.client.garbled && !r.client.hasty {
			return m.sender + ": two records"
		}
		seen[m.sender] = m.outcome
		if m.outcome == event.Accepted && r.verdicts[m.sender]/100 != 2 && !r.lied {
			return fmt.Sprintf("%s: recorded as accepted, and the origin had said %d", m.sender, r.verdicts[m.sender])
		}
		if m.outcome == event.Unknown {
			r.course.unknown.Add(1)
		}
	}
	for sender := range r.client.told {
		if seen[sender] != event.Accepted {
			return fmt.Sprintf("%s: the client was told that it is taken, the record says %s", sender, seen[sender])
		}
	}
	for _, m := range r.queue {
		if r.verdicts[m.sender]/100 != 2 {
			continue
		}
		r.course.taken.Add(1)
		if o, is := seen[m.sender]; !is || (o != event.Accepted && o != event.Unknown && !r.lied) {
			return fmt.Sprintf("%s: the origin took it, the record says %q", m.sender, o)
		}
	}
	return ""
}

// pacer sends in pieces, at its own speed, up to the octet at which its peer goes
// astray.
type pacer struct {
	*rand.Rand
	conn  *net.TCPConn
	end   io.ReadWriter // conn, or what is inside TLS
	sent  strings.Builder
	left  int         // octets until astray; -1: it stays in order
	stray func() bool // returns whether the peer goes on
}

// send returns false where not all was sent. Nothing more can be sent then.
func (p *pacer) send(text string) bool {
	for text != "" {
		n := len(text)
		if p.IntN(3) == 0 {
			n = 1 + p.IntN(n)
		}
		if p.left >= 0 {
			n = min(n, p.left)
			p.left -= n
		}
		p.sent.WriteString(text[:n])
		if _, err := io.WriteString(p.end, text[:n]); err != nil {
			return false
		}
		text = text[n:]
		if p.left == 0 {
			p.left = -1
			if !p.stray() {
				return text == ""
			}
		}
		p.pause()
	}
	return true
}

// pause lets others run now and then, and time go by.
func (p *pacer) pause() {
	switch p.IntN(12) {
	case 0:
		time.Sleep(time.Duration(p.IntN(1500)) * time.Microsecond)
	case 1, 2:
		runtime.Gosched()
	}
}

func (p *pacer) reset() {
	p.conn.SetLinger(0)
	p.conn.Close()
}

// racer is a client.
type racer struct {
	pacer
	r       *race
	in      *bufio.Reader
	hasty   bool              // it does not wait for replies
	garbled bool              // it sends garbage in between
	content map[string]string // of the messages whose end was sent, by sender
	told    map[string]string // 2yz to the end of data, by sender
	warned  map[string]bool   // a stray had arrived when the end of data of this one was sent
	problem string
}

func newRacer(r *race, conn *net.TCPConn) *racer {
	c := &racer{r: r, in: bufio.NewReader(conn), content: map[string]string{}, told: map[string]string{}, warned: map[string]bool{}}
	c.pacer = pacer{Rand: rand.New(rand.NewPCG(r.seed, 1)), conn: conn, end: conn, left: -1}
	if c.IntN(2) == 0 {
		c.left = c.IntN(1 << (4 + c.IntN(13)))
	}
	how := c.IntN(6)
	c.stray = func() bool {
		r.note("client goes astray: %d", how)
		switch how {
		case 0:
			conn.Close()
		case 1, 2:
			conn.CloseWrite()
			return true // it still reads
		case 3:
			c.reset()
		case 4: // it stalls
			io.Copy(io.Discard, c.in)
		case 5:
			c.garbled = true
			garbage := []string{"\x00", "\n.\n", "\r\n.\r\n", ".\r\n", "QUIT\r\n", "RSET\r\n", "\r", "BDAT 1\r\n"}[c.IntN(8)]
			c.sent.WriteString(garbage)
			io.WriteString(c.end, garbage)
			return true
		}
		return false
	}
	c.hasty = c.IntN(12) == 0
	return c
}

// reply reads one reply. Those of the origin name the command that they answer.
func (c *racer) reply(to string) (code int, text string) {
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return 0, ""
		}
		all.WriteString(line)
		if len(line) < 6 || line[3] != '-' {
			text = all.String()
			code, _ = strconv.Atoi(line[:min(3, len(line))])
			break
		}
	}
	c.r.note("client reads %q to %s", text, to)
	_, of, tagged := strings.Cut(strings.TrimSuffix(text, "\r\n"), "answers ")
	if of == "DATA" && (to == "chunk" || strings.HasPrefix(to, "end of ")) { // the client knows of none
		of = to
	}
	brokenOff := code >= 400 && strings.HasPrefix(to, of) // a refusal counts also where the origin could not say all of it
	if tagged && of != to && !brokenOff && !c.garbled && !c.hasty && c.problem == "" {
		c.r.mu.Lock()
		defer c.r.mu.Unlock()
		if !c.r.lied {
			c.problem = fmt.Sprintf("%q was answered by %q", to, text)
		}
	}
	return code, text
}

// say sends a command and reads its reply, unless the client does not wait for any.
func (c *racer) say(line string) int {
	if !c.send(line + "\r\n") {
		return 0
	}
	if c.hasty {
		return 250
	}
	code, _ := c.reply(line)
	return code
}

// race is the client's life.
func (c *racer) race() {
	defer func() { io.Copy(io.Discard, c.in) }() // who has not gone reads to the end
	if code, _ := c.reply("greeting"); code != 220 || c.say("EHLO c") != 250 {
		return
	}
	if !c.hasty && c.IntN(5) == 0 && c.say("STARTTLS") == 220 {
		inside := tls.Client(c.conn, believing())
		if inside.Handshake() != nil {
			return
		}
		c.end, c.in = inside, bufio.NewReader(inside)
		if c.say("EHLO c") != 250 {
			return
		}
	}
	for i := range 1 + c.IntN(3) {
		if !c.message(fmt.Sprintf("m%d@r%d", i, c.r.seed)) {
			return
		}
	}
	if c.send("QUIT\r\n") {
		c.conn.CloseWrite()
	}
}

// message sends one message, and returns whether the session goes on.
func (c *racer) message(sender string) bool {
	c.r.course.sent.Add(1)
	text := c.letter()
	if c.IntN(3) == 0 {
		return c.chunks(sender, text)
	}
	envelope := []string{"MAIL FROM:<" + sender + ">", "RCPT TO:<b@d>", "DATA"}
	code := 0
	if c.IntN(2) == 0 {
		if !c.send(strings.Join(envelope, "\r\n") + "\r\n") {
			return false
		}
		for _, line := range envelope {
			if c.hasty {
				code = 354
				continue
			}
			if code, _ = c.reply(line); code == 0 {
				return false
			}
		}
	} else {
		for _, line := range envelope {
			if code = c.say(line); code == 0 {
				return false
			}
		}
	}
	if code != 354 && !c.hasty {
		return c.say("RSET") != 0
	}
	if !c.send(stuffed(text)) {
		return false
	}
	if c.IntN(3) == 0 {
		time.Sleep(time.Duration(c.IntN(5000)) * time.Microsecond)
	}
	c.warned[sender] = c.r.arrived.Load()
	if !c.send(".\r\n") {
		return false
	}
	return c.verdict(sender, text)
}

// verdict reads the reply to the end of data.
func (c *racer) verdict(sender, text string) bool {
	c.content[sender] = text
	code, reply := c.reply("end of " + sender)
	if code/100 == 2 && !c.hasty && !c.garbled {
		c.told[sender] = reply
	}
	return code != 0 && code != 421
}

// chunks is message by BDAT, in one go or waiting for each reply.
func (c *racer) chunks(sender, text string) bool {
	parts := []string{"MAIL FROM:<" + sender + ">\r\n", "RCPT TO:<b@d>\r\n"}
	of := []string{"MAIL FROM:<" + sender + ">", "RCPT TO:<b@d>"}
	rest := text
	for range c.IntN(6) {
		n := c.IntN(len(rest) + 1)
		parts, of = append(parts, fmt.Sprintf("BDAT %d\r\n%s", n, rest[:n])), append(of, "chunk")
		rest = rest[n:]
	}
	parts = append(parts, fmt.Sprintf("BDAT %d LAST\r\n%s", len(rest), rest))
	waits := c.IntN(2) == 0
	for i, part := range parts {
		if !c.send(part) {
			return false
		}
		if waits && i < len(of) && !c.hasty {
			if code, _ := c.reply(of[i]); code == 0 {
				return false
			}
		}
	}
	for i := 0; !waits && !c.hasty && i < len(of); i++ {
		if code, _ := c.reply(of[i]); code == 0 {
			return false
		}
	}
	return c.verdict(sender, text) && c.say("RSET") != 0
}

// letter makes content, with every kind of line.
func (c *racer) letter() string {
	var b strings.Builder
	for range c.IntN(1 << c.IntN(11)) {
		b.WriteString(strings.Repeat("x", c.IntN(80)))
		b.WriteString([]string{"\r\n", "\r\n.", "\r\n..\r\n", " ", "\r\n.\r\n"}[c.IntN(5)])
	}
	b.WriteString("\r\n")
	return b.String()
}

// stuffed is content as DATA carries it.
func stuffed(text string) string {
	return strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[2:]
}

// serve is the life of an origin.
func (r *race) serve(conn *net.TCPConn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	o := &raceOrigin{r: r, in: bufio.NewReader(conn)}
	o.pacer = pacer{Rand: rand.New(rand.NewPCG(r.seed, 2)), conn: conn, end: conn, left: -1}
	o.plan()
	if o.send("220 mx\r\n") {
		o.listen()
	}
}

// raceOrigin is one connection of an origin.
type raceOrigin struct {
	pacer
	r       *race
	in      *bufio.Reader
	sender  string
	rcpts   int
	strayAt int // lines of content until a stray is said; -1: never
}

// plan says when the origin goes astray, and how.
func (o *raceOrigin) plan() {
	o.strayAt = -1
	if o.IntN(2) == 0 {
		o.left = o.IntN(1 << (3 + o.IntN(7)))
	}
	how := o.IntN(8)
	o.stray = func() bool {
		o.r.note("origin goes astray: %d", how)
		switch how {
		case 0:
			o.conn.Close()
		case 1:
			o.conn.CloseWrite()
			io.Copy(io.Discard, o.in)
		case 2:
			o.reset()
		case 3: // it stalls
			io.Copy(io.Discard, o.in)
		case 4:
			o.lie()
			io.WriteString(o.end, []string{"\x00", "garbage\r\n", "250", "\r\n", "250-x\r\n550 y\r\n", "\n"}[o.IntN(6)])
			return true
		case 5, 6:
			o.lie()
			io.WriteString(o.end, []string{"250 stray\r\n", "354 stray\r\n", "550 stray\r\n", "250 stray\r\n250 stray\r\n"}[o.IntN(4)])
			return true
		case 7:
			o.lie() // it may be in the middle of a reply
			io.WriteString(o.end, "421 closing\r\n")
		}
		return false
	}
	if o.IntN(4) == 0 {
		o.strayAt = o.IntN(20)
	}
}

func (o *raceOrigin) lie() {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	o.r.lied = true
}

// line reads a line; it must end with CRLF, and have neither of them in it.
func (o *raceOrigin) line() (string, bool) {
	line, err := o.in.ReadString('\n')
	text, ok := strings.CutSuffix(line, "\r\n")
	if err != nil {
		return "", false
	}
	if !ok || strings.ContainsAny(text, "\r\x00") {
		o.r.mu.Lock()
		defer o.r.mu.Unlock()
		o.r.unclean = fmt.Sprintf("the origin was sent %q", line)
	}
	return text, true
}

func (o *raceOrigin) listen() {
	for {
		o.pause()
		line, ok := o.line()
		if !ok {
			return
		}
		o.r.note("origin reads %q", line)
		if !o.answer(line) {
			return
		}
	}
}

// code is good, and now and then a refusal.
func (o *raceOrigin) code(good int) int {
	if o.IntN(12) > 0 {
		return good
	}
	return []int{450, 550}[o.IntN(2)]
}

func (o *raceOrigin) answer(line string) bool {
	verb, _, _ := strings.Cut(line, " ")
	code := 250
	switch verb {
	case "EHLO":
		o.sender = ""
		return o.send("250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
	case "STARTTLS":
		if !o.send("220 go\r\n") {
			return false
		}
		inside := tls.Server(o.conn, o.r.course.origin)
		if inside.Handshake() != nil {
			return false
		}
		o.end, o.in = inside, bufio.NewReader(inside)
		return true
	case "MAIL":
		if code = o.code(250); code == 250 {
			o.sender, o.rcpts = strings.Trim(strings.TrimPrefix(line, "MAIL FROM:"), "<>"), 0
		}
	case "RCPT":
		if code = o.code(250); o.sender == "" {
			code = 503
		}
		if code == 250 {
			o.rcpts++
		}
	case "DATA":
		if code = o.code(354); o.rcpts == 0 {
			code = 503
		}
	case "RSET":
		o.sender, o.rcpts = "", 0
	case "QUIT":
		o.send("221 answers QUIT\r\n")
		return false
	}
	if !o.send(fmt.Sprintf("%d answers %s\r\n", code, line)) {
		return false
	}
	return code != 354 || o.take()
}

// take reads a message and says what becomes of it. A client that sends chunks knows of no
// DATA, so what answers that has no name.
func (o *raceOrigin) take() bool {
	var content bytes.Buffer
	for n := 0; ; n++ {
		if n == o.strayAt {
			o.surprise()
		}
		line, ok := o.line()
		if !ok {
			o.r.note("origin: no end of %s", o.sender)
			return false
		}
		if line == "." {
			break
		}
		content.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
	code := o.code(250)
	o.r.mu.Lock()
	o.r.verdicts[o.sender] = code
	o.r.queue = append(o.r.queue, raceMessage{o.sender, content.String()})
	o.r.mu.Unlock()
	o.r.note("origin has %s, %d", o.sender, code)
	sender := o.sender
	o.sender, o.rcpts = "", 0
	return o.send(fmt.Sprintf("%d-taken %s\r\n%d answers end of %s\r\n", code, sender, code, sender))
}

// surprise says 250 inside content, where nobody waits for it. When it has arrived at the
// gate, the client may know.
func (o *raceOrigin) surprise() {
	o.lie()
	o.r.course.strays.Add(1)
	io.WriteString(o.end, "250 stray\r\n")
	s := stream.New(o.conn)
	for range 20 {
		if s.Unacknowledged() == 0 {
			o.r.arrived.Store(true)
			return
		}
		time.Sleep(time.Millisecond)
	}
}
