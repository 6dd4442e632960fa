package differential

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ledger follows the octets that a client sends and the replies that it reads,
// and knows which reply is due. It is RFC 5321 seen from the client's end, by
// the strict rule of lines, and shares nothing with the product.
type ledger struct {
	unread  []byte   // sent, of which no one can say yet what it is
	due     []string // what the outstanding replies belong to, in order
	barrier bool     // what follows depends on the last reply that is due
	mode    string   // what unread is: command, content, chunk or answer
	chunk   int64    // octets of the chunk

	codes    []int
	ends     int  // ends of content that were answered with 250
	finished bool // the server has said that it closes
}

func newLedger() *ledger { return &ledger{mode: "command", due: []string{"greeting"}} }

// sent takes what the client sends.
func (l *ledger) sent(octets string) {
	l.unread = append(l.unread, octets...)
	l.read()
}

// read turns octets into replies that are due, as far as it can.
func (l *ledger) read() {
	for !l.barrier {
		var more bool
		switch l.mode {
		case "content":
			more = l.readContent()
		case "chunk":
			more = l.readChunk()
		default:
			more = l.readLine()
		}
		if !more {
			return
		}
	}
}

func (l *ledger) expect(what string, barrier bool) {
	l.due = append(l.due, what)
	l.barrier = barrier
}

func (l *ledger) readContent() bool {
	n := len(".\r\n")
	if !bytes.HasPrefix(l.unread, []byte(".\r\n")) {
		before, _, found := bytes.Cut(l.unread, []byte("\r\n.\r\n"))
		if !found {
			return false
		}
		n = len(before) + len("\r\n.\r\n")
	}
	l.unread = l.unread[n:]
	l.mode = "command"
	l.expect("content", false)
	return true
}

func (l *ledger) readChunk() bool {
	if int64(len(l.unread)) < l.chunk {
		return false
	}
	l.unread = l.unread[l.chunk:]
	l.mode = "command"
	return true
}

// bdat is the grammar of RFC 3030 section 2.
var bdat = regexp.MustCompile(`(?i)^BDAT (\d{1,10})( LAST)?$`)

func (l *ledger) readLine() bool {
	text, rest, found := bytes.Cut(l.unread, []byte("\r\n"))
	if !found {
		return false
	}
	l.unread = rest
	verb, _, _ := strings.Cut(strings.ToUpper(string(text)), " ")
	switch size := bdat.FindSubmatch(text); {
	case l.mode == "answer":
		l.expect("AUTH", true)
	case size != nil:
		l.chunk, _ = strconv.ParseInt(string(size[1]), 10, 64) // at most ten digits
		l.mode = "chunk"
		what := "BDAT"
		if len(size[2]) > 0 {
			what = "BDAT LAST"
		}
		l.expect(what, false)
	default:
		l.expect(verb, slices.Contains([]string{"DATA", "AUTH", "STARTTLS", "BDAT"}, verb))
	}
	return true
}

// positive are the codes that say yes. No other verb has any of our own.
var positive = map[string][]int{
	"greeting": {220}, "EHLO": {250}, "HELO": {250}, "MAIL": {250}, "RCPT": {250, 251, 252}, "DATA": {354}, "content": {250}, "BDAT": {250},
	"BDAT LAST": {250}, "RSET": {250}, "NOOP": {250}, "QUIT": {221}, "VRFY": {250, 251, 252}, "HELP": {211, 214, 250}, "AUTH": {235, 334},
}

// got takes a reply that the client reads and says what is wrong with it.
func (l *ledger) got(code int) error {
	l.codes = append(l.codes, code)
	if len(l.due) == 0 {
		// An unfinished line or chunk can still be refused for good.
		if code < 400 || l.finished {
			return fmt.Errorf("reply %d belongs to nothing", code)
		}
		l.finished = true
		return nil
	}
	what := l.due[0]
	l.due = l.due[1:]
	if code < 400 && !slices.Contains(positive[what], code) {
		return fmt.Errorf("reply %d to %s", code, what)
	}
	if code == 250 && (what == "content" || what == "BDAT LAST") {
		l.ends++
	}
	if len(l.due) == 0 {
		l.resume(code)
	}
	return nil
}

// resume goes on behind a barrier.
func (l *ledger) resume(code int) {
	if l.barrier {
		l.mode = "command"
		switch code {
		case 354:
			l.mode = "content"
		case 334:
			l.mode = "answer"
		}
	}
	l.barrier = false
	l.read()
}

// closed says what is wrong with a connection that the server has ended. It may
// leave replies due only when its last reply was a refusal, or the client left.
func (l *ledger) closed(left bool) error {
	last := 0
	if len(l.codes) > 0 {
		last = l.codes[len(l.codes)-1]
	}
	if len(l.due) > 0 && last < 400 && !left && last != 221 {
		return fmt.Errorf("no reply to %s", strings.Join(l.due, ", "))
	}
	return nil
}
