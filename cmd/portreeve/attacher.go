package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
)

// attachVerb is how run --attach starts the process that attaches, which takes
// capabilities that the inspector gives up before it serves anybody. It is no verb for
// people.
const attachVerb = "attach-for-run"

// attachConfig is the descriptor under which that process finds the configuration.
const attachConfig = 3

func newAttachForRun(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    attachVerb + " NAME",
		Short:  "attach for the inspector, which starts this by itself",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			call("portreeve-attach")
			signal.Ignore(unix.SIGHUP) // a terminal sends it to both
			return e.attachWhenTold(args[0], c.InOrStdin())
		},
	}
}

// attachWhenTold waits for a word of the inspector, and attaches. The end of what it
// says, without a word, is the inspector's own.
func (e *env) attachWhenTold(name string, inspector io.Reader) error {
	data, err := contents(os.NewFile(attachConfig, "configuration"))
	if err != nil {
		return err
	}
	c, err := config.Parse(name, data, e.environ, e.overrides()...)
	if err != nil {
		return err
	}
	word, err := io.ReadAll(inspector)
	if err != nil || len(word) == 0 {
		return err
	}
	_, err = e.install(c, false)
	return err
}

// startAttacher starts that process with a configuration.
func (e *env) startAttacher(h *handover, configuration *os.File) error {
	in, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the process that attaches: %w", err)
	}
	defer in.Close()
	args := []string{attachVerb, e.file.value}
	for _, o := range e.setting {
		if o.flag.Changed {
			args = append(args, "--"+o.flag.Name, o.flag.Value.String())
		}
	}
	cmd := exec.Command(itself, args...)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	cmd.ExtraFiles = []*os.File{configuration}
	if err := cmd.Start(); err != nil {
		out.Close()
		return fmt.Errorf("start the process that attaches: %w", err)
	}
	h.Go, h.Attacher = h.hands(out), cmd.Process.Pid
	return nil
}

// attach tells that process to attach, and waits for its end. What went wrong it has
// said itself.
func (h *handover) attach() error {
	pipe := os.NewFile(uintptr(h.Go), "attach")
	_, told := pipe.WriteString("attach\n") // fails when it has ended, which has a reason of its own
	pipe.Close()
	p, err := os.FindProcess(h.Attacher)
	if err != nil {
		return fmt.Errorf("wait for the process that attaches: %w", err)
	}
	state, err := p.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("wait for the process that attaches: %w", err)
	case state.ExitCode() == 1:
		return errFound
	case !state.Success():
		return fmt.Errorf("the process that attaches has ended: %s", state)
	case told != nil:
		return fmt.Errorf("tell the process that attaches: %w", told)
	}
	return nil
}
