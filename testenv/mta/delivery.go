package mta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Delivery is one message in one mailbox, as the server knows it.
type Delivery struct {
	Sender    string // of the envelope, without angle brackets
	Recipient string // of the envelope
	// Received is the header that the server has written, with its dates and
	// queue ids masked: HELO, the client's address, the protocol.
	Received string
	// Content is the message without the headers that the server has put
	// before it. Lines end in LF.
	Content []byte
}

// Taken takes everything out of the Maildir that the server has accepted. It
// waits until the server has no connection and its queue is empty, so
// that what is not among the result was not accepted. The order is that of
// recipients, then senders, then contents.
func (s *Server) Taken(ctx context.Context) ([]Delivery, error) {
	var failure error
	err := s.await(ctx, func() bool {
		var idle bool
		idle, failure = s.idle()
		return idle || failure != nil
	})
	if err := errors.Join(err, failure); err != nil {
		return nil, fmt.Errorf("wait until %s is delivered: %w", s.Mail, err)
	}
	return s.empty()
}

// idle reports whether the server has no connection and nothing in its queue. A
// message moves along the directories of the queue while we look, so they are
// looked at in its direction, and twice, since the last thing that becomes of a
// message may be a report about it.
func (s *Server) idle() (bool, error) {
	open, err := s.node.Connected()
	if err != nil || open {
		return false, err
	}
	for _, dir := range slices.Concat(s.queue, s.queue) {
		empty, err := noFile(dir)
		if err != nil || !empty {
			return false, err
		}
	}
	return true, nil
}

// noFile reports whether no file is below a directory.
func noFile(dir string) (bool, error) {
	found := errors.New("a file")
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since it was listed
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return found
		}
		return nil
	})
	if err == found {
		return false, nil
	}
	return true, err
}

// empty reads and removes what is in the Maildir.
func (s *Server) empty() ([]Delivery, error) {
	dir := filepath.Join(s.Mail, "new")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Delivery
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		d, err := parseDelivery(text, s.trace)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, d)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b Delivery) int {
		return cmp.Or(cmp.Compare(a.Recipient, b.Recipient), cmp.Compare(a.Sender, b.Sender), bytes.Compare(a.Content, b.Content))
	})
	return all, err
}

// parseDelivery takes exactly the headers of trace off a message: further ones of
// the same names are the message's own. OpenSMTPD writes no Return-Path for the
// null sender.
func parseDelivery(text []byte, trace []string) (Delivery, error) {
	var d Delivery
	if !bytes.HasPrefix(text, []byte(trace[0])) && bytes.HasPrefix(text, []byte(trace[1])) {
		trace = trace[1:]
	}
	for _, name := range trace {
		value, rest, err := cutHeader(text, name)
		if err != nil {
			return Delivery{}, err
		}
		text = rest
		switch strings.ToLower(name) {
		case "return-path":
			d.Sender = strings.Trim(value, "<>")
		case "delivered-to", "envelope-to":
			d.Recipient = strings.Trim(value, "<>")
		case "received":
			d.Received = masked(value)
		}
	}
	d.Content = text
	return d, nil
}

// cutHeader takes the first header, which has a certain name, with its folded
// lines off a message.
func cutHeader(text []byte, name string) (value string, rest []byte, err error) {
	rest, is := bytes.CutPrefix(text, []byte(name+": "))
	if !is {
		return "", nil, fmt.Errorf("it starts with %.80q in place of the header %s", text, name)
	}
	for {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		value, rest = value+string(line), after
		if !ended || len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' {
			return value, rest, nil
		}
		value += "\n"
	}
}

// what differs from one message to the next in Received: ids of the queue, and
// the date.
var (
	queueID = regexp.MustCompile(`\bid [0-9A-Za-z-]+`)
	date    = regexp.MustCompile(`;\s+[A-Z][a-z]{2}, .*`)
)

func masked(received string) string {
	return date.ReplaceAllString(queueID.ReplaceAllString(received, "id -"), "; -")
}
