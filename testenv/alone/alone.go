// Package alone runs the tests of a package in a network namespace of their
// own, of which nothing can be left behind.
//
// It serves packages whose tests need sockets with privileges, addresses and
// firewall rules on one machine; whoever needs several machines takes testenv.
// The whole test process is in the namespace, so goroutines may make sockets
// wherever the scheduler puts them.
package alone

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// inside marks the environment of the process that is in its namespace.
const inside = "PORTREEVE_TEST_ALONE"

// Main is to be called by a package's TestMain with the lines that set up its
// network, each an ip(8) command without the word ip ("route add local
// 198.51.100.0/24 dev lo"). The loopback interface is up. Main does not return.
func Main(m *testing.M, setup ...string) {
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if slices.Contains(os.Args, "-test.fuzzworker") { // by one that is in the namespace, and has set it up
		os.Exit(m.Run())
	}
	for _, line := range append([]string{"link set lo up"}, setup...) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "set up the tests' network: ip %s: %v: %s\n", line, err, out)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// again runs this test binary anew in a network namespace and returns its exit
// code.
func again() int {
	runtime.LockOSThread() // the child dies with the thread that started it
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintf(os.Stderr, "run the tests in a network namespace of their own: %v (are you root?)\n", err)
	return 1
}
