package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// serve is an origin of emersion/go-smtp on port 25: it takes mail for
// example.org and writes down what it got.
func serve(certificates, records string) error {
	pair, err := tls.LoadX509KeyPair(certificates+".pem", certificates+".key")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(records, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	s := smtp.NewServer(&backend{out: out})
	s.Addr, s.Domain = ":25", "origin.example.org"
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.MaxMessageBytes, s.MaxRecipients = 50<<20, 100
	s.AllowInsecureAuth = true
	s.EnableSMTPUTF8, s.EnableBINARYMIME, s.EnableDSN = true, true, true
	return s.ListenAndServe()
}

type backend struct {
	mu  sync.Mutex
	out *os.File
}

func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{backend: b, conn: c}, nil
}

// got is what an origin writes down of a message.
type got struct {
	Client, Helo string
	TLS          bool
	User         string
	From         string
	Mail         any      // parameters
	To           []string // with their parameters
	Hops         int      // headers Received
	Octets       int      // of what follows them
	SHA256       string
	Content      string // of short messages
}

// received are the headers that earlier hops have put before a message.
var received = regexp.MustCompile(`^(?:Received:.*\n(?:[ \t].*\n)*)*`)

type session struct {
	backend *backend
	conn    *smtp.Conn
	got     got
	user    string
}

func (s *session) AuthMechanisms() []string { return []string{"PLAIN", "LOGIN"} }

func (s *session) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != "user" || password != "password" {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "Not that password"}
		}
		s.user = user
		return nil
	}
	if mechanism == "LOGIN" {
		return &loginServer{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// loginServer asks for a user and a password; the library has no server for LOGIN.
type loginServer struct {
	check func(user, password string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch {
	case l.step == 1 && response == nil:
		return []byte("Username:"), false, nil
	case l.step == 1:
		l.step++
		fallthrough
	case l.step == 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

func (s *session) Reset() { s.got = got{} }

func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, options *smtp.MailOptions) error {
	if strings.HasPrefix(from, "refused@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Nothing from there"}
	}
	text, err := json.Marshal(options)
	s.got = got{From: from, Mail: string(text)}
	return err
}

func (s *session) Rcpt(to string, options *smtp.RcptOptions) error {
	if !strings.HasSuffix(to, "@example.org") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox\nthis is its second line"}
	}
	text, err := json.Marshal(options)
	s.got.To = append(s.got.To, to+" "+string(text))
	return err
}

func (s *session) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if strings.Contains(string(content), "Subject: refuse") {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Not such content\nhere"}
	}
	trace := received.Find(content)
	content = content[len(trace):]
	_, secure := s.conn.TLSConnectionState()
	s.got.Client, _, _ = net.SplitHostPort(s.conn.Conn().RemoteAddr().String())
	s.got.Helo, s.got.TLS, s.got.User = s.conn.Hostname(), secure, s.user
	s.got.Hops = strings.Count("\n"+string(trace), "\nReceived:")
	s.got.Octets, s.got.SHA256 = len(content), fmt.Sprintf("%x", sha256.Sum256(content))
	if len(content) < 2000 {
		s.got.Content = string(content)
	}
	return s.backend.write(s.got)
}

// write adds a line to the records before the client is told.
func (b *backend) write(g got) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return json.NewEncoder(b.out).Encode(g)
}
