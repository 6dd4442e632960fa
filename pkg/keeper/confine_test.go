package keeper

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv/pki"
)

// confined returns what an inspector says that is confined by the first of some
// files and tries to read them all.
func confined(t *testing.T, needed string, files ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"-"}, files...)...)
	cmd.Env = append(os.Environ(), role+"=confine", needs+"="+needed)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// in makes files below a directory, those whose name ends in "!" for root alone.
func in(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path, private := strings.CutSuffix(filepath.Join(dir, name), "!")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if private {
			mode = 0o600
		}
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConfined: an inspector that is confined reads everything that is for
// everybody, and what it needs, but neither the key by any of its names nor what
// may be a copy of it.
func TestConfined(t *testing.T) {
	dir := t.TempDir()
	in(t, dir, "archive/key1.pem!", "archive/key0.pem!", "archive/cert1.pem", "archive/config.yaml!", "beside/other.pem!", "live/README",
		"keys/copy.pem!", "shut/copy.pem", "shut/inner/needed")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, filepath.Join(dir, "shut"): 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"live/key.pem": "../archive/key1.pem", "archive/loop": "."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "archive/key1.pem"), filepath.Join(dir, "archive/link.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "archive/link.pem"), 0o644); err != nil { // so is the key now
		t.Fatal(err)
	}
	var files []string
	for _, name := range []string{"live/key.pem", "archive/key1.pem", "archive/link.pem", "archive/loop/key1.pem", "archive/key0.pem", "archive/cert1.pem",
		"archive/config.yaml", "live/README", "beside/other.pem", "shut/copy.pem"} {
		files = append(files, filepath.Join(dir, name))
	}
	got := confined(t, filepath.Join(dir, "archive/config.yaml"), append(files, "/etc/passwd", "/proc/version", "/dev/urandom", "/dev/mem", "/proc/kcore")...)
	want := `key.pem false
key1.pem false
link.pem false
key1.pem false
key0.pem false
cert1.pem true
config.yaml true
README true
other.pem true
copy.pem false
passwd true
version true
urandom true
mem false
kcore false
`
	if got != want {
		t.Errorf("it reads\n%s, not\n%s", got, want)
	}
	got = confined(t, filepath.Join(dir, "shut/inner"), files[0], filepath.Join(dir, "shut/inner/needed"), filepath.Join(dir, "shut/copy.pem"))
	if want := "key.pem false\nneeded true\ncopy.pem false\n"; got != want {
		t.Errorf("of a directory that is needed it reads\n%s, not\n%s", got, want)
	}
}

// TestNoKeyToConfineBy: what the inspector cannot be kept from is said by the words
// of whoever has to put it right.
func TestNoKeyToConfineBy(t *testing.T) {
	fd, err := ruleset([]string{"/nowhere/mx.key"}, nil, "/proc/self/exe")
	if want := "cannot read the key /nowhere/mx.key: no such file or directory; name the right file under tls.certificates"; err == nil || err.Error() != want {
		unix.Close(fd)
		t.Errorf("got %v", err)
	}
}

// TestConfinedByMounts: a key is shut by the names that it has in other mounts, and
// no disk can be read in place of the files on it.
func TestConfinedByMounts(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread's mounts end with it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in(t, dir, "etc/tls/key.pem!", "chroot/etc/nothing", "a place/nothing")
	for _, place := range []string{"chroot/etc", "a place"} {
		if err := unix.Mount(filepath.Join(dir, "etc"), filepath.Join(dir, place), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(filepath.Join(dir, place), unix.MNT_DETACH) })
	}
	got := confined(t, "", filepath.Join(dir, "etc/tls/key.pem"), filepath.Join(dir, "chroot/etc/tls/key.pem"), filepath.Join(dir, "a place/tls/key.pem"), "+"+filepath.Join(dir, "disk"))
	if want := "key.pem false\nkey.pem false\nkey.pem false\ndisk false\n"; got != want {
		t.Errorf("it reads\n%s", got)
	}
}

// TestConfinedByAnybody: whoever is let through a directory, and cannot list it, is
// confined as well.
func TestConfinedByAnybody(t *testing.T) {
	dir := t.TempDir()
	in(t, dir, "private/key.pem")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, filepath.Join(dir, "private"): 0o711} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := asNobody("rules", filepath.Join(dir, "private/key.pem"))
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestConfinedCannotLook: the memory of the holder is shut to a confined root.
func TestConfinedCannotLook(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx.example"}))
	start(t, pair)
	got := confined(t, "", pair.Key, "/proc/"+child(t)+"/root/etc/passwd", "/proc/self/root/etc/passwd")
	if want := "mx.key false\npasswd false\npasswd true\n"; got != want {
		t.Errorf("it reads\n%s", got)
	}
}
