package foreign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// client is mail software that sends.
type client struct {
	name string
	// cannot are the plays that the software has no way to play: PLAY or ORIGIN/PLAY.
	cannot []string
	// lost are plays in which nothing arrives, gateway or not: ORIGIN/PLAY.
	lost []string
	// send has a job done and returns what the software reports, line by line.
	send  func(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error)
	short bool
	mta   bool // a mail server
}

var clients = []client{
	// It sends AUTH= for AUTH=<>, and knows no other first question of LOGIN than "Username:".
	{name: "go-smtp", send: golang("go-smtp"), short: true, lost: []string{"aiosmtpd/AUTH LOGIN", "aiosmtpd/TLS, AUTH LOGIN"}},
	{name: "go-mail", send: golang("go-mail"), short: true, cannot: []string{"null sender", "parameters", "SMTPUTF8"}},
	{name: "net-smtp", send: golang("net-smtp"), short: true, cannot: []string{"DSN", "parameters", "AUTH PLAIN", "AUTH refused"}},
	{name: "smtplib", send: driver("/usr/bin/python3", "script/smtplib_client.py"), short: true},
	{name: "Net::SMTP", send: driver("perl", "script/net_smtp_client.pl"), cannot: []string{"SMTPUTF8", "parameters"}},
	{name: "PHPMailer", send: driver("php", "script/phpmailer_client.php"), cannot: []string{"null sender", "SMTPUTF8", "parameters"}},
	{name: "nodemailer", send: driver("node", "node/nodemailer.js"), cannot: []string{"parameters"}},
	{name: "curl", send: curl, short: true, cannot: []string{"DSN", "several", "TLS, several"}},
	{name: "swaks", send: swaks, short: true, cannot: []string{"DSN", "parameters", "several", "TLS, several", "SMTPUTF8", "8BITMIME"}},
	{name: "swaks --pipeline", send: pipelined, cannot: []string{"DSN", "parameters", "several", "TLS, several", "SMTPUTF8", "8BITMIME"}},
	{name: "msmtp", send: msmtp, cannot: []string{"parameters", "several", "TLS, several", "SMTPUTF8", "8BITMIME"}},
	// Haraka, which closes in the middle of its work, may keep what is large after all.
	{name: "exim", send: eximSend, mta: true, cannot: []string{"DSN", "SMTPUTF8", "Haraka/large"}},
	{name: "postfix", send: postfix, mta: true, cannot: []string{"TLS"}},
	// It begins TLS wherever it can, and says AUTH= to aiosmtpd, which offers it and refuses it.
	{name: "sendmail", send: sendmail, mta: true, cannot: []string{"SMTPUTF8", "TLS"}, lost: []string{
		"aiosmtpd/plain", "aiosmtpd/recipients", "aiosmtpd/8BITMIME", "aiosmtpd/dots", "aiosmtpd/large"}},
	{name: "dma", send: dma, mta: true, cannot: []string{"null sender", "DSN", "SMTPUTF8", "TLS"}},
	{name: "s-nail", send: snail, cannot: []string{"null sender", "DSN", "parameters", "several", "TLS, several", "SMTPUTF8"}},
}

// can says whether a client plays a play with an origin, in this form of the test.
func (c client) can(o origin, p play) bool {
	switch {
	case !*complete && !(c.short && p.short):
		return false
	case listed(c.cannot, o, p):
		return false
	case p.auth != "" && !o.auth:
		return false
	}
	return !c.mta || p.mta
}

// listed says whether a list names a play with an origin.
func listed(list []string, o origin, p play) bool {
	return slices.ContainsFunc(list, func(name string) bool {
		return name == p.name || name == o.name+"/"+p.name
	})
}

// program runs a program on the client and returns what it says. How it judges the
// outcome is part of that.
func (s *stage) program(ctx context.Context, name string, args ...string) (string, error) {
	return s.fed(ctx, "", name, args...)
}

// fed is program with something on standard input.
func (s *stage) fed(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := s.Client.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+s.modules, "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8", "HOME="+s.Dir, "SOURCE_DATE_EPOCH=0")
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second // its children may hold on to the output
	said, err := cmd.CombinedOutput()
	if err == nil {
		return string(said), nil
	}
	var exit *exec.ExitError
	if ctx.Err() != nil || !errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return string(said) + fmt.Sprintf("%s ends with %v\n", filepath.Base(name), exit), nil
}

// driver has a job done by a script, which gets it as a file.
func driver(interpreter, script string) func(context.Context, *stage, netip.AddrPort, job) (string, error) {
	return func(ctx context.Context, s *stage, _ netip.AddrPort, j job) (string, error) {
		path, err := s.job(j)
		if err != nil {
			return "", err
		}
		return s.program(ctx, interpreter, script, path)
	}
}

// golang has a job done by one of the libraries in Go.
func golang(library string) func(context.Context, *stage, netip.AddrPort, job) (string, error) {
	return func(ctx context.Context, s *stage, _ netip.AddrPort, j job) (string, error) {
		program, err := built()
		if err != nil {
			return "", err
		}
		path, err := s.job(j)
		if err != nil {
			return "", err
		}
		return s.program(ctx, program, library, path)
	}
}

