// Command golang is mail software in Go that others wrote, as clients and as an
// origin of testenv/foreign: emersion/go-smtp, wneessen/go-mail and Go's net/smtp.
//
// It adds nothing but words: it tells a library what to send, and prints what the
// library reports.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"strconv"

	gosmtp "github.com/emersion/go-smtp"
)

// job is what a client shall send, in one session.
type job struct {
	Server   string
	Port     int
	Name     string // for EHLO
	TLS      bool   // STARTTLS
	CA       string // PEM file
	Auth     string // mechanism; "": none
	User     string
	Password string
	Letters  []letter
}

type letter struct {
	From    string
	To      []string
	Subject string
	Body    string // lines end in CRLF
	Content string // a header with this subject, and the body
	DSN     bool
	UTF8    bool
	NoAuth  bool // MAIL has AUTH=<>
}

// clients send a job and print what they are told.
var clients = map[string]func(job) error{"go-smtp": sendGoSMTP, "go-mail": sendGoMail, "net-smtp": sendNetSMTP}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("error:", describe(err))
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "serve" {
		return serve(args[1], args[2])
	}
	if len(args) != 2 || clients[args[0]] == nil {
		return errors.New("usage: golang go-smtp|go-mail|net-smtp JOB, or golang serve CERTIFICATES RECORDS")
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	return clients[args[0]](j)
}

// describe says all that an error knows of a reply.
func describe(err error) string {
	var ours *gosmtp.SMTPError
	var theirs *textproto.Error
	switch {
	case errors.As(err, &ours):
		return fmt.Sprintf("%d %v %q", ours.Code, ours.EnhancedCode, ours.Message)
	case errors.As(err, &theirs):
		return fmt.Sprintf("%d %q", theirs.Code, theirs.Msg)
	}
	return err.Error()
}

func (j job) address() string { return net.JoinHostPort(j.Server, strconv.Itoa(j.Port)) }

func (j job) tls() (*tls.Config, error) {
	text, err := os.ReadFile(j.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots, ServerName: j.Server}, nil
}
