package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/confine"
)

// asks is an inspector on a kernel that lets nobody use BPF: it says what it would keep.
// Its argument is the BPF file system.
func asks() {
	const number = 0 // its offset in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		panic(errno)
	}
	fmt.Println(asksBPF(config.Kernel{BPFFS: os.Args[1]}, []confine.Capability{unix.CAP_NET_RAW}))
}

// TestKernelThatAsksForMore: what the inspector cannot do without on a kernel is kept,
// and where it is not there to be kept that is an error.
func TestKernelThatAsksForMore(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &namespace); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "portreeve", fmt.Sprint(namespace.Ino)), 0o700); err != nil {
		t.Fatal(err)
	}
	if asks, err := asksBPF(config.Kernel{BPFFS: dir}, []confine.Capability{unix.CAP_NET_RAW}); asks || err != nil {
		t.Errorf("this kernel asks for CAP_BPF: %v, %v", asks, err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "asks") // by its name it knows what it is
	if err := os.Symlink(own, program); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words []string
		want  string
	}{
		{nil, "true <nil>\n"},
		{[]string{"setpriv", "--bounding-set=-all,+net_raw"}, "false run: this kernel lets nobody read or write BPF maps without CAP_BPF, which this process (uid 0) lacks; run it as root, or give it this capability\n"},
	} {
		words := append(slices.Clone(c.words), program, dir)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%q: %v: %s", c.words, err, out)
		}
	}
}

// TestWhatCannotBeReadIsSaid before it is given up: a file of another user's.
func TestWhatCannotBeReadIsSaid(t *testing.T) {
	dir := t.TempDir()
	own, other := filepath.Join(dir, "own.pem"), filepath.Join(dir, "other.pem")
	for _, f := range []string{own, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(other, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	c := confine.Confines{Needed: []string{own, dir, filepath.Join(dir, "none")}, Capabilities: []confine.Capability{unix.CAP_NET_RAW}}
	if err := legible(c); err != nil {
		t.Errorf("what it can read: %v", err)
	}
	c.Needed = append(c.Needed, other)
	if err := legible(c); err == nil || !strings.Contains(err.Error(), "cannot read "+other+"; let it belong to the user 0") {
		t.Errorf("got %v", err)
	}
}

// TestKeeps: a configuration gets the capability for low ports only where it has some.
func TestKeeps(t *testing.T) {
	raw, low := confine.Capability(unix.CAP_NET_RAW), confine.Capability(unix.CAP_NET_BIND_SERVICE)
	for text, want := range map[string][]confine.Capability{
		"forge: {address: always}":                                     {raw},
		"forge: {address: always, port: exact}":                        {raw, low},
		"forge: {address: prefer, port: group}":                        {raw, low},
		"forge: {address: always, port: random}":                       {raw, low},
		"forge: {address: always, port: 25}":                           {raw, low},
		"forge: {address: always, port: 2525}":                         {raw},
		"forge: {address: never}":                                      {raw},
		"forge: {address: never}\nmetrics: {listen: '127.0.0.1:925'}":  {raw, low},
		"forge: {address: never}\nmetrics: {listen: '127.0.0.1:9125'}": {raw},
	} {
		service, rest, _ := strings.Cut(text, "\n")
		file := "interfaces: {client: [ext0], origin: [dmz0]}\nservices:\n  - {name: mx, listen: ['192.0.2.1:25'], origins: ['198.51.100.1:25'], " + service + "}\n" + rest
		c, err := config.Parse("test.yaml", []byte(file), nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := keeps(c); !slices.Equal(got, want) {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestHandoverIsForNobody: a handover that is none is refused.
func TestHandoverIsForNobody(t *testing.T) {
	t.Setenv(handoverVariable, "3")
	if h, err := handed(); err == nil || !strings.Contains(err.Error(), handoverVariable+": it is not for people; leave it out") {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestGrants: a key decrypts only where a service's clients may need it.
func TestGrants(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte(`interfaces: {client: [ext0], origin: [dmz0]}
tls: {certificates: [{chain: /a.pem, key: /a.key}]}
services:
  - {name: usual, listen: ["192.0.2.1:25"], origins: ["198.51.100.1:25"]}
  - {name: strict, listen: ["192.0.2.1:26"], origins: ["198.51.100.1:25"], tls: {client: {rsa_key_exchange: refuse}, certificates: [{chain: /b.pem, key: /b.key}]}}
  - {name: new, listen: ["192.0.2.1:27"], origins: ["198.51.100.1:25"], tls: {client: {minimum: TLS1.3}, certificates: [{chain: /c.pem, key: /c.key}]}}
  - {name: inner, listen: ["192.0.2.1:28"], origins: ["198.51.100.1:25"], tls: {mode: origin}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(grantsOf(c))
	if want := "[{{/a.pem /a.key} true} {{/b.pem /b.key} false} {{/c.pem /c.key} false}]"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
