package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
)

// suiteConfig begins the configuration of a plain proxy for the tests of a library:
// its server is not on the origin side but in the process of its client, so forging
// is not possible.
const suiteConfig = `interfaces: {client: [ext0], origin: [ext0]}
smtp:
  extensions: {allow: [AUTH, DELIVERBY, MT-PRIORITY, FUTURERELEASE, ETRN]}
  auth_in_clear: true
  bare_address: true
  forward: [VRFY, EXPN, HELP]
tls: {mode: off}
services:
`

// suite stands for the client in reasons.
const suite = "tests of go-smtp"

// firstPort is the one of the first test; each has its own, since some leave their
// server listening.
const firstPort = 20000

// TestSuite runs the tests that emersion/go-smtp has of its server, each with the
// server behind the gateway: the listener that a test dials says the gateway's address
// for its own (testdata/listen_test.go), and that is all that is changed.
func TestSuite(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	list, err := loadReasons("reasons")
	if err != nil {
		t.Fatal(err)
	}
	env := testenv.ForTest(t)
	program := buildSuite(ctx, t, env.Dir)
	said, err := exec.CommandContext(ctx, program, "-test.list", "^TestServer").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(said))
	if len(names) < 50 {
		t.Fatalf("only %d tests: %s", len(names), said)
	}
	s := &stage{Env: env}
	t.Cleanup(func() {
		if err := s.stopGateway(); err != nil {
			t.Error(err)
		}
	})
	if err := s.runGateway(ctx, suiteServices(s, len(names)), netip.AddrPortFrom(s.Gateway4, firstPort)); err != nil {
		t.Fatal(err)
	}
	passed := s.runSuite(ctx, t, program, names, list)
	t.Logf("%d of %d tests pass with the gateway", passed, len(names))
	list.checkStale(t, ofSuite)
}

// suiteServices is the configuration with a service for each test.
func suiteServices(s *stage, count int) string {
	var b strings.Builder
	b.WriteString(suiteConfig)
	for n := range count {
		fmt.Fprintf(&b, "  - {name: test%d, listen: [\"%s:%d\"], origins: [\"%s:%[3]d\"], forge: {address: never}}\n",
			n, s.Gateway4, firstPort+n, s.Client4)
	}
	return b.String()
}

// buildSuite copies the module, gives its tests the other listener and builds them.
func buildSuite(ctx context.Context, t *testing.T, dir string) string {
	t.Helper()
	said, err := exec.CommandContext(ctx, "go", "-C", "golang", "mod", "download", "-json", "github.com/emersion/go-smtp").Output()
	if err != nil {
		t.Fatalf("find go-smtp: %v", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(said, &module); err != nil || module.Dir == "" {
		t.Fatalf("find go-smtp: %v: %s", err, said)
	}
	source := filepath.Join(dir, "go-smtp")
	if err := os.CopyFS(source, os.DirFS(module.Dir)); err != nil {
		t.Fatal(err)
	}
	helper, err := os.ReadFile("testdata/listen_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(source, "server_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	const listens = `net.Listen("tcp", "127.0.0.1:0")`
	if bytes.Count(tests, []byte(listens)) != 1 {
		t.Fatalf("server_test.go of go-smtp has not one %s any more", listens)
	}
	tests = bytes.Replace(tests, []byte(listens), []byte(`listen("tcp", "127.0.0.1:0")`), 1)
	for name, text := range map[string][]byte{"server_test.go": tests, "listen_test.go": helper} {
		path := filepath.Join(source, name)
		if err := os.RemoveAll(path); err != nil { // those of a module cannot be written to
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "suite")
	build := exec.CommandContext(ctx, "go", "test", "-C", source, "-c", "-o", program, ".")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of go-smtp: %v\n%s", err, said)
	}
	return program
}

// runSuite runs each test without the gateway and with it, four at a time, and returns
// how many pass with it.
func (s *stage) runSuite(ctx context.Context, t *testing.T, program string, names []string, list *reasons) (passed int) {
	t.Helper()
	var mu sync.Mutex
	var running sync.WaitGroup
	defer running.Wait()
	turns := make(chan struct{}, 4)
	for n, name := range names {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			origin := netip.AddrPortFrom(s.Client4, uint16(firstPort+n))
			gateway := netip.AddrPortFrom(s.Gateway4, uint16(firstPort+n))
			without := s.runOne(ctx, program, name, "", origin)
			with := s.runOne(ctx, program, name, gateway.String(), origin)
			mu.Lock()
			defer mu.Unlock()
			list.judge(t, pairing{suite, "go-smtp", name, "addressed"}, without, with)
			if with[0] == pass {
				passed++
			}
		})
	}
	running.Wait()
	return passed
}

const pass = "client: PASS"

// complaint is the place and text of a failure.
var complaint = regexp.MustCompile(`^ +server_test\.go:\d+: |^ +lmtp_server_test\.go:\d+: |^panic: `)

// runOne runs a test and says what became of it.
func (s *stage) runOne(ctx context.Context, program, name, gateway string, origin netip.AddrPort) outcome {
	cmd := s.Client.Command(ctx, program, "-test.run", "^"+name+"$", "-test.v", "-test.timeout", "10s")
	cmd.Env = append(os.Environ(), "FOREIGN_GATEWAY="+gateway, "FOREIGN_ORIGIN="+origin.String())
	said, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(said, []byte("--- PASS: "+name)) {
		return outcome{pass}
	}
	lines := strings.Split(string(said), "\n")
	at := slices.IndexFunc(lines, complaint.MatchString)
	if at < 0 {
		return outcome{fmt.Sprintf("client: FAIL %v: %.300q", err, said)}
	}
	return outcome{"client: FAIL " + s.masked(complaint.ReplaceAllString(lines[at], ""))}
}
