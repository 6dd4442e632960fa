package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/confine"
	"github.com/portreeve/portreeve/pkg/daemon"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/testenv/burglar"
	"github.com/portreeve/portreeve/testenv/pki"
)

// taken is an inspector that somebody has taken over: it starts as run does, shows
// a client its certificate, and then tries to get at the key. It does so again
// after each line that it reads. Its arguments are the configuration, the key's
// path, and what to look for in memory, its own and the holder's, veiled, so that it is
// not there.
func taken() {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	e.file.value = os.Args[1]
	h := unconfined(e)
	if h == nil {
		var err error
		if h, err = begin(); err != nil {
			panic(err)
		}
	}
	if h == nil {
		panic(e.confine(context.Background(), runManner{noWatch: true}))
	}
	c, err := h.config(e)
	if err != nil {
		panic(err)
	}
	keys, err := h.keys()
	if err != nil {
		panic(err)
	}
	pairs := daemon.Pairs(c)
	names, whats := unwrapped(os.Args[3:])
	ring, news, err := keyring.Open(keys, pairs)
	if err != nil {
		panic(err)
	}
	in := bufio.NewScanner(os.Stdin)
	for again := true; again; again = in.Scan() {
		for _, c := range append(news, ring.Refresh()...) {
			for _, w := range c.Warnings {
				fmt.Println("warns", w)
			}
		}
		fmt.Println("shows", shownBy(ring.Config(keyring.Clients{Pairs: pairs})))
		for name, try := range burglary(os.Args[2], whats) {
			if try() {
				fmt.Println("can", name)
			}
		}
		for i, found := range inMemory(whats) {
			fmt.Println("remembers", names[i], found)
		}
		fmt.Println("done")
	}
}

// atLarge is set where taken does not go into the confines: what it then can do shows
// what these are worth.
const atLarge = "TAKEN_AT_LARGE"

// unconfined is what an inspector has that begins without confines, nil for one that
// has some.
func unconfined(e *env) *handover {
	if os.Getenv(atLarge) == "" {
		return nil
	}
	data, err := config.Read(e.file.value)
	if err != nil {
		panic(err)
	}
	file, err := sealed(data)
	if err != nil {
		panic(err)
	}
	c, err := e.load()
	if err != nil {
		panic(err)
	}
	h := new(handover)
	h.Config = h.hands(file)
	if err := startHolder(h, new(confine.Confines), c); err != nil {
		panic(err)
	}
	after := &handover{Config: h.Config, Keys: h.Keys}
	for _, fd := range []*int{&after.Config, &after.Keys} { // the files of h close theirs
		if *fd, err = unix.Dup(*fd); err != nil {
			panic(err)
		}
	}
	return after
}

func unwrapped(args []string) (names []string, whats [][]byte) {
	for _, veiled := range args {
		name, text, _ := strings.Cut(veiled, "=")
		what, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		names, whats = append(names, name), append(whats, what)
	}
	return names, whats
}

func shownBy(c *tls.Config) string {
	a, b := net.Pipe()
	go tls.Server(b, c).Handshake()
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		return err.Error()
	}
	return client.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// burglary is what one may try who wants a file that another process reads, or what it
