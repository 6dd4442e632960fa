// Package trust decides whether an origin is the one that was meant, by its
// certificate.
//
// It owns the methods: nobody asks, roots of the system or of the operator's own,
// pinned keys, and DANE. It makes no connections: TLSA records come from a function
// that its caller gives it, and the handshake is package secure's. Relay asks once
// per session whether the origin must have TLS, and once per handshake who it is;
// doctor asks once per origin.
package trust

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// Method is how an origin's certificate is judged.
type Method uint8

const (
	Anybody Method = iota // take any certificate: TLS against those who only listen
	Roots                 // the chain leads to a trusted root, and the name fits
	Pins                  // the key is one of those that are known
	DANE                  // it matches the origin's TLSA records, where it has any (RFC 7672)
)

// Policy says how the origins of a service are judged. It is used by many
// sessions at once and does not change.
type Policy struct {
	Method Method
	Name   string         // what the certificate must be for, and SNI; may be empty for Anybody and Pins
	Pool   *x509.CertPool // Roots: the trusted roots; nil: those of the system
	Pins   []Pin

	// Records returns the TLSA records of a host and port that DNSSEC vouches for;
	// none where it vouches that there are none, or for nothing at all. An error
	// means that the answer cannot be trusted either way.
	Records func(ctx context.Context, host string, port uint16) ([]TLSA, error)
}

// Judge says what an origin's certificate is worth, during the handshake.
type Judge = func(tls.ConnectionState) (event.Verification, error)

// Judge returns the judge for the origin at a port, and whether the origin has to prove
// who it is. With DANE it asks for TLSA records first; its error is an *Error, and then
// there must be no handshake.
func (p *Policy) Judge(ctx context.Context, port uint16) (j Judge, proof bool, err error) {
	switch p.Method {
	case Roots:
		return p.byRoots, true, nil
	case Pins:
		return p.byPin, true, nil
	case DANE:
		records, err := p.Records(ctx, p.Name, port)
		if err != nil {
			return nil, true, &Error{event.FailureResolver, fmt.Sprintf("look up the TLSA records of %s", p.Name), err}
		}
		return dane{p.Name, records}.judge, usable(records), nil
	}
	return anybody, false, nil
}

// Demands reports whether no mail may go without TLS to the origin at a port: with
// DANE, where it has TLSA records that are usable (RFC 7672 section 2.2), and where
// nobody can tell whether it has. Whoever takes its offer of STARTTLS out would else
// get what its certificate is to keep from them.
func (p *Policy) Demands(ctx context.Context, port uint16) bool {
	if p.Method != DANE {
		return false
	}
	records, err := p.Records(ctx, p.Name, port)
	return err != nil || usable(records)
}

// usable reports whether an origin is bound by its TLSA records.
func usable(records []TLSA) bool { return slices.ContainsFunc(records, TLSA.Usable) }

// Error is a certificate that is not trusted, or one that cannot be judged.
type Error struct {
	Why   event.Failure
	Text  string
	Cause error // may be nil
}

// Error says what is wrong.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Text
	}
	return e.Text + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Failure returns the word for the record.
func (e *Error) Failure() event.Failure { return e.Why }

func anybody(tls.ConnectionState) (event.Verification, error) { return event.Unverified, nil }

// byRoots verifies the chain that the origin has sent.
func (p *Policy) byRoots(s tls.ConnectionState) (event.Verification, error) {
	if err := verify(s.PeerCertificates, p.Pool, p.Name); err != nil {
		return 0, err // the types of crypto/x509 tell what is wrong
	}
	return event.Verified, nil
}

// verify checks that a chain leads to one of the roots, nil being the system's,
// and is for name.
func verify(chain []*x509.Certificate, roots *x509.CertPool, name string) error {
	if len(chain) == 0 {
		return errNone
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: name, Roots: roots, Intermediates: between, CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

var errNone = &Error{event.FailureCertificate, "the origin has shown no certificate", nil}

// Pin is the SHA-256 hash of a public key as certificates have it
// (SubjectPublicKeyInfo, RFC 7469 section 2.4).
type Pin [sha256.Size]byte

const pinPrefix = "sha256/"

// PinOf returns the pin of a certificate's key.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String returns the form used in the configuration.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

// byPin looks at the origin's own certificate alone: only for its key has the
// handshake shown that the origin has it. Anybody can send the rest of a chain.
func (p *Policy) byPin(s tls.ConnectionState) (event.Verification, error) {
	if len(s.PeerCertificates) == 0 {
		return 0, errNone
	}
	have := PinOf(s.PeerCertificates[0])
	for _, pin := range p.Pins {
		if pin == have {
			return event.Pinned, nil
		}
	}
	return 0, &Error{event.FailurePin, "the origin's key is " + have.String(), nil}
}
