package main

import (
	"io"
	"log/slog"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
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
func records(l config.Log, w io.Writer) *event.Log {
	if l.Format == "text" {
		return event.NewText(w)
	}
	return event.NewJSON(w)
}
