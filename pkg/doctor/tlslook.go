package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/pkg/plan"
	"github.com/portreeve/portreeve/pkg/returns"
	"github.com/portreeve/portreeve/pkg/secure"
	"github.com/portreeve/portreeve/pkg/smtp"
	"github.com/portreeve/portreeve/pkg/trust"
)

// TLSA is a TLSA record.
type TLSA = trust.TLSA

// TLS is what was seen of TLS.
type TLS struct {
	Certificates map[config.Certificate]Shown
	Authorities  map[string]error // of clients' certificates, by file: why it cannot be used, nil: it can
	Offers       map[Asked]Offer
	Judgements   map[Judge]Judgement
	Domains      map[string]Domain
}

// Shown is a certificate that clients are shown, or why it cannot be.
type Shown struct {
	Chain    []*x509.Certificate // the server's own first
	Trusted  error               // why the chain leads to no root of this system; nil: it does
	Warnings []string
	Err      error
}

// Offer is what an origin says and shows.
type Offer struct {
	Greeting string // the name in its greeting
	Hello    string // the name in its reply to EHLO
	STARTTLS bool
	Version  string              // of TLS; empty without a handshake
	Suite    uint16              // of ciphers
	Chain    []*x509.Certificate // that it shows
	Err      error               // where it went wrong
}

// Asked is an origin and how it was talked to. Services that talk to one in the same
// way get the same from it.
type Asked struct {
	Origin   netip.AddrPort
	Implicit bool
	Name     string // that the handshake asks for
	Proof    bool   // the origin has to prove who it is: no RSA key exchange is offered
}

// asked returns how a service talks to an origin.
func asked(s config.Service, origin netip.AddrPort, proof bool) Asked {
	return Asked{Origin: origin, Implicit: s.TLS.Origin.Implicit, Name: s.TLS.Origin.Name, Proof: proof}
}

// Judge is a service, which has a policy of its own, and the origin that it judges.
type Judge struct {
	Service string
	Origin  netip.AddrPort
}

// Judgement is what a service's sessions make of what an origin shows.
type Judgement struct {
	Policy  error // why nothing can be judged by tls.origin; then nobody was asked for this service
	Refused error // why sessions do not take it
	Proof   bool  // it has to prove who it is
}

// Domain is what an operator's domain publishes.
type Domain struct {
	MX        []string
	Addresses map[string][]netip.Addr // by mail server
	STS       STS
	TLSA      map[string]Records // by mail server
	Err       error              // of MX or TLSA
}

// Records are the TLSA records of a mail server.
type Records struct {
	List   []TLSA
	Secure bool // DNSSEC vouches for them
}

// PolicyOf makes what judges origins out of what the configuration says.
type PolicyOf = func(config.TLSOrigin) (*trust.Policy, error)

// LookTLS looks at certificates, origins and what is published. It reads private
// keys, as the process does that holds them, and opens a connection to each origin,
// one for each way in which services talk to it, which its log will say. To those that
// are known to be silent it does not talk.
func LookTLS(ctx context.Context, c *config.Config, p Published, policy PolicyOf, silent ...netip.AddrPort) TLS {
	t := TLS{Certificates: map[config.Certificate]Shown{}, Authorities: map[string]error{}, Offers: map[Asked]Offer{}, Judgements: map[Judge]Judgement{}, Domains: map[string]Domain{}}
	for _, s := range c.Services {
		for _, one := range s.TLS.Certificates {
			t.Certificates[one] = shown(one)
		}
		if ca := s.TLS.Client.CA; ca != "" {
			_, t.Authorities[ca] = trust.ReadRoots(ca)
		}
		for _, d := range s.TLS.Domains {
			t.Domains[d] = p.domain(ctx, d)
		}
		if s.TLS.Mode == config.TLSOff {
			continue
		}
		for _, o := range plan.Hosts(s) {
			t.look(ctx, s, o, policy, slices.Contains(silent, o))
		}
	}
	return t
}

// shown reads a certificate as it is read for clients.
func shown(c config.Certificate) Shown {
	l, err := keyring.Files{}.Load(keyring.Pair(c), "")
	if err != nil {
		return Shown{Err: err}
	}
	s := Shown{Warnings: l.Warnings}
	between := x509.NewCertPool()
	for i, der := range l.Certificate.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return Shown{Err: err}
		}
		s.Chain = append(s.Chain, one)
		if i > 0 {
			between.AddCert(one)
		}
	}
	_, s.Trusted = s.Chain[0].Verify(x509.VerifyOptions{Intermediates: between, CurrentTime: within(s.Chain[0])})
	return s
}

// within is a time at which a certificate is valid, so that its dates are judged
// apart from its chain.
func within(c *x509.Certificate) time.Time {
	if now := time.Now(); now.Before(c.NotAfter) {
		return now
	}
	return c.NotAfter
}

