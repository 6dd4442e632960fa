package config

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portreeve/portreeve/pkg/smtp"
)

// TLS says what a service does about TLS. reference.yaml explains each.
type TLS struct {
	Mode         TLSMode
	Certificates []Certificate // that clients are shown; the first is for those that ask for no name of ours
	Domains      []string      // whose mail comes here, for doctor; in lower case
	Client       TLSClient
	Origin       TLSOrigin
}

// TLSMode is who ends TLS, and who begins it.
type TLSMode uint8

const (
	TLSAuto        TLSMode = iota // TLSMirror with a certificate, TLSPassthrough without; of no service once it is complete
	TLSMirror                     // what the origin offers, on both sides, looked into
	TLSPassthrough                // carried unseen
	TLSOfClient                   // with the client alone
	TLSOfOrigin                   // with the origin alone
	TLSOff                        // taken out
)

// Certificate names the files of a certificate, both as absolute paths.
type Certificate struct {
	Chain string // PEM: the certificate, then what leads to the root
	Key   string // PEM
}

// TLSClient is about the clients' side.
type TLSClient struct {
	Require  bool // no mail without TLS
	Implicit bool // TLS from the first octet on, port 465
	Minimum  TLSVersion
	RSA      RSAKeyExchange
	Verify   ClientVerify
	CA       string // file of the roots of clients' certificates
}

// ExchangesRSA reports whether RSA key exchange can happen.
func (c TLSClient) ExchangesRSA() bool { return c.RSA == RSAAllow && c.Minimum == TLS12 }

// TLSVersion is a version of TLS.
type TLSVersion uint8

const (
	TLS12 TLSVersion = iota
	TLS13
)

// RSAKeyExchange is what becomes of clients that know no better key exchange.
type RSAKeyExchange uint8

const (
	RSAAllow  RSAKeyExchange = iota // they have TLS without forward secrecy
	RSARefuse                       // they have none
)

// ClientVerify is whether clients show certificates.
type ClientVerify uint8

const (
	ClientNone     ClientVerify = iota // they are not asked
	ClientOptional                     // one that is shown must be good
	ClientAlways                       // they must show one
)

// TLSOrigin is about the origins' side.
type TLSOrigin struct {
	Require  bool // no mail without TLS
	Implicit bool // TLS from the first octet on, port 465
	Verify   OriginVerify
	Name     string // of the origin: in its certificate, and asked for
	CA       string // file of the roots, for OriginCA
	Pins     []Pin
	Resolver netip.AddrPort // validates DNSSEC, for OriginDANE
}

// OriginVerify is how an origin's certificate is judged.
type OriginVerify uint8

const (
	OriginNone   OriginVerify = iota // not at all
	OriginSystem                     // by the roots of the system
	OriginCA                         // by roots of the operator's own
	OriginPin                        // by its key
	OriginDANE                       // by TLSA records
)

// Pin is the SHA-256 hash of a public key (SubjectPublicKeyInfo).
type Pin [sha256.Size]byte

// String returns the form used in the file.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

const pinPrefix = "sha256/"

// Terminates reports whether clients' TLS ends here, so that a certificate is
// needed.
func (t TLS) Terminates() bool { return t.Mode == TLSMirror || t.Mode == TLSOfClient }

// Originates reports whether TLS towards the origin begins here.
func (t TLS) Originates() bool { return t.Mode == TLSMirror || t.Mode == TLSOfOrigin }

// tlsSection puts what a section tls says over what is in t. A list takes the
// place of the one before.
func tlsSection(r *report, at path, raw rawTLS, t *TLS) {
	word(r, at.key("mode"), raw.Mode, tlsModeWords, &t.Mode)
	certificates(r, at.key("certificates"), raw.Certificates, &t.Certificates)
	if raw.Domains != nil {
		t.Domains = values(unique(r, at.key("domains"), raw.Domains, parseDomain))
	}
	clientTLS(r, at.key("client"), raw.Client, &t.Client)
	originTLS(r, at.key("origin"), raw.Origin, &t.Origin)
}

func clientTLS(r *report, at path, raw rawTLSClient, c *TLSClient) {
	truth(r, at.key("require"), raw.Require, &c.Require)
	truth(r, at.key("implicit"), raw.Implicit, &c.Implicit)
	word(r, at.key("minimum"), raw.Minimum, tlsVersionWords, &c.Minimum)
	word(r, at.key("rsa_key_exchange"), raw.RSA, rsaWords, &c.RSA)
	word(r, at.key("verify"), raw.Verify, clientVerifyWords, &c.Verify)
	file(r, at.key("ca"), raw.CA, &c.CA)
}

