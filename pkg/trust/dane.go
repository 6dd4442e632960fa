package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/portreeve/portreeve/pkg/event"
)

// TLSA is a TLSA record, RFC 6698 section 2.1.
type TLSA struct {
	Usage    uint8  // 2: DANE-TA, an authority of the origin's own; 3: DANE-EE, its certificate
	Selector uint8  // 0: the certificate; 1: its public key
	Matching uint8  // 0: as it is; 1: SHA-256; 2: SHA-512
	Data     []byte // what has to match
}

// Usages and selectors, RFC 7218.
const (
	usageTA = 2
	usageEE = 3

	selectCertificate = 0
	selectKey         = 1
)

// Usable reports whether the record counts for SMTP, RFC 7672 section 3.1.3: the
// usages that rest on public authorities do not, nor does a digest that none can
// match.
func (r TLSA) Usable() bool {
	return (r.Usage == usageTA || r.Usage == usageEE) && r.Selector <= selectKey && r.fits()
}

// fits reports whether the data is as long as the matching type has it.
func (r TLSA) fits() bool {
	switch r.Matching {
	case 0:
		return len(r.Data) > 0
	case 1:
		return len(r.Data) == sha256.Size
	case 2:
		return len(r.Data) == sha512.Size
	}
	return false
}

// Matches reports whether a certificate is what the record says.
func (r TLSA) Matches(c *x509.Certificate) bool {
	what := c.Raw
	if r.Selector == selectKey {
		what = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 0:
		return bytes.Equal(what, r.Data)
	case 1:
		h := sha256.Sum256(what)
		return bytes.Equal(h[:], r.Data)
	case 2:
		h := sha512.Sum512(what)
		return bytes.Equal(h[:], r.Data)
	}
	return false
}

// dane judges an origin by its TLSA records.
type dane struct {
	name    string
	records []TLSA
}

// judge takes any certificate where there are no records, or none that is
// usable: TLS there may be, but nothing to know the origin by (RFC 7672 sections
// 2.1 and 2.2).
func (d dane) judge(s tls.ConnectionState) (event.Verification, error) {
	err := Match(d.records, s.PeerCertificates, d.name)
	switch {
	case err == errUnusable:
		return event.Unverified, nil
	case err != nil:
		return 0, err
	}
	return event.DANE, nil
}

var errUnusable = &Error{event.FailureDANE, "no TLSA record is usable for SMTP", nil}

// Match checks a chain against TLSA records, for a host of that name. Doctor
// calls it too.
func Match(records []TLSA, chain []*x509.Certificate, name string) error {
	if len(chain) == 0 {
		return errNone
	}
	err := error(errUnusable)
	for _, r := range records {
		if !r.Usable() {
			continue
		}
		if err = r.match(chain, name); err == nil {
			return nil
		}
	}
	return err
}

// match checks one record. DANE-EE asks for nothing but the match: neither name
// nor date of the certificate matter (RFC 7672 section 3.1.1).
func (r TLSA) match(chain []*x509.Certificate, name string) error {
	if r.Usage == usageEE {
		if r.Matches(chain[0]) {
			return nil
		}
		return &Error{event.FailureDANE, "the certificate matches none of the TLSA records", nil}
	}
	for _, c := range chain {
		if !r.Matches(c) {
			continue
		}
		anchor := x509.NewCertPool()
		anchor.AddCert(c)
		if err := verify(chain, anchor, name); err != nil {
			return &Error{event.FailureDANE, fmt.Sprintf("the chain does not hold below %s", c.Subject), err}
		}
		return nil
	}
	return &Error{event.FailureDANE, "no certificate of the chain matches the TLSA records", nil}
}
