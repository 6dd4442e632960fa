package foreign

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
)

// origin is mail software that takes mail: for example.org, if its subject does not
// ask to be refused.
type origin struct {
	name  string
	auth  bool // it offers AUTH PLAIN and LOGIN
	start func(context.Context, *stage) (running, error)
	short bool
}

// running is an origin at work.
type running interface {
	// taken returns what it has got since the last time, as lines. It waits until
	// the origin has no connection.
	taken(context.Context) ([]string, error)
	stop() error
}

var origins = []origin{
	{name: "go-smtp", auth: true, short: true, start: serveGolang},
	{name: "aiosmtpd", auth: true, start: script("/usr/bin/python3", "script/aiosmtpd_server.py")},
	{name: "smtp-server", auth: true, start: script("node", "node/smtp-server.js")},
	{name: "Haraka", auth: true, start: haraka},
	{name: "postfix", short: true, start: server(mta.StartPostfix,
		"smtpd_error_sleep_time = 0", "smtpd_tls_security_level = may", "smtpd_tls_received_header = yes",
		"smtpd_tls_cert_file = DIR/origin.pem", "smtpd_tls_key_file = DIR/origin.key", "message_size_limit = 52428800", "virtual_mailbox_limit = 0",
		"header_checks = regexp:{{/^Subject: refuse/ REJECT Not such content}}",
		"smtpd_sender_restrictions = check_sender_access inline:{{refused@example.net=REJECT Nothing from there}}")},
	{name: "exim", auth: true, start: server(mta.StartExim,
		"tls_advertise_hosts = *", "tls_certificate = DIR/origin.pem", "tls_privatekey = DIR/origin.key",
		"pipelining_connect_advertise_hosts = *", "message_size_limit = 50M", "smtputf8_advertise_hosts = *", "auth_advertise_hosts = *",
		`acl_smtp_data = ${if match{$h_subject:}{^refuse}{deny message = Not such content}{accept}}`,
		`acl_smtp_mail = ${if match{$sender_address}{^refused@}{deny message = Nothing from there}{accept}}`,
		"begin authenticators",
		"plain:\n driver = plaintext\n public_name = PLAIN\n server_prompts = :\n server_condition = ${if and{{eq{$auth2}{user}}{eq{$auth3}{password}}}}\n server_set_id = $auth2",
		"login:\n driver = plaintext\n public_name = LOGIN\n server_prompts = Username:: : Password::\n server_condition = ${if and{{eq{$auth1}{user}}{eq{$auth2}{password}}}}\n server_set_id = $auth1")},
}

// program is an origin that appends a line to a file for each message, before it
// says that it has it.
type program struct {
	cmd     *exec.Cmd
	said    *os.File
	records string
	read    int
	node    *testenv.Node
}

// launch starts a program on the origin and waits until it greets.
func (s *stage) launch(ctx context.Context, name string, args ...string) (running, error) {
	p := &program{records: filepath.Join(s.Dir, "got"), node: s.Origin}
	var err error
	if p.said, err = os.Create(filepath.Join(s.Dir, "said")); err != nil {
		return nil, err
	}
	p.cmd = s.Origin.Command(context.Background(), name, args...)
	p.cmd.Env = append(os.Environ(), "NODE_PATH="+s.modules, "PYTHONDONTWRITEBYTECODE=1")
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.Origin.AwaitGreeting(ctx, netip.AddrPortFrom(s.Origin4, 25)); err != nil {
		said, _ := os.ReadFile(p.said.Name())
		return p, fmt.Errorf("%w: %s", err, said)
	}
	return p, nil
}

func serveGolang(ctx context.Context, s *stage) (running, error) {
	program, err := built()
	if err != nil {
		return nil, err
	}
	return s.launch(ctx, program, "serve", s.certificate, filepath.Join(s.Dir, "got"))
}

// script is an origin that a script is.
func script(interpreter, path string) func(context.Context, *stage) (running, error) {
	return func(ctx context.Context, s *stage) (running, error) {
		return s.launch(ctx, interpreter, path, s.certificate, filepath.Join(s.Dir, "got"))
	}
}

