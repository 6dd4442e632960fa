package mta

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/peer"
)

// letter is a message that Postfix delivers as it is, below its own headers.
var letter = peer.Message{
	From: "a@example.net", To: []string{"b@example.org"},
	Content: "Subject: x\r\n\r\n..a dot\r\nand a line\r\n",
}

func TestPostfixDelivers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	postfix, err := StartPostfix(ctx, e.Origin, filepath.Join(e.Dir, "postfix"), []netip.Addr{e.Origin4, e.Origin6},
		"mynetworks = 192.0.2.0/24", "smtpd_tls_security_level=none")
	if err != nil {
		t.Fatal(err)
	}
	for count, way := range []struct{ from, to netip.Addr }{{e.Client4, e.Origin4}, {e.Client6, e.Origin6}} {
		deliver(ctx, t, e, way.from, way.to)
		mail, err := postfix.AwaitMail(ctx, count+1)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(mail[count], "\nSubject: x\n\n.a dot\nand a line\n") {
			t.Errorf("delivered %q", mail[count])
		}
		line, err := postfix.AwaitLog(ctx, regexp.MustCompile(`smtpd\[\d+\]: connect from unknown\[`+way.from.String()+`\]:\d+`))
		if err != nil {
			t.Error(err)
		}
		t.Log(line)
	}
	if err := postfix.Stop(); err != nil {
		t.Error(err)
	}
	if log, err := os.ReadFile(postfix.Log); err != nil || strings.Contains(string(log), "overriding") {
		t.Errorf("a setting stands twice in main.cf: %v\n%s", err, log) // postlogd can wait for itself then
	}
}

// starters are the servers.
var starters = map[string]func(context.Context, *testenv.Node, string, []netip.Addr, ...string) (*Server, error){
	"postfix": StartPostfix, "exim": StartExim, "opensmtpd": StartOpenSMTPD,
}

// TestServersKnow compares what each server knows of a message with what the
// client said.
func TestServersKnow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for name, start := range starters {
		t.Run(name, func(t *testing.T) {
			e, err := testenv.New(ctx, testenv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			server, err := start(ctx, e.Origin, filepath.Join(e.Dir, name), []netip.Addr{e.Origin4, e.Origin6})
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range []struct{ from, to netip.Addr }{{e.Client4, e.Origin4}, {e.Client6, e.Origin6}} {
				deliver(ctx, t, e, way.from, way.to)
				checkKnown(ctx, t, server, way.from)
			}
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOccupied runs tests of this package as on a machine on which the servers are
// installed, configured and in use.
func TestOccupied(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "../../scripts/occupied", self, "-test.v", "-test.run=^(TestPostfixDelivers|TestServersKnow)$").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := strings.Count(string(out), "--- PASS"); passed != 2+len(starters) {
		t.Errorf("%d tests have passed:\n%s", passed, out)
	}
}

func checkKnown(ctx context.Context, t *testing.T, server *Server, from netip.Addr) {
	t.Helper()
	taken, err := server.Taken(ctx)
	if err != nil || len(taken) != 1 {
		t.Fatalf("%+v, %v", taken, err)
	}
	d := taken[0]
	if d.Sender != letter.From || d.Recipient != letter.To[0] || string(d.Content) != "Subject: x\n\n.a dot\nand a line\n" {
		t.Errorf("delivered %+v with %q", d, d.Content)
	}
	for _, part := range []string{from.String(), "client.example.net", "id -", "; -"} {
		if !strings.Contains(d.Received, part) {
			t.Errorf("%q lacks %q", d.Received, part)
		}
	}
}

func TestOnlyTraceIsTakenOff(t *testing.T) {
	const own = "Received: from elsewhere\n\nReturn-Path: text\n"
	d, err := parseDelivery([]byte("Return-Path: <a@b>\nDelivered-To: c@d\nReceived: from x\n\tby y id 1-2; Sun, 1 Nov 2026\n"+own),
		[]string{"Return-Path", "Delivered-To", "Received"})
	if err != nil || string(d.Content) != own || d.Sender != "a@b" || d.Recipient != "c@d" || d.Received != "from x\n\tby y id -; -" {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = parseDelivery([]byte("Delivered-To: c@d\nReceived: x\n"+own), []string{"Return-Path", "Delivered-To", "Received"})
	if err != nil || string(d.Content) != own || d.Sender != "" || d.Recipient != "c@d" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, text := range []string{"", "Subject: x\n", "Return-Path: <a@b>\n\nReceived: x\n", "Delivered-To: x\n\n", "Received: x\n"} {
		if d, err := parseDelivery([]byte(text), []string{"Return-Path", "Delivered-To", "Received"}); err == nil {
			t.Errorf("%q was read as %+v", text, d)
		}
	}
}

func deliver(ctx context.Context, t *testing.T, e *testenv.Env, from, to netip.Addr) {
	t.Helper()
	conn, err := e.Client.Dial(ctx, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 25))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := peer.NewClient(conn).Deliver(letter)
	if err != nil || reply.Code != 250 {
		t.Fatalf("%+v, %v", reply, err)
	}
}

// TestStartSaysWhy starts servers that cannot serve. All that comes of it is one line,
// with the server's own complaint. Postfix's master goes on without an smtpd.
func TestStartSaysWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, test := range []struct{ name, server, setting, want string }{
		{"postfix", "postfix", "queue_directory = /nowhere", `fatal: .*/nowhere`},
		{"smtpd", "postfix", "smtpd_relay_restrictions =", `smtpd\[\d+\]: fatal: .*smtpd_relay_restrictions`},
		{"exim", "exim", "nonsense = 1", `configuration error in line \d+ of .*: main option "nonsense" unknown`},
		{"opensmtpd", "opensmtpd", "nonsense", `smtpd.conf:\d+: syntax error`},
	} {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err = starters[test.server](limited, e.Origin, filepath.Join(e.Dir, test.name), []netip.Addr{e.Origin4}, test.setting)
		cancel()
		if err == nil || strings.Contains(err.Error(), "\n") || !regexp.MustCompile(test.want).MatchString(err.Error()) {
			t.Errorf("%s: got %v, want one line with %s", test.name, err, test.want)
		}
		t.Log(err)
	}
}
