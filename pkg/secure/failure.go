package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/portreeve/portreeve/pkg/event"
)

// record makes the record of a handshake.
func (c *Conn) record(err error) event.TLS {
	state := c.tls.ConnectionState()
	r := event.TLS{Name: clip(state.ServerName, maxName)}
	if err != nil {
		r.Failure, r.Detail = failureOf(err), string(clip(err.Error(), maxWords))
		return r
	}
	r.Version = strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	r.Cipher = tls.CipherSuiteName(state.CipherSuite)
	if state.CurveID != 0 {
		r.Group = state.CurveID.String()
	}
	r.Resumed = state.DidResume
	return r
}

// clientPeer says what is known of a client that was asked for a certificate.
func clientPeer(s tls.ConnectionState) (event.Verification, event.Text) {
	switch {
	case len(s.PeerCertificates) == 0:
		return event.Anonymous, nil
	case len(s.VerifiedChains) > 0:
		return event.Verified, subject(s)
	}
	return event.Unverified, subject(s)
}

// subject returns whose certificate the peer has shown.
func subject(s tls.ConnectionState) event.Text {
	if len(s.PeerCertificates) == 0 {
		return nil
	}
	return clip(s.PeerCertificates[0].Subject.String(), maxWords)
}

// Bounds on what a stranger can make a record hold, in octets: a host's name, RFC
// 1035 section 2.3.4, and anything else.
const (
	maxName  = 255
	maxWords = 1024
)

func clip(s string, most int) []byte { return []byte(s[:min(len(s), most)]) }

// failureOf finds the word for an error of a handshake.
func failureOf(err error) event.Failure {
	var own interface{ Failure() event.Failure }
	var header tls.RecordHeaderError
	var broken syscall.Errno
	switch {
	case errors.As(err, &own):
		return own.Failure()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return event.FailureTimeout
	case errors.As(err, &header):
		return event.FailureNotTLS
	case errors.As(err, &broken), isAny(err, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed):
		return event.FailureClosed
	}
	if f := certificateFailure(err); f != event.NoFailure {
		return f
	}
	return failureBySentence(err.Error())
}

// certificateFailure says what is wrong with the peer's certificate.
func certificateFailure(err error) event.Failure {
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var any *tls.CertificateVerificationError
	switch {
	case errors.As(err, &name):
		return event.FailureName
	case errors.As(err, &authority):
		return event.FailureAuthority
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return event.FailureExpired
	case errors.As(err, &invalid), errors.As(err, &any):
		return event.FailureCertificate
	}
	return event.NoFailure
}

// sentences of crypto/tls, which has no types for these; the tests make each of
// them happen. The first that fits counts.
var sentences = []struct {
	part string
	is   event.Failure
}{
	{"unsupported versions", event.FailureVersion},
	{"unsupported protocol version", event.FailureVersion},
	{"protocol version not supported", event.FailureVersion},
	{"first record does not look like a TLS handshake", event.FailureNotTLS},
	{"failed to sign", event.FailureKey},
	{"no cipher suite supported", event.FailureParameters},
	{"no key exchanges supported", event.FailureParameters},
	{"no ECDHE curve supported", event.FailureParameters},
	{"signature algorithms", event.FailureParameters},
	{"didn't provide a certificate", event.FailureCertificate},
	{"didn't return a certificate", event.FailureCertificate},
	{"no certificates", event.FailureKey},
	{"remote error", event.FailureAlert},
}

func failureBySentence(text string) event.Failure {
	for _, s := range sentences {
		if strings.Contains(text, s.part) {
			return s.is
		}
	}
	return event.FailureProtocol
}

func isAny(err error, of ...error) bool {
	for _, one := range of {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}
