package scenario

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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// TestTLSPeers sends mail by swaks over IPv4 and by openssl s_client over IPv6 to
// Postfix, Exim and OpenSMTPD, in every mode of TLS. What is in the mailbox, what the
// origin's log says, our records and our counters must agree.
func TestTLSPeers(t *testing.T) {
	for _, o := range origins {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			p := newParty(t, o)
			for i := range ways {
				p.tell(&ways[i])
			}
			p.mailbox()
			p.counters()
		})
	}
}

// origins are the mail servers. Each offers STARTTLS on port 25 and TLS from the
// first octet on on port 465.
var origins = []mailServer{
	{
		name: "postfix", start: mta.StartPostfix,
		settings: []string{
			"smtpd_tls_security_level = may", "smtpd_tls_loglevel = 1", "smtpd_tls_received_header = yes",
			"smtpd_tls_cert_file = DIR/origin.pem", "smtpd_tls_key_file = DIR/origin.key",
			"service 465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes",
		},
		id: `(\w+): from=<SENDER>`, client: `ID: client=unknown\[ADDR\]`,
		received: map[bool]string{true: `\(using TLSv1\.3 with cipher [\s\S]* with ESMTPS id`, false: `\]\)\s+by \S+ \(Postfix\) with ESMTP id`},
	},
	{
		name: "exim", start: mta.StartExim, owner: 2104,
		settings: []string{
			"tls_certificate = DIR/origin.pem", "tls_privatekey = DIR/origin.key", "log_selector = +tls_cipher",
			"daemon_smtp_ports = 25 : 465", "tls_on_connect_ports = 465",
		},
		id: `(\S+) <= SENDER `, client: `ID <= \S+ H=.*\[ADDR\] P=esmtp`, inTLS: `ID <= .* P=esmtps X=TLS1\.3:`,
		received: map[bool]string{true: `with esmtps\s+\(TLS1\.3\)`, false: `with esmtp \(Exim`},
	},
	{ // Debian 13's: see newer in scripts/install-deps
		name: "opensmtpd", start: mta.StartOpenSMTPD,
		settings: []string{
			"root opensmtpd13", `pki origin cert "DIR/origin.pem"`, `pki origin key "DIR/origin.key"`,
			"listen on 0.0.0.0 port 465 smtps pki origin hostname origin.example.org",
			"listen on :: port 465 smtps pki origin hostname origin.example.org",
		},
		id: `(\w+) smtp envelope .*from=<SENDER>`, client: `ID smtp connected address=\[?ADDR\b`, inTLS: `ID smtp tls ciphers=TLSv1\.3:`,
		received: map[bool]string{true: `with ESMTPS id - \(TLSv1\.3:`, false: `with ESMTP id`},
	},
}

// mailServer is how a real server is started, and read.
type mailServer struct {
	name     string
	start    starter
	settings []string // DIR: of the certificate
	owner    int      // who has to read the key

	// Patterns of the log: of the line that has SENDER and the server's ID for the
	// message or session, of the one with the client's ADDR, and of the one that is
	// only there with TLS.
	id, client, inTLS string
	received          map[bool]string // pattern of the header, with and without TLS
}

// way is a mode with its details: a service on a port of its own.
type way struct {
	name, tls        string // name of the service, and its section tls
	port, originPort uint16
	implicit         bool     // clients start with TLS
	inTLS            outcome  // of clients that start TLS
	clear            *outcome // of one that does not
}

// outcome is what becomes of a session.
type outcome struct {
	refused        string // pattern of what swaks reports; "": the message is delivered
	client, origin bool   // where TLS of ours is
	opaque         bool   // nobody looks at what is inside
}

const known = "origin: {verify: ca, name: origin.example.org, ca: DIR/ca.pem}"

var (
	both   = outcome{client: true, origin: true}
	plain  = outcome{}
	onward = outcome{origin: true}
	noTLS  = outcome{refused: `Host did not advertise STARTTLS`}
)