// domain asks what a domain publishes.
func (p Published) domain(ctx context.Context, name string) Domain {
	d := Domain{STS: p.sts(ctx, name), TLSA: map[string]Records{}, Addresses: map[string][]netip.Addr{}}
	if d.MX, d.Err = p.DNS.MX(ctx, name); d.Err != nil {
		return d
	}
	for _, mx := range d.MX {
		var err error
		if d.Addresses[mx], err = p.DNS.Addresses(ctx, mx); err != nil {
			d.Err = err
		}
		var r Records
		if r.List, r.Secure, err = p.DNS.TLSARecords(ctx, mx, 25); err != nil {
			d.Err = err
		}
		d.TLSA[mx] = r
	}
	return d
}

// offerPatience is how long an origin may take for all of it.
const offerPatience = 10 * time.Second

// look talks to an origin of a service, unless it was talked to in the same way
// already, and judges it as the service's sessions do.
func (t *TLS) look(ctx context.Context, s config.Service, origin netip.AddrPort, policy PolicyOf, silent bool) {
	of := Judge{s.Name, origin}
	p, err := policy(s.TLS.Origin)
	if err != nil {
		t.Judgements[of] = Judgement{Policy: err}
		return
	}
	if silent {
		return
	}
	judge, proof, err := p.Judge(ctx, origin.Port())
	how := asked(s, origin, proof)
	o, known := t.Offers[how]
	if !known {
		o = talkTo(ctx, how)
		t.Offers[how] = o
	}
	j := Judgement{Proof: proof}
	if o.Err == nil && len(o.Chain) > 0 { // there is something to judge
		if j.Refused = err; err == nil {
			_, j.Refused = judge(tls.ConnectionState{PeerCertificates: o.Chain})
		}
	}
	t.Judgements[of] = j
}

// talkTo talks to an origin as far as a handshake.
func talkTo(ctx context.Context, how Asked) (o Offer) {
	d := net.Dialer{Timeout: returns.Patience}
	conn, err := d.DialContext(ctx, "tcp", how.Origin.String())
	if err != nil {
		return Offer{Err: err}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(offerPatience))
	t := &talk{conn: conn}
	if how.Implicit {
		o.Err = t.secure(&o, how)
	}
	if o.Err == nil {
		o.Err = t.hello(&o)
	}
	if o.Err != nil || !o.STARTTLS || how.Implicit {
		return o
	}
	if _, o.Err = t.command("STARTTLS", 220); o.Err == nil {
		o.Err = t.secure(&o, how)
	}
	return o
}

// talk is a short conversation with an origin.
type talk struct {
	conn net.Conn
	in   []byte
}

// hello reads the greeting and says EHLO.
func (t *talk) hello(o *Offer) error {
	greeting, err := t.reply(220)
	if err != nil {
		return err
	}
	o.Greeting = firstWord(greeting[0])
	lines, err := t.command("EHLO portreeve.invalid", 250)
	if err != nil {
		return err
	}
	o.Hello = firstWord(lines[0])
	for _, l := range lines[1:] {
		o.STARTTLS = o.STARTTLS || strings.EqualFold(l, "STARTTLS")
	}
	return nil
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return strings.ToLower(word)
}

func (t *talk) command(line string, want smtp.Code) ([]string, error) {
	if _, err := t.conn.Write([]byte(line + "\r\n")); err != nil {
		return nil, err
	}
	return t.reply(want)
}

// reply reads one reply, which must have a code.
func (t *talk) reply(want smtp.Code) ([]string, error) {
	for {
		r, n, f := smtp.CutReply(t.in, smtp.DefaultReplyLimits)
		switch {
		case f != smtp.NoFault:
			return nil, fmt.Errorf("its reply breaks the protocol: %s", f)
		case n > 0 && r.Code != want:
			return nil, fmt.Errorf("it replies %q", r.AppendTo(nil))
		case n > 0:
			lines := linesOf(r)
			t.in = t.in[n:]
			return lines, nil
		}
		more := make([]byte, 4096)
		k, err := t.conn.Read(more)
		if k == 0 && err != nil {
			return nil, err
		}
		t.in = append(t.in, more[:k]...)
	}
}

func linesOf(r smtp.WireReply) (lines []string) {
	for text, rest, ok := r.Next(); ok; text, rest, ok = rest.Next() {
		lines = append(lines, string(text))
	}
	return lines
}

// secure makes the handshake and takes what the origin shows, whoever it is.
func (t *talk) secure(o *Offer, how Asked) error {
	if len(t.in) > 0 {
		return errors.New("it sends octets behind its reply to STARTTLS")
	}
	conn := tls.Client(t.conn, &tls.Config{ServerName: how.Name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, CipherSuites: secure.Suites(!how.Proof)})
	if err := conn.Handshake(); err != nil {
		return err
	}
	state := conn.ConnectionState()
	o.Version, o.Suite, o.Chain = tls.VersionName(state.Version), state.CipherSuite, state.PeerCertificates
	t.conn = conn
	return nil
}
