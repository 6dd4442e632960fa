package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/pkg/relay"
	"github.com/portreeve/portreeve/pkg/resolve"
	"github.com/portreeve/portreeve/pkg/secure"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/trust"
)

// refreshEvery is how often the files of certificates are looked at.
const refreshEvery = 10 * time.Second

// Before a certificate expires it is warned of, once a day.
const (
	expiryNotice = 14 * 24 * time.Hour
	noticeEvery  = 24 * time.Hour
)

// openRing reads the certificates of all services.
func (i *inspector) openRing() error {
	pairs := Pairs(i.Config)
	if len(pairs) == 0 {
		return nil
	}
	ring, news, err := keyring.Open(i.Keys, pairs)
	if err != nil {
		return err
	}
	i.ring = ring
	i.tell(news)
	return nil
}

// PairsOf returns the certificates that a service shows to clients.
func PairsOf(t config.TLS) []keyring.Pair {
	if !t.Terminates() {
		return nil
	}
	pairs := make([]keyring.Pair, len(t.Certificates))
	for n, c := range t.Certificates {
		pairs[n] = keyring.Pair(c)
	}
	return pairs
}

// Pairs returns the certificates that a configuration shows to clients.
func Pairs(c *config.Config) []keyring.Pair {
	var all []keyring.Pair
	for _, s := range c.Services {
		all = append(all, PairsOf(s.TLS)...)
	}
	return all
}

// keepRing looks for newer certificates until ctx ends.
func (i *inspector) keepRing(ctx context.Context) {
	if i.ring == nil {
		return
	}
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	var noticed time.Time
	for {
		if now := time.Now(); now.Sub(noticed) >= noticeEvery {
			noticed = now
			i.warnOfExpiry(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			i.tell(i.ring.Refresh())
		}
	}
}

// tell reports news of certificates.
func (i *inspector) tell(news []keyring.Change) {
	for _, n := range news {
		for _, w := range n.Warnings {
			i.Log.Warn(w)
		}
		if n.Err != nil {
			i.Log.Error("the certificate shown before stays in use", "error", n.Err)
			continue
		}
		i.Log.Info("certificate in use", "chain", n.Pair.Chain, "subject", n.Certificate.Subject.String(), "names", n.Certificate.DNSNames, "expires", n.Certificate.NotAfter)
	}
}

func (i *inspector) warnOfExpiry(now time.Time) {
	leaves := i.ring.Leaves()
	for _, p := range i.ring.Expiring(now.Add(expiryNotice)) {
		if c := leaves[p]; c.NotAfter.Before(now) {
			i.Log.Error("a certificate has expired, and clients are shown it", "chain", p.Chain, "since", c.NotAfter)
		} else {
			i.Log.Warn("a certificate expires soon", "chain", p.Chain, "at", c.NotAfter)
		}
	}
}

// tlsOf returns what the relay has to know of a service's TLS.
func (i *inspector) tlsOf(t config.TLS) (*relay.TLS, error) {
	r := &relay.TLS{Session: whenTLS(t), Opaque: t.Mode == config.TLSPassthrough}
	var err error
	if t.Terminates() {
		if r.Clients, err = i.clientConfig(t); err != nil {
			return nil, err
		}
	}
	if t.Originates() {
		r.Origins = originConfig(t.Origin)
		if r.Policy, err = Policy(t.Origin); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// whenTLS says in the session's words which side gets TLS.
func whenTLS(t config.TLS) session.TLS {
	s := session.TLS{Mode: t.Mode.String(), ClientMust: t.Client.Require, OriginMust: t.Origin.Require}
	switch t.Mode {
	case config.TLSMirror:
		s.Client, s.Origin = session.Mirror, session.Mirror
	case config.TLSOfClient:
		s.Client = session.Always
	case config.TLSOfOrigin:
		s.Origin = session.Always
	}
	if t.Client.Implicit {
		s.Client = session.Implicit
	}
	if t.Origin.Implicit {
		s.Origin = session.Implicit
	}
	return s
}

// clientConfig is how clients are met.
func (i *inspector) clientConfig(t config.TLS) (*tls.Config, error) {
	c := keyring.Clients{Pairs: PairsOf(t), Minimum: tls.VersionTLS12, Suites: secure.Suites(t.Client.ExchangesRSA())}
	if t.Client.Minimum == config.TLS13 {
		c.Minimum = tls.VersionTLS13
	}
	switch t.Client.Verify {
	case config.ClientOptional:
		c.Auth = tls.VerifyClientCertIfGiven
	case config.ClientAlways:
		c.Auth = tls.RequireAndVerifyClientCert
	}
	var err error
	if t.Client.CA != "" {
		c.Roots, err = trust.ReadRoots(t.Client.CA)
	}
	return i.ring.Config(c), err
}

// resumable is how many sessions with origins are remembered, to be taken up
// again without certificates and their signatures.
const resumable = 64

// originConfig is how origins are met; who they have to be is the policy's.
func originConfig(o config.TLSOrigin) *tls.Config {
	return &tls.Config{
		ServerName:                  o.Name,
		MinVersion:                  tls.VersionTLS12,
		CipherSuites:                secure.Suites(false), // not nil, which GODEBUG could add to
		ClientSessionCache:          tls.NewLRUClientSessionCache(resumable),
		DynamicRecordSizingDisabled: true, // a message is waited for as a whole
	}
}

// Policy says who an origin has to be. Doctor judges by it, too.
func Policy(o config.TLSOrigin) (*trust.Policy, error) {
	p := &trust.Policy{Name: o.Name}
	switch o.Verify {
	case config.OriginSystem:
		p.Method = trust.Roots
		return p, systemRoots(p)
	case config.OriginCA:
		var err error
		p.Method = trust.Roots
		p.Pool, err = trust.ReadRoots(o.CA)
		return p, err
	case config.OriginPin:
		p.Method = trust.Pins
		for _, pin := range o.Pins {
			p.Pins = append(p.Pins, trust.Pin(pin))
		}
	case config.OriginDANE:
		p.Method = trust.DANE
		p.Records = resolve.New(o.Resolver).TLSA
	}
	return p, nil
}

// systemRoots reads the system's roots now: what is wrong with them is told at the
// start, and not by the first handshake.
func systemRoots(p *trust.Policy) (err error) {
	if p.Pool, err = x509.SystemCertPool(); err != nil {
		return fmt.Errorf("read the authorities that the system trusts: %w", err)
	}
	return nil
}
