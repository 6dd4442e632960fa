package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/protocol"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/zone"
)

// configDiff compares configurations, addresses by value.
func configDiff(want, got *Config) string {
	return cmp.Diff(want, got, anywhere,
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty())
}

// anywhere compares rules wherever the file says them; TestPlaces is about that.
var anywhere = cmp.Options{cmpopts.IgnoreFields(protocol.Rules{}, "Given"), cmpopts.IgnoreFields(protocol.Command{}, "Place")}

func mustParse(t *testing.T, data string, environ ...string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(data), environ)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return c
}

func TestMinimal(t *testing.T) {
	want := Default()
	want.File = "minimal.yaml"
	want.Interfaces = Interfaces{Client: []string{"ext0"}, Origin: []string{"dmz0"}}
	want.Services = []Service{{
		Name:    "mx",
		Listen:  []Target{{netip.MustParsePrefix("172.16.40.1/32"), 25}},
		Origins: []netip.AddrPort{netip.MustParseAddrPort("172.16.20.254:25")},
		SMTP:    want.SMTP,
		TLS:     TLS{Mode: TLSPassthrough},
	}}
	got, err := Parse("minimal.yaml", Minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := configDiff(&want, got); diff != "" {
		t.Error(diff)
	}
}

// everything sets each key to something else than its default.
const everything = `
interfaces:
  client: [ext0, wan1]
  origin: [ext0]
services:
  - name: mx
    listen: "192.0.2.1:25"
    intercept: ["198.51.100.0/24:25", "198.51.100.7:2525", "192.0.2.1:25"]
    origins: ["203.0.113.1:25", "203.0.113.2:26"]
    forge: {address: prefer, port: 0x19, on_link: plain}
    fail: open
    smtp:
      extensions: {allow: [BINARYMIME], remove: AUTH}
      auth_in_clear: false
      mechanisms: []
      forward: []
      commands: []
      append_domain: ""
      refuse_bang: false
      bare_newlines: reject
      received: ""
      limits: {size: 0, session: 0s}
    tls:
      mode: mirror
      certificates: [{chain: /b.pem, key: /b.key}]
      domains: [Example.org, example.net]
      client: {require: false, implicit: true, minimum: TLS1.2, rsa_key_exchange: allow, verify: none, ca: ""}
      origin: {require: false, implicit: true, verify: pin, name: "", ca: "", pins: sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=, resolver: ""}
  - name: v6.only_1-x
    listen: ["[2001:db8::/64]:25", "[2001:db8:1::1]:25"]
    origins: ["[2001:db8:2::1]:25"]
    forge: {port: group}
  - name: any
    intercept: ["0.0.0.0/0:587"]
    forge: {address: never}
smtp:
  extensions: {allow: [auth, ETRN], remove: [BINARYMIME]}
  auth_in_clear: true
  mechanisms: [plain, SCRAM-SHA-256]
  forward: [vrfy, HELP]
  commands:
    - name: etrn
    - {name: HELO, verdict: disconnect}
    - {name: EXPN, verdict: reject, code: 450, text: Not now}
    - {name: NOOP, verdict: disconnect, code: 421, text: Enough}
    - {name: VRFY, verdict: accept}
  bare_address: true
  append_domain: example.org
  refuse_routes: true
  refuse_percent: true
  refuse_bang: true
  strict_helo: true
  strict_pipelining: true
  bare_newlines: normalize
  eight_bit: reject
  unoffered_parameters: refuse
  reply_id: false
  early_talkers: pass
  nul: remove
  malformed_replies: close
  received: mx.example.org
  limits: {command: 512, parameter: 0, auth_line: 1024, reply_line: 513, reply_lines: 20, reply_size: 3000, idle: 0, tiny_chunks: 0, line: 998, size: 50MiB, drain: 1GiB, recipients: 100, messages: 10, errors: 1, rate: 0, session: 1h}
zones:
  - {name: balancers, networks: [192.0.2.16/28, "2001:db8:10::5"], trust: PROXY}
  - {name: filters.1, networks: 192.0.2.17, trust: [xclient, XForward]}
  - {name: world, networks: [0.0.0.0/0, "::/0"]}
tls:
  mode: mirror
  certificates:
    - chain: /etc/ssl/a.pem
      key: /etc/ssl/private/a.key
    - {chain: /etc/ssl/b.pem, key: /etc/ssl/private/b.key}
  client: {require: true, minimum: TLS1.3, rsa_key_exchange: refuse, verify: always, ca: /etc/ssl/clients.pem}
  origin: {require: true, verify: ca, name: mx.example.org, ca: /etc/ssl/origins.pem}
kernel:
  bpffs: /mnt/bpf
  run_dir: /var/run/p r
  datapath: clsact
  netfilter: off
  client_mark: 0x10
  origin_mark: "0b100000"
  forward_rules: skip
  loop_mark: 0x40
  loop_table: 300
  table: 100
  priority: 32765
  heartbeat: 500ms
timeouts: {connect: 1s, greet: 2s, handshake: 9s, command: 3s, reply: 4s, data: 5s, block: 6s, end: 7s, proxy: 8s, drain: 1m30s}
limits: {sessions: 1}
log: {format: text, silent_visitors: false}
metrics: {listen: "[::1]:9125"}
`

// everySMTP is what everything says for all services.
func everySMTP() protocol.Rules {
	reply := func(code smtp.Code, text string) smtp.Reply {
		return smtp.Reply{Code: code, Enhanced: smtp.Enhanced{Class: uint8(code.Class()), Subject: 7}, Text: text}
	}
	return protocol.Rules{
		Keywords: Default().SMTP.Keywords.With(smtp.ExtAuth).With(smtp.ExtETRN).Without(smtp.ExtBinaryMIME),
		Forward:  smtp.VerbsOf(smtp.VRFY, smtp.HELP), Mechanisms: []string{"PLAIN", "SCRAM-SHA-256"}, AuthInClear: true,
		Commands: []protocol.Command{
			{Verb: smtp.ETRN, Action: protocol.Reject, Reply: reply(502, "Command not available here")},
			{Verb: smtp.HELO, Action: protocol.Disconnect, Reply: reply(421, "Closing connection, command not available here")},
			{Verb: smtp.EXPN, Action: protocol.Reject, Reply: reply(450, "Not now")},
			{Verb: smtp.NOOP, Action: protocol.Disconnect, Reply: reply(421, "Enough")},
			{Verb: smtp.VRFY},
		},
		BareAddress: true, AppendDomain: "example.org", RefuseRoutes: true, RefusePercent: true, RefuseBang: true,
		StrictHello: true, StrictPipelining: true, Newlines: protocol.NormalizeNewlines, EightBit: protocol.RejectEightBit,
		Unoffered: protocol.RefuseUnoffered, EarlyTalkers: protocol.PassEarly, NUL: protocol.RemoveNUL, Malformed: protocol.CloseReplies,
		Received:    "mx.example.org",
		CommandLine: 512, AuthLine: 1024, Replies: smtp.ReplyLimits{Line: 513, Lines: 20, Octets: 3000},
		TextLine: 998, Size: 50 << 20, Drain: 1 << 30, Recipients: 100, Messages: 10, Errors: 1, Session: time.Hour,
	}
}

// everyTLS is what everything says for all services.
func everyTLS() TLS {
	return TLS{
		Mode:         TLSMirror,
		Certificates: []Certificate{{"/etc/ssl/a.pem", "/etc/ssl/private/a.key"}, {"/etc/ssl/b.pem", "/etc/ssl/private/b.key"}},
		Client:       TLSClient{Require: true, Minimum: TLS13, RSA: RSARefuse, Verify: ClientAlways, CA: "/etc/ssl/clients.pem"},
		Origin:       TLSOrigin{Require: true, Verify: OriginCA, Name: "mx.example.org", CA: "/etc/ssl/origins.pem"},
	}
}

// TestModeByCertificate: the mode that nobody wrote is decided by whether there is
// a certificate, for each service.
func TestModeByCertificate(t *testing.T) {
	const certificate = "certificates: [{chain: /a.pem, key: /a.key}]"
	for _, tc := range []struct {
		tail string
		want TLSMode
	}{
		{"", TLSPassthrough},
		{"    tls: {" + certificate + "}\n", TLSMirror},
		{"tls: {" + certificate + "}\n", TLSMirror},
		{"    tls: {certificates: []}\ntls: {" + certificate + "}\n", TLSPassthrough},
		{"    tls: {mode: passthrough}\ntls: {" + certificate + "}\n", TLSPassthrough},
		{"    tls: {mode: auto}\ntls: {mode: origin, " + certificate + "}\n", TLSMirror},
		{"    tls: {mode: off}\n", TLSOff},
	} {
		c := mustParse(t, string(Minimal)+tc.tail)
		if got := c.Services[0].TLS.Mode; got != tc.want {
			t.Errorf("%q: %s, not %s", tc.tail, got, tc.want)
		}
		if warned := len(c.Warnings) > 0; warned != (tc.want == TLSOff) {
			t.Errorf("%q: warnings: %v", tc.tail, c.Warnings)
		}
	}
}

// TestExchangesRSA: by default, and not where it is turned off or TLS 1.3 is required.
func TestExchangesRSA(t *testing.T) {
	for client, want := range map[string]bool{"": true, "rsa_key_exchange: allow": true, "rsa_key_exchange: refuse": false, "minimum: TLS1.3": false} {
		c := mustParse(t, string(Minimal)+"    tls: {certificates: [{chain: /a.pem, key: /a.key}], client: {"+client+"}}\n")
		if got := c.Services[0].TLS.Client.ExchangesRSA(); got != want {
			t.Errorf("%q: %t", client, got)
		}
	}
}

// TestRemoteResolver: what it says is validated can be forged on the way.
func TestRemoteResolver(t *testing.T) {
	const tail = "    tls: {mode: origin, origin: {require: true, verify: dane, name: mx.example.org, resolver: %s}}\n"
	for resolver, warned := range map[string]bool{`"127.0.0.1:53"`: false, `"[::1]:53"`: false, `"192.0.2.53:53"`: true} {
		c := mustParse(t, string(Minimal)+strings.ReplaceAll(tail, "%s", resolver))
		if (len(c.Warnings) > 0) != warned {
			t.Errorf("%s: warnings: %v", resolver, c.Warnings)
		}
	}
}

func TestEverything(t *testing.T) {
	pfx, addr := netip.MustParsePrefix, netip.MustParseAddrPort
	common := everySMTP()
	relaxed := common
	relaxed.Keywords = Default().SMTP.Keywords.With(smtp.ExtETRN)
	relaxed.AuthInClear, relaxed.Mechanisms, relaxed.Forward, relaxed.Commands = false, nil, 0, nil
	relaxed.AppendDomain, relaxed.RefuseBang, relaxed.Newlines, relaxed.Received = "", false, protocol.RejectNewlines, ""
	relaxed.Size, relaxed.Session = 0, 0
	want := &Config{
		File:       "test.yaml",
		Interfaces: Interfaces{Client: []string{"ext0", "wan1"}, Origin: []string{"ext0"}},
		Services: []Service{{
			Name:      "mx",
			Listen:    []Target{{pfx("192.0.2.1/32"), 25}},
			Intercept: []Target{{pfx("198.51.100.0/24"), 25}, {pfx("198.51.100.7/32"), 2525}, {pfx("192.0.2.1/32"), 25}},
			Origins:   []netip.AddrPort{addr("203.0.113.1:25"), addr("203.0.113.2:26")},
			Forge:     Forge{ForgePrefer, ForgePort{PortNumber, 25}, OnLinkPlain},
			Fail:      FailOpen,
			SMTP:      relaxed,
			TLS: TLS{
				Mode:         TLSMirror,
				Certificates: []Certificate{{"/b.pem", "/b.key"}},
				Domains:      []string{"example.org", "example.net"},
				Client:       TLSClient{Implicit: true},
				Origin: TLSOrigin{Implicit: true, Verify: OriginPin, Pins: []Pin{
					{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
				}},
			},
		}, {
			Name:    "v6.only_1-x",
			Listen:  []Target{{pfx("2001:db8::/64"), 25}, {pfx("2001:db8:1::1/128"), 25}},
			Origins: []netip.AddrPort{addr("[2001:db8:2::1]:25")},
			Forge:   Forge{Port: ForgePort{Mode: PortGroup}},
			SMTP:    common,
			TLS:     everyTLS(),
		}, {
			Name:      "any",
			Intercept: []Target{{pfx("0.0.0.0/0"), 587}},
			Forge:     Forge{Address: ForgeNever},
			SMTP:      common,
			TLS:       everyTLS(),
		}},
		Zones: []Zone{
			{"balancers", []netip.Prefix{pfx("192.0.2.16/28"), pfx("2001:db8:10::5/128")}, zone.PROXY},
			{"filters.1", []netip.Prefix{pfx("192.0.2.17/32")}, zone.XCLIENT | zone.XFORWARD},
			{"world", []netip.Prefix{pfx("0.0.0.0/0"), pfx("::/0")}, 0},
		},
		SMTP: common,
		TLS:  everyTLS(),
		Kernel: Kernel{
			BPFFS: "/mnt/bpf", RunDir: "/var/run/p r", Datapath: DatapathClsact, Netfilter: NetfilterOff,
			ForwardRules: ForwardSkip, LoopMark: 0x40, LoopTable: 300, ClientMark: 0x10, OriginMark: 0x20, Table: 100, Priority: 32765, Heartbeat: 500 * time.Millisecond,
		},
		Timeouts: Timeouts{
			Connect: time.Second, Greet: 2 * time.Second, Handshake: 9 * time.Second, Command: 3 * time.Second, Reply: 4 * time.Second,
			Data: 5 * time.Second, Block: 6 * time.Second, End: 7 * time.Second, Proxy: 8 * time.Second, Drain: 90 * time.Second,
		},
		Limits:  Limits{Sessions: 1},
		Log:     Log{Format: "text", SilentVisitors: false},
		Metrics: Metrics{Listen: addr("[::1]:9125")},
	}
	got := mustParse(t, everything)
	if len(got.Warnings) != 2 { // about forge, see TestForgeWarnings
		t.Errorf("warnings: %v", got.Warnings)
	}
	got.Warnings = nil
	if diff := configDiff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPrecedence: override before environment before file before default.
func TestPrecedence(t *testing.T) {
	file := string(Minimal) + "kernel: {table: 1001, heartbeat: 5s, priority: 1001}\n"
	environ := []string{"HOME=/", "PORTREEVE_TABLE=1002", "PORTREEVE_HEARTBEAT=7s", "PORTREEVE_LOG_FORMAT="}
	c, err := Parse("test.yaml", []byte(file), environ, Override{"kernel.table", "1003", "--table"})
	if err != nil {
		t.Fatal(err)
	}
	k := c.Kernel
	if k.Table != 1003 || k.Priority != 1001 || k.Heartbeat != 7*time.Second || c.Log.Format != "json" {
		t.Errorf("table %d priority %d heartbeat %s format %s", k.Table, k.Priority, k.Heartbeat, c.Log.Format)
	}
}

// TestPlaces: each rule knows where it was set, that of a service where the service sets
// it, else where all do; what nobody sets is nowhere.
func TestPlaces(t *testing.T) {
	c := mustParse(t, string(Minimal)+`    smtp: {limits: {errors: 7}}
smtp:
  limits: {errors: 5, messages: 3}
  commands:
    - {name: ETRN}
    - name: NOOP
`, "PORTREEVE_SMTP_LIMITS_SIZE=1KiB")
	line := strings.Count(string(Minimal), "\n") + 1
	file := func(plus int) string { return fmt.Sprintf("test.yaml:%d", line+plus) }
	own := c.Services[0].SMTP
	for key, want := range map[string][2]string{ // of all services, of the one
		"smtp.limits.errors":   {file(2), file(0)},
		"smtp.limits.messages": {file(2), file(2)},
		"smtp.limits.size":     {"environment PORTREEVE_SMTP_LIMITS_SIZE", "environment PORTREEVE_SMTP_LIMITS_SIZE"},
		"smtp.limits.rate":     {"", ""},
	} {
		rule := &protocol.Rule{Key: key}
		if got := [2]string{c.SMTP.Placed(rule).Place, own.Placed(rule).Place}; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if got := []string{own.Commands[0].Place, own.Commands[1].Place}; got[0] != file(4) || got[1] != file(5) {
		t.Errorf("commands at %q", got)
	}
}

// TestEnvironmentWithinSMTP: a variable changes its own key of a section within
// a section, for the services too, unless they say otherwise.
func TestEnvironmentWithinSMTP(t *testing.T) {
	c := mustParse(t, string(Minimal)+`    smtp: {limits: {errors: 7}}
smtp: {limits: {errors: 5, messages: 3}, forward: [HELP]}
`, "PORTREEVE_SMTP_LIMITS_ERRORS=6", "PORTREEVE_SMTP_LIMITS_SIZE=1KiB", "PORTREEVE_SMTP_STRICT_HELO=true")
	want := Default().SMTP
	want.Errors, want.Size, want.Messages = 6, 1024, 3
	want.StrictHello, want.Forward = true, smtp.VerbsOf(smtp.HELP)
	if diff := cmp.Diff(want, c.SMTP, anywhere); diff != "" {
		t.Error(diff)
	}
	want.Errors = 7
	if diff := cmp.Diff(want, c.Services[0].SMTP, anywhere); diff != "" {
		t.Error(diff)
	}
}

// TestEnvironmentReachesEveryKey sets each variable to what no key can be and
// expects it to be refused under the variable's name.
func TestEnvironmentReachesEveryKey(t *testing.T) {
	for _, v := range Variables() {
		_, err := Parse("test.yaml", Minimal, []string{v.Name + "=no such thing"})
		if err == nil || !strings.HasPrefix(err.Error(), "environment "+v.Name+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s (%s): %v", v.Name, v.Key, err)
		}
	}
}

func TestElsewhere(t *testing.T) {
	for _, tc := range []struct {
		name     string
		environ  []string
		override []Override
		want     string
	}{
		{"bad value", []string{"PORTREEVE_TABLE=main"}, nil,
			`environment PORTREEVE_TABLE: "main" is not a whole number from 1 to 2147483647; leave it out to have the default, 2525`},
		{"the override hides the environment", []string{"PORTREEVE_TABLE=main"},
			[]Override{{"kernel.table", "255", "--table"}},
			`--table: table 255 is the kernel's own table "local"; leave it out to have the default, 2525`},
		{"misspelt variable", []string{"PORTREEVE_TABEL=1"}, nil,
			`environment PORTREEVE_TABEL: unknown variable; the nearest known variable is PORTREEVE_TABLE`},
		{"unknown override", nil, []Override{{"kernel.tabel", "1", "--tabel"}},
			`--tabel: there is no setting "kernel.tabel"; leave it out`},
		{"leading zero", []string{"PORTREEVE_TABLE=010"}, nil,
			`environment PORTREEVE_TABLE: "010" is not a whole number from 1 to 2147483647; leave it out to have the default, 2525`},
	} {
		_, err := Parse("test.yaml", Minimal, tc.environ, tc.override...)
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s:\n got %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

func TestWithoutFile(t *testing.T) {
	got, err := WithoutFile([]string{"PORTREEVE_RUN_DIR=/run/a", "PORTREEVE_TABLE=7"}, Override{"kernel.run_dir", "/run/b", "--run-dir"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Kernel.RunDir, want.Kernel.Table, want.Kernel.LoopTable = "/run/b", 7, 8
	if diff := configDiff(&want, got); diff != "" {
		t.Error(diff)
	}
	_, err = WithoutFile(nil, Override{"kernel.run_dir", "run", "--run-dir"})
	if want := `--run-dir: "run" is not an absolute path to a directory; leave it out to have the default, /run/portreeve`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestRetiredKeys: what an earlier release asked for is warned of, and nothing
// else: not in a broken file either.
func TestRetiredKeys(t *testing.T) {
	const why = " is not needed any more: client legs of transit are not tracked any more, so there is nothing to keep apart; remove it"
	for _, value := range []string{"25", "010", "{a: b}"} {
		c := mustParse(t, string(Minimal)+"kernel: {zone: "+value+"}\n", "PORTREEVE_ZONE=7")
		want := "environment PORTREEVE_ZONE:" + why + "\ntest.yaml:7: kernel.zone:" + why
		if got := c.Warnings.Error(); got != want {
			t.Errorf("zone: %s:\n got %s\nwant %s", value, got, want)
		}
		if diff := configDiff(mustParse(t, string(Minimal)), c); diff != "" && !strings.Contains(diff, "Warnings") {
			t.Error(diff)
		}
	}
	_, err := Parse("test.yaml", []byte(string(Minimal)+"kernel: {zonee: 25}\n"), nil)
	if err == nil || strings.Contains(err.Error(), "nearest") {
		t.Errorf("a retired key is recommended: %v", err)
	}
}

// TestForeignVariables: container platforms make variables with our prefix.
func TestForeignVariables(t *testing.T) {
	mustParse(t, string(Minimal), "PORTREEVE_PORT=tcp://10.0.0.1:25", "PORTREEVE_SERVICE_HOST=10.0.0.1", "PORTREEVE_=x", "=x", "x")
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, Minimal, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(good, nil)
	if err != nil || c.File != good {
		t.Errorf("Load: %v, %+v", err, c)
	}
	missing := filepath.Join(dir, "missing.yaml")
	for path, want := range map[string]string{
		missing:     missing + ": cannot read the configuration: no such file or directory; name the file with -c FILE",
		dir:         dir + ": cannot read the configuration: is a directory; name a YAML file with -c FILE",
		"/dev/zero": "/dev/zero: cannot read the configuration: it is larger than 64 MiB; name a YAML file with -c FILE",
	} {
		_, err := Load(path, nil)
		if err == nil || err.Error() != want {
			t.Errorf("Load(%s):\n got %v\nwant %s", path, err, want)
		}
	}
}

// TestErrorIsAList: callers print findings one by one.
func TestErrorIsAList(t *testing.T) {
	_, err := Parse("test.yaml", []byte("services: 7\nkernel: {priority: 0, table: 255}\n"), nil)
	list, ok := errors.AsType[finding.List](err)
	if !ok || len(list) != 5 || !list.Failed() {
		t.Errorf("got %T with %d findings:\n%v", err, len(list), err)
	}
}

// TestManyServices: what compares services with each other must not compare
// each with each.
func TestManyServices(t *testing.T) {
	const n = 10_000
	var b strings.Builder
	b.WriteString("interfaces: {client: [a], origin: [b]}\nservices:\n")
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		b.WriteString("  - name: s" + a.String() + "\n    listen: \"" + a.String() + ":25\"\n    origins: \"192.0.2.1:25\"\n")
	}
	if c := mustParse(t, b.String()); len(c.Services) != n {
		t.Errorf("%d services", len(c.Services))
	}
}

// TestVerifyWithoutRequire: in mode origin a certificate that is looked at keeps
// nobody from taking TLS away.
func TestVerifyWithoutRequire(t *testing.T) {
	for section, warned := range map[string]bool{
		"{mode: origin, origin: {verify: system, name: mx.example.org}}":                           true,
		"{mode: origin, origin: {verify: system, name: mx.example.org, require: true}}":            false,
		"{mode: origin, origin: {verify: system, name: mx.example.org, implicit: true}}":           false,
		"{mode: origin, origin: {verify: dane, name: mx.example.org, resolver: \"127.0.0.1:53\"}}": false,
		"{mode: origin}": false,
		"{certificates: [{chain: /a.pem, key: /a.key}], origin: {verify: system, name: mx.example.org}}": false,
	} {
		c := mustParse(t, string(Minimal)+"    tls: "+section+"\n")
		want := ""
		if warned {
			want = "test.yaml:7: services[0].tls.origin.verify: what the origin must prove holds for TLS alone: where it offers none, or somebody on the way takes the offer out, mail leaves in clear; add \"require: true\""
		}
		if got := c.Warnings.Error(); got != want {
			t.Errorf("%s: warnings %q", section, got)
		}
	}
}
