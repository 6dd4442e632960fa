package route

import (
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isolate puts the test into a network namespace of its own, with two
// interfaces. The thread is never unlocked: it ends with the test, and the
// namespace with it. Commands started by the test inherit it.
//
// The interfaces have no link-local addresses, whose routes would come when
// duplicate address detection is over, and they are up when this returns: what
// a snapshot shows later is what the test did.
func isolate(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of the test's own (run the tests as root): %v", err)
	}
	sh(t, `
ip link set lo up
ip link add ext0 type veth peer name dmz0
for i in ext0 dmz0; do ip link set "$i" addrgenmode none; ip link set "$i" up; done
for i in ext0 dmz0; do until ip link show "$i" | grep -q 'state UP'; do sleep 0.02; done; done`)
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

// counted are figures that change by themselves.
var counted = regexp.MustCompile(`expires \d+sec|used \d+ sec|Sent \d+.*|backlog .*`)

// snapshot is what an administrator sees of routing and traffic control. The
// routes of IPv6 multicast are left out: the kernel makes one for each device
// when it notices the carrier, on a busy machine after everything says that the
// device is up.
func snapshot(t *testing.T) string {
	t.Helper()
	return counted.ReplaceAllString(sh(t, `
ip -d rule; ip -6 -d rule
ip -d route show table all | grep -v '^multicast ff00::/8 '
ip -6 -d route show table all | grep -v '^multicast ff00::/8 '
tc qdisc
for i in $(ls /proc/thread-self/net/dev_snmp6 | grep -v '^lo$'); do
	for hook in ingress egress; do tc filter show dev $i $hook 2>/dev/null || true; done
done`), "")
}

// program loads a BPF classifier that returns -1 and is called name.
func program(t *testing.T, name string) int {
	t.Helper()
	code := []byte{
		0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // r0 = -1
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}
	license := []byte("GPL\x00")
	attr := struct {
		kind, instructions          uint32
		code, license               uint64
		logLevel, logSize           uint32
		log                         uint64
		kernelVersion, programFlags uint32
		name                        [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, instructions: 2,
		code: pointer(code), license: pointer(license),
	}
	copy(attr.name[:15], name)
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		t.Fatalf("load a BPF program: %v", errno)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	return int(fd)
}

func pointer(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

func contain(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q is not in:\n%s", part, text)
	}
}

// dropCapabilities takes all capabilities from the test's thread.
func dropCapabilities(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData // the kernel reads both
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
}
