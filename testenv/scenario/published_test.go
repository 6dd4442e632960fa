package scenario

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/netip"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv/nameserver"
)

// startNames serves DNS, in place of what was served before.
func startNames(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("nameserver FILE")
	}
	if s.names != nil {
		s.names.Close()
		s.names = nil
	}
	err := s.env.Origin.Enter(func() (err error) {
		s.names, err = nameserver.Serve(s.env.Origin4.String())
		return err
	})
	if err != nil {
		return err
	}
	ts.Setenv("NAMESERVER", s.names.Addr.String())
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.TrimSpace(line)
		if name, is := strings.CutPrefix(line, "secure "); is {
			s.names.Secure(name)
		} else if err := s.names.Add(line); err != nil {
			return err
		}
	}
	return nil
}

// startPages serves one page by HTTPS, in place of what was served before.
func startPages(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return usage("https PAIR FILE")
	}
	pair, err := tls.LoadX509KeyPair(ts.MkAbs(args[0]+".pem"), ts.MkAbs(args[0]+".key"))
	if err != nil {
		return err
	}
	if s.pages != nil {
		if err := s.pages.Close(); err != nil {
			return err
		}
		s.pages = nil
	}
	listener, err := s.listen(netip.AddrPortFrom(s.env.Origin4, 443))
	if err != nil {
		return err
	}
	page := []byte(ts.ReadFile(args[1]))
	s.pages = &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(page) }),
		ErrorLog: log.New(io.Discard, "", 0), // clients that refuse the certificate are part of the story
	}
	go s.pages.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}}))
	return nil
}
