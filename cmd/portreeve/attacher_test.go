package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttacherIsWaitedFor: the inspector tells the process that attaches to, and knows
// what came of it.
func TestAttacherIsWaitedFor(t *testing.T) {
	for script, want := range map[string]string{
		`read word && test "$word" = attach`: "",
		`exit 1`:                             errFound.Error(), // it has said why
		`exit 2`:                             "the process that attaches has ended: exit status 2",
		`kill -9 $$`:                         "the process that attaches has ended: signal: killed",
	} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", script)
		cmd.Stdin = in
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		end, err := unix.Dup(int(out.Fd())) // attach closes it
		if err != nil {
			t.Fatal(err)
		}
		out.Close()
		h := &handover{Go: end, Attacher: cmd.Process.Pid}
		err = h.attach()
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", script, err, want)
		case want == errFound.Error() && !errors.Is(err, errFound):
			t.Errorf("%s: %v is not what was said already", script, err)
		}
	}
}

// TestNobodyTellsToAttach: an inspector that ends before it serves attaches nothing.
func TestNobodyTellsToAttach(t *testing.T) {
	minimal, err := os.ReadFile("../../pkg/config/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := sealed(minimal)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", attachVerb, "minimal.yaml")
	cmd.Args[0] = "portreeve"
	cmd.ExtraFiles = []*os.File{file}
	cmd.Env = append(os.Environ(), "PORTREEVE_BPFFS=/nowhere") // an attach fails
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	cmd = exec.Command(cmd.Path, cmd.Args[1:]...)
	cmd.Args[0] = "portreeve"
	cmd.ExtraFiles = []*os.File{file}
	cmd.Env = append(os.Environ(), "PORTREEVE_BPFFS=/nowhere")
	cmd.Stdin = strings.NewReader("attach\n")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "/nowhere") {
		t.Errorf("told to attach: %v: %s", err, out)
	}
}
