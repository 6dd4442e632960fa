package foreign

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
)

// inRoot returns the command that runs a program from Debian's packages, with a
// directory of its own below the stage's.
func (s *stage) inRoot(root, sub string) (command []string, dir string, err error) {
	path, err := filepath.Abs("../../scripts/in-root")
	if err != nil {
		return nil, "", err
	}
	dir = filepath.Join(s.Dir, sub)
	return []string{path, root, dir}, dir, os.MkdirAll(dir, 0o755)
}

// eximConfig sends everything to one host, with all that hurries: EHLO and more before
// the greeting of a host that is known (PIPE_CONNECT), and chunks. What comes back is
// thrown away.
const eximConfig = `primary_hostname = client.example.net
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%s
host_lookup =
keep_environment =
disable_ipv6
begin routers
back:
  driver = redirect
  domains = example.net
  data = :blackhole:
on:
  driver = manualroute
  route_list = * %[2]s
  transport = smtp
  self = send
begin transports
smtp:
  driver = smtp
  hosts_pipe_connect = *
  hosts_try_chunking = *
  hosts_%[3]s_tls = *
  tls_verify_certificates = %[4]s
  tls_verify_hosts = *
begin retry
* * F,1h,1h
`

var eximLine = regexp.MustCompile(`^ +(SMTP(<<|>>|\() |250[- ])`)

// eximVerdict is what Exim logs of an address, behind the message's name.
var eximVerdict = regexp.MustCompile(`(?:=>|->|\*\*|==) .*`)

// quitted is the reply to QUIT, for which it does not always wait.
var quitted = regexp.MustCompile(`(?m)^ +SMTP<< 221.*\n`)

// eximSend sends with Exim at once. It keeps what it has learned of hosts.
func eximSend(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	in, dir, err := s.inRoot("exim", "exim")
	if err != nil {
		return "", err
	}
	tls := "avoid"
	if j.TLS {
		tls = "require"
	}
	config := fmt.Sprintf(eximConfig, dir, to.Addr(), tls, j.CA)
	if err := os.WriteFile(filepath.Join(dir, "exim.conf"), []byte(config), 0o644); err != nil {
		return "", err
	}
	authority, err := os.ReadFile(j.CA)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "authority.pem"), authority, 0o644); err != nil {
		return "", err
	}
	l := j.Letters[0]
	from := l.From
	if from == "" {
		from = "<>"
	}
	const run = `cd "$1" && mkdir -p spool log && chown Debian-exim: spool log && rm -rf spool/input spool/db/retry* spool/db/wait-* log/* &&
		sed "s|^  tls_verify_certificates.*|  tls_verify_certificates = $1/authority.pem|" exim.conf >/etc/exim4/exim4.conf &&
		shift && exec exim4 -v -odf -i -f "$@"`
	args := append(in, "sh", "-c", run, "sh", dir, from, "--")
	said, err := s.fed(ctx, strings.ReplaceAll(l.Content, "\r\n", "\n"), args[0], append(args[1:], l.To...)...)
	report, err := heard(said, err, eximLine)
	if err != nil {
		return "", err
	}
	report = quitted.ReplaceAllString(report, "")
	log, err := os.ReadFile(filepath.Join(dir, "log", "main"))
	for _, verdict := range eximVerdict.FindAllString(string(log), -1) {
		report += verdict + "\n"
	}
	return report, err
}

var sendmailLine = regexp.MustCompile(`^(>>> |\d{3}[ -]|\S+@\S+\.\.\. )`)

