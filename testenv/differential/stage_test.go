package differential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
)

// stage is a network with an origin and the gateway's inspector at work.
type stage struct {
	*testenv.Env
	name    string // of the origin
	server  *mta.Server
	gateway *exec.Cmd
	records string // file of the gateway's records
	read    int    // octets of it that were read
}

// Ways to the origin.
type way struct {
	name   string
	to     func(*stage) netip.AddrPort
	relays bool // through the inspector
}

var (
	direct    = way{"direct", func(s *stage) netip.AddrPort { return netip.AddrPortFrom(s.Origin4, 25) }, false}
	addressed = way{"addressed", func(s *stage) netip.AddrPort { return netip.AddrPortFrom(s.Gateway4, 25) }, true}
	transit   = way{"transit", func(s *stage) netip.AddrPort { return netip.AddrPortFrom(s.More4, 25) }, true}
	// normalizing is addressed, with the policy that mends bare newlines.
	normalizing = way{"normalizing", func(s *stage) netip.AddrPort { return netip.AddrPortFrom(s.Gateway4, 2525) }, true}
)

// config has a service for each way but the direct one, which is routed.
const config = `interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: addressed
    listen: ["%[1]s:25"]
    origins: ["%[2]s:25"]
  - name: transit
    intercept: ["%[3]s:25"]
  - name: normalizing
    listen: ["%[1]s:2525"]
    origins: ["%[2]s:25"]
    smtp: {bare_newlines: normalize}
tls: {mode: off} # what is carried unseen is the same anyway
`

func newStage(t *testing.T, o origin, settings []string) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{Env: env, name: o.name, records: filepath.Join(env.Dir, "records")}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	s.server, err = o.start(ctx, env.Origin, filepath.Join(env.Dir, "origin"), []netip.Addr{env.Origin4, env.More4}, settings...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.startGateway(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// close ends everything. The network goes last, with whatever is left in it.
func (s *stage) close() error {
	var failures []error
	if s.gateway != nil {
		failures = append(failures, s.gateway.Process.Signal(syscall.SIGTERM), s.gateway.Wait())
	}
	if s.server != nil {
		failures = append(failures, s.server.Stop())
	}
	return errors.Join(append(failures, s.Env.Close())...)
}

// startGateway runs the inspector and waits until it carries sessions. It is
// asked from an address that no client of the tests has, see recorded.
func (s *stage) startGateway(ctx context.Context) error {
	path := filepath.Join(s.Dir, "portreeve.yaml")
	text := fmt.Sprintf(config, s.Gateway4, s.Origin4, s.More4)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	records, err := os.Create(s.records)
	if err != nil {
		return err
	}
	defer records.Close()
	notices, err := os.Create(filepath.Join(s.Dir, "notices"))
	if err != nil {
		return err
	}
	defer notices.Close()
	s.gateway = s.Gateway.Command(context.Background(), binary, "run", "--attach", "-c", path)
	s.gateway.Env = append(os.Environ(), s.Environ()...)
	s.gateway.Stdout, s.gateway.Stderr = records, notices
	if err := s.gateway.Start(); err != nil {
		s.gateway = nil
		return err
	}
	return s.await(ctx, func() (bool, error) { return s.greets(ctx) })
}

// greets reports whether the gateway's service greets a stranger.
func (s *stage) greets(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := s.Client.Dial(ctx, netip.AddrPortFrom(s.MoreClients[0], 0), netip.AddrPortFrom(s.Gateway4, 2525))
	if err != nil {
		return false, nil
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	code := make([]byte, 3)
	_, err = conn.Read(code)
	return err == nil && string(code) == "220", nil
}

// await looks at a condition again and again.
func (s *stage) await(ctx context.Context, condition func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		met, err := condition()
		if met || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			notices, _ := os.ReadFile(filepath.Join(s.Dir, "notices"))
			return fmt.Errorf("%w; the gateway said: %s", context.Cause(ctx), notices)
		}
	}
}

// record is what is compared of one of the gateway's records.
type record struct {
	Event  string
	Client netip.AddrPort
	Forged netip.AddrPort
	From   string
	To     []struct {
		Address string
		Code    int
	}
	Accepted int // recipients
	Outcome  string
	Reason   string
	End      string
	Commands int
	Messages int
	Reply    struct{ Code int }
}

// recorded waits for the record of the client's next session and returns the
// records since the one before, of that client.
func (s *stage) recorded(ctx context.Context) (list []record, err error) {
	err = s.await(ctx, func() (bool, error) {
		text, err := os.ReadFile(s.records)
		if err != nil {
			return false, err
		}
		text = text[s.read:]
		for {
			line, rest, whole := bytes.Cut(text, []byte("\n"))
			if !whole {
				return false, nil
			}
			text, s.read = rest, s.read+len(line)+1
			var r record
			if err := json.Unmarshal(line, &r); err != nil {
				return false, fmt.Errorf("record %s: %w", line, err)
			}
			if r.Client.Addr() != s.Client4 {
				continue
			}
			list = append(list, r)
			if r.Event == "session" {
				return true, nil
			}
		}
	})
	if err != nil {
		return list, fmt.Errorf("wait for the session's record: %w", err)
	}
	return list, nil
}

// dial connects the client to a way's address.
func (s *stage) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	conn, err := s.Client.Dial(ctx, netip.AddrPortFrom(s.Client4, 0), to)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline)
}
