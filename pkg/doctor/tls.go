package doctor

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/finding"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/secure"
	"github.com/portreeve/portreeve/pkg/trust"
)

// renewBefore is when a certificate is late: renewal programs begin a month
// before its end.
const renewBefore = 14 * 24 * time.Hour

// tlsTopic is the part of an examination that is about TLS.
type tlsTopic struct{ *exam }

// judge judges certificates, origins and what is published.
func (e tlsTopic) judge() {
	seen := map[config.Certificate]bool{}
	for _, s := range e.c.Services {
		for _, d := range s.TLS.Domains {
			e.domain(s, d)
		}
		if s.TLS.Mode == config.TLSOff {
			e.warn("tls-off", e.c.File+": service "+s.Name, "TLS is taken out of what its origins offer", `remove "mode: off"`)
			continue
		}
		for _, c := range s.TLS.Certificates {
			if !seen[c] && s.TLS.Terminates() {
				e.certificate(c)
			}
			seen[c] = true
		}
		if err := e.m.TLS.Authorities[s.TLS.Client.CA]; err != nil {
			e.problem("client-ca", e.c.File+": service "+s.Name, fmt.Sprintf("clients' certificates cannot be judged: %v: the inspector does not start", err), "put the file there, or change tls.client.ca")
		}
		for _, o := range plan.Hosts(s) {
			e.offer(s, o)
		}
	}
}

// certificate judges a certificate by itself.
func (e tlsTopic) certificate(c config.Certificate) {
	object := "certificate " + c.Chain
	shown := e.m.TLS.Certificates[c]
	if shown.Err != nil {
		text, remedy := parted(strings.TrimPrefix(shown.Err.Error(), object+": "))
		e.problem("certificate-unreadable", object, text+": the inspector does not start with it, and one that runs shows the certificate from before", remedy)
		return
	}
	for _, w := range shown.Warnings {
		text, remedy := parted(w)
		e.warn("certificate-warning", object, text, remedy)
	}
	leaf := shown.Chain[0]
	switch left := leaf.NotAfter.Sub(e.m.Now); {
	case left <= 0:
		e.problem("certificate-expired", object, fmt.Sprintf("it has expired on %s; senders that verify do not deliver", day(leaf.NotAfter)), "renew it")
	case e.m.Now.Before(leaf.NotBefore):
		e.problem("certificate-early", object, fmt.Sprintf("it is not valid before %s; senders that verify do not deliver", day(leaf.NotBefore)), "see whether the clock is right")
	case left < renewBefore:
		e.warn("certificate-expires", object, "it expires on "+day(leaf.NotAfter), "renew it; the new files are used within ten seconds")
	}
	if shown.Trusted != nil {
		e.warn("certificate-untrusted", object, fmt.Sprintf("its chain leads to no root that this system trusts (%v); senders that verify by MTA-STS do not deliver", shown.Trusted),
			"put the certificates between it and its root behind it into the same file")
	}
}

