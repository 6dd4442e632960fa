package chaos

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/apply"
)

// verbOperations are what the administrator types.
var verbOperations = []operation{
	{name: "attach the same file", weight: 4, class: verbs, do: func(s *stage) (string, func() error, error) {
		files := s.manager.attached()
		return "", nil, s.attach(files[len(files)-1]) // where it may be one of two, the one that is served
	}},
	{name: "attach another file", weight: 6, class: verbs, do: func(s *stage) (string, func() error, error) {
		f, before := s.drawFile(), s.manager.working()
		said, err := s.tryAttach(f)
		if err != nil {
			return f.String() + " refused: " + firstLine(said), nil, nil
		}
		s.manager.configure(f, before)
		return f.String(), nil, nil
	}},
	{name: "attach another file and let mail stop", weight: 2, class: verbs, stops: true, opens: true, do: func(s *stage) (string, func() error, error) {
		f, before := s.drawFile(), s.manager.working()
		said, err := s.tryAttach(f, "--let-mail-stop")
		if err != nil {
			return f.String() + " refused: " + firstLine(said), nil, nil
		}
		s.manager.configure(f, before)
		return f.String(), func() error { return s.takeOver(f) }, nil
	}},
	{name: "run --attach takes over", weight: 8, class: verbs, do: func(s *stage) (string, func() error, error) {
		f := s.drawFile()
		return f.String(), nil, s.takeOver(f)
	}},
	{name: "run --attach of the same file takes over", weight: 4, class: verbs, do: func(s *stage) (string, func() error, error) {
		return "", nil, s.takeOver(s.manager.wanted())
	}},
	{name: "detach", weight: 6, class: verbs, stops: true, opens: true, do: func(s *stage) (string, func() error, error) {
		s.manager.rest(true)
		if err := s.detach(); err != nil {
			s.ledger.Fail("%v", err)
		}
		f := s.manager.wanted()
		if s.chance(50) {
			f = s.drawFile()
		}
		s.leaves(5 * time.Second)
		return "then " + f.String(), func() error {
			s.leaves(0)
			defer s.manager.rest(false)
			return s.takeOver(f)
		}, nil
	}},
	{name: "stop, detach, start", weight: 3, class: verbs, stops: true, opens: true, do: func(s *stage) (string, func() error, error) {
		f := s.manager.wanted()
		if err := s.manager.stop(stopPatience); err != nil {
			s.ledger.Fail("%v", err)
		}
		if err := s.detach(); err != nil {
			s.ledger.Fail("%v", err)
		}
		s.leaves(5 * time.Second)
		return "", func() error {
			s.leaves(0)
			return s.takeOver(f)
		}, nil
	}},
	{name: "kill -9 of an attach of the same file", weight: 3, class: verbs, do: func(s *stage) (string, func() error, error) {
		f := s.manager.wanted()
		what, err := s.killed("attach", "-c", s.mustWrite(f))
		return what, nil, err
	}},
	{name: "kill -9 of an attach of another file", weight: 4, class: verbs, do: func(s *stage) (string, func() error, error) {
		f, before := s.drawFile(), s.manager.working()
		what, err := s.killed("attach", "-c", s.mustWrite(f))
		if what == "too late" || s.remembered(f) {
			s.manager.configure(f, before)
		}
		return f.String() + ": " + what, nil, err
	}},
	{name: "kill -9 of a detach", weight: 3, class: verbs, stops: true, opens: true, do: func(s *stage) (string, func() error, error) {
		what, err := s.killed("detach", "-c", s.mustWrite(s.manager.wanted()))
		f := s.drawFile()
		return what + ", then " + f.String(), func() error { return s.takeOver(f) }, err
	}},
	{name: "attach and detach at the same time", weight: 3, class: verbs, stops: true, opens: true, do: func(s *stage) (string, func() error, error) {
		f := s.manager.wanted()
		path := s.mustWrite(f)
		var going sync.WaitGroup
		for range 2 {
			going.Go(func() { s.verb("attach", "-c", path) }) // either may come first, and either
			going.Go(func() { s.verb("detach", "-c", path) }) // may be refused
		}
		going.Wait()
		return "", func() error { return s.takeOver(f) }, nil
	}},
	{name: "a second watch beside, or its end", weight: 3, class: processes, do: func(s *stage) (string, func() error, error) {
		if s.beside {
			s.beside = false
			return "ends", nil, s.endBeside()
		}
		s.beside = true
		cmd := s.portreeve(context.Background(), "watch")
		if err := cmd.Start(); err != nil {
			return "", nil, err
		}
		s.manager.going.Go(func() { cmd.Wait() })
		return "begins", nil, nil
	}},
}

