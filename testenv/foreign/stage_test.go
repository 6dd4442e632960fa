package foreign

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/pki"
)

// stage is a network with an origin, and later the gateway's inspector.
type stage struct {
	*testenv.Env
	origin      origin
	running     running
	gateway     *exec.Cmd
	authority   string      // PEM file
	certificate string      // of the origin, which the gateway has as well: file without .pem and .key
	modules     string      // of node
	sender      *mta.Server // a mail server that is a client
}

// way is how a client gets to the origin.
type way struct {
	name    string
	address func(*stage) netip.Addr
}

func (w *way) to(s *stage) netip.AddrPort { return netip.AddrPortFrom(w.address(s), 25) }

var (
	direct = &way{"direct", func(s *stage) netip.Addr { return s.Origin4 }}
	// transit is the same address, with the gateway in between.
	transit = &way{"transit", func(s *stage) netip.Addr { return s.Origin4 }}
	// addressed is the gateway's address, with defaults.
	addressed = &way{"addressed", func(s *stage) netip.Addr { return s.Gateway4 }}
)

// ways are those through the gateway.
var ways = []*way{transit, addressed}

// config lets everything pass that the gateway knows in transit. The service that is
// addressed has all defaults.
const config = `interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: transit
    intercept: ["%[2]s:25"]
    smtp:
      extensions: {allow: [AUTH, DELIVERBY, MT-PRIORITY, FUTURERELEASE, ETRN]}
      auth_in_clear: true
      forward: [VRFY, EXPN, HELP]
  - name: addressed
    listen: ["%[1]s:25"]
    origins: ["%[2]s:25"]
tls:
  certificates: [{chain: %[3]s.pem, key: %[3]s.key}]
`

func newStage(t *testing.T, o origin) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{Env: env, origin: o}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if s.modules, err = filepath.Abs("../../.build/foreign/node/node_modules"); err != nil {
		t.Fatal(err)
	}
	if err := s.certify(); err != nil {
		t.Fatal(err)
	}
	if s.running, err = o.start(ctx, s); err != nil {
		t.Fatalf("start %s: %v", o.name, err)
	}
	return s
}

// certify makes one certificate for all names and addresses.
func (s *stage) certify() error {
	ca := pki.New("foreign")
	names := []string{"origin.example.org", s.Origin4.String(), s.Gateway4.String()}
	if _, _, err := ca.IssueFor(pki.RSA(), names).Write(s.Dir, "origin"); err != nil {
		return err
	}
	s.certificate = filepath.Join(s.Dir, "origin")
	var err error
	s.authority, err = s.file("authority.pem", string(ca.PEM()))
	return err
}

// copyCertificate puts the certificate where a server finds it.
func (s *stage) copyCertificate(dir string) error {
	for _, suffix := range []string{".pem", ".key"} {
		text, err := os.ReadFile(s.certificate + suffix)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "origin"+suffix), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything. The network goes last, with whatever is left in it.
func (s *stage) close() error {
	failures := []error{s.stopGateway()}
	if s.sender != nil {
		failures = append(failures, s.sender.Stop())
	}
	if s.running != nil {
		failures = append(failures, s.running.stop())
	}
	return errors.Join(append(failures, s.Env.Close())...)
}

// stopGateway ends the inspector, if there is one.
func (s *stage) stopGateway() error {
	if s.gateway == nil {
		return nil
	}
	return errors.Join(s.gateway.Process.Signal(syscall.SIGTERM), s.gateway.Wait())
}

// startGateway puts the gateway in between.
func (s *stage) startGateway(ctx context.Context) error {
	if err := s.runGateway(ctx, fmt.Sprintf(config, s.Gateway4, s.Origin4, s.certificate), addressed.to(s)); err != nil {
		return err
	}
	_, err := s.running.taken(ctx) // nothing of those tries is left
	return err
}

// runGateway attaches the gateway with a configuration, and waits until its inspector
// answers at an address of it.
func (s *stage) runGateway(ctx context.Context, config string, at netip.AddrPort) error {
	path, err := s.file("portreeve.yaml", config)
	if err != nil {
		return err
	}
	notices, err := os.Create(filepath.Join(s.Dir, "notices"))
	if err != nil {
		return err
	}
	defer notices.Close()
	s.gateway = s.Gateway.Command(context.Background(), binary, "run", "--attach", "-c", path)
	s.gateway.Env = append(os.Environ(), s.Environ()...)
	s.gateway.Stdout, s.gateway.Stderr = notices, notices
	if err := s.gateway.Start(); err != nil {
		s.gateway = nil
		return err
	}
	return s.awaitInspector(ctx, at)
}

// awaitInspector waits until the inspector answers, for itself or for an origin.
func (s *stage) awaitInspector(ctx context.Context, at netip.AddrPort) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.answers(ctx, at) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			said, _ := os.ReadFile(filepath.Join(s.Dir, "notices"))
			return fmt.Errorf("%w; the gateway said: %s", context.Cause(ctx), said)
		}
	}
	return nil
}

// answers reports whether a client reads the first line of a reply.
func (s *stage) answers(ctx context.Context, at netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := s.Client.Dial(ctx, netip.AddrPort{}, at)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetReadDeadline(deadline)
	_, err = conn.Read(make([]byte, 3))
	return err == nil
}

// taken returns what the origin has got.
func (s *stage) taken(ctx context.Context) ([]string, error) { return s.running.taken(ctx) }

// masks are what differs from one session to the next with any software: names of
// queues, dates, ports and times.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b(queued as|bouncing as|id) [0-9A-Za-z.-]+`), "$1 ID"},
	{regexp.MustCompile(`\bid=[0-9A-Za-z-]+`), "id=ID"},
	{regexp.MustCompile(`\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(\.\d+)?\b`), "UUID"},
	{regexp.MustCompile(`\([0-9A-F]{6}\)`), "(ID)"},
	{regexp.MustCompile(` ?\[session [0-9a-z]+\]`), ""}, // the gateway's, in its own replies
	{regexp.MustCompile(`\b[A-Z][a-z]{2}, ?\d+ [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}( \([A-Z]+\))?`), "DATE"},
}

func (s *stage) masked(line string) string {
	for _, m := range masks {
		line = m.pattern.ReplaceAllString(line, m.with)
	}
	return regexp.MustCompile(regexp.QuoteMeta(s.Origin4.String())+`\b|`+regexp.QuoteMeta(s.Gateway4.String())+`\b`).ReplaceAllString(line, "SERVER")
}
