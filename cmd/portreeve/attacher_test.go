package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/daemon"
)

// attachingBy returns the way to a shell script in the place of the process that
// attaches.
func attachingBy(t *testing.T, script string) *attacher {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := (&handover{Attach: pair[0], Attacher: cmd.Process.Pid}).attacher()
	t.Cleanup(a.close)
	return a
}

// TestAttacherIsAsked: the inspector tells the process that attaches what to do, and
// knows what came of it.
func TestAttacherIsAsked(t *testing.T) {
	for script, want := range map[string]struct {
		relied bool
		err    string
	}{
		`read w && test "$w" = move && echo yes`: {true, ""},
		`read w && test "$w" = move && echo no`:  {false, ""},
		`read w && echo replaced`:                {false, daemon.ErrReplaced.Error()},
		`read w && echo failed`:                  {false, errFound.Error()}, // it has said why
		`exit 0`:                                 {false, "has ended without an answer"},
		`read w; kill -9 $$`:                     {false, "has ended without an answer"},
	} {
		relied, err := attachingBy(t, script).move()
		if relied != want.relied || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %t %v, want %t %q", script, relied, err, want.relied, want.err)
		}
		if want.err == errFound.Error() && !errors.Is(err, errFound) {
			t.Errorf("%s: %v is not what was said already", script, err)
		}
	}
}

// TestAttacherSettles: it goes on until what older inspectors needed is removed, and
// ends then.
func TestAttacherSettles(t *testing.T) {
	a := attachingBy(t, `read w; echo yes; read w; echo no; read w; test "$w" = settle && echo yes; read w`)
	if relied, err := a.move(); !relied || err != nil {
		t.Fatal(relied, err)
	}
	for _, want := range []bool{false, true} {
		if done, err := a.settle(); done != want || err != nil {
			t.Errorf("settled %t %v, want %t", done, err, want)
		}
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(a.pid)); err == nil {
		t.Error("the process that attaches is still there")
	}
	if _, err := a.settle(); err == nil {
		t.Error("settled by nobody")
	}
}

// TestAttacherIsAskedAgain: what has failed may work later; what never will, or fails since
// the process has ended, is not asked for any more.
func TestAttacherIsAskedAgain(t *testing.T) {
	a := attachingBy(t, `read w; echo failed; read w; echo yes; read w`)
	if done, err := a.settle(); done || err == nil {
		t.Errorf("%t, %v after a failure", done, err)
	}
	if done, err := a.settle(); !done || err != nil {
		t.Errorf("%t, %v the second time", done, err)
	}
	for _, script := range []string{`read w; echo never; read w`, `exit 0`} {
		if done, err := attachingBy(t, script).settle(); !done || err == nil {
			t.Errorf("%s: %t, %v", script, done, err)
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
	told := func(words string) (stdout, stderr string) {
		var out, said bytes.Buffer
		cmd := exec.Command("/proc/self/exe", attachVerb, "minimal.yaml", "7")
		cmd.Args[0] = "portreeve"
		cmd.ExtraFiles = []*os.File{file}
		cmd.Env = append(os.Environ(), "PORTREEVE_BPFFS=/nowhere", "PORTREEVE_RUN_DIR="+t.TempDir()) // an attach fails
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(words), &out, &said
		if err := cmd.Run(); err != nil {
			t.Errorf("told %q: %v", words, err)
		}
		return out.String(), said.String()
	}
	if out, said := told(""); out != "" || said != "" {
		t.Errorf("told nothing: %q %q", out, said)
	}
	if out, said := told("move\n"); out != "failed\n" || !strings.Contains(said, "/nowhere") {
		t.Errorf("told to move: %q %q", out, said)
	}
	if out, said := told("detach\n"); out != "failed\n" || !strings.Contains(said, `no word "detach"`) {
		t.Errorf("told what it does not know: %q %q", out, said)
	}
}
