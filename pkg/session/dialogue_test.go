package session

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/policy"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/zone"
)

// A dialogue is a text file of steps, one per line:
//
//	C> text      the client sends a line
//	C>| "raw"    the client sends octets, written as Go strings; "x"*510 stands
//	             for 510 of them
//	C< text      the client reads exactly this line next
//	C! eof       the client closes; reset: resets; deaf: reads no more
//	C!| "raw"    the client sends octets and closes at once
//	O> O>| O< O<| O! O!|   the same for the origin
//	pace O 30s   the origin takes that long for each write to it
//	wait 5m      nobody does anything for that long
//	drain        the daemon wants to stop
//	cut          and does not wait any longer: the origin leg is gone
//	quiet        neither side was sent anything more
//	any O        whatever the origin was sent so far is right, or C: the client;
//	             messages: the records so far
//	unacknowledged 5   so much of what the origin is sent has not come to it yet
//	aborted      the origin leg was reset already
//	whole        this file is about groups, so its sends must not be cut
//	rules errors=2 size=100 textline=80 drain=1000
//	ponder RCPT END   the policy takes its time about these commands, or about content
//	             (HEADERS, END), five minutes at most
//	shown "a" "b"   the content that it was shown so far, and the headers that it was
//	             asked about
//	asked RCPT   it is being asked about this now; asked 3: so often so far
//	put EHLO MAIL   the commands that it was asked about so far
//	decide       it lets it pass, and with a line refuses it so: decide 550 5.7.1 No
//	told refused accepted   what it has heard of messages
//	tls mirror   what the session does about TLS, see tls_test.go
//	tlsrecord side=...   the outcome of TLS on both sides, see tls_test.go
//	message TEXT the next message record, see summary; (*) is any reason
//	offence "MAIL x" 501 (argument)   the first words of the client that we refused,
//	             as the session's record has them
//	removed A B  the words of the origin's EHLO list that the session's record says
//	             were not passed on
//	dropped "AUTH=<>" ""   parameters of the last message that the origin was not
//	             given: of MAIL, and of each RCPT
//	refusals a=1 b=2   the reasons of our refusals, as the session's record has them
//	rewritten "571 no"=554   what of the origin's replies it says that we rewrote
//	lasted 5m    the session's record says that it took exactly that long
//	include FILE the steps of another file
//	each "a" "b" the file is played once for each of these, in place of $each;
//	             $len is its length
//	split        the file is played once for each way to cut its raw sends in two
//	end WORD client=graceful origin=abort   the session is over
//
// After each sending step everything runs until it waits. Time is virtual.
type dialogue struct {
	name  string
	lines []string
}

// has reports whether a directive is in the file.
func (d dialogue) has(word string) bool { return slices.Contains(d.lines, word) }

func loadDialogues(t testing.TB) (list []dialogue) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues in testdata: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		list = append(list, expand(t, dialogue{name, include(t, string(text))})...)
	}
	return list
}

// expand makes one dialogue of each value of the each steps.
func expand(t testing.TB, d dialogue) (list []dialogue) {
	t.Helper()
	var values, rest []string
	for _, line := range d.lines {
		text, ok := strings.CutPrefix(line, "each ")
		if !ok {
			rest = append(rest, line)
			continue
		}
		values = append(values, quotedFields(t, text)...)
	}
	for i, v := range values {
		one := dialogue{fmt.Sprintf("%s/%02d", d.name, i), slices.Clone(rest)}
		for j, line := range one.lines {
			line = strings.ReplaceAll(line, "$len", strconv.Itoa(len(v)))
			line = strings.ReplaceAll(line, "*$each", "*"+v)
			one.lines[j] = strings.ReplaceAll(line, "$each", inPlace(line, v))
		}
		list = append(list, one)
	}
	if values == nil {
		return []dialogue{d}
	}
	return list
}

// inPlace is how a value stands in a line: among raw octets it is quoted.
func inPlace(line, value string) string {
	word, _, _ := strings.Cut(line, " ")
	if strings.HasSuffix(word, "|") {
		return strconv.Quote(value)
	}
	return value
}

func quotedFields(t testing.TB, text string) (list []string) {
	t.Helper()
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			t.Fatalf("each %s: %v", text, err)
		}
		value, _ := strconv.Unquote(quoted)
		list, text = append(list, value), text[len(quoted):]
	}
	return list
}

