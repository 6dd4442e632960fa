package differential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
)

// dialogues are where the session's tests lie.
const dialogues = "../../pkg/session/testdata"

// dialogue is the client's half of one of them.
type dialogue struct {
	name  string
	steps []step
}

// step is what the client does: it sends, waits for the replies that are due, or
// leaves.
type step struct {
	octets string
	hear   bool
	leave  string // eof or reset
}

// elsewhere are steps that need another configuration, hours, or a daemon.
var elsewhere = regexp.MustCompile(`(?m)^(rules|wait|drain|pace|C! deaf)\b`)

// loadDialogues reads those that make sense with a server of its own will: all
// but those that need elsewhere. The short form has one value of each steps.
func loadDialogues(t *testing.T) (list []dialogue) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dialogues, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := includes(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		if elsewhere.MatchString(text) {
			continue
		}
		variants, err := expand(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if !*complete {
			variants = variants[:1]
		}
		for n, variant := range variants {
			d := dialogue{name: fmt.Sprintf("%s/%d", filepath.Base(file), n)}
			if d.steps, err = clientHalf(variant); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			list = append(list, d)
		}
	}
	if len(list) < 100 {
		t.Fatalf("only %d dialogues in %s", len(list), dialogues)
	}
	return list
}

// includes reads a file with the files that it includes in their places.
func includes(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dialogues, name))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		part, is := strings.CutPrefix(strings.TrimSpace(line), "include ")
		if is {
			if line, err = includes(part); err != nil {
				return "", err
			}
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// expand returns the dialogue once for each value of its each steps, which stands
// for $each: in raw octets as a string, elsewhere as it is.
func expand(text string) ([]string, error) {
	var values []string
	var rest strings.Builder
	for line := range strings.Lines(text) {
		list, is := strings.CutPrefix(line, "each ")
		if !is {
			rest.WriteString(line)
			continue
		}
		for list = strings.TrimSpace(list); list != ""; list = strings.TrimSpace(list) {
			quoted, err := strconv.QuotedPrefix(list)
			if err != nil {
				return nil, fmt.Errorf("each %s: %w", list, err)
			}
			values, list = append(values, quoted), list[len(quoted):]
		}
	}
	if values == nil {
		return []string{text}, nil
	}
	var variants []string
	for _, quoted := range values {
		variants = append(variants, insert(rest.String(), quoted))
	}
	return variants, nil
}

// insert puts a value, a Go string, in the places of a text that are for it.
func insert(text, quoted string) string {
	value, _ := strconv.Unquote(quoted) // it was cut out as one
	var b strings.Builder
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(line, " ")
		line = strings.NewReplacer("$len", strconv.Itoa(len(value)), "*$each", "*"+value).Replace(line)
		if strings.HasSuffix(word, "|") {
			line = strings.ReplaceAll(line, "$each", quoted)
		}
		b.WriteString(strings.ReplaceAll(line, "$each", value))
	}
	return b.String()
}

// raw reads Go strings, each perhaps with a count behind it: "x"*510.
func raw(text string) (octets string, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", fmt.Errorf("%s: %w", text, err)
		}
		value, _ := strconv.Unquote(quoted)
		text = text[len(quoted):]
		if number, is := strings.CutPrefix(text, "*"); is {
			number, text, _ = strings.Cut(number, " ")
			times, err := strconv.Atoi(number)
			if err != nil {
				return "", err
			}
			value = strings.Repeat(value, times)
		}
		octets += value
	}
	return octets, nil
}

// clientHalf takes the client's steps out of a dialogue.
func clientHalf(text string) (steps []step, err error) {
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch word {
		case "C>":
			steps = append(steps, step{octets: rest + "\r\n"})
		case "C>|":
			octets, err := raw(rest)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step{octets: octets})
		case "C<", "C<|":
			steps = append(steps, step{hear: true})
		case "C!":
			steps = append(steps, step{leave: rest})
		}
	}
	return steps, nil
}