// has in its memory.
func burglary(key string, whats [][]byte) map[string]func() bool {
	holder := strconv.Itoa(childOf(os.Getpid()))
	beside := func(name string) string { return filepath.Join(filepath.Dir(key), name) }
	reads := func(path string) func() bool {
		return func() bool {
			data, _ := os.ReadFile(path)
			return len(data) > 0
		}
	}
	file, err := filepath.EvalSymlinks(key)
	if err != nil {
		panic(err)
	}
	linked := func(from, to string) func() bool {
		return func() bool {
			defer os.Remove(to)
			return os.Link(from, to) == nil && reads(to)()
		}
	}
	moved := func(from, to string) func() bool {
		return func() bool {
			defer os.Rename(to, from)
			return os.Rename(from, to) == nil && reads(to)()
		}
	}
	tries := map[string]func() bool{
		"open it":                      reads(key),
		"open it by its own root":      reads("/proc/self/root" + key),
		"open it by the init's root":   reads("/proc/1/root" + key),
		"open it by the holder's root": reads("/proc/" + holder + "/root" + key),
		"open the holder's memory": func() bool {
			f, err := os.OpenFile("/proc/"+holder+"/mem", os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err == nil
		},
		"see the holder's files": func() bool {
			list, _ := os.ReadDir("/proc/" + holder + "/fd")
			for _, fd := range list {
				if _, err := os.Readlink("/proc/" + holder + "/fd/" + fd.Name()); err == nil {
					return true
				}
			}
			return false
		},
		"link the link":                linked(key, beside("linked")),
		"link it beside it":            linked(file, file+".linked"),
		"link it to where its link is": linked(file, beside("file")),
		"link it to a public place":    linked(file, beside("../public/file")),
		"link to it": func() bool {
			defer os.Remove(beside("soft"))
			return os.Symlink(key, beside("soft")) == nil && reads(beside("soft"))()
		},
		"rename the link":           moved(key, beside("renamed")),
		"move it to a public place": moved(file, beside("../public/moved")),
		"trace the holder": func() bool {
			pid, _ := strconv.Atoi(holder)
			err := unix.PtraceAttach(pid)
			unix.PtraceDetach(pid)
			return err == nil
		},
		"reach into the holder": func() bool {
			pid, _ := strconv.Atoi(holder)
			local := make([]byte, 1)
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &local[0], Len: 1}}, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
			return err == nil || err == unix.EFAULT // who is not refused has only to find the place
		},
		"have BPF read the holder's memory": func() (found bool) {
			pid, _ := strconv.Atoi(holder)
			burglar.Memory(pid, func(octets []byte) {
				for _, what := range whats {
					found = found || finds(octets, what)
				}
			})
			return found
		},
		"make a BPF map": func() bool {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			if err == nil {
				m.Close()
			}
			return err == nil
		},
		"be looked into": func() bool {
			dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
			return err != nil || dumpable != 0
		},
		"mount its directory": func() bool {
			dir, err := os.MkdirTemp("", "mounted")
			if err != nil {
				panic(err)
			}
			defer os.Remove(dir)
			defer unix.Unmount(dir, unix.MNT_DETACH)
			return unix.Mount(filepath.Dir(key), dir, "", unix.MS_BIND, "") == nil
		},
		"find it open": func() bool {
			list, _ := os.ReadDir("/proc/self/fd")
			for _, fd := range list {
				if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, filepath.Dir(key)) {
					return true
				}
			}
			return false
		},
	}
	return tries
}

