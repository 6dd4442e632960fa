package keeper

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/testenv/pki"
)

// role is what the test binary plays where it is not the holder: "start".
const role = "KEEPER_TEST_ROLE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		if err := Hold(Socket(), os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(role) == "start" {
		startAndTell(keyring.Pair{Chain: os.Args[1], Key: os.Args[2]})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func write(t *testing.T, dir, name string, p *pki.Pair) keyring.Pair {
	t.Helper()
	chain, key, err := p.Write(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Pair{Chain: chain, Key: key}
}

// granted are grants of pairs, for everything.
func granted(pairs ...keyring.Pair) (all []Grant) {
	for _, p := range pairs {
		all = append(all, Grant{p, true})
	}
	return all
}

// start runs a real holder.
func start(t *testing.T, pairs ...keyring.Pair) *Keys {
	t.Helper()
	socket, err := Start(granted(pairs...), "/proc/self/exe", "hold")
	if err != nil {
		t.Fatal(err)
	}
	k, err := Connect(socket, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// handshake returns the name in the certificate that a client of ring sees.
func handshake(t *testing.T, c *tls.Config, client *tls.Config) string {
	t.Helper()
	a, b := net.Pipe()
	go tls.Server(b, c).Handshake()
	conn := tls.Client(a, client)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestHandshakes: whatever a client asks to have signed, the holder signs.
func TestHandshakes(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, r := write(t, dir, "ec", ca.Issue([]string{"ec.example"})), write(t, dir, "rsa", ca.IssueFor(key, []string{"rsa.example"}))
	keys := start(t, ec, r)
	ring, _, err := keyring.Open(keys, []keyring.Pair{ec, r})
	if err != nil {
		t.Fatal(err)
	}
	config := ring.Config(keyring.Clients{Pairs: []keyring.Pair{ec, r}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, name := range []string{"ec.example", "rsa.example"} {
			if got := handshake(t, config, &tls.Config{ServerName: name, RootCAs: ca.Pool(), MaxVersion: version}); got != name {
				t.Errorf("%s, %s: shown %s", tls.VersionName(version), name, got)
			}
		}
	}
}

func TestReload(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pair := write(t, dir, "mx", ca.Issue([]string{"old.example"}))
	keys := start(t, pair)
	ring, _, err := keyring.Open(keys, []keyring.Pair{pair})
	if err != nil {
		t.Fatal(err)
	}
	config := ring.Config(keyring.Clients{Pairs: []keyring.Pair{pair}})
	held, err := config.GetCertificate(&tls.ClientHelloInfo{}) // a handshake under way
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "mx", ca.Issue([]string{"new.example"}))
	if news := ring.Refresh(); len(news) != 1 || news[0].Err != nil {
		t.Fatalf("%+v", news)
	}
	if got := handshake(t, config, &tls.Config{InsecureSkipVerify: true}); got != "new.example" {
		t.Errorf("shown %s", got)
	}
	digest := sha256.Sum256([]byte("x"))
	if _, err := held.PrivateKey.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Errorf("a handshake that began before the change: %v", err)
	}
	write(t, dir, "mx", ca.Issue([]string{"newest.example"}))
	ring.Refresh()
	if _, err := held.PrivateKey.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("a key is kept for ever")
	}
}

// TestOnlyTheList: the holder opens and signs nothing else.
func TestOnlyTheList(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	mine, other := write(t, dir, "mine", ca.Issue([]string{"mine"})), write(t, dir, "other", ca.Issue([]string{"other"}))
	keys := start(t, mine)
	if _, err := keys.Load(other, ""); err == nil || !strings.Contains(err.Error(), "is not of this configuration") {
		t.Errorf("another pair: %v", err)
	}
	if _, err := keys.Load(keyring.Pair{Chain: mine.Chain, Key: other.Key}, ""); err == nil {
		t.Error("a pair of two others is read")
	}
	if _, err := keys.ask(request{Sign: &sign{Digest: make([]byte, 32), Hash: crypto.SHA256}}); err == nil {
		t.Error("something was signed with no key")
	}
}

// TestKeyWithinReach: an inspector that counts on its confines hears of a key that
// it can read all the same, as after a renewal into another directory.
func TestKeyWithinReach(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx"}))
	keys := start(t, pair)
	for confined, want := range map[bool]int{false: 0, true: 1} {
		keys.confined = confined
		l, err := keys.Load(pair, "")
		if err != nil || len(l.Warnings) != want || want > 0 && !strings.Contains(l.Warnings[0], "start the inspector again to shut it out") {
			t.Errorf("confined %t: %+v, %v", confined, l, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	p := ca.Issue([]string{"mx.example"})
	pair := write(t, dir, "mx", p)
	keys := start(t, pair)
	l, err := keys.Load(pair, "")
	if err != nil {
		t.Fatal(err)
	}
	public := p.Certificate.PublicKey.(*ecdsa.PublicKey)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			s, err := l.Certificate.PrivateKey.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(public, digest[:], s) {
				t.Errorf("signature %d is another's, or %v", i, err)
			}
		})
	}
	all.Wait()
}

// TestHolderIsShut looks at the holder from outside: it is not dumpable, has no
// capability but one and can get none.
func TestHolderIsShut(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx.example"}))
	if _, err := start(t, pair).Load(pair, ""); err != nil { // it is shut before it reads the first key
		t.Fatal(err)
	}
	pid := child(t)
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	readSearch := fmt.Sprintf("%016x", 1<<unix.CAP_DAC_READ_SEARCH)
	for _, want := range []string{"CapEff:\t" + readSearch, "CapPrm:\t" + readSearch, "CapBnd:\t" + readSearch, "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("the holder has not %q:\n%s", want, status)
		}
	}
	if environ, _ := os.ReadFile("/proc/" + pid + "/environ"); len(environ) > 0 {
		t.Errorf("the holder knows %q", environ)
	}
	// Without the power over other processes that root has, nobody can look.
	out, err := exec.Command("setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "cat", "/proc/"+pid+"/environ").CombinedOutput()
	if err == nil {
		t.Errorf("another user can look: %q", out)
	}
}

const nobody = 65534

// startAndTell starts a holder, says that it has a key, and waits for the end of the
// input.
func startAndTell(pair keyring.Pair) {
	socket, err := Start(granted(pair), "/proc/self/exe", "hold")
	if err != nil {
		panic(err)
	}
	keys, err := Connect(socket, false)
	if err != nil {
		panic(err)
	}
	if _, err := keys.Load(pair, ""); err != nil {
		panic(err)
	}
	fmt.Println("loaded")
	io.Copy(io.Discard, os.Stdin)
}

// TestHolderLeavesNoCore: the kernel keeps a process that must leave no core from
// its own user, too, by giving what it tells of it to root.
func TestHolderLeavesNoCore(t *testing.T) {
	dir := t.TempDir()
	pair := write(t, dir, "mx", pki.New("test").Issue([]string{"mx"}))
	for _, path := range []string{filepath.Dir(dir), dir, pair.Key} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", pair.Chain, pair.Key)
	cmd.Env = []string{role + "=start"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "loaded\n" {
		t.Fatalf("%q, %v", said, err)
	}
	pids, err := exec.Command("pgrep", "-P", fmt.Sprint(cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for who, pid := range map[string]string{"the holder": strings.TrimSpace(string(pids)), "who has it": fmt.Sprint(cmd.Process.Pid)} {
		var info unix.Stat_t
		if err := unix.Stat("/proc/"+pid+"/environ", &info); err != nil {
			t.Fatal(err)
		}
		if shut := info.Uid == 0; shut != (who == "the holder") {
			t.Errorf("%s: what is told of it is user %d's", who, info.Uid)
		}
	}
}

// child waits until there is no holder but that of this test, and returns its id.
func child(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("pgrep", "-P", fmt.Sprint(os.Getpid()), "-f", "hold").Output()
		if pids := strings.Fields(string(out)); len(pids) == 1 {
			return pids[0]
		}
		if time.Now().After(end) {
			t.Fatalf("holders %q, %v", out, err)
		}
	}
}

// TestHolderEnds with the inspector, and the inspector hears of its end.
func TestEnds(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx.example"}))
	keys := start(t, pair)
	l, err := keys.Load(pair, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", "-KILL", child(t)).Run(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-keys.Gone():
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if _, err := l.Certificate.PrivateKey.(crypto.Signer).Sign(rand.Reader, make([]byte, 32), crypto.SHA256); !errors.Is(err, errGone) {
		t.Errorf("signed without the holder: %v", err)
	}
}

// TestNothingSecretOnTheWire: what the holder sends has no key in it.
func TestNothingSecretOnTheWire(t *testing.T) {
	p := pki.New("test").Issue([]string{"mx.example"})
	pair := write(t, t.TempDir(), "mx", p)
	a, b := net.Pipe()
	tapped := &tap{Conn: b}
	go newHolder(tapped, keyring.Files{}, granted(pair)).serve()
	keys := newKeys(a)
	defer keys.Close()
	if _, err := keys.Load(pair, ""); err != nil {
		t.Fatal(err)
	}
	secret, err := p.Key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	sent := said(t, tapped.sent())
	if bytes.Contains(sent, secret) {
		t.Error("the key was sent")
	}
	if !bytes.Contains(sent, p.Certificate.Raw) {
		t.Error("nothing was sent: this test looks for the wrong thing")
	}
}

// said returns messages as they are and, behind them, what their texts are in
// base64.
func said(t *testing.T, messages []byte) []byte {
	t.Helper()
	all := bytes.Clone(messages)
	for in := bytes.NewReader(messages); in.Len() > 0; {
		var m any
		if err := readMessage(in, maxReply, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, texts(m)...)
	}
	return all
}

func texts(m any) (all []byte) {
	switch m := m.(type) {
	case string:
		all, _ = base64.StdEncoding.DecodeString(m)
	case []any:
		for _, one := range m {
			all = append(all, texts(one)...)
		}
	case map[string]any:
		for _, one := range m {
			all = append(all, texts(one)...)
		}
	}
	return all
}

// tap keeps what is written.
type tap struct {
	net.Conn
	mu  sync.Mutex
	all []byte
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.all = append(t.all, p...)
	t.mu.Unlock()
	return t.Conn.Write(p)
}

func (t *tap) sent() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.all)
}
