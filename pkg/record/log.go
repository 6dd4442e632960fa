// Package record writes down what happened: one line for each message and each
// session, as JSON or as text.
//
// It owns the records' schema (schema.md), their encoding and the escaping of
// everything in them that a peer chose: no control octet reaches a log. A Log is an
// event.Sink with a goroutine that writes; WithoutSilent keeps port scans and health
// checks out of it. It never fills a record in, keeps nothing of one, and makes no
// session wait for a disk. run makes the Log; a session, which only knows a sink,
// calls it.
package record

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/flow"
)

// Log is an event.Sink that writes one line per record. Sessions only append to memory;
// a goroutine of the Log writes what has gathered in one go. A record is never
// dropped in silence: when the writer falls too far behind or fails, records are
// counted, and the count is written as soon as that is possible.
type Log struct {
	out    io.Writer
	format form

	mu      sync.Mutex
	waiting []byte
	records int    // in waiting
	lost    uint64 // dropped and not yet reported
	missed  uint64 // dropped altogether
	err     error

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

const (
	maxWaiting = 4 << 20               // octets that may wait for the writer
	gathering  = 10 * time.Millisecond // how long lines gather before they are written
	closing    = 5 * time.Second       // how long Close waits for a writer that takes nothing
)

var errStuck = errors.New("records are lost: the writer takes none")

// NewJSON returns a Log that writes one JSON object per line, with the members
// that schema.md lists. Close it after the last event.
func NewJSON(w io.Writer) *Log { return newLog(w, asJSON) }

// NewText returns a Log that writes the same for a reader at a terminal, one line
// of NAME=VALUE per record; schema.md says how. Close it after the last event.
func NewText(w io.Writer) *Log { return newLog(w, asText) }

func newLog(w io.Writer, f form) *Log {
	l := &Log{
		out: w, format: f,
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	go l.run()
	return l
}

// Opened does nothing: a session is written when it is over.
func (l *Log) Opened(*flow.Flow) {}

// Refused does nothing: the records have the reasons.
func (l *Log) Refused(*flow.Flow, event.Reason) {}

// Message writes the record of a message.
func (l *Log) Message(m *event.Message) {
	l.mu.Lock()
	if l.room() {
		l.waiting = l.format.message(l.waiting, m)
	}
	l.mu.Unlock()
	l.nudge()
}

// Session writes the record of a session.
func (l *Log) Session(s *event.Session) {
	l.mu.Lock()
	if l.room() {
		l.waiting = l.format.session(l.waiting, s)
	}
	l.mu.Unlock()
	l.nudge()
}

// room counts one more record, as waiting or as lost.
func (l *Log) room() bool {
	if len(l.waiting) >= maxWaiting {
		l.lost++
		l.missed++
		return false
	}
	l.records++
	return true
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake
	}
}

// run writes until Close.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			l.flush(spare)
			return
		}
		timer.Reset(gathering)
		select {
		case <-timer.C:
		case <-l.stop:
		}
		spare = l.flush(spare)
	}
}

// flush writes what waits and returns its memory for the next lines.
func (l *Log) flush(spare []byte) []byte {
	l.mu.Lock()
	full, records, lost := l.waiting, l.records, l.lost
	l.waiting, l.records, l.lost = spare[:0], 0, 0
	l.mu.Unlock()
	if lost > 0 {
		full = l.format.lost(full, time.Now(), lost)
	}
	if len(full) == 0 {
		return full
	}
	if _, err := l.out.Write(full); err != nil {
		l.mu.Lock()
		l.lost += lost + uint64(records)
		l.missed += uint64(records)
		l.err = err
		l.mu.Unlock()
	}
	if cap(full) > maxWaiting/8 { // after a storm, do not keep its memory
		return nil
	}
	return full
}

// Lost returns how many records could not be written so far.
func (l *Log) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missed
}

// Close writes what waits and ends the Log. It returns the last error of the
// writer. A writer that takes nothing, such as a pipe that nobody reads, is not
// waited for longer than five seconds. No event may come after it.
func (l *Log) Close() error {
	close(l.stop)
	timer := time.NewTimer(closing)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
		return errStuck
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
