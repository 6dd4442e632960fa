package netfilter

import (
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// isolate puts the test into a network namespace of its own. The thread is
// never unlocked: it ends with the test, and the namespace with it. Commands
// started by the test inherit the thread's namespace.
func isolate(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of the test's own (run the tests as root): %v", err)
	}
	sh(t, "ip link set lo up")
}

// sh runs shell commands and returns what they print.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// snapshot is what an administrator sees of the packet filter, without the
// counters and dates.
func snapshot(t *testing.T) string {
	t.Helper()
	all := sh(t, `
nft list ruleset 2>&1
for c in iptables ip6tables; do
	for f in nft legacy; do
		case $f in legacy) [ -s /proc/thread-self/net/${c%s}_names ] || continue;; esac
		$c-$f-save 2>/dev/null
	done
done`)
	var kept []string
	for _, l := range strings.Split(all, "\n") {
		if !strings.HasPrefix(l, "#") {
			kept = append(kept, counters.ReplaceAllString(l, "[]"))
		}
	}
	return strings.Join(kept, "\n")
}

// threadNamespace opens the calling thread's network namespace.
func threadNamespace(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// inNamespace runs f on a thread of its own in the namespace. Called on a
// goroutine of its own, which ends with its thread.
func inNamespace(t *testing.T, ns *os.File, f func()) {
	runtime.LockOSThread()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Errorf("enter the network namespace: %v", err)
		return
	}
	f()
}

func sortedKeys(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
