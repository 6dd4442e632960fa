package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// built is a directory with the demo and portreeve, made once.
var built string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (code int, err error) {
	built, err = os.MkdirTemp("", "portreeve-demo-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(built)
	for name, pkg := range map[string]string{"demo": ".", "portreeve": "../../cmd/portreeve"} {
		output, err := exec.Command("go", "build", "-o", filepath.Join(built, name), pkg).CombinedOutput()
		if err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", name, err, bytes.TrimSpace(output))
		}
	}
	return m.Run(), nil
}

// start starts the demo in a process group of its own, as a shell does. The command
// before it, if there is one, becomes the demo.
func start(t *testing.T, before ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	words := append(before, filepath.Join(built, "demo"), filepath.Join(built, "portreeve"))
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout)
}

// wantNothing expects no trace of a demo.
func wantNothing(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	for _, pattern := range []string{"/run/netns/portreeve-%d-*", os.TempDir() + "/portreeve-%d-*"} {
		left, err := filepath.Glob(fmt.Sprintf(pattern, cmd.Process.Pid))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %s %v", left, err)
		}
	}
	// Processes that were killed as orphans are gone when init has noticed.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(10 * time.Second); !errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatal("a process of the demo is alive")
		}
	}
}

func TestDemoShowsWhatMatters(t *testing.T) { showsAll(t) }

// TestOccupied shows the demo where Postfix is installed and in use.
func TestOccupied(t *testing.T) { showsAll(t, "../../scripts/occupied") }

func showsAll(t *testing.T, before ...string) {
	t.Helper()
	cmd, lines := start(t, before...)
	var output strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&output, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &output)
	}
	for _, want := range []string{
		"<-  250 2.0.0 Ok: queued as ", "client=unknown[172.16.10.99]", `"way":"transit"`, `"outcome":"accepted"`, "== portreeve status", "alive: last heartbeat",
		"Nothing: these are as they were before attach", "Removed: ",
	} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &output)
		}
	}
	wantNothing(t, cmd)
}

// TestInterruptLeavesNothing presses Ctrl-C at one point of the demo after the
// other: the signal goes to the whole group.
func TestInterruptLeavesNothing(t *testing.T) {
	for _, point := range []string{
		"== The network", "The origin is a real Postfix", "== portreeve attach", "+ link sk_lookup", "== portreeve run",
		"-> DATA", "The origin's log:", "(transit)", `"way":"transit"`, `"outcome":"accepted"`, "== portreeve status", "== portreeve detach", "== What is left",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			cmd, lines := start(t)
			for lines.Scan() && !strings.Contains(lines.Text(), point) {
			}
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() {
			}
			err := cmd.Wait()
			if cmd.ProcessState.ExitCode() != interrupted {
				t.Errorf("the demo ended with %v", err)
			}
			wantNothing(t, cmd)
		})
	}
}
