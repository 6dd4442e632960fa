package scenario

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// TestTLS tells the stories of TLS. They are no kernel's affair, and their clients
// and origins are many.
func TestTLS(t *testing.T) { tell(t, "testdata/tls") }

func startServer(s *stage, _ *testscript.TestScript, args []string) (err error) {
	if err := atLeast(1, args, "server postfix|exim|opensmtpd [SETTING…]"); err != nil {
		return err
	}
	start, known := map[string]starter{"postfix": mta.StartPostfix, "exim": mta.StartExim, "opensmtpd": mta.StartOpenSMTPD}[args[0]]
	if !known {
		return usage("no server " + args[0])
	}
	ctx, cancel := s.patience()
	defer cancel()
	s.postfix, err = start(ctx, s.env.Origin, filepath.Join(s.env.Dir, args[0]),
		[]netip.Addr{s.env.Origin4, s.env.Origin6}, args[1:]...)
	return err
}

type starter = func(ctx context.Context, n *testenv.Node, dir string, addresses []netip.Addr, settings ...string) (*mta.Server, error)

// validity are certificates that clients do not take, or soon will not.
var validity = map[string]pki.Option{
	"expired": pki.Expired,
	"early":   pki.Early,
	"soon":    pki.Until(time.Now().AddDate(0, 0, 5)),
}

// makePKI writes certificates. The authority of a directory is made with its
// first certificate.
func makePKI(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "pki DIR [expired|early|soon] [rsa] NAME=HOST[,HOST]…"
	if err := atLeast(2, args, text); err != nil {
		return err
	}
	dir := ts.MkAbs(args[0])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	authority, err := s.authority(dir)
	if err != nil {
		return err
	}
	var options []pki.Option
	issue := authority.Issue
	for _, arg := range args[1:] {
		name, hosts, given := strings.Cut(arg, "=")
		dates, dated := validity[arg]
		switch {
		case dated:
			options = append(options, dates)
			continue
		case arg == "rsa":
			issue = func(names []string, o ...pki.Option) *pki.Pair { return authority.IssueFor(pki.RSA(), names, o...) }
			continue
		case !given:
			return usage(text)
		}
		if _, _, err := issue(strings.Split(hosts, ","), options...).Write(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// authority returns the authority of a directory.
func (s *stage) authority(dir string) (*pki.Authority, error) {
	if a, made := s.authorities[dir]; made {
		return a, nil
	}
	if s.authorities == nil {
		s.authorities = make(map[string]*pki.Authority)
	}
	a := pki.New("authority of " + filepath.Base(dir))
	s.authorities[dir] = a
	return a, os.WriteFile(filepath.Join(dir, "ca.pem"), a.PEM(), 0o644)
}

// tlsSend delivers a message inside TLS.
func tlsSend(s *stage, ts *testscript.TestScript, args []string) error {
	const text = "tlssend [implicit] [ca=FILE] [name=HOST] [mail=PARAMETER] ADDR:PORT FILE"
	config := &tls.Config{InsecureSkipVerify: true}
	implicit, parameters := false, ""
	for len(args) > 2 {
		name, value, _ := strings.Cut(args[0], "=")
		switch name {
		case "implicit":
			implicit = true
		case "mail":
			parameters += " " + value
		case "name":
			config.ServerName = value
		case "ca":
			config.RootCAs, config.InsecureSkipVerify = x509.NewCertPool(), false
			config.RootCAs.AppendCertsFromPEM([]byte(ts.ReadFile(value)))
		default:
			return usage(text)
		}
		args = args[1:]
	}
	if len(args) != 2 {
		return usage(text)
	}
	to, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return usage(text)
	}
	client, err := s.secureClient(netip.Addr{}, to, config, implicit)
	if err != nil {
		return err
	}
	state, _ := client.TLS()
	fmt.Fprintf(ts.Stdout(), "shown %s\n", state.PeerCertificates[0].Subject.CommonName)
	m := message(ts, args[1])
	m.Mail = parameters
	reply, err := client.Send(m)
	printReply(ts.Stdout(), reply)
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("end of data: %q", reply.Raw)
	}
	_, quit := client.Command("QUIT")
	return errors.Join(err, quit)
}

// secureClient connects and greets inside TLS. Without an address to connect from
// it takes the preferred one.
func (s *stage) secureClient(from netip.Addr, to netip.AddrPort, config *tls.Config, implicit bool) (*peer.Client, error) {
	conn, err := s.dial(netip.AddrPortFrom(s.source(from, to), 0), to)
	if err != nil {
		return nil, err
	}
	client := peer.NewClient(conn)
	if implicit {
		err = client.Secure(config)
	}
	if err == nil {
		_, err = client.Open("client.example.net")
	}
	if err != nil || implicit {
		return client, err
	}
	if err := client.StartTLS(config); err != nil {
		return nil, err
	}
	_, err = client.Command("EHLO client.example.net")
	return client, err
}

// halfway agrees on TLS and then makes no handshake.
func halfway(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 2 || (args[0] != "drop" && args[0] != "garbage" && args[0] != "stall") {
		return usage("halfway drop|garbage|stall ADDR:PORT")
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	conn, err := s.dial(netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := peer.NewClient(conn)
	if _, err := client.Open("client.example.net"); err != nil {
		return err
	}
	if reply, err := client.Command("STARTTLS"); err != nil || reply.Code != 220 {
		return fmt.Errorf("STARTTLS: %q, %w", reply.Raw, err)
	}
	switch args[0] {
	case "drop":
		return nil
	case "garbage":
		err = client.Write("this is a line of text, not of TLS\r\n")
	}
	// Nothing but TLS may be said to it now: an alert, or nothing.
	rest, end := io.ReadAll(conn)
	if len(rest) > 0 && rest[0] != 21 {
		return fmt.Errorf("it reads %q", rest)
	}
	if errors.Is(end, unix.ECONNRESET) {
		end = nil
	}
	return errors.Join(err, end)
}

// keyless kills the child of a process that holds its keys.
func keyless(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("keyless NAME")
	}
	p, err := s.process(args[0])
	if err != nil {
		return err
	}
	out, err := exec.Command("pgrep", "--parent", strconv.Itoa(p.cmd.Process.Pid), "--exact", "portreeve-keys").Output()
	if err != nil {
		return fmt.Errorf("%s holds no keys: %w", args[0], err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return fmt.Errorf("%s has more than one child: %q", args[0], out)
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// steady holds a session open and shows at its end that it still works.
func steady(s *stage, ts *testscript.TestScript, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "start":
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		s.steady, err = s.secureClient(netip.Addr{}, to, &tls.Config{InsecureSkipVerify: true}, false)
		return err
	case len(args) == 2 && args[0] == "stop":
		reply, err := s.steady.Send(message(ts, args[1]))
		if err == nil && reply.Code != 250 {
			err = fmt.Errorf("end of data: %q", reply.Raw)
		}
		return err
	}
	return usage("steady start ADDR:PORT | steady stop FILE")
}