// parted parts what is wrong from what is to be done about it, which stands last.
func parted(message string) (text, remedy string) {
	if i := strings.LastIndex(message, "; "); i >= 0 {
		return message[:i], message[i+2:]
	}
	return message, "put a certificate that can be used there, with its key"
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// offer judges what an origin offers, for one of the services whose it is. What is
// the same for several is told once.
func (e tlsTopic) offer(s config.Service, origin netip.AddrPort) {
	object := fmt.Sprintf("origin %s", origin)
	judgement := e.m.TLS.Judgements[Judge{s.Name, origin}]
	if judgement.Policy != nil {
		e.problem("origin-policy", object, fmt.Sprintf("nothing of it can be judged as tls.origin asks: %v: the inspector does not start", judgement.Policy), "put the file there, or change tls.origin of service "+s.Name)
		return
	}
	o, looked := e.m.TLS.Offers[asked(s, origin, judgement.Proof)]
	switch {
	case !looked:
		return
	case o.Err != nil:
		e.remark(remark{about: aboutOrigin(origin), Finding: finding.Finding{Severity: finding.Warning, Code: "origin-tls-unseen", Object: object,
			Text:   fmt.Sprintf("cannot see what it offers: %v", o.Err),
			Remedy: "see whether its mail server runs, and its TLS with openssl s_client -starttls smtp -connect " + origin.String()}})
		return
	case !o.STARTTLS && o.Version == "":
		e.noTLS(s, object)
		return
	}
	leaf := o.Chain[0]
	e.info("origin-tls", object, fmt.Sprintf("offers %s, its certificate is %s until %s, its key %s", o.Version, leaf.Subject, day(leaf.NotAfter), trust.PinOf(leaf)))
	if secure.LacksSecrecy(o.Suite) {
		e.warn("origin-secrecy", object, fmt.Sprintf("its TLS has no forward secrecy (%s): who records a session and later gets its key can read it, and services that verify it have no TLS with it", tls.CipherSuiteName(o.Suite)), "offer ECDHE there")
	}
	e.policy(s, object, leaf, judgement.Refused)
	e.names(s, object, o)
}

// noTLS says what it means that an origin offers no TLS.
func (e tlsTopic) noTLS(s config.Service, object string) {
	switch {
	case s.TLS.Origin.Require:
		e.problem("origin-no-tls", object, "it offers no TLS, which service "+s.Name+" requires: no mail gets through", "offer STARTTLS there")
	case s.TLS.Mode == config.TLSOfClient:
	case s.TLS.Mode == config.TLSPassthrough:
		e.info("origin-no-tls", object, "it offers no TLS, so clients are not offered it either")
	default:
		e.warn("origin-no-tls", object, "it offers no TLS, so clients are not offered it either", "offer STARTTLS there")
	}
}

// policy says why sessions of a service refuse an origin's certificate.
func (e tlsTopic) policy(s config.Service, object string, leaf *x509.Certificate, refused error) {
	if refused == nil {
		return
	}
	t := s.TLS.Origin
	if t.Verify == config.OriginPin {
		e.problem("origin-pin", object, "its key is none of those under tls.origin.pins of service "+s.Name+": no TLS comes about", fmt.Sprintf("add %s, once you know that it is the origin's", trust.PinOf(leaf)))
		return
	}
	remedy := "see tls.origin of service " + s.Name
	var expired x509.CertificateInvalidError
	switch {
	case errors.As(refused, &x509.HostnameError{}):
		remedy = "set tls.origin.name to a name that it is for"
	case errors.As(refused, &expired) && expired.Reason == x509.Expired:
		remedy = "renew it"
	case errors.As(refused, &x509.UnknownAuthorityError{}):
		remedy = "let the origin send what leads to the root, or name its authority with verify: ca"
	}
	e.problem("origin-certificate", object, fmt.Sprintf("its certificate is refused, as verify: %s of service %s asks (%v): no TLS comes about", t.Verify, s.Name, refused), remedy)
}

// names compares how an origin calls itself, which clients read, with the
// certificate that they are shown.
func (e tlsTopic) names(s config.Service, object string, o Offer) {
	if !s.TLS.Terminates() || e.m.TLS.presented(s, "") == nil {
		return
	}
	for _, name := range []string{o.Greeting, o.Hello} {
		if name == "" || e.m.TLS.shownFor(s, name) != nil {
			continue
		}
		e.warn("origin-name", object, fmt.Sprintf("it calls itself %s, for which clients are shown no certificate; some (Exchange) compare the two", name),
			"get a certificate for that name too, or let the origin use the certificate's")
		return
	}
}

// shownFor returns the chain that clients see who ask for a name, nil when it is
// for others.
func (t TLS) shownFor(s config.Service, name string) []*x509.Certificate {
	for _, c := range s.TLS.Certificates {
		chain := t.Certificates[c].Chain
		if len(chain) > 0 && chain[0].VerifyHostname(name) == nil {
			return chain
		}
	}
	return nil
}

// presented returns the chain that a client sees who asks for a name.
func (t TLS) presented(s config.Service, name string) []*x509.Certificate {
	if chain := t.shownFor(s, name); chain != nil {
		return chain
	}
	for _, c := range s.TLS.Certificates {
		if chain := t.Certificates[c].Chain; len(chain) > 0 {
			return chain
		}
	}
	return nil
}

// domain compares what a domain publishes with what clients are shown.
func (e tlsTopic) domain(s config.Service, name string) {
	object := "domain " + name
	d, looked := e.m.TLS.Domains[name]
	switch {
	case !looked:
		return
	case d.Err != nil:
		e.warn("domain-unseen", object, fmt.Sprintf("cannot see what it publishes: %v", d.Err), "name a DNS server that answers with --resolver")
	case len(d.MX) == 0:
		e.warn("domain-no-mx", object, "it has no MX record", "publish one that names this gateway")
	}
	e.sts(s, object, name, d)
	for _, mx := range here(s, d) {
		e.dane(s, object, mx, d.TLSA[mx])
	}
}

// here returns those of a domain's mail servers whose addresses are the service's:
// others show certificates of their own. Where none are, something in front has
// other addresses, and all may be meant.
func here(s config.Service, d Domain) []string {
	var ours []string
	for _, mx := range d.MX {
		if slices.ContainsFunc(d.Addresses[mx], func(a netip.Addr) bool { return takes(s, a) }) {
			ours = append(ours, mx)
		}
	}
	if ours == nil {
		return d.MX
	}
	return ours
}

// takes reports whether connections to an address are the service's.
func takes(s config.Service, a netip.Addr) bool {
	contains := func(t config.Target) bool { return t.Prefix.Contains(a) }
	return slices.ContainsFunc(s.Listen, contains) || slices.ContainsFunc(s.Intercept, contains)
}

// noneForClients reports whether clients are never offered TLS.
func noneForClients(s config.Service) bool {
	return s.TLS.Mode == config.TLSOfOrigin || s.TLS.Mode == config.TLSOff
}

// sts judges an MTA-STS policy: a sender that knows it delivers to nobody else.
func (e tlsTopic) sts(s config.Service, object, name string, d Domain) {
	policy := d.STS
	say := e.warn
	if policy.Mode == "enforce" {
		say = e.problem
	}
	switch {
	case !policy.Announced:
		return
	case policy.Err != nil:
		e.warn("sts-unusable", object, fmt.Sprintf("its MTA-STS policy cannot be used: %v", policy.Err), "see the TXT record of _mta-sts."+name+", and https://mta-sts."+name+"/.well-known/mta-sts.txt")
		return
	case policy.Mode == "none":
		return
	}
	ours := here(s, d)
	for _, mx := range d.MX {
		switch {
		case !policy.matches(mx):
			say("sts-mx", object, fmt.Sprintf("its MTA-STS policy (%s) does not name its mail server %s", policy.Mode, mx), "add \"mx: "+mx+"\" to the policy, and change its id")
		case !slices.Contains(ours, mx):
		case noneForClients(s):
			say("sts-no-tls", object, fmt.Sprintf("its MTA-STS policy (%s) asks for TLS, which mode %s does not offer to clients", policy.Mode, s.TLS.Mode), "write mode: mirror or mode: passthrough")
		case s.TLS.Terminates() && e.m.TLS.presented(s, mx) != nil && e.m.TLS.shownFor(s, mx) == nil:
			say("sts-certificate", object, fmt.Sprintf("its MTA-STS policy (%s) asks %s for a certificate with that name, and clients are shown none", policy.Mode, mx), "get a certificate for "+mx)
		}
	}
}

// dane judges the TLSA records of a mail server against what clients are shown.
// They bind senders only where DNSSEC vouches for them.
func (e tlsTopic) dane(s config.Service, object, mx string, records Records) {
	if len(records.List) == 0 {
		return
	}
	say := e.problem
	if !records.Secure {
		say = e.warn
		e.warn("dane-insecure", object, fmt.Sprintf("the DNS server that was asked does not say that DNSSEC vouches for the TLSA records of %s; without it senders do not use them", mx),
			"ask one that validates with --resolver, and see that the zone is signed")
	}
	if noneForClients(s) {
		say("dane-no-tls", object, fmt.Sprintf("%s has TLSA records, which ask for TLS, and mode %s does not offer it to clients: senders that use DANE do not deliver", mx, s.TLS.Mode), "write mode: mirror or mode: passthrough")
		return
	}
	if !slices.ContainsFunc(records.List, TLSA.Usable) { // RFC 7672 section 2.2
		e.warn("dane-useless", object, fmt.Sprintf("none of the TLSA records of %s is of use for SMTP: senders use TLS and look at no certificate", mx), "publish records of usage 3 or 2")
		return
	}
	chain := e.m.TLS.presented(s, mx)
	if chain == nil || !s.TLS.Terminates() {
		return // why is told with the certificate, or it is the origin's own
	}
	if err := trust.Match(records.List, chain, mx); err != nil {
		say("dane-certificate", object, fmt.Sprintf("the TLSA records of %s do not fit the certificate that clients are shown (%v): senders that use DANE do not deliver", mx, err),
			"publish _25._tcp."+mx+". IN TLSA 3 1 1 "+hashOf(chain[0])+", and wait for the old records' TTL before the certificate is changed")
		return
	}
	e.info("dane-fits", object, fmt.Sprintf("the TLSA records of %s fit the certificate that clients are shown", mx))
}

func hashOf(c *x509.Certificate) string {
	h := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h[:])
}