var ways = []way{
	{name: "mirror", tls: "{mode: mirror, " + known + "}", port: 25, originPort: 25, inTLS: both, clear: &plain},
	{name: "passthrough", tls: "{mode: passthrough}", port: 26, originPort: 25, inTLS: outcome{opaque: true}, clear: &plain},
	{name: "passthrough-must", tls: "{mode: passthrough, client: {require: true}}", port: 33, originPort: 25, inTLS: outcome{opaque: true},
		clear: &outcome{refused: `530 5\.7\.0 Must issue a STARTTLS command first`}},
	{name: "client", tls: "{mode: client}", port: 27, originPort: 25, inTLS: outcome{client: true}, clear: &plain},
	{name: "origin", tls: "{mode: origin, " + known + "}", port: 28, originPort: 25, inTLS: outcome{refused: noTLS.refused, origin: true}, clear: &onward},
	{name: "client-must", tls: "{mode: mirror, client: {require: true}, " + known + "}", port: 29, originPort: 25, inTLS: both,
		clear: &outcome{refused: `530 5\.7\.0 Must issue a STARTTLS command first`}},
	{name: "origin-must", tls: "{mode: mirror, " + strings.Replace(known, "{", "{require: true, ", 1) + "}", port: 30, originPort: 25, inTLS: both, clear: &onward},
	{name: "off", tls: "{mode: off}", port: 31, originPort: 25, inTLS: noTLS, clear: &plain},
	{name: "client-implicit", tls: "{mode: mirror, client: {implicit: true}, " + known + "}", port: 465, originPort: 25, implicit: true, inTLS: both},
	{name: "origin-implicit", tls: "{mode: mirror, " + strings.Replace(known, "{", "{implicit: true, ", 1) + "}", port: 32, originPort: 465, inTLS: both, clear: &onward},
	{name: "both-implicit", tls: "{mode: mirror, client: {implicit: true}, " + strings.Replace(known, "{", "{implicit: true, ", 1) + "}", port: 466, originPort: 465, implicit: true, inTLS: both},
}

// party is a network with one of the servers and a running portreeve.
type party struct {
	*testing.T
	*stage
	server   mailServer
	keys     string // directory of certificates
	sessions map[string]int
	tls      map[string]int // sessions by service, side and outcome of TLS
	due      map[string]due // by sender: what must be in the mailbox
}

// due is what is expected of a delivered message.
type due struct {
	client netip.Addr
	tls    bool // that the origin has seen
}

func newParty(t *testing.T, o mailServer) *party {
	s := &stage{ctx: t.Context(), work: t.TempDir(), processes: make(map[string]*process)}
	p := &party{T: t, stage: s, server: o, sessions: map[string]int{}, tls: map[string]int{}, due: map[string]due{}}
	var err error
	if s.env, err = testenv.New(s.ctx, testenv.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.must(s.close()) })
	p.keys = filepath.Join(s.env.Dir, "tls")
	p.must(p.certify())
	p.must(p.serve())
	p.must(p.inspect())
	return p
}

func (p *party) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// certify makes the certificates of the origin and of the gateway.
func (p *party) certify() error {
	if err := os.Mkdir(p.keys, 0o755); err != nil {
		return err
	}
	authority := pki.New("peers")
	if err := os.WriteFile(filepath.Join(p.keys, "ca.pem"), authority.PEM(), 0o644); err != nil {
		return err
	}
	for _, name := range []string{"origin", "gateway"} {
		if _, _, err := authority.Issue([]string{name + ".example.org"}).Write(p.keys, name); err != nil {
			return err
		}
	}
	return os.Chown(filepath.Join(p.keys, "origin.key"), p.server.owner, 0)
}

// serve starts the origin.
func (p *party) serve() (err error) {
	// The server sees nothing but its own directory of all that is below /tmp.
	dir := filepath.Join(p.env.Dir, p.server.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "tls"), os.DirFS(p.keys)); err != nil {
		return err
	}
	for _, f := range []string{"origin.key"} {
		path := filepath.Join(dir, "tls", f)
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, p.server.owner, 0)); err != nil {
			return err
		}
	}
	settings := make([]string, len(p.server.settings))
	for i, setting := range p.server.settings {
		settings[i] = strings.ReplaceAll(setting, "DIR", filepath.Join(dir, "tls"))
	}
	ctx, cancel := p.patience()
	defer cancel()
	p.postfix, err = p.server.start(ctx, p.env.Origin, dir, []netip.Addr{p.env.Origin4, p.env.Origin6}, settings...)
	return err
}

