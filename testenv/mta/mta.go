// Package mta runs real mail servers from Debian's packages as origins of a
// test network.
//
// Each server has its own configuration, spool and log below a directory of
// the test and runs from .build/roots (see scripts/in-root), so that nothing of
// the host's own mail system is used or changed. It ends with Stop, and at the
// latest with its network. Scenarios, the demo and the differential tests use
// it.
package mta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// Server is a running mail server.
type Server struct {
	Log  string // file that it logs to
	Mail string // Maildir that it delivers to

	node  *testenv.Node
	queue []string // directories that a message passes through, in that order
	trace []string // names of the headers that it puts before a message, in order
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	said  *os.File      // what it wrote to standard output and error
}

// interval is how often a condition is looked at that nothing announces.
const interval = 20 * time.Millisecond

// start runs a script of this tree with dir and further arguments on a node
// and waits until port 25 of every address greets.
func (s *Server) start(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, script string, args ...string) error {
	path, err := repositoryFile(script)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s.node = n
	s.said, err = os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return err
	}
	// Not ended by ctx, which is only for the start.
	s.cmd = n.Command(context.Background(), path, append([]string{dir}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		s.cmd.Wait()
	}()
	for _, address := range addresses {
		smtp := netip.AddrPortFrom(address, 25)
		if err := s.await(ctx, func() bool { return n.Greets(ctx, smtp) }); err != nil {
			return errors.Join(fmt.Errorf("%s does not greet: %w", smtp, err), s.Stop())
		}
	}
	return nil
}

// await looks at a condition again and again. It gives up with ctx or with the
// server.
func (s *Server) await(ctx context.Context, condition func() bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("the server has ended; it said: %s", s.complaint())
		case <-ctx.Done():
			return fmt.Errorf("%w; the server said: %s", context.Cause(ctx), s.complaint())
		}
	}
	return nil
}

// complaint is what the server says to explain itself, where it was started or in
// its log.
func (s *Server) complaint() string {
	said, _ := os.ReadFile(s.said.Name())
	logged, _ := os.ReadFile(s.Log)
	return testenv.Complaint(string(said) + string(logged))
}

// AwaitLog waits for a line in the log that matches and returns it.
func (s *Server) AwaitLog(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	var line string
	err := s.await(ctx, func() bool {
		text, _ := os.ReadFile(s.Log)
		for l := range strings.Lines(string(text)) {
			if pattern.MatchString(l) {
				line = strings.TrimSuffix(l, "\n")
				return true
			}
		}
		return false
	})
	if err != nil {
		return "", fmt.Errorf("no line of %s matches %s: %w", s.Log, pattern, err)
	}
	return line, nil
}

// AwaitMail waits until a number of messages is delivered and returns their
// files' contents.
func (s *Server) AwaitMail(ctx context.Context, count int) ([]string, error) {
	var mail []string
	var failure error
	err := s.await(ctx, func() bool {
		mail, failure = s.delivered()
		return failure != nil || len(mail) >= count
	})
	if err != nil {
		return mail, fmt.Errorf("%d of %d messages in %s: %w", len(mail), count, s.Mail, err)
	}
	return mail, failure
}

// delivered returns the messages in the Maildir.
func (s *Server) delivered() ([]string, error) {
	dir := filepath.Join(s.Mail, "new")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var mail []string
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return mail, err
		}
		mail = append(mail, string(text))
	}
	return mail, err
}

// Stop ends the server with everything that it started.
func (s *Server) Stop() error {
	// in-root makes the server the first process of a pid namespace, so that
	// the kernel ends the rest with it.
	err := s.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-s.ended
	return errors.Join(err, s.said.Close())
}

// repositoryFile returns the path of a file of this tree, found upwards from
// the working directory.
func repositoryFile(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, name), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find %s: no go.mod above the working directory: run it inside the source tree", name)
		}
		dir = parent
	}
}