// raw reads Go strings, each perhaps with a count behind it.
func raw(text string) (p []byte, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return nil, err
		}
		value, _ := strconv.Unquote(quoted)
		text = text[len(quoted):]
		times := 1
		if number, ok := strings.CutPrefix(text, "*"); ok {
			number, text, _ = strings.Cut(number, " ")
			if times, err = strconv.Atoi(number); err != nil {
				return nil, err
			}
		}
		p = append(p, strings.Repeat(value, times)...)
	}
	return p, nil
}

// include replaces include steps by what they name.
func include(t testing.TB, text string) (lines []string) {
	for line := range strings.SplitSeq(text, "\n") {
		file, ok := strings.CutPrefix(line, "include ")
		if !ok {
			lines = append(lines, line)
			continue
		}
		part, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, include(t, string(part))...)
	}
	return lines
}

func TestDialogues(t *testing.T) {
	for _, d := range loadDialogues(t) {
		t.Run(d.name, func(t *testing.T) {
			d.play(t, 0, uncut)
			for cut := range d.cuts(t) {
				d.play(t, 0, cut)
			}
		})
	}
}

// uncut stands for raw sends that are not cut.
const uncut = -1

// cuts returns how many ways there are to cut the longest raw send of a file
// that asks for it.
func (d dialogue) cuts(t *testing.T) (n int) {
	t.Helper()
	if !d.has("split") {
		return 0
	}
	for _, line := range d.lines {
		if word, arg, _ := strings.Cut(line, " "); word == "C>|" || word == "O>|" {
			p, err := raw(arg)
			if err != nil {
				t.Fatalf("%s.txt: %s: %v", d.name, line, err)
			}
			n = max(n, len(p))
		}
	}
	return n
}

// TestDialoguesInSegments plays every dialogue with reads of a few octets: how
// the stream was cut must not show.
func TestDialoguesInSegments(t *testing.T) {
	for _, d := range loadDialogues(t) {
		if d.has("whole") {
			continue
		}
		for _, size := range []int{1, 2, 3, 7} {
			t.Run(fmt.Sprintf("%s/%d", d.name, size), func(t *testing.T) { d.play(t, size, uncut) })
		}
	}
}

func (d dialogue) play(t *testing.T, atMost, cut int) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(atMost)
		s.cut = cut
		defer s.leave()
		for i, line := range d.lines {
			line = strings.TrimRight(line, "\r")
			if line == "" || line == "whole" || line == "split" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := s.step(line); err != nil {
				t.Fatalf("%s.txt, step %d (sends cut at %d): %s: %v", d.name, i+1, cut, line, err)
			}
		}
		if !s.ended {
			t.Fatalf("%s.txt has no end step", d.name)
		}
	})
}

// stage is a session with a script for its peers.
type stage struct {
	client, origin *memoryLeg
	rules          protocol.Rules
	tls            TLS
	trust          zone.Trust
	draining       bool
	isCut          bool
	ponderer       ponderer
	messages       []string
	dropped        []string // parameters of the last message and of its recipients
	record         *event.Session
	refused        int // refusals that the sink heard of
	unreasoned     int // of these, without a reason
	started, ended bool
	outcome        chan Outcome
	heard          map[string][]byte // written by the session, not yet checked
	cut            int               // where raw sends are cut; uncut: nowhere
	sent           []byte            // everything that the origin was sent
}

func newStage(atMost int) *stage {
	s := &stage{
		client: newMemoryLeg(), origin: newMemoryLeg(),
		rules:   plainTexts(protocol.Default()),
		outcome: make(chan Outcome, 1),
		heard:   map[string][]byte{},
	}
	s.client.atMost, s.origin.atMost = atMost, atMost
	return s
}

// plainTexts are rules without what is different in each session.
func plainTexts(p protocol.Rules) protocol.Rules {
	p.ReplyID = false
	return p
}

func (s *stage) start() {
	s.started = true
	s.ponderer.Plain, s.ponderer.patient = policy.New(s.rules), 5*time.Minute
	o := Options{
		Flow: flow.Flow{Service: "mx", Client: netip.MustParseAddrPort("192.0.2.1:40000"), Zone: zone.Zone{Name: "lan", Trust: s.trust}}, Sink: s, Policy: &s.ponderer, Rules: &s.rules, TLS: s.tls,
		Draining: func() bool { return s.draining },
		Cut:      func() bool { return s.isCut },
	}
	go func() { s.outcome <- Run(o, s.client, s.origin) }()
	synctest.Wait()
}

