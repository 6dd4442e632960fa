package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv/burglar"
)

// The test binary plays the confined inspector, too.
const (
	role  = "CONFINE_TEST_ROLE"
	needs = "CONFINE_TEST_NEEDS" // a file that it may read
)

const nobody = 65534

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "confine":
		confines := Confines{Needed: []string{os.Getenv(needs)}, Capabilities: []Capability{unix.CAP_NET_RAW}}
		if os.Args[2] != "" {
			confines.Keys = []string{os.Args[2]}
		}
		err := confines.Exec("/proc/self/exe", os.Args, []string{role + "=look"})
		fmt.Println("cannot:", err)
		os.Exit(3)
	case "rules":
		if _, err := ruleset(os.Args[1:], nil, "/proc/self/exe"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ok")
		os.Exit(0)
	case "look":
		look(os.Args[2:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// look says which of the files can be read, or for those with a plus which disks
// can be made, for those with an at sign which process's memory is read by BPF, and for
// = which capabilities there are.
func look(files []string) {
	for _, f := range files {
		if f == "=" {
			tellCapabilities()
			continue
		}
		if process, is := strings.CutPrefix(f, "@"); is {
			pid, _ := strconv.Atoi(process)
			read, _ := burglar.Memory(pid, func([]byte) {})
			fmt.Printf("memory %v\n", read > 0)
			continue
		}
		if disk, is := strings.CutPrefix(f, "+"); is {
			fmt.Printf("%s %v\n", filepath.Base(disk), unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(253, 0))) == nil)
			continue
		}
		file, err := os.Open(f)
		if err == nil {
			_, err = file.ReadAt(make([]byte, 1), 0)
			file.Close()
		}
		fmt.Printf("%s %v\n", filepath.Base(f), err == nil)
	}
}

// tellCapabilities says which this process has and can get.
func tellCapabilities() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" {
			n, _ := strconv.ParseUint(value, 16, 64)
			fmt.Printf("%s %x\n", name, n)
		}
	}
}

// confined returns what an inspector says that is confined by the first of some
// files and tries to read them all.
func confined(t *testing.T, needed string, files ...string) string {
	t.Helper()
	t.Setenv(needs, needed)
	return as(t, "confine", files...)
}

// as returns what this program says in a role.
func as(t *testing.T, part string, files ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"-"}, files...)...)
	cmd.Env = append(os.Environ(), role+"="+part)
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
	cmd := exec.Command("/proc/self/exe", filepath.Join(dir, "private/key.pem"))
	cmd.Env = []string{role + "=rules"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestConfinedCannotLook: the memory of a process outside is shut to a confined root, and
// not to another one.
func TestConfinedCannotLook(t *testing.T) {
	dir := t.TempDir()
	in(t, dir, "key.pem!")
	outside := fmt.Sprint(os.Getpid())
	files := []string{filepath.Join(dir, "key.pem"), "/proc/" + outside + "/root/etc/passwd", "/proc/self/root/etc/passwd", "@" + outside}
	got := confined(t, "", files...)
	if want := "key.pem false\npasswd false\npasswd true\nmemory false\n"; got != want {
		t.Errorf("it reads\n%s", got)
	}
	if got, want := as(t, "look", files...), "key.pem true\npasswd true\npasswd true\nmemory true\n"; got != want {
		t.Errorf("without confines it reads\n%s", got)
	}
}

// TestConfinedHasOneCapability, and whoever it would run has no more.
func TestConfinedHasOneCapability(t *testing.T) {
	dir := t.TempDir()
	in(t, dir, "key.pem!")
	for _, key := range []string{filepath.Join(dir, "key.pem"), ""} { // with Landlock, and without
		got := as(t, "confine", key, "=")
		want := fmt.Sprintf("CapInh 0\nCapPrm %x\nCapEff %[1]x\nCapBnd %[1]x\nCapAmb 0\nNoNewPrivs 1\n", 1<<unix.CAP_NET_RAW)
		if !strings.HasSuffix(got, want) {
			t.Errorf("with key %q it has\n%s, not\n%s", key, got, want)
		}
	}
}

// TestBare: what is done on a bare thread is done with some capabilities, as far as
// there are any, and the others of the process keep theirs.
func TestBare(t *testing.T) {
	keep := []Capability{unix.CAP_NET_RAW, unix.CAP_CHOWN}
	before, err := permitted()
	if err != nil {
		t.Fatal(err)
	}
	var inside uint64
	var fits bool
	err = Bare(keep, func() (err error) {
		if inside, err = permitted(); err == nil {
			fits, err = Within(keep)
		}
		return err
	})
	if err != nil || inside != setOf(keep)&before || !fits {
		t.Errorf("%x inside, %v, %v", inside, fits, err)
	}
	if after, err := permitted(); err != nil || after != before {
		t.Errorf("%x after it, %x before, %v", after, before, err)
	}
	if fits, err := Within(keep); err != nil || fits {
		t.Errorf("all of %x is within %x: %v", before, setOf(keep), err)
	}
	failed := errors.New("as it says")
	if err := Bare(nil, func() error { return failed }); err != failed {
		t.Errorf("got %v", err)
	}
}

// TestConfinedNobody: who is not root keeps what he is to keep, too.
func TestConfinedNobody(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-", "", "=")
	cmd.Env = append(os.Environ(), role+"=confine")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN},
	}
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("CapPrm %x\nCapEff %[1]x\n", 1<<unix.CAP_NET_RAW)
	if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "NoNewPrivs 1\n") {
		t.Errorf("%v: it has\n%s", err, out)
	}
}