func (s *stage) job(j job) (string, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	return s.file("job.json", string(text))
}

// heard keeps the lines of a report that match. How a program ends is always kept.
func heard(said string, err error, pattern *regexp.Regexp) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(said) {
		if pattern.MatchString(line) || strings.Contains(line, " ends with ") {
			b.WriteString(line)
		}
	}
	if err == nil && b.Len() == 0 {
		err = fmt.Errorf("nothing was heard in %.2000q", said)
	}
	return b.String(), err
}

var curlLine = regexp.MustCompile(`^(<|> (EHLO|MAIL|RCPT|DATA|AUTH|STARTTLS)|curl:)`)

func curl(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	l := j.Letters[0]
	path, err := s.file("content", l.Content)
	if err != nil {
		return "", err
	}
	args := []string{"--silent", "--show-error", "--verbose", "--max-time", "60", "--url", "smtp://" + to.String() + "/" + j.Name,
		"--mail-from", l.From, "--mail-rcpt-allowfails", "--upload-file", path, "--cacert", j.CA}
	for _, rcpt := range l.To {
		args = append(args, "--mail-rcpt", rcpt)
	}
	if l.NoAuth {
		args = append(args, "--mail-auth", "")
	}
	if j.TLS {
		args = append(args, "--ssl-reqd")
	}
	if j.Auth != "" {
		args = append(args, "--user", j.User+":"+j.Password, "--login-options", "AUTH="+j.Auth)
	}
	said, err := s.program(ctx, "curl", args...)
	return heard(said, err, curlLine)
}

var swaksLine = regexp.MustCompile(`^( ?<|\*\*\*)`)

func swaks(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	return swaksWith(ctx, s, to, j)
}

func pipelined(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	return swaksWith(ctx, s, to, j, "--pipeline")
}

func swaksWith(ctx context.Context, s *stage, to netip.AddrPort, j job, args ...string) (string, error) {
	l := j.Letters[0]
	stuffed := strings.ReplaceAll(l.Content, "\r\n.", "\r\n..") + "."
	path, err := s.file("content", stuffed) // it sends the last CRLF itself
	if err != nil {
		return "", err
	}
	from := l.From
	if from == "" {
		from = "<>"
	}
	args = append(args, "--server", to.Addr().String(), "--port", strconv.Itoa(int(to.Port())), "--helo", j.Name,
		"--from", from, "--to", strings.Join(l.To, ","), "--data", "@"+path, "--no-data-fixup", "--suppress-data", "--timeout", "60")
	if j.TLS {
		args = append(args, "--tls")
	}
	if j.Auth != "" {
		args = append(args, "--auth", j.Auth, "--auth-user", j.User, "--auth-password", j.Password)
	}
	said, err := s.program(ctx, "swaks", args...)
	return heard(said, err, swaksLine)
}

var msmtpLine = regexp.MustCompile(`^(<--|--> (EHLO|MAIL|RCPT|DATA|AUTH|STARTTLS)|msmtp:)`)

func msmtp(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	l := j.Letters[0]
	args := []string{"--file=", "--host=" + to.Addr().String(), "--port=" + strconv.Itoa(int(to.Port())), "--domain=" + j.Name,
		"--from=" + l.From, "--debug", "--timeout=60", "--tls=off", "--auth=off"}
	if l.DSN {
		args = append(args, "--dsn-notify=failure,delay", "--dsn-return=headers")
	}
	if j.TLS {
		args = append(args, "--tls=on", "--tls-starttls=on", "--tls-trust-file="+j.CA)
	}
	if j.Auth != "" {
		args = append(args, "--auth="+strings.ToLower(j.Auth), "--user="+j.User, "--passwordeval=echo "+j.Password)
	}
	args = append(append(args, "--"), l.To...)
	said, err := s.fed(ctx, strings.ReplaceAll(l.Content, "\r\n", "\n"), "msmtp", args...)
	return heard(said, err, msmtpLine)
}

var snailLine = regexp.MustCompile(`(>>> (SERVER:|EHLO |MAIL FROM|RCPT TO|DATA$|AUTH |STARTTLS$)|not sent)`)

func snail(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	l := j.Letters[0]
	login := ""
	if j.Auth != "" {
		login = j.User + ":" + j.Password + "@"
	}
	set := []string{"v15-compat=yes", "mta=smtp://" + login + to.String(), "hostname=" + j.Name, "smtp-hostname=", "message-id-disable=yes",
		"tls-verify=ignore", "sendwait", "ttycharset=utf-8", "sendcharsets=utf-8", "mime-encoding=8bit"}
	if j.TLS {
		set = append(set, "smtp-use-starttls")
	}
	if j.Auth != "" {
		set = append(set, "smtp-auth="+strings.ToLower(j.Auth))
	} else {
		set = append(set, "smtp-auth=none")
	}
	args := []string{"-:/", "-vv", "-r", l.From, "-s", l.Subject}
	for _, variable := range set {
		args = append(args, "-S", variable)
	}
	args = append(args, l.To...)
	said, err := s.fed(ctx, strings.ReplaceAll(l.Body, "\r\n", "\n"), "s-nail", args...)
	return heard(said, err, snailLine)
}