// leave ends a session that a failed test left behind.
func (s *stage) leave() {
	s.client.hangUp(errReset)
	s.origin.hangUp(errReset)
	synctest.Wait()
}

func (s *stage) Opened(*flow.Flow) {}
func (s *stage) Refused(_ *flow.Flow, why event.Reason) {
	s.refused++
	if why == event.NoReason {
		s.unreasoned++
	}
}
func (s *stage) Session(r *event.Session) { s.record = r }
func (s *stage) Message(m *event.Message) {
	s.messages = append(s.messages, summary(m))
	s.dropped = []string{string(m.Dropped)}
	for _, r := range m.Recipients {
		s.dropped = append(s.dropped, string(r.Dropped))
	}
}
func (s *stage) leg(name byte) *memoryLeg {
	if name == 'C' {
		return s.client
	}
	return s.origin
}

// summary: outcome <sender> to recipient=code... said code (reason).
func summary(m *event.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s <%s>", m.Outcome, m.Sender)
	for _, r := range m.Recipients {
		fmt.Fprintf(&b, " %s=%d", r.Address, r.Answer.Code)
	}
	fmt.Fprintf(&b, " said %d", m.Client.Code)
	if m.Reason != event.NoReason {
		fmt.Fprintf(&b, " (%s)", m.Reason)
	}
	return b.String()
}

func (s *stage) step(line string) error {
	word, arg, _ := strings.Cut(line, " ")
	switch word {
	case "rules":
		return s.setRules(arg)
	case "tls":
		return s.setTLS(arg)
	case "ponder":
		s.ponderer.about = strings.Fields(arg)
		return nil
	}
	if !s.started {
		s.start()
	}
	switch word {
	case "C>", "O>":
		s.send(word[0], []byte(arg+"\r\n"))
		return nil
	case "C>|", "O>|":
		p, err := raw(arg)
		if err != nil {
			return err
		}
		if s.cut > 0 && s.cut < len(p) {
			s.send(word[0], p[:s.cut])
			p = p[s.cut:]
		}
		s.send(word[0], p)
		return nil
	case "C<", "O<":
		return s.hear(word[:1], arg+"\r\n")
	case "C<|", "O<|":
		p, err := raw(arg)
		if err != nil {
			return err
		}
		return s.hear(word[:1], string(p))
	case "C!|", "O!|":
		p, err := raw(arg)
		if err != nil {
			return err
		}
		s.leg(word[0]).sendLast(p)
		synctest.Wait()
		return nil
	case "C!", "O!":
		return s.hangUp(word[0], arg)
	case "pace":
		who, text, _ := strings.Cut(arg, " ")
		d, err := time.ParseDuration(text)
		s.leg(who[0]).pace = d
		return err
	case "wait":
		return s.wait(arg)
	case "cut":
		s.draining, s.isCut = true, true
		s.origin.hangUp(errReset)
		s.client.SetReadDeadline(time.Now().Add(-time.Second))
		synctest.Wait()
		return nil
	case "drain":
		s.draining = true
		s.client.SetReadDeadline(time.Now().Add(-time.Second))
		synctest.Wait()
		return nil
	case "asked":
		if p := &s.ponderer; p.asking != arg && strconv.Itoa(p.asked) != arg {
			return fmt.Errorf("it is asked %q, and was %d times", p.asking, p.asked)
		}
		return nil
	case "decide":
		err := s.ponderer.decide(arg)
		synctest.Wait()
		return err
	case "shown":
		if got := fmt.Sprintf("%q %q", s.ponderer.shown, s.ponderer.headers); got != arg {
			return fmt.Errorf("got %s", got)
		}
		return nil
	case "put":
		if got := strings.Join(s.ponderer.put, " "); got != arg {
			return fmt.Errorf("got %s", got)
		}
		return nil
	case "told":
		if got := strings.Join(s.ponderer.heard, " "); got != arg {
			return fmt.Errorf("got %s", got)
		}
		return nil
	case "quiet":
		return s.quiet()
	case "any":
		if arg == "messages" {
			s.messages = nil
			return nil
		}
		s.taken(arg)
		s.heard[arg] = nil
		return nil
	case "unacknowledged":
		n, err := strconv.Atoi(arg)
		s.origin.owe(n)
		return err
	case "aborted":
		if !s.origin.aborted {
			return fmt.Errorf("the origin leg was not aborted")
		}
		return nil
	case "message":
		return s.expectMessage(arg)
	case "refusals":
		return s.expectRefusals(arg)
	case "lasted":
		return s.expectDuration(arg)
	case "rewritten":
		return s.expectRewritten(arg)
	case "removed":
		if s.record == nil || string(s.record.Removed) != arg {
			return fmt.Errorf("got %q", s.record.Removed)
		}
		return nil
	case "offence":
		return s.expectOffence(arg)
	case "dropped":
		if got := fmt.Sprintf("%q", s.dropped); got != "["+arg+"]" {
			return fmt.Errorf("got %s", got)
		}
		return nil
	case "end":
		return s.end(arg)
	case "tlsrecord":
		return s.expectTLS(arg)
	}
	return fmt.Errorf("unknown step %q", word)
}

