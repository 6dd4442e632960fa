// Package pki makes certificates for tests: an authority, what it has signed, and
// the files that a mail server reads. Everything is made anew each time; nothing
// is trusted by anybody but the test.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// Pair is a certificate with its key.
type Pair struct {
	Certificate *x509.Certificate
	Chain       [][]byte // DER: the certificate, and what leads to the root without it
	Key         crypto.Signer
}

// Option changes a certificate before it is signed.
type Option func(*x509.Certificate)

// Expired makes a certificate that was valid until yesterday.
func Expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().AddDate(0, -2, 0), time.Now().AddDate(0, 0, -1)
}

// Early makes a certificate that is valid from tomorrow on.
func Early(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 0, 1) }

// Until makes a certificate that is valid until t.
func Until(t time.Time) Option { return func(c *x509.Certificate) { c.NotAfter = t } }

// RSA returns an RSA key, which old servers want.
func RSA() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("pki: make a key: %v", err))
	}
	return key
}

// New returns an authority with a root of its own.
func New(name string) *Authority { return authority(name, nil) }

// Intermediate returns an authority that a vouches for.
func (a *Authority) Intermediate(name string) *Authority { return authority(name, a) }

func authority(name string, by *Authority) *Authority {
	c := template(name)
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign
	own := &Authority{key: newKey()}
	signer, parent := own.key, c
	if by != nil {
		signer, parent = by.key, by.Certificate
	}
	own.Certificate = sign(c, parent, own.key.Public(), signer)
	return own
}

// Issue returns a certificate with an elliptic-curve key for names, which may be
// addresses, the first being its subject.
func (a *Authority) Issue(names []string, options ...Option) *Pair {
	return a.IssueFor(newKey(), names, options...)
}

// IssueFor is Issue for a key that exists.
func (a *Authority) IssueFor(key crypto.Signer, names []string, options ...Option) *Pair {
	c := template(names[0])
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, o := range options {
		o(c)
	}
	p := &Pair{Key: key, Certificate: sign(c, a.Certificate, key.Public(), a.key)}
	p.Chain = [][]byte{p.Certificate.Raw}
	if a.Certificate.Issuer.CommonName != a.Certificate.Subject.CommonName {
		p.Chain = append(p.Chain, a.Certificate.Raw)
	}
	return p
}

// Pool returns the authority as the only root.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.Certificate.Raw) }

// TLS returns the pair for use in this process.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: p.Chain, PrivateKey: p.Key, Leaf: p.Certificate}
}

// ChainPEM returns the chain as a file has it.
func (p *Pair) ChainPEM() (all []byte) {
	for _, der := range p.Chain {
		all = append(all, encode("CERTIFICATE", der)...)
	}
	return all
}

// KeyPEM returns the key as a file has it.
func (p *Pair) KeyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		panic(fmt.Sprintf("pki: encode a key: %v", err))
	}
	return encode("PRIVATE KEY", der)
}

// Write puts chain and key into NAME.pem and NAME.key below dir, each by a rename
// as renewal programs do, and returns their paths.
func (p *Pair) Write(dir, name string) (chain, key string, err error) {
	chain, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	if err := replace(key, p.KeyPEM(), 0o600); err != nil {
		return "", "", err
	}
	return chain, key, replace(chain, p.ChainPEM(), 0o644)
}

func replace(path string, data []byte, mode os.FileMode) error {
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("pki: make a key: %v", err))
	}
	return key
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(fmt.Sprintf("pki: make a serial number: %v", err))
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(0, 3, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func sign(c, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, by)
	if err != nil {
		panic(fmt.Sprintf("pki: sign a certificate: %v", err))
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("pki: read a certificate: %v", err))
	}
	return signed
}