func originTLS(r *report, at path, raw rawTLSOrigin, o *TLSOrigin) {
	truth(r, at.key("require"), raw.Require, &o.Require)
	truth(r, at.key("implicit"), raw.Implicit, &o.Implicit)
	word(r, at.key("verify"), raw.Verify, originVerifyWords, &o.Verify)
	host(r, at.key("name"), raw.Name, isDomain, "a domain", &o.Name)
	file(r, at.key("ca"), raw.CA, &o.CA)
	if raw.Pins != nil {
		o.Pins = values(unique(r, at.key("pins"), raw.Pins, parsePin))
	}
	resolver(r, at.key("resolver"), raw.Resolver, &o.Resolver)
}

// certificates reads the list of certificates.
func certificates(r *report, at path, raw []rawCertificate, dst *[]Certificate) {
	if raw == nil || r.reported[at] {
		return
	}
	var all []Certificate
	seen := map[Certificate]path{}
	for i, one := range raw {
		here := at.item(i)
		if r.reported[here] {
			continue
		}
		c, ok := certificate(r, here, one)
		if first, again := seen[c]; ok && again {
			r.refuse(here, "remove one of them", "the certificate is listed before, at %s", first)
		}
		seen[c] = here
		all = append(all, c)
	}
	*dst = all
}

func certificate(r *report, at path, raw rawCertificate) (c Certificate, ok bool) {
	file(r, at.key("chain"), raw.Chain, &c.Chain)
	file(r, at.key("key"), raw.Key, &c.Key)
	if !r.clean(at.key("chain"), at.key("key")) {
		return c, false
	}
	switch {
	case c.Chain == "":
		r.refuse(at, `add "chain: /etc/ssl/mx.pem"`, "the certificate has no chain")
	case c.Key == "":
		r.refuse(at, `add "key: /etc/ssl/private/mx.key"`, "the certificate has no key")
	}
	return c, r.clean(at)
}

// file reads an absolute path, or nothing.
func file(r *report, at path, v scalar, dst *string) {
	s, ok := r.text(at, v)
	switch {
	case !ok:
	case s != "" && (!filepath.IsAbs(s) || strings.HasSuffix(s, "/")):
		r.refuse(at, "begin it with a slash: programs start in different directories", "%s is not an absolute path to a file", quote(s))
	default:
		*dst = s
	}
}

func parseDomain(s string) (string, *fault) {
	if s == "" || !isDomain(s) {
		return "", faultf(`write it as "example.org"`, "%s is not a domain", quote(s))
	}
	return strings.ToLower(s), nil
}

func parsePin(s string) (p Pin, wrong *fault) {
	text, ok := strings.CutPrefix(s, pinPrefix)
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != len(p) {
		return p, faultf(`write "sha256/" and 44 characters of base64, as "portreeve doctor" prints it`, "%s is not the pin of a key", quote(s))
	}
	return Pin(raw), nil
}

// resolver reads the address of a DNS server, or nothing.
func resolver(r *report, at path, v scalar, dst *netip.AddrPort) {
	s, ok := r.text(at, v)
	if !ok || s == "" {
		if ok {
			*dst = netip.AddrPort{}
		}
		return
	}
	a, wrong := parseOrigin(s)
	if wrong != nil {
		r.refuse(at, `write it as "127.0.0.1:53"`, "%s", wrong.text)
		return
	}
	*dst = a
}

// completeTLS decides what auto is, and judges a service's section.
func completeTLS(r *report, s *parsedService) {
	t := &s.tls
	if t.Mode == TLSAuto {
		t.Mode = TLSPassthrough
		if len(t.Certificates) > 0 {
			t.Mode = TLSMirror
		}
	}
	at := s.at.key("tls")
	if !r.clean(at, "tls") {
		return
	}
	judgeMode(r, at, t)
	judgeClientTLS(r, at.key("client"), t)
	judgeOriginTLS(r, at.key("origin"), t)
	judgeClearAUTH(r, s)
}

// judgeMode asks for a certificate where one is shown, and warns of weakness.
func judgeMode(r *report, at path, t *TLS) {
	switch {
	case t.Terminates() && len(t.Certificates) == 0:
		r.refuse(at, `add "certificates: [{chain: FILE, key: FILE}]", or write "mode: passthrough"`,
			"mode %s shows clients a certificate, and there is none", t.Mode)
	case t.Mode == TLSOff:
		r.warn(at.key("mode"), `remove it: without a certificate, TLS is carried unseen`,
			"TLS is taken out of what the origin offers, and mail that could travel encrypted travels in clear")
	}
}