// setRules reads a rules step: names as in protocol.Rules, in small letters.
func (s *stage) setRules(arg string) error {
	for _, f := range strings.Fields(arg) {
		name, text, _ := strings.Cut(f, "=")
		if s.setWord(name, text) {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		number := map[string]*int{
			"errors": &s.rules.Errors, "recipients": &s.rules.Recipients, "textline": &s.rules.TextLine,
			"messages": &s.rules.Messages, "rate": &s.rules.Rate, "idle": &s.rules.Idle, "tinychunks": &s.rules.TinyChunks,
			"command": &s.rules.CommandLine, "authline": &s.rules.AuthLine, "parameter": &s.rules.Parameter,
			"replyline": &s.rules.Replies.Line, "replylines": &s.rules.Replies.Lines, "replysize": &s.rules.Replies.Octets,
		}[name]
		switch {
		case number != nil:
			*number = n
		case name == "size":
			s.rules.Size = int64(n)
		case name == "drain":
			s.rules.Drain = int64(n)
		case name == "session":
			s.rules.Session = time.Duration(n) * time.Second
		default:
			return fmt.Errorf("unknown rule %q", name)
		}
	}
	return nil
}

// setWord sets a rule that is not a number.
func (s *stage) setWord(name, text string) bool {
	flag := map[string]*bool{
		"clear": &s.rules.AuthInClear, "bare": &s.rules.BareAddress, "noroutes": &s.rules.RefuseRoutes, "nopercent": &s.rules.RefusePercent,
		"nobang": &s.rules.RefuseBang, "stricthello": &s.rules.StrictHello, "strictpipelining": &s.rules.StrictPipelining,
		"replyid": &s.rules.ReplyID,
	}[name]
	switch {
	case flag != nil:
		*flag = true
	case name == "normalize":
		s.rules.Newlines = protocol.NormalizeNewlines
	case name == "removenul":
		s.rules.NUL = protocol.RemoveNUL
	case name == "passearly":
		s.rules.EarlyTalkers = protocol.PassEarly
	case name == "closemalformed":
		s.rules.Malformed = protocol.CloseReplies
	case name == "refuseunoffered":
		s.rules.Unoffered = protocol.RefuseUnoffered
	case name == "rejecteightbit":
		s.rules.EightBit = protocol.RejectEightBit
	case name == "received":
		s.rules.Received = text
	case name == "domain":
		s.rules.AppendDomain = text
	case name == "mechanisms":
		s.rules.Mechanisms = strings.Split(text, ",")
	case name == "trust":
		for _, t := range zone.Every {
			if slices.Contains(strings.Split(text, ","), t.String()) {
				s.trust |= t
			}
		}
	case name == "every":
		s.rules.Keywords = carried
	case name == "forward":
		s.rules.Forward = smtp.VerbsOf(smtp.VRFY, smtp.EXPN, smtp.HELP)
	case name == "refuse":
		s.rules.Commands = []protocol.Command{
			{Verb: smtp.NOOP, Action: protocol.Reject, Reply: smtp.Reply{Code: 502, Enhanced: smtp.Enhanced{Class: 5, Subject: 5, Detail: 1}, Text: "No"}},
			{Verb: smtp.HELP, Action: protocol.Disconnect, Reply: smtp.Reply{Code: 421, Enhanced: smtp.Enhanced{Class: 4, Subject: 7}, Text: "Go away"}},
		}
	default:
		return false
	}
	return true
}

func (s *stage) send(who byte, p []byte) {
	s.leg(who).send(p)
	synctest.Wait()
}

// taken collects what the session has written to a side.
func (s *stage) taken(who string) {
	p := s.leg(who[0]).taken()
	s.heard[who] = append(s.heard[who], p...)
	if who == "O" {
		s.sent = append(s.sent, p...)
	}
}

func (s *stage) hangUp(who byte, how string) error {
	switch how {
	case "eof":
		s.leg(who).hangUp(io.EOF)
	case "reset":
		s.leg(who).hangUp(errReset)
	case "deaf":
		s.leg(who).stopReading()
	default:
		return fmt.Errorf("unknown end %q", how)
	}
	synctest.Wait()
	return nil
}

func (s *stage) wait(arg string) error {
	d, err := time.ParseDuration(arg)
	if err != nil {
		return err
	}
	time.Sleep(d) // virtual
	synctest.Wait()
	return nil
}

// hear checks what the session has written next.
func (s *stage) hear(who, want string) error {
	s.taken(who)
	got := s.heard[who]
	if !bytes.HasPrefix(got, []byte(want)) {
		return fmt.Errorf("got %q", got)
	}
	s.heard[who] = got[len(want):]
	return nil
}

func (s *stage) quiet() error {
	for _, who := range []string{"C", "O"} {
		s.taken(who)
		if len(s.heard[who]) > 0 {
			return fmt.Errorf("%s was sent %q", who, s.heard[who])
		}
	}
	return nil
}

func (s *stage) expectMessage(want string) error {
	if len(s.messages) == 0 {
		return fmt.Errorf("no message record")
	}
	got := s.messages[0]
	s.messages = s.messages[1:]
	if begin, ok := strings.CutSuffix(want, "(*)"); got != want && (!ok || !strings.HasPrefix(got, begin+"(")) {
		return fmt.Errorf("got %s", got)
	}
	return nil
}

func (s *stage) expectRefusals(want string) error {
	if s.record == nil {
		return fmt.Errorf("the session goes on")
	}
	var got []string
	n := 0
	for _, t := range s.record.Refusals {
		got = append(got, fmt.Sprintf("%s=%d", t.Reason, t.Count))
		n += t.Count
	}
	if list := strings.Join(got, " "); list != want {
		return fmt.Errorf("got %s", list)
	}
	if n != s.refused {
		return fmt.Errorf("the sink heard of %d", s.refused)
	}
	return nil
}

func (s *stage) expectDuration(want string) error {
	d, err := time.ParseDuration(want)
	switch {
	case err != nil:
		return err
	case s.record == nil:
		return fmt.Errorf("the session goes on")
	case s.record.Duration != d:
		return fmt.Errorf("got %s", s.record.Duration)
	}
	return nil
}

func (s *stage) expectRewritten(want string) error {
	if s.record == nil {
		return fmt.Errorf("the session goes on")
	}
	var got []string
	for _, r := range s.record.Rewritten {
		got = append(got, fmt.Sprintf("%q=%d", r.Reply, r.Code))
	}
	if list := strings.Join(got, " "); list != want {
		return fmt.Errorf("got %s", list)
	}
	return nil
}

func (s *stage) expectOffence(want string) error {
	if s.record == nil {
		return fmt.Errorf("the session goes on")
	}
	o := &s.record.Slip
	if got := fmt.Sprintf("%q %d (%s)", o.Said, o.Answer.Code, o.Reason); got != want {
		return fmt.Errorf("got %s, %s", got, o.Answer.Text)
	}
	return nil
}

func (s *stage) end(want string) error {
	s.ended = true
	select {
	case o := <-s.outcome:
		got := fmt.Sprintf("%s client=%s origin=%s", o.End, o.Client, o.Origin)
		if got != want {
			return fmt.Errorf("got %s", got)
		}
	default:
		return fmt.Errorf("the session goes on")
	}
	if s.unreasoned > 0 {
		return fmt.Errorf("%d refusals without a reason", s.unreasoned)
	}
	if len(s.messages) > 0 {
		return fmt.Errorf("unexpected message record: %s", s.messages[0])
	}
	if err := s.quiet(); err != nil {
		return err
	}
	return alphabet(s.sent)
}

// alphabet checks what an origin was sent: nothing in it that some server reads
// as the end of a line, except CRLF. Chunks alone may carry any octet.
func alphabet(sent []byte) error {
	if bytes.Contains(sent, []byte("BDAT ")) {
		return nil
	}
	if rest := bytes.ReplaceAll(sent, []byte("\r\n"), nil); bytes.ContainsAny(rest, "\r\n\x00") {
		return fmt.Errorf("the origin was sent %q", sent)
	}
	return nil
}
