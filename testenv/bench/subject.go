package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
)

// subject starts one of the things that are compared.
type subject func(ctx context.Context, s *stage) (*serving, error)

// serving is a subject that carries sessions.
type serving struct {
	target netip.AddrPort // where clients connect to
	pid    int            // its process, whose children count too; 0: none
	stop   func() error
	count  func() (int, error) // messages carried, by its own log; nil: it keeps none
}

// verify reports a subject whose own log lacks messages of the load: what was
// measured was not the work then.
func (r *serving) verify(messages int) error {
	if r.count == nil {
		return nil
	}
	n, err := r.count()
	if err == nil && n < messages {
		err = fmt.Errorf("its log has %d messages of %d", n, messages)
	}
	return err
}

// subjects are what can be compared.
var subjects = map[string]subject{
	"direct":    startDirect,
	"floor":     startFloor,
	"haproxy":   startHAProxy(2),
	"haproxy-1": startHAProxy(1),
	"nginx":     startNginx(2),
	"nginx-1":   startNginx(1),
	"portreeve": startPortreeve,
	"postfix":   startBeforeQueue,
	otherBuild:  startOtherBuild,
}

// takesPart reports whether a subject can do a section's work.
func takesPart(name string, w work) bool {
	switch name {
	case "floor": // it knows no TLS
		return !w.secure
	case "postfix": // it knows no TLS towards the origin, and has a process for each session
		return w.messages > 0 && !w.secure && !w.unseen && w.parallel <= mostBeforeQueue
	}
	return true
}

// otherBuild names the portreeve that is to be compared with.
const otherBuild = "before"

// versions prepare commands whose first line names a subject's version.
var versions = map[string]func(context.Context, *stage) *exec.Cmd{
	"floor": func(ctx context.Context, _ *stage) *exec.Cmd { return exec.CommandContext(ctx, "cc", "--version") },
	"haproxy": func(_ context.Context, s *stage) *exec.Cmd {
		return s.unpacked(s.env.Gateway, "haproxy", "haproxy", "-v")
	},
	"nginx":     func(_ context.Context, s *stage) *exec.Cmd { return s.unpacked(s.env.Gateway, "nginx", "nginx", "-v") },
	"portreeve": func(ctx context.Context, s *stage) *exec.Cmd { return s.portreeve(ctx, "version") },
	otherBuild: func(ctx context.Context, s *stage) *exec.Cmd {
		s.binary = s.options.before
		defer func() { s.binary = s.options.binary }()
		return s.portreeve(ctx, "version")
	},
	"postfix": func(_ context.Context, s *stage) *exec.Cmd {
		return s.unpacked(s.env.Gateway, "postfix", "sh", "-c", "exec postconf -d mail_version 2>/dev/null") // it misses its configuration aloud
	},
}

// names returns the names of all subjects.
func names() []string { return slices.Sorted(maps.Keys(subjects)) }

// startDirect has nothing to start: clients connect to the origin, and the
// gateway forwards their packets.
func startDirect(_ context.Context, s *stage) (*serving, error) {
	return &serving{
		target: netip.AddrPortFrom(s.env.Origin4, smtpPort),
		stop:   func() error { return nil },
	}, nil
}