func judgeClientTLS(r *report, at path, t *TLS) {
	c := t.Client
	switch {
	case c.Implicit && !t.Terminates():
		r.refuse(at.key("implicit"), `write "mode: mirror" or "mode: client"`, "TLS cannot begin with the first octet in mode %s, in which clients' TLS does not end here", t.Mode)
	case c.Require && !t.Terminates() && t.Mode != TLSPassthrough:
		r.refuse(at.key("require"), `write another mode, or remove it`, "clients cannot be required to use TLS, which mode %s does not offer them", t.Mode)
	case c.Verify != ClientNone && !t.Terminates():
		r.refuse(at.key("verify"), `write "mode: mirror" or "mode: client", or remove it`, "clients' certificates cannot be seen in mode %s", t.Mode)
	case c.Verify != ClientNone && c.CA == "":
		r.refuse(at.key("verify"), `add "ca: FILE" with their authority`, "clients' certificates cannot be verified without an authority")
	case c.Verify == ClientNone && c.CA != "":
		r.refuse(at.key("ca"), `add "verify: optional" or "verify: always"`, "has no effect, since clients are not asked for certificates")
	}
}

func judgeOriginTLS(r *report, at path, t *TLS) {
	o := t.Origin
	switch {
	case o.Implicit && !t.Originates():
		r.refuse(at.key("implicit"), `write "mode: mirror" or "mode: origin"`, "TLS cannot begin with the first octet in mode %s, in which no TLS towards the origin begins here", t.Mode)
	case o.Require && !t.Originates():
		r.refuse(at.key("require"), `write "mode: mirror" or "mode: origin"`, "TLS towards the origin cannot be required in mode %s", t.Mode)
	case o.Verify != OriginNone && !t.Originates():
		r.refuse(at.key("verify"), `write "mode: mirror" or "mode: origin", or remove it`, "the origin's certificate cannot be judged in mode %s", t.Mode)
	case o.Verify != OriginNone && o.Verify != OriginPin && o.Name == "":
		r.refuse(at.key("verify"), `add "name: mx.example.org"`, "%s needs the name that the origin's certificate is for", o.Verify)
	case (o.Verify == OriginCA) != (o.CA != ""):
		r.refuse(at.key("ca"), `write both "verify: ca" and "ca: FILE"`, "%s", together("ca", o.Verify == OriginCA))
	case (o.Verify == OriginPin) != (len(o.Pins) > 0):
		r.refuse(at.key("pins"), `write both "verify: pin" and "pins: [sha256/...]"`, "%s", together("pins", o.Verify == OriginPin))
	case (o.Verify == OriginDANE) != o.Resolver.IsValid():
		r.refuse(at.key("resolver"), `write both "verify: dane" and "resolver: ADDRESS:53"`, "%s", together("resolver", o.Verify == OriginDANE))
	}
	if o.Verify != OriginNone && o.Verify != OriginDANE && t.Mode == TLSOfOrigin && !o.Require && !o.Implicit {
		r.warn(at.key("verify"), `add "require: true"`,
			"what the origin must prove holds for TLS alone: where it offers none, or somebody on the way takes the offer out, mail leaves in clear")
	}
	if o.Resolver.IsValid() && !o.Resolver.Addr().IsLoopback() {
		r.warn(at.key("resolver"), "run a validating resolver on this machine",
			"the answers of %s cross the network, where they can be forged: that they are validated is one bit in them", o.Resolver)
	}
}

func together(key string, missing bool) string {
	if missing {
		return "is missing, and verify asks for it"
	}
	return key + " has no effect, since verify does not ask for it"
}

// judgeClearAUTH refuses a service that may offer AUTH and never would.
func judgeClearAUTH(r *report, s *parsedService) {
	if !s.smtp.Keywords.Has(smtp.ExtAuth) || s.smtp.AuthInClear || s.tls.Mode == TLSMirror || !r.clean("smtp", s.at.key("smtp")) {
		return
	}
	at := s.at.key("smtp").key("extensions").key("allow")
	raw := s.raw
	if !slices.ContainsFunc(raw, isAuth) {
		at, raw = "smtp.extensions.allow", s.common
	}
	if i := slices.IndexFunc(raw, isAuth); i >= 0 {
		r.refuse(at.item(i), `add "auth_in_clear: true", write "tls: {mode: mirror}" with a certificate, or remove it`,
			"AUTH would never be offered: in mode %s no connection that is looked into has TLS on both sides, and in clear it is not allowed", s.tls.Mode)
	}
}