// TestDialogues plays the client's half of the session's dialogues against each
// origin. What the origin answers is its own business; each command must have
// its reply, and the origin must have what the records say.
func TestDialogues(t *testing.T) {
	list := loadDialogues(t)
	onStage(t, anywhere, func(t *testing.T, s *stage) {
		accepted := 0
		for _, d := range list {
			ends, err := s.play(t.Context(), d)
			if err != nil {
				t.Errorf("%s with %s: %v", d.name, s.name, err)
			}
			accepted += ends
		}
		t.Logf("%s: %d dialogues, %d messages accepted", s.name, len(list), accepted)
		if accepted == 0 {
			t.Errorf("%s has accepted nothing: these were no conversations", s.name)
		}
	})
}

// play plays one dialogue and returns how many messages were accepted.
func (s *stage) play(ctx context.Context, d dialogue) (accepted int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := s.dial(ctx, addressed.to(s))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	l := newLedger()
	left, err := l.converse(conn, d.steps)
	if err != nil {
		return 0, fmt.Errorf("after %v: %w", l.codes, err)
	}
	conn.Close()
	records, err := s.recorded(ctx)
	if err != nil {
		return 0, err
	}
	taken, err := s.server.Taken(ctx)
	if err != nil {
		return 0, err
	}
	messages, mailboxes := 0, 0
	for _, r := range records[:len(records)-1] {
		if r.Outcome == "accepted" {
			messages, mailboxes = messages+1, mailboxes+r.Accepted
		}
	}
	if messages != l.ends && !left || l.ends > messages {
		return l.ends, fmt.Errorf("the client was told of %d messages, the records of %d: %+v", l.ends, messages, records)
	}
	// A report of success, for which one dialogue asks, is the origin's own.
	taken = slices.DeleteFunc(taken, func(d mta.Delivery) bool { return !strings.Contains(d.Received, s.Client4.String()) })
	if mailboxes != len(taken) {
		return l.ends, fmt.Errorf("%d messages are stored, %d recorded: %+v", len(taken), mailboxes, records)
	}
	return l.ends, nil
}

// converse sends the steps, each when the replies before it are there if the
// dialogue waits for them, and reads all replies to the end of the connection.
// left says that the client has left before that.
func (l *ledger) converse(conn net.Conn, steps []step) (left bool, err error) {
	c := peer.NewClient(conn)
	for _, step := range steps {
		switch {
		case step.leave == "reset":
			return true, peer.Reset(conn)
		case step.leave != "":
			left = true
			err = halfClose(conn)
		case step.hear:
			var ended bool
			if ended, err = l.hear(c, false); ended {
				return left, errors.Join(err, l.closed(left))
			}
		default:
			l.sent(step.octets)
			c.Write(step.octets) // a server that has closed is noticed by its replies
		}
		if err != nil {
			return left, err
		}
	}
	// Whatever is due must come also to a client that says no more.
	if _, err := l.hear(c, false); err != nil {
		return left, err
	}
	if err := halfClose(conn); err != nil {
		return left, err
	}
	_, err = l.hear(c, true)
	return left, errors.Join(err, l.closed(true))
}

// halfClose ends what the client sends; the connection may be gone already.
func halfClose(conn net.Conn) error {
	conn.(*net.TCPConn).CloseWrite()
	return nil
}

// hear reads the replies that are due, or all up to the end. ended says that
// this was reached.
func (l *ledger) hear(c *peer.Client, all bool) (ended bool, err error) {
	for all || len(l.due) > 0 {
		reply, err := c.Reply()
		switch {
		case err != nil && (reply.Raw != "" || errors.Is(err, os.ErrDeadlineExceeded)):
			return true, fmt.Errorf("read %q for %v: %w", reply.Raw, l.due, err)
		case err != nil: // closed or reset
			return true, nil
		}
		if err := l.got(reply.Code); err != nil {
			return false, err
		}
	}
	return false, nil
}
