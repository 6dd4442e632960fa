// Package notice keeps the daemon's own log readable while strangers cause what it
// tells of.
//
// Of each kind of message a few a minute are written as they are; the others are
// counted, and the count is written when the minute is over. Each kind is limited
// for itself, so that a flood of one hides no other. It is a slog.Handler around
// another one. daemon puts it before everything that a connection can bring about;
// what an operator causes is not limited, and records of messages and sessions
// are no notices.
package notice

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	burst  = 10          // notices of one kind in a period that are written as they are
	period = time.Minute // from the first of them on
)

// Limit is a handler that writes the first notices of a kind, and then how many
// there were. A kind is a message's text, whatever its attributes are: they bear
// addresses of clients, and the texts are constants of the program.
type Limit struct {
	to    slog.Handler
	kinds *kinds // shared with what WithAttrs and WithGroup return
}

// kinds are what was counted in the current periods.
type kinds struct {
	mu sync.Mutex
	of map[string]*kind
}

// kind is one text in its period.
type kind struct {
	written int
	left    int
	last    slog.Handler // that would have written the last one left out
	level   slog.Level   // of that one
	end     *time.Timer
}

// NewLimit returns a handler that writes to another one.
func NewLimit(to slog.Handler) *Limit {
	return &Limit{to: to, kinds: &kinds{of: make(map[string]*kind)}}
}

// Enabled implements slog.Handler.
func (l *Limit) Enabled(ctx context.Context, level slog.Level) bool { return l.to.Enabled(ctx, level) }

// WithAttrs implements slog.Handler. What it returns counts together with l.
func (l *Limit) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Limit{to: l.to.WithAttrs(attrs), kinds: l.kinds}
}

// WithGroup implements slog.Handler. What it returns counts together with l.
func (l *Limit) WithGroup(name string) slog.Handler {
	return &Limit{to: l.to.WithGroup(name), kinds: l.kinds}
}

// Handle implements slog.Handler.
func (l *Limit) Handle(ctx context.Context, r slog.Record) error {
	if !l.kinds.admit(r.Message, r.Level, l.to) {
		return nil
	}
	return l.to.Handle(ctx, r)
}

// Flush writes at once what was left out so far. It is for the end of the program;
// after it, periods begin anew.
func (l *Limit) Flush() {
	l.kinds.mu.Lock()
	texts := make([]string, 0, len(l.kinds.of))
	for text := range l.kinds.of {
		texts = append(texts, text)
	}
	l.kinds.mu.Unlock()
	for _, text := range texts {
		l.kinds.over(text)
	}
}

// admit reports whether a notice is to be written, and counts it otherwise.
func (k *kinds) admit(text string, level slog.Level, to slog.Handler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.of[text]
	if one == nil {
		one = &kind{end: time.AfterFunc(period, func() { k.over(text) })}
		k.of[text] = one
	}
	if one.written < burst {
		one.written++
		return true
	}
	one.left++
	one.last, one.level = to, level
	return false
}

// over ends a period, and writes how many notices were left out in it.
func (k *kinds) over(text string) {
	k.mu.Lock()
	one := k.of[text]
	delete(k.of, text)
	k.mu.Unlock()
	if one == nil {
		return
	}
	one.end.Stop()
	if one.left == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), one.level, fmt.Sprintf("%s: … and %d more in the last minute", text, one.left), 0)
	one.last.Handle(context.Background(), r) // nobody is told that a notice cannot be written
}