// inspect starts portreeve with a service for each way.
func (p *party) inspect() error {
	var c strings.Builder
	fmt.Fprintf(&c, "interfaces: {client: [ext0], origin: [dmz0]}\nmetrics: {listen: \"127.0.0.1:9125\"}\n")
	fmt.Fprintf(&c, "tls: {certificates: [{chain: DIR/gateway.pem, key: DIR/gateway.key}]}\nservices:\n")
	for _, w := range ways {
		fmt.Fprintf(&c, "  - name: %s\n    listen: [%q, %q]\n    origins: [%q, %q]\n    tls: %s\n", w.name,
			netip.AddrPortFrom(p.env.Gateway4, w.port), netip.AddrPortFrom(p.env.Gateway6, w.port),
			netip.AddrPortFrom(p.env.Origin4, w.originPort), netip.AddrPortFrom(p.env.Origin6, w.originPort), w.tls)
	}
	file := filepath.Join(p.work, "portreeve.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(c.String(), "DIR", p.keys)), 0o644); err != nil {
		return err
	}
	environ := append(p.env.Environ(), "PATH="+os.Getenv("PATH"))
	if err := p.start("run", p.env.Gateway, []string{binary, "run", "--attach", "-c", file}, environ); err != nil {
		return err
	}
	ctx, cancel := p.patience()
	defer cancel()
	return p.env.Client.AwaitGreeting(ctx, netip.AddrPortFrom(p.env.Gateway4, 25))
}

// tell sends by each client and looks at what has become of it.
func (p *party) tell(w *way) {
	if w.name == "mirror" {
		p.tries(w)
	}
	name := "gateway.example.org"
	if w.inTLS.opaque {
		name = "origin.example.org"
	}
	said, err := p.swaks(w, true)
	p.judge(w, "swaks", p.env.Client4, &w.inTLS, said, err)
	if w.inTLS.refused == "" && !strings.Contains(said, `TLS peer DN="/CN=`+name+`"`) {
		p.Errorf("%s: swaks was not shown %s:\n%s", w.name, name, said)
	}
	said, err = p.openssl(w, name)
	p.judge(w, "openssl", p.env.Client6, &w.inTLS, said, err)
	if w.clear != nil {
		said, err = p.swaks(w, false)
		p.judge(w, "clear", p.env.Client4, w.clear, said, err)
	}
}

// tries counts the sessions by which was tried whether we greet: on a slow machine
// there are several.
func (p *party) tries(w *way) {
	p.Helper()
	var all []record
	err := p.await(func() bool {
		all = slices.DeleteFunc(p.records(), func(r record) bool { return r.Event != "session" || r.Service != w.name })
		page, err := p.get("http://127.0.0.1:9125/metrics")
		p.must(err)
		return len(all) > 0 && bytes.Contains(page, fmt.Appendf(nil, "portreeve_sessions_opened_total{service=%q} %d\n", w.name, len(all)))
	})
	if err != nil {
		p.Fatalf("%s: %v for the records of all sessions so far, there are %d", w.name, err, len(all))
	}
	for _, r := range all {
		p.sessions[w.name]++
		p.count(w, r)
	}
}

// sender is the address that names a client of a way.
func sender(w *way, client string) string { return client + "." + w.name + "@example.net" }

// swaks sends one message.
func (p *party) swaks(w *way, inTLS bool) (said string, err error) {
	args := []string{
		"--server", p.env.Gateway4.String(), "--port", strconv.Itoa(int(w.port)), "--ehlo", "client.example.net",
		"--to", "b@example.org", "--body", "hello", "--from", sender(w, "clear"),
	}
	switch {
	case inTLS && w.implicit:
		args = append(args, "--tls-on-connect")
	case inTLS:
		args = append(args, "--tls")
	}
	if inTLS {
		args = append(args, "--from", sender(w, "swaks"))
	}
	ctx, cancel := p.patience()
	defer cancel()
	out, err := p.env.Client.Command(ctx, "swaks", args...).CombinedOutput()
	return string(out), err
}

// openssl sends one message by s_client, which has to find a good certificate of a
// name.
func (p *party) openssl(w *way, name string) (said string, err error) {
	args := []string{
		"s_client", "-quiet", "-connect", netip.AddrPortFrom(p.env.Gateway6, w.port).String(), "-CAfile", filepath.Join(p.keys, "ca.pem"),
		"-servername", name, "-verify_hostname", name, "-verify_return_error",
	}
	if !w.implicit {
		args = append(args, "-starttls", "smtp", "-name", "client.example.net")
	}
	ctx, cancel := p.patience()
	defer cancel()
	cmd := p.env.Client.Command(ctx, "openssl", args...)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	conn, err := startOverSocket(cmd)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	reply, err := dictate(conn, w.implicit, sender(w, "openssl"))
	if err != nil {
		cmd.Process.Kill() // which would wait for the gateway
	}
	cmd.Wait() // what has become of the message counts
	return reply + failure.String(), err
}

// startOverSocket starts a command that talks over a socket.
func startOverSocket(cmd *exec.Cmd) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close() // FileConn makes a copy
	defer theirs.Close()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	return conn, cmd.Start()
}

