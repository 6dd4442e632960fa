package steer

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sandbox moves the test to a network and a mount namespace of its own, with
// lo up and a BPF file system, and returns that and the hand for it. The
// test's thread stays locked, and ends with the test.
func sandbox(t *testing.T) (*Steer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bpf")
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, os.Mkdir(dir, 0o755))
	must(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	up(t, "lo")
	s, err := New(dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// up brings an interface up.
func up(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	must(t, err)
	must(t, unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req))
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// addAddress gives lo an address.
func addAddress(t *testing.T, a netip.Addr) {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	must(t, err)
	must(t, newAddress(a, a.BitLen(), uint32(lo.Index)))
	awaitLocal(t, a)
}

// awaitLocal waits until an IPv6 address has its local route, which the kernel
// makes in the background.
func awaitLocal(t *testing.T, a netip.Addr) {
	t.Helper()
	if a.Is4() {
		return
	}
	const local = 0x80000000 // RTF_LOCAL
	await(t, func() bool {
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		must(t, err)
		for line := range strings.Lines(string(routes)) {
			f := strings.Fields(line)
			flags, err := strconv.ParseUint(f[8], 16, 32)
			must(t, err)
			if f[0] == hex.EncodeToString(a.AsSlice()) && flags&local != 0 {
				return true
			}
		}
		return false
	})
}

// await waits until a condition holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// space is another network namespace.
type space struct {
	t  *testing.T
	fd int
}

// openNetns opens the network namespace of the calling thread.
func openNetns(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(threadNetns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// newSpace makes a network namespace with lo up. The caller's thread is that
// of a sandbox, and stays in its own.
func newSpace(t *testing.T) *space {
	t.Helper()
	home := openNetns(t)
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	up(t, "lo")
	s := &space{t, openNetns(t)}
	must(t, unix.Setns(home, unix.CLONE_NEWNET))
	return s
}

// do calls f inside; sockets made there stay there.
func (s *space) do(f func()) {
	s.t.Helper()
	home, err := unix.Open(threadNetns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(s.t, err)
	defer unix.Close(home)
	must(s.t, unix.Setns(s.fd, unix.CLONE_NEWNET))
	defer func() { must(s.t, unix.Setns(home, unix.CLONE_NEWNET)) }()
	f()
}

// index is the number of an interface.
func index(t *testing.T, name string) uint32 {
	t.Helper()
	i, err := ifaceIndex(name)
	must(t, err)
	return i
}

// give gives an interface an address with its prefix.
func give(t *testing.T, iface, prefix string) {
	t.Helper()
	p := netip.MustParsePrefix(prefix)
	must(t, newAddress(p.Addr(), p.Bits(), index(t, iface)))
	awaitLocal(t, p.Addr())
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// wire connects the sandbox with another network namespace.
func wire(t *testing.T, here, there string, other *space) {
	t.Helper()
	must(t, newVeth(here, there, other.fd))
	up(t, here)
	other.do(func() {
		up(t, there)
		awaitRunning(t, there)
	})
	awaitRunning(t, here)
}

// awaitRunning waits until an interface can carry packets: the kernel notices the
// carrier of its first end late, and until then drops what leaves by it.
func awaitRunning(t *testing.T, name string) {
	t.Helper()
	await(t, func() bool {
		i, err := net.InterfaceByName(name)
		must(t, err)
		return i.Flags&net.FlagRunning != 0
	})
}
