package steer

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

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
