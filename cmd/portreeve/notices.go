package main

import (
	"io"
	"log/slog"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/record"
)

// notices returns the daemon's own log: text for a terminal and for journald,
// which stamps the time itself.
func notices(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// records returns the log of messages and sessions in the configured form.
// Its Close writes out the last of them.
func records(l config.Log, out io.Writer, log *slog.Logger) *record.Log {
	w := &outlet{out: out, log: log}
	if l.Format == "text" {
		return record.NewText(w)
	}
	return record.NewJSON(w)
}

// outlet is where records go. It tells when they can no longer be written,
// and when they can again: mail goes on meanwhile.
type outlet struct {
	out     io.Writer
	log     *slog.Logger
	failing bool
}

func (o *outlet) Write(b []byte) (int, error) {
	n, err := o.out.Write(b)
	switch {
	case err != nil && !o.failing:
		o.log.Error("records cannot be written, they are counted instead", "error", err)
	case err == nil && o.failing:
		o.log.Info("records are written again")
	}
	o.failing = err != nil
	return n, err
}