// childOf returns a child of a process, 0 if it has none.
func childOf(parent int) int {
	list, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range list {
		status, _ := os.ReadFile(path)
		if bytes.Contains(status, []byte("\nPPid:\t"+strconv.Itoa(parent)+"\n")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

// veil hides octets from those who look for them.
const veil = 0x5a

func veiled(name string, what []byte) string {
	other := bytes.Clone(what)
	for i := range other {
		other[i] ^= veil
	}
	return name + "=" + hex.EncodeToString(other)
}

// inMemory reports which of some veiled octets this process has anywhere.
func inMemory(whats [][]byte) []bool {
	table, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		panic(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		panic(err)
	}
	defer memory.Close()
	found := make([]bool, len(whats))
	part := make([]byte, 1<<20)
	const overlap = 1 << 10
	for line := range strings.Lines(string(table)) {
		var from, to int64
		var may string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &may); err != nil || may[0] != 'r' {
			continue
		}
		for at := from; at < to; at += int64(len(part) - overlap) {
			n, _ := memory.ReadAt(part[:min(int64(len(part)), to-at)], at)
			for i, what := range whats {
				found[i] = found[i] || finds(part[:n], what)
			}
		}
	}
	return found
}

// finds looks without ever having in one place what it looks for.
func finds(in, what []byte) bool {
	for len(in) >= len(what) {
		next := bytes.IndexByte(in, what[0]^veil)
		if next < 0 || len(in)-next < len(what) {
			return false
		}
		in = in[next:]
		n := 1
		for n < len(what) && in[n]^veil == what[n] {
			n++
		}
		if n == len(what) {
			return true
		}
		in = in[1:]
	}
	return false
}

// secrets are what must not be in memory: the number that the key is, and a piece
// of its file.
func secrets(t *testing.T, name string, p *pki.Pair) []string {
	t.Helper()
	number, err := p.Key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return []string{veiled(name+"'s number", number), veiled(name+"'s text", p.KeyPEM()[80:120])}
}

// laidOut writes a pair as certbot lays it out, and a configuration that names it.
func laidOut(t *testing.T, p *pki.Pair) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	for _, sub := range []string{"archive", "live", "public"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	renew(t, dir, 1, p)
	file = filepath.Join(dir, "live", "portreeve.yaml") // for root alone, and beside the keys
	if err := os.WriteFile(file, fmt.Appendf(nil, `interfaces: {client: [ext0], origin: [dmz0]}
kernel: {run_dir: %s}
services:
  - name: mx
    listen: ["192.0.2.1:25"]
    origins: ["198.51.100.1:25"]
    tls: {certificates: [{chain: %[1]s/live/fullchain.pem, key: %[1]s/live/privkey.pem}]}
`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// TestKeysAreOutOfReach starts what run starts, with keys as certbot lays them out,
// and lets the inspector try to get at them, before a renewal and after it.
func TestKeysAreOutOfReach(t *testing.T) {
	ca := pki.New("test")
	first, second := ca.Issue([]string{"first"}), ca.Issue([]string{"second"})
	dir, file := laidOut(t, first)
	looksFor := append(secrets(t, "first", first), secrets(t, "second", second)...)
	looksFor = append(looksFor, veiled("arguments", []byte(file))) // which shows that looking finds
	inspector := newTaken(t, append([]string{file, filepath.Join(dir, "live/privkey.pem")}, looksFor...)...)

	want := "shows first\nremembers first's number false\nremembers first's text false\nremembers second's number false\nremembers second's text false\nremembers arguments true\n"
	if got := inspector.told(t); got != want {
		t.Errorf("it says\n%s", got)
	}
	renew(t, dir, 2, second)
	want = strings.Replace(want, "shows first", "shows second", 1)
	if got := inspector.told(t); got != want {
		t.Errorf("after a renewal it says\n%s", got)
	}
	holder := childOf(inspector.cmd.Process.Pid)
	if holder == 0 {
		t.Fatal("it has no holder")
	}
	if err := unix.Kill(holder, unix.SIGTERM); err != nil { // systemd tells both, and sessions go on until the drain timeout
		t.Fatal(err)
	}
	if got := inspector.told(t); got != want {
		t.Errorf("after the order to stop it says\n%s", got)
	}
	if err := inspector.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the holder's end", func() bool { return ended(holder) })
}

// TestKeysAreWithinReach without the confines: all that the inspector must not be able
// to do, the same program can. A burglar who cannot do it anywhere would say nothing.
func TestKeysAreWithinReach(t *testing.T) {
	p := pki.New("test").Issue([]string{"first"})
	dir, file := laidOut(t, p)
	t.Setenv(atLarge, "yes")
	got := newTaken(t, append([]string{file, filepath.Join(dir, "live/privkey.pem")}, secrets(t, "first", p)...)...).told(t)
	elsewhere := map[string]bool{
		"find it open":               true, // it never opens it
		"open it by the init's root": true, // in a container that is another one
	}
	for name := range burglary(filepath.Join(dir, "live/privkey.pem"), nil) {
		if !elsewhere[name] && !strings.Contains(got, "can "+name+"\n") {
			t.Errorf("it cannot %s:\n%s", name, got)
		}
	}
}

// ended reports whether a process has ended, be it that nobody has waited for it:
// in a container, process 1 may not.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, behind, _ := bytes.Cut(stat, []byte(") ")) // which ends the name
	return err != nil || bytes.HasPrefix(behind, []byte("Z"))
}

// renew writes a pair as certbot does: files with new names, then the links.
func renew(t *testing.T, dir string, n int, p *pki.Pair) {
	t.Helper()
	for name, data := range map[string][]byte{"privkey": p.KeyPEM(), "fullchain": p.ChainPEM()} {
		file := fmt.Sprintf("../archive/%s%d.pem", name, n)
		if err := os.WriteFile(filepath.Join(dir, "live", file), data, 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "live", name+".pem")
		if err := os.Symlink(file, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
}

// takenProcess is a running taken.
type takenProcess struct {
	cmd   *exec.Cmd
	in    io.Writer
	out   *bufio.Scanner
	begun bool
}

func newTaken(t *testing.T, args ...string) *takenProcess {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	p := &takenProcess{cmd: exec.CommandContext(ctx, "/proc/self/exe", args...)}
	p.cmd.Args[0] = "taken"
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

// told has it try again, but for the first time, and returns what it says.
func (p *takenProcess) told(t *testing.T) string {
	t.Helper()
	if p.begun {
		if _, err := io.WriteString(p.in, "\n"); err != nil {
			t.Fatal(err)
		}
	}
	p.begun = true
	var all strings.Builder
	for p.out.Scan() {
		if p.out.Text() == "done" {
			return all.String()
		}
		all.WriteString(p.out.Text() + "\n")
	}
	t.Fatalf("it ended after\n%s", all.String())
	return ""
}

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s", what)
		}
	}
}