// stopPatience is for what an inspector has left to do: its drain timeout is 5s.
const stopPatience = 15 * time.Second

// drawFile draws a file; where nobody asks FORWARD with it, the ban is lifted.
func (s *stage) drawFile() File {
	f := DrawFile(s.rand)
	f.Legacy = f.Legacy && !s.strict // what one flavour drops the other cannot let through
	if f.Skip {
		s.ledger.Lift(true, Ways[2], Ways[3])
	}
	return f
}

func (s *stage) mustWrite(f File) string {
	path, err := s.write(f)
	if err != nil {
		s.ledger.Fail("%v", err)
	}
	return path
}

// tryAttach attaches, and returns what was said.
func (s *stage) tryAttach(f File, flags ...string) (string, error) {
	return s.verb(append([]string{"attach", "-c", s.mustWrite(f)}, flags...)...)
}

// attach attaches what cannot be refused.
func (s *stage) attach(f File) error {
	if _, err := s.tryAttach(f); err != nil && !s.crowded {
		s.ledger.Fail("%v", err)
	}
	return nil
}

func (s *stage) detach() error {
	_, err := s.verb("detach", "-c", s.mustWrite(s.manager.wanted()))
	return err
}

// takeOver lets an inspector of a file take over, which is to work at any time.
func (s *stage) takeOver(f File) error {
	refusal, err := s.manager.takeOver(f)
	if refusal != "" {
		s.note("  refused: %s", firstLine(refusal))
		if !s.crowded {
			s.ledger.Fail("run --attach of %s was refused: %s", f, refusal)
		}
	}
	return err
}

// leaves sees that nothing of portreeve's is on the gateway, at the latest after some
// time.
func (s *stage) leaves(patience time.Duration) {
	left, err := s.ours()
	for limit := time.Now().Add(patience); left != "" && err == nil && time.Now().Before(limit); left, err = s.ours() {
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil || left != "" {
		s.ledger.Fail("detach has left behind, or it was put back: %v\n%s", err, left)
	}
}

// killed kills a verb at a random moment.
func (s *stage) killed(args ...string) (what string, err error) {
	cmd := s.portreeve(s.ctx, args...)
	log, err := os.Create(s.env.Dir + "/killed.log")
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	after := time.Duration(s.rand.IntN(900)) * time.Millisecond
	time.Sleep(after)
	cmd.Process.Kill()
	if cmd.Wait() == nil {
		return "too late", nil
	}
	if cmd.ProcessState.Exited() {
		said, _ := os.ReadFile(log.Name())
		return "refused: " + firstLine(string(said)), nil
	}
	return "after " + after.String(), nil
}

// remembered reports whether a file counts as the one that was attached: an attach may be
// killed when it has done everything, and not yet said so.
func (s *stage) remembered(f File) bool {
	memories, _ := filepath.Glob(s.env.RunDir + "/*.config") // the pattern is good
	for _, m := range memories {
		data, _ := os.ReadFile(m) // it may be gone again
		var given apply.Given
		if json.Unmarshal(data, &given) == nil && given.Name == s.path(f) {
			return true
		}
	}
	return false
}

// endBeside ends watchers that no inspector has started.
func (s *stage) endBeside() error {
	all, err := s.find(watcherProcess)
	for _, p := range all {
		if !p.bound() {
			p.signal(15)
		}
	}
	return err
}

// firstLine is the line that says why.
func firstLine(said string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "error") || strings.Contains(line, "attach") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(said)
}