// dictate sends a message inside TLS, where somebody else has made it.
func dictate(conn net.Conn, greeted bool, from string) (last string, err error) {
	client := peer.NewClient(conn)
	var ehlo peer.Reply
	if greeted {
		ehlo, err = client.Open("client.example.net")
	} else {
		ehlo, err = client.Command("EHLO client.example.net")
	}
	if err != nil || ehlo.Code != 250 {
		return ehlo.Raw, fmt.Errorf("EHLO: %q, %w", ehlo.Raw, err)
	}
	m := peer.Message{From: from, To: []string{"b@example.org"}, Content: "Subject: by openssl\r\n\r\nhello\r\n"}
	reply, err := client.Send(m)
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("end of data: %q", reply.Raw)
	}
	if err != nil {
		return reply.Raw, err
	}
	_, err = client.Command("QUIT")
	return reply.Raw, err
}

// judge compares what a client was told, and our record of it, with the outcome.
func (p *party) judge(w *way, client string, from netip.Addr, want *outcome, said string, err error) {
	p.Helper()
	if delivered := err == nil; delivered != (want.refused == "") {
		p.Errorf("%s by %s: %v:\n%s", w.name, client, err, said)
	}
	if want.refused != "" && client != "openssl" && !regexp.MustCompile(want.refused).MatchString(said) {
		p.Errorf("%s by %s: no %q in\n%s", w.name, client, want.refused, said)
	}
	p.sessions[w.name]++
	session, messages := p.record(w)
	if want.refused == "" {
		p.due[sender(w, client)] = due{client: from, tls: want.origin || want.opaque}
	}
	p.judgeSession(w, client, want, session)
	delivered := want.refused == "" && !want.opaque
	stopped := strings.HasPrefix(want.refused, "530") // at MAIL, which is in a record, too
	switch {
	case (delivered || stopped) != (len(messages) == 1):
		p.Errorf("%s by %s: %d messages in our record", w.name, client, len(messages))
	case delivered:
		p.judgeMessage(sender(w, client), messages[0])
	case stopped && (messages[0].Outcome != "refused" || messages[0].From != sender(w, client)):
		p.Errorf("%s by %s: our record has %+v", w.name, client, messages[0])
	}
	if got := netip.MustParseAddrPort(session.Client).Addr(); got != from {
		p.Errorf("%s by %s: our record has the client %s, want %s", w.name, client, got, from)
	}
}

func (p *party) judgeSession(w *way, client string, want *outcome, r record) {
	p.Helper()
	mode, _, _ := strings.Cut(strings.TrimPrefix(w.tls, "{mode: "), ",")
	if mode = strings.TrimSuffix(mode, "}"); r.TLS != mode {
		p.Errorf("%s by %s: mode %q in our record", w.name, client, r.TLS)
	}
	if r.ClientTLS.is("TLS1.3") != want.client || r.OriginTLS.is("TLS1.3") != want.origin {
		p.Errorf("%s by %s: our record has %+v and %+v", w.name, client, r.ClientTLS, r.OriginTLS)
	}
	if want.origin && (r.OriginTLS.Peer != "verified" || r.OriginTLS.PeerName != "CN=origin.example.org" || r.OriginTLS.SNI != "origin.example.org" || r.OriginTLS.Group == "") {
		p.Errorf("%s by %s: our record has of the origin %+v", w.name, client, r.OriginTLS)
	}
	if want.client && (r.ClientTLS.Cipher == "" || r.ClientTLS.Group == "" || client == "openssl" && r.ClientTLS.SNI != "gateway.example.org") {
		p.Errorf("%s by %s: our record has of the client %+v", w.name, client, r.ClientTLS)
	}
	if want.opaque != (r.Opaque != nil) || r.Opaque != nil && (r.Opaque.FromClient < 500 || r.Opaque.FromOrigin < 500) {
		p.Errorf("%s by %s: opaque: %+v", w.name, client, r.Opaque)
	}
	if w.name == "off" && !strings.Contains(r.Removed, "STARTTLS") {
		p.Errorf("%s by %s: removed: %q", w.name, client, r.Removed)
	}
	p.count(w, r)
}

// count keeps for the metrics what a record says.
func (p *party) count(w *way, r record) {
	p.tls[w.name+" client "+r.became(r.ClientTLS)]++
	p.tls[w.name+" origin "+r.became(r.OriginTLS)]++
}

func (p *party) judgeMessage(from string, r record) {
	p.Helper()
	if r.From != from || len(r.To) != 1 || r.To[0].Address != "b@example.org" || r.Outcome != "accepted" {
		p.Errorf("our record of %s: %+v", from, r)
	}
}

