package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/apply"
	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/daemon"
)

// attachVerb is how run --attach starts the process that attaches, which takes
// capabilities that the inspector gives up before it serves anybody. It is no verb for
// people.
const attachVerb = "attach-for-run"

// attachConfig is the descriptor under which that process finds the configuration.
const attachConfig = 3

// What the inspector says to that process, one word a line. It answers each with yes or
// no, with replaced where a newer inspector was quicker, or with failed or never, and has
// then said why itself; never: nor will it later.
const (
	wordMove   = "move"   // lead connections to us; yes: an older inspector's needs were left in place
	wordSettle = "settle" // remove what older inspectors needed; no: not now
)

func newAttachForRun(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    attachVerb + " NAME NUMBER",
		Short:  "attach for the inspector, which starts this by itself",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			call("portreeve-attach")
			signal.Ignore(unix.SIGHUP, unix.SIGINT) // a terminal sends them to both
			number, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return usageError("the inspector's number " + args[1] + " is none")
			}
			return e.attachWhenTold(args[0], daemon.Known(number))
		},
	}
}

// attachWhenTold does what the inspector says, until the end of what it says. That
// is the inspector's own end, too.
func (e *env) attachWhenTold(name string, inspector *daemon.Presence) error {
	data, err := contents(os.NewFile(attachConfig, "configuration"))
	if err != nil {
		return err
	}
	given := e.given(name, data)
	c, err := given.Config()
	if err != nil {
		return err
	}
	said := ""
	words := bufio.NewScanner(e.stdin)
	for words.Scan() {
		yes, err := e.attachWord(c, given, inspector, words.Text())
		answer := "no"
		switch {
		case errors.Is(err, daemon.ErrReplaced):
			answer = "replaced"
		case err != nil:
			if err.Error() != said { // it is asked again and again
				e.report(err)
			}
			said, answer = err.Error(), "failed"
			if errors.Is(err, errOverruled) {
				answer = "never"
			}
		case yes:
			answer = "yes"
		}
		if _, err := fmt.Fprintln(e.stdout, answer); err != nil {
			return nil // nobody is there who wants to know
		}
	}
	return words.Err()
}

func (e *env) attachWord(c *config.Config, given apply.Given, inspector *daemon.Presence, word string) (bool, error) {
	switch word {
	case wordMove:
		return e.move(c, given, inspector)
	case wordSettle:
		return e.settle(c, given, inspector.Heirs)
	}
	return false, fmt.Errorf("%s: no word %q", attachVerb, word)
}

// startAttacher starts that process with a configuration, for an inspector that others
// know by a presence.
func (e *env) startAttacher(h *handover, configuration *os.File, presence *daemon.Presence) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start the process that attaches: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "attach"), os.NewFile(uintptr(pair[1]), "attach")
	defer theirs.Close()
	args := []string{attachVerb, e.file.value, strconv.FormatUint(presence.Number(), 10)}
	for _, o := range e.setting {
		if o.flag.Changed {
			args = append(args, "--"+o.flag.Name, o.flag.Value.String())
		}
	}
	cmd := exec.Command(itself, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	cmd.ExtraFiles = []*os.File{configuration}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return fmt.Errorf("start the process that attaches: %w", err)
	}
	h.Attach, h.Attacher = h.hands(ours), cmd.Process.Pid
	socket, err := presence.File()
	if err != nil {
		return err
	}
	h.Present, h.Number = h.hands(socket), presence.Number()
	return nil
}

// attacher is the process that attaches, as the inspector sees it.
type attacher struct {
	mu      sync.Mutex
	socket  *os.File // nil once it has nothing more to do
	answers *bufio.Reader
	pid     int
}

func (h *handover) attacher() *attacher {
	f := os.NewFile(uintptr(h.Attach), "attach")
	return &attacher{socket: f, answers: bufio.NewReader(f), pid: h.Attacher}
}

// move has connections led to this inspector.
func (a *attacher) move() (relied bool, err error) { return a.ask(wordMove) }

// settle has removed what older inspectors needed; then, or where that will never be, the
// process ends. What fails may work later: an interface may be missing for a moment.
func (a *attacher) settle() (done bool, err error) {
	done, err = a.ask(wordSettle)
	failed := errors.Is(err, errFound)
	if done = done || err != nil && (!failed || errors.Is(err, errNever)); done {
		a.close()
	}
	if failed {
		err = errors.New("the process that attaches has said why")
	}
	return done, err
}

// errNever is the class of errors of what will not work later either.
var errNever = fmt.Errorf("nor later: %w", errFound)

func (a *attacher) ask(word string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.socket == nil {
		return false, fmt.Errorf("the process that attaches has ended, and cannot %s", word)
	}
	_, told := fmt.Fprintln(a.socket, word) // fails when it has ended, which the answer tells
	answer, err := a.answers.ReadString('\n')
	switch strings.TrimSpace(answer) {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	case "replaced":
		return false, daemon.ErrReplaced
	case "failed":
		return false, errFound // it has said why
	case "never":
		return false, errNever
	}
	return false, fmt.Errorf("the process that attaches has ended without an answer: %w", errors.Join(told, err))
}

// close lets the process end, and waits for that.
func (a *attacher) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.socket == nil {
		return
	}
	a.socket.Close()
	a.socket = nil
	if p, err := os.FindProcess(a.pid); err == nil {
		p.Wait() // it ends by itself, and if it is gone that is well, too
	}
}