// sendmail sends with sendmail at once.
func sendmail(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	in, dir, err := s.inRoot("sendmail", "sendmail")
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile("script/sendmail.mc")
	if err != nil {
		return "", err
	}
	text := strings.NewReplacer("DIR", dir, "SERVER", to.Addr().String()).Replace(string(source))
	for name, content := range map[string]string{"sendmail.mc": text, "switch": "hosts files\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	const run = `cd "$1" && rm -rf queue && mkdir -m 700 queue && mkdir -p /etc/mail && m4 sendmail.mc >/etc/mail/sendmail.cf &&
		echo "hosts: files" >/etc/nsswitch.conf && echo "127.0.0.1 $(hostname).example.net $(hostname)" >>/etc/hosts && shift &&
		exec /usr/libexec/sendmail/sendmail -Am -v -i -odi "$@"`
	l := j.Letters[0]
	args := append(in, "sh", "-c", run, "sh", dir, "-f", l.From)
	if l.From == "" {
		args[len(args)-1] = "<>"
	}
	if l.DSN {
		args = append(args, "-N", "failure,delay", "-R", "hdrs", "-V", "QQ314")
	}
	args = append(append(args, "--"), l.To...)
	said, err := s.fed(ctx, strings.ReplaceAll(l.Content, "\r\n", "\n"), args[0], args[1:]...)
	return heard(said, err, sendmailLine)
}

// dma sends with the DragonFly mail agent at once.
func dma(ctx context.Context, s *stage, to netip.AddrPort, j job) (string, error) {
	in, dir, err := s.inRoot("dma", "dma")
	if err != nil {
		return "", err
	}
	script, err := os.ReadFile("script/dma_client.py")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "dma_client.py")
	if err := os.WriteFile(path, script, 0o644); err != nil {
		return "", err
	}
	l := j.Letters[0]
	args := append(append(in, "/usr/bin/python3", path, to.Addr().String(), l.From), l.To...)
	said, err := s.fed(ctx, strings.ReplaceAll(l.Content, "\r\n", "\n"), args[0], args[1:]...)
	return sorted(said), err // it delivers to all recipients at once
}

// postfix sends with a Postfix on the client that is started when it is first wanted.
func postfix(ctx context.Context, s *stage, _ netip.AddrPort, j job) (string, error) {
	if s.sender == nil {
		var err error
		s.sender, err = mta.StartPostfix(ctx, s.Client, filepath.Join(s.Dir, "sender"), []netip.Addr{s.Client4},
			"myhostname = client.example.net", "virtual_mailbox_domains =",
			"mynetworks = 0.0.0.0/0", "smtpd_relay_restrictions = permit_mynetworks, reject", "relayhost = ["+s.Origin4.String()+"]",
			"transport_maps = inline:{example.net=discard:}", "smtp_tls_security_level = may", "smtp_tls_loglevel = 1",
			"minimal_backoff_time = 1h", "message_size_limit = 52428800", "service smtp unix - - n - - smtp")
		if err != nil {
			return "", err
		}
	}
	return s.submit(ctx, j.Letters[0])
}

// logged is what a mail server logs of what became of a message.
var logged = regexp.MustCompile(`\bto=<[^>]*>.*status=.*|\w+ TLS connection established`)

// delays differ each time.
var delays = regexp.MustCompile(`\b(delays?=[0-9./]+|conn_use=\d+), `)

// submit gives the sender a letter, and waits until it has no more to do with that.
func (s *stage) submit(ctx context.Context, l letter) (string, error) {
	before, err := os.ReadFile(s.sender.Log)
	if err != nil {
		return "", err
	}
	conn, err := s.Client.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(s.Client4, 25))
	if err != nil {
		return "", err
	}
	if err := hand(conn, l); err != nil {
		return "", err
	}
	if _, err := s.sender.Taken(ctx); err != nil {
		return "", err
	}
	after, err := s.awaitVerdicts(ctx, len(before))
	if err != nil {
		return "", err
	}
	var report strings.Builder
	for line := range strings.Lines(after) {
		if found := logged.FindString(line); found != "" {
			report.WriteString(delays.ReplaceAllString(found, "") + "\n")
		}
	}
	return sorted(report.String()), nil // recipients are delivered to in any order
}

// awaitVerdicts returns what the sender has logged since, when it has logged the end of
// all that it took on: it logs by another process.
func (s *stage) awaitVerdicts(ctx context.Context, since int) (string, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := os.ReadFile(s.sender.Log)
		if err != nil {
			return "", err
		}
		fresh := string(log[since:])
		if begun := strings.Count(fresh, "(queue active)"); begun > 0 && strings.Count(fresh, ": removed") == begun {
			return fresh, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%w; the sender has logged: %s", context.Cause(ctx), fresh)
		}
	}
}

// sorted sorts the lines of a text.
func sorted(text string) string {
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}

// hand gives a letter to a server of ours.
func hand(conn net.Conn, l letter) error {
	defer conn.Close()
	c := peer.NewClient(conn)
	if _, err := c.Open("localhost"); err != nil {
		return err
	}
	m := peer.Message{From: l.From, To: l.To, Content: strings.ReplaceAll(l.Content, "\r\n.", "\r\n..")}
	rcpt := ""
	if l.EightBit {
		m.Mail += " BODY=8BITMIME"
	}
	if l.UTF8 {
		m.Mail += " SMTPUTF8"
	}
	if l.DSN {
		m.Mail += " RET=HDRS ENVID=QQ+2B314"
		rcpt = " NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2Bx+3Dy@example.org"
	}
	commands := []string{"MAIL FROM:<" + m.From + ">" + m.Mail}
	for _, to := range l.To {
		commands = append(commands, "RCPT TO:<"+to+">"+rcpt)
	}
	for _, line := range append(commands, "DATA", m.Content+".", "QUIT") {
		reply, err := c.Command(line)
		if err != nil || reply.Code >= 400 {
			return fmt.Errorf("%.40s: %q, %w", line, reply.Raw, err)
		}
	}
	return nil
}