// record is a line of ours.
type record struct {
	Event, ID, Service, Client string
	TLS                        string
	ClientTLS                  *half `json:"client_tls"`
	OriginTLS                  *half `json:"origin_tls"`
	Opaque                     *struct {
		FromClient int64 `json:"from_client"`
		FromOrigin int64 `json:"from_origin"`
	}
	Removed string
	From    string
	To      []struct{ Address string }
	Outcome string
}

// half is TLS of one side.
type half struct {
	Version, Cipher, Group, SNI, Peer, Failure string
	PeerName                                   string `json:"peer_name"`
}

func (h *half) is(version string) bool { return h != nil && h.Version == version && h.Failure == "" }

// became is the counters' word for what became of a side.
func (r *record) became(h *half) string {
	switch {
	case r.Opaque != nil:
		return "opaque"
	case h == nil:
		return "none"
	case h.Failure != "":
		return h.Failure
	}
	return h.Version
}

// record waits for the record of a way's last session and returns it with those of
// its messages.
func (p *party) record(w *way) (session record, messages []record) {
	p.Helper()
	err := p.await(func() bool {
		session, messages = record{}, nil
		byID := map[string][]record{}
		count := 0
		for _, r := range p.records() {
			switch {
			case r.Event == "message":
				byID[r.ID] = append(byID[r.ID], r)
			case r.Event == "session" && r.Service == w.name:
				session = r
				count++
			}
		}
		messages = byID[session.ID]
		return count >= p.sessions[w.name]
	})
	if err != nil {
		p.Fatalf("%s: %v for record %d", w.name, err, p.sessions[w.name])
	}
	return session, messages
}

// records returns all lines that are complete.
func (p *party) records() (all []record) {
	text, err := os.ReadFile(filepath.Join(p.work, "run.out"))
	p.must(err)
	for line := range bytes.Lines(text) {
		var r record
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if err := json.Unmarshal(line, &r); err != nil {
			p.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

// mailbox compares what the origin has and says with what it must have.
func (p *party) mailbox() {
	ctx, cancel := p.patience()
	defer cancel()
	taken, err := p.postfix.Taken(ctx)
	p.must(err)
	for _, d := range taken {
		want, ok := p.due[d.Sender]
		if !ok {
			p.Errorf("in the mailbox is a message of %s", d.Sender)
			continue
		}
		delete(p.due, d.Sender)
		if !strings.Contains(d.Received, want.client.String()) || !regexp.MustCompile(p.server.received[want.tls]).MatchString(d.Received) {
			p.Errorf("%s: received %q, want %+v", d.Sender, d.Received, want)
		}
		if !strings.HasSuffix(strings.TrimRight(string(d.Content), "\n"), "\nhello") || d.Recipient != "b@example.org" {
			p.Errorf("%s: delivered to %s: %q", d.Sender, d.Recipient, d.Content)
		}
		p.logged(ctx, d.Sender, want)
	}
	for sender := range p.due {
		p.Errorf("nothing of %s is in the mailbox", sender)
	}
}

// logged looks for a message in the origin's log.
func (p *party) logged(ctx context.Context, sender string, want due) {
	id := regexp.MustCompile(strings.ReplaceAll(p.server.id, "SENDER", regexp.QuoteMeta(sender)))
	line, err := p.postfix.AwaitLog(ctx, id)
	p.must(err)
	text, err := os.ReadFile(p.postfix.Log)
	p.must(err)
	fill := strings.NewReplacer("ID", regexp.QuoteMeta(id.FindStringSubmatch(line)[1]), "ADDR", regexp.QuoteMeta(want.client.String()))
	if !regexp.MustCompile(fill.Replace(p.server.client)).Match(text) {
		p.Errorf("%s: the origin's log does not say that the client is %s", sender, want.client)
	}
	if p.server.inTLS != "" && regexp.MustCompile(fill.Replace(p.server.inTLS)).Match(text) != want.tls {
		p.Errorf("%s: the origin's log has TLS: %v", sender, !want.tls)
	}
}

// counters compares the metrics with what the records say.
func (p *party) counters() {
	page, err := p.get("http://127.0.0.1:9125/metrics")
	p.must(err)
	for what, count := range p.tls {
		words := strings.Fields(what)
		line := fmt.Sprintf("portreeve_%s_tls_total{outcome=%q,service=%q} %d\n", words[1], words[2], words[0], count)
		if !bytes.Contains(page, []byte(line)) {
			p.Errorf("the metrics have no %s", line)
		}
	}
	if !regexp.MustCompile(`portreeve_opaque_bytes_total\{service="passthrough",source="client"\} [1-9]`).Match(page) {
		p.Error("the metrics have no opaque octets")
	}
}