// haraka is an origin with a configuration of its own and the plugin record.
func haraka(ctx context.Context, s *stage) (running, error) {
	dir := filepath.Join(s.Dir, "haraka")
	for _, sub := range []string{"plugins", "queue"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "config"), os.DirFS(filepath.Join(s.modules, "Haraka", "config"))); err != nil {
		return nil, err
	}
	limits, err := os.ReadFile(filepath.Join(dir, "config", "connection.ini"))
	if err != nil {
		return nil, err
	}
	// It would make parameters for DH itself, for a minute.
	parameters := exec.CommandContext(ctx, "openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048",
		"-out", filepath.Join(dir, "config", "dhparams.pem"))
	if said, err := parameters.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	plugin, err := os.ReadFile("node/record.js")
	if err != nil {
		return nil, err
	}
	for path, text := range map[string]string{
		"plugins/record.js":     string(plugin),
		"config/plugins":        "tls\nrecord\n",
		"config/records":        filepath.Join(s.Dir, "got"),
		"config/me":             "origin.example.org",
		"config/smtp.ini":       "listen=0.0.0.0:25\nnodes=0\n",
		"config/log.ini":        "[main]\nlevel=ERROR\n",
		"config/tls.ini":        "key=" + s.certificate + ".key\ncert=" + s.certificate + ".pem\n",
		"config/connection.ini": strings.Replace(string(limits), "bytes=26214400", "bytes=52428800", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return s.launch(ctx, "node", filepath.Join(s.modules, "Haraka", "bin", "haraka"), "-c", dir)
}

func (p *program) taken(ctx context.Context) ([]string, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		open, err := p.node.Connected()
		if err != nil {
			return nil, err
		}
		if !open {
			return p.lines()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			said, _ := os.ReadFile(p.said.Name())
			return nil, fmt.Errorf("wait until the origin has no connection: %w: %s", context.Cause(ctx), said)
		}
	}
}

// lines returns the new lines of the records.
func (p *program) lines() (list []string, err error) {
	text, err := os.ReadFile(p.records)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	fresh := string(text[p.read:])
	p.read = len(text)
	for line := range strings.Lines(fresh) {
		list = append(list, strings.TrimSuffix(line, "\n"))
	}
	return list, nil
}

func (p *program) stop() error {
	err := p.cmd.Process.Kill()
	p.cmd.Wait() // it was killed
	p.said.Close()
	return err
}

// mailServer is an origin of Debian's packages.
type mailServer struct{ *mta.Server }

// server starts one with settings.
func server(start func(context.Context, *testenv.Node, string, []netip.Addr, ...string) (*mta.Server, error), settings ...string) func(context.Context, *stage) (running, error) {
	return func(ctx context.Context, s *stage) (running, error) {
		dir := filepath.Join(s.Dir, "origin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := s.copyCertificate(dir); err != nil {
			return nil, err
		}
		var own []string
		for _, setting := range settings {
			own = append(own, strings.ReplaceAll(setting, "DIR", dir))
		}
		m, err := start(ctx, s.Origin, dir, []netip.Addr{s.Origin4}, own...)
		if err != nil {
			return nil, err
		}
		return mailServer{m}, nil
	}
}

// received are the headers that earlier hops have put before a message.
var received = regexp.MustCompile(`^(?:Received:.*\n(?:[ \t].*\n)*)*`)

func (m mailServer) taken(ctx context.Context) (list []string, err error) {
	mail, err := m.Taken(ctx)
	if err != nil {
		logged, _ := os.ReadFile(m.Log)
		return nil, fmt.Errorf("%w; it logged: %s", err, logged)
	}
	for _, d := range mail {
		trace := received.Find(d.Content)
		content := d.Content[len(trace):]
		text := ""
		if len(content) < 2000 {
			text = string(content)
		}
		list = append(list, fmt.Sprintf("from %q to %q, received %q, hops %d, %d octets, %x, %q", d.Sender, d.Recipient,
			strings.Join(strings.Fields(d.Received), " "), strings.Count("\n"+string(trace), "\nReceived:"), len(content), sha256.Sum256(content), text))
	}
	return list, err
}

func (m mailServer) stop() error { return m.Stop() }
