package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownerVariable makes this test binary build a network and end as it says.
const ownerVariable = "PORTREEVE_TEST_OWNER_ENDS"

func TestMain(m *testing.M) {
	if end := os.Getenv(ownerVariable); end != "" {
		own(end)
	}
	os.Exit(m.Run())
}

// own builds a network, names it on standard output and ends without closing
// it: by a panic, or by waiting for a signal.
func own(end string) {
	e, err := New(context.Background(), Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	account, err := e.Account("sleeper")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	sleeper := e.Gateway.Command(context.Background(), "sleep", "1000")
	account.Charge(sleeper)
	if err := sleeper.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(e.Dir, e.Client.Path(), e.Gateway.Path(), account.path)
	if end == "panic" {
		panic("as asked")
	}
	select {}
}

func TestNothingOutlivesItsOwner(t *testing.T) {
	for _, end := range []string{"panic", "interrupt", "terminated", "killed"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			paths := endOwner(t, end)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			for _, path := range paths {
				if err := awaitGone(ctx, path); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// endOwner starts an owner, ends it and returns the paths that it owned.
func endOwner(t *testing.T, end string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerVariable+"="+end)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	paths := strings.Fields(line)
	if err != nil || len(paths) != 4 {
		t.Fatalf("the owner said %q, %v", line, err)
	}
	signals := map[string]os.Signal{"interrupt": os.Interrupt, "terminated": syscall.SIGTERM, "killed": os.Kill}
	if s, ok := signals[end]; ok {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the owner ended well")
	}
	return paths
}

// awaitGone waits until a path does not exist.
func awaitGone(ctx context.Context, path string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is still there", path)
		}
	}
}
