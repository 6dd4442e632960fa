package doctor

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/resolve"
	"github.com/portreeve/portreeve/pkg/trust"
	"github.com/portreeve/portreeve/testenv/nameserver"
	"github.com/portreeve/portreeve/testenv/peer"
	"github.com/portreeve/portreeve/testenv/pki"
)

// secured is a configuration with TLS, written as in the file.
func secured(t *testing.T, section string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(`interfaces: {client: [ext0], origin: [dmz0]}
services:
  - name: mx
    listen: ["192.0.2.1:25"]
    origins: ["198.51.100.1:25"]
    tls: {`+section+"}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const withCertificate = "certificates: [{chain: /mx.pem, key: /mx.key}], domains: [example.org]"

var (
	itsFiles  = config.Certificate{Chain: "/mx.pem", Key: "/mx.key"}
	itsOrigin = netip.MustParseAddrPort("198.51.100.1:25")
)

func chainOf(t *testing.T, p *pki.Pair) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range p.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

// order is TLS that has nothing wrong.
func order(t *testing.T, p *pki.Pair) TLS {
	t.Helper()
	h := sha256.Sum256(p.Certificate.RawSubjectPublicKeyInfo)
	return TLS{
		Certificates: map[config.Certificate]Shown{itsFiles: {Chain: chainOf(t, p)}},
		Offers: map[Asked]Offer{{Origin: itsOrigin}: {
			Greeting: "mx.example.org", Hello: "mx.example.org", STARTTLS: true, Version: "TLS 1.3", Chain: chainOf(t, p),
		}},
		Judgements: map[Judge]Judgement{},
		Domains: map[string]Domain{"example.org": {
			MX:   []string{"mx.example.org"},
			STS:  STS{Announced: true, Mode: "enforce", MX: []string{"mx.example.org"}},
			TLSA: map[string]Records{"mx.example.org": {List: []TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: h[:]}}, Secure: true}},
		}},
	}
}

// testTLSFindings: each thing that can be wrong has its sentence, and what is in
// order has none.
func testTLSFindings(t *testing.T) {
	ca := pki.New("test")
	good := ca.Issue([]string{"mx.example.org"})
	change := func(f func(*TLS, *Offer, *Domain, *Shown)) func(*TLS) {
		return func(l *TLS) {
			o, d, s := l.Offers[Asked{Origin: itsOrigin}], l.Domains["example.org"], l.Certificates[itsFiles]
			f(l, &o, &d, &s)
			l.Offers[Asked{Origin: itsOrigin}], l.Domains["example.org"], l.Certificates[itsFiles] = o, d, s
		}
	}
	judged := func(j Judgement) func(*TLS) { return func(l *TLS) { l.Judgements[Judge{"mx", itsOrigin}] = j } }
	named := func(name string, why error) func(*TLS) {
		return func(l *TLS) {
			judged(Judgement{Refused: why})(l)
			l.Offers[Asked{Origin: itsOrigin, Name: name}] = l.Offers[Asked{Origin: itsOrigin}]
		}
	}
	for _, k := range []struct {
		name, section string
		spoil         func(*TLS)
		want          string // of the only warning or error, "" for none
	}{
		{"in order", withCertificate, func(*TLS) {}, ""},
		{"off", "mode: off", func(*TLS) {}, "warning test.yaml: service mx: TLS is taken out"},
		{"unreadable", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) { *s = Shown{Err: fmt.Errorf("cannot read it")} }), "error certificate /mx.pem: cannot read it"},
		{"expired", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) {
			s.Chain = chainOf(t, ca.IssueFor(good.Key, []string{"mx.example.org"}, pki.Expired))
		}), "error certificate /mx.pem: it has expired"},
		{"not valid yet", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) {
			leaf := *s.Chain[0]
			leaf.NotBefore = time.Now().AddDate(0, 0, 1)
			s.Chain = []*x509.Certificate{&leaf}
		}), "error certificate /mx.pem: it is not valid before"},
		{"DNS does not answer", withCertificate, func(l *TLS) {
			l.Domains["example.org"] = Domain{Err: errors.New("no answer"), MX: []string{"mx.example.org"}}
		}, "warning domain example.org: cannot see what it publishes: no answer"},
		{"expires soon", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) {
			s.Chain = chainOf(t, ca.IssueFor(good.Key, []string{"mx.example.org"}, pki.Until(time.Now().AddDate(0, 0, 5))))
		}), "warning certificate /mx.pem: it expires on"},
		{"incomplete chain", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) { s.Trusted = x509.UnknownAuthorityError{} }), "warning certificate /mx.pem: its chain leads to no root"},
		{"group", withCertificate, change(func(_ *TLS, _ *Offer, _ *Domain, s *Shown) { s.Warnings = []string{"the group may read it"} }), "warning certificate /mx.pem: the group may"},
		{"other name in greeting", withCertificate, change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) { o.Greeting = "inner.example.org" }), "warning origin 198.51.100.1:25: it calls itself inner.example.org"},
		{"no STARTTLS", withCertificate, change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) { *o = Offer{Greeting: "mx.example.org"} }), "warning origin 198.51.100.1:25: it offers no TLS"},
		{"no STARTTLS, required", withCertificate + ", origin: {require: true}", change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) { *o = Offer{} }), "error origin 198.51.100.1:25: it offers no TLS, which service mx requires"},
		{"origin fails", withCertificate, change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) { *o = Offer{Err: fmt.Errorf("alert")} }), "warning origin 198.51.100.1:25: cannot see what it offers: alert"},
		{"origin without forward secrecy", withCertificate, change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) {
			o.Version, o.Suite = "TLS 1.2", tls.TLS_RSA_WITH_AES_128_GCM_SHA256
		}), "warning origin 198.51.100.1:25: its TLS has no forward secrecy (TLS_RSA_WITH_AES_128_GCM_SHA256)"},
		{"other pin", withCertificate + ", origin: {verify: pin, pins: sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}", judged(Judgement{Refused: &trust.Error{Why: event.FailurePin}}), "error origin 198.51.100.1:25: its key is none of those under tls.origin.pins of service mx"},
		{"other name", withCertificate + ", origin: {verify: system, name: other.example.org}", named("other.example.org", x509.HostnameError{Certificate: good.Certificate, Host: "other.example.org"}), "error origin 198.51.100.1:25: its certificate is refused, as verify: system of service mx asks (x509: certificate is valid for mx.example.org, not other.example.org): no TLS comes about; set tls.origin.name"},
		{"another authority", withCertificate + ", origin: {verify: system, name: mx.example.org}", named("mx.example.org", x509.UnknownAuthorityError{}), "error origin 198.51.100.1:25: its certificate is refused, as verify: system of service mx asks (x509: certificate signed by unknown authority): no TLS comes about; let the origin send"},
		{"authorities of origins", withCertificate + ", origin: {verify: ca, ca: /ca.pem, name: mx.example.org}", judged(Judgement{Policy: errors.New("read authorities: open /ca.pem: no such file")}), "error origin 198.51.100.1:25: nothing of it can be judged as tls.origin asks: read authorities: open /ca.pem: no such file: the inspector does not start; put"},
		{"authorities of clients", withCertificate + ", client: {verify: always, ca: /ca.pem}", func(l *TLS) { l.Authorities = map[string]error{"/ca.pem": errors.New("no such file")} }, "error test.yaml: service mx: clients' certificates cannot be judged: no such file: the inspector does not start; put"},
		{"off, and a policy", "mode: off, domains: [example.org]", change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.STS.Mode, d.TLSA = "enforce", nil }), "error domain example.org: its MTA-STS policy (enforce) asks for TLS, which mode off"},
		{"no MX", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { *d = Domain{} }), "warning domain example.org: it has no MX"},
		{"policy without the MX", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.STS.MX = []string{"*.mail.example.org"} }), "error domain example.org: its MTA-STS policy (enforce) does not name"},
		{"policy in testing", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.STS.Mode, d.STS.MX = "testing", nil }), "warning domain example.org: its MTA-STS policy (testing) does not name"},
		{"policy that cannot be read", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.STS = STS{Announced: true, Err: fmt.Errorf("404")} }), "warning domain example.org: its MTA-STS policy cannot be used: 404"},
		{"policy and another name", withCertificate, change(func(l *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.MX, d.STS.MX, d.TLSA = []string{"mx2.example.org"}, []string{"mx2.example.org"}, nil
		}), "error domain example.org: its MTA-STS policy (enforce) asks mx2.example.org for a certificate"},
		{"TLSA of another", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.TLSA = map[string]Records{"mx.example.org": {List: []TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}, Secure: true}}
		}), "error domain example.org: the TLSA records of mx.example.org do not fit"},
		{"TLSA unusable", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.TLSA = map[string]Records{"mx.example.org": {List: []TLSA{{Usage: 1, Selector: 1, Matching: 1, Data: make([]byte, 32)}}, Secure: true}}
		}), "warning domain example.org: none of the TLSA records of mx.example.org is of use"},
		{"TLSA that fit, without DNSSEC", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.TLSA = map[string]Records{"mx.example.org": {List: d.TLSA["mx.example.org"].List}}
		}), "warning domain example.org: the DNS server that was asked does not say that DNSSEC vouches"},
		{"others' mail servers beside ours", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.MX = append(d.MX, "backup.example.net")
			d.Addresses = map[string][]netip.Addr{"mx.example.org": {netip.MustParseAddr("192.0.2.1")}, "backup.example.net": {netip.MustParseAddr("203.0.113.1")}}
			d.STS.MX = append(d.STS.MX, "*.example.net")
			d.TLSA["backup.example.net"] = Records{List: []TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}, Secure: true}
		}), ""},
		{"others' mail servers that the policy does not name", withCertificate, change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) {
			d.MX = append(d.MX, "backup.example.net")
			d.Addresses = map[string][]netip.Addr{"mx.example.org": {netip.MustParseAddr("192.0.2.1")}, "backup.example.net": {netip.MustParseAddr("203.0.113.1")}}
		}), "error domain example.org: its MTA-STS policy (enforce) does not name its mail server backup.example.net"},
		{"TLSA where no TLS is offered", "mode: origin, domains: [example.org]", change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.STS = STS{} }), "error domain example.org: mx.example.org has TLSA records, which ask for TLS, and mode origin"},
		{"policy where no TLS is offered", "mode: origin, domains: [example.org]", change(func(_ *TLS, _ *Offer, d *Domain, _ *Shown) { d.TLSA = nil }), "error domain example.org: its MTA-STS policy (enforce) asks for TLS, which mode origin"},
		{"names that would move the cursor", withCertificate, change(func(_ *TLS, o *Offer, _ *Domain, _ *Shown) { o.Greeting = "\x1b[2Jinner\u202e" }), "warning origin 198.51.100.1:25: it calls itself ?[2Jinner?,"},
	} {
		l := order(t, good)
		k.spoil(&l)
		e := begin(secured(t, k.section), Machine{TLS: l, Now: time.Now()})
		tlsTopic{e}.judge()
		var bad []string
		for _, f := range noted(e.report()) {
			if f.Severity > 0 {
				bad = append(bad, f.Severity.String()+" "+f.String())
			}
		}
		switch {
		case k.name == "off, and a policy" && len(bad) == 2 && strings.HasPrefix(bad[0], k.want): // and that it is off
		case k.want == "" && len(bad) > 0, k.want != "" && (len(bad) != 1 || !strings.HasPrefix(bad[0], k.want)):
			t.Errorf("%s: found\n%s\nwant %s", k.name, strings.Join(bad, "\n"), k.want)
		}
	}
}

// TestLookTLS looks at files, an origin, DNS and HTTPS that this test serves.
func TestLookTLS(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pair := ca.Issue([]string{"mx.example.org"})
	chain, key, err := pair.Write(dir, "mx")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inner := ca.Issue([]string{"origin.example.org"})
	origin := peer.Serve(peer.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{inner.TLS()}}}, ln)
	defer origin.Close()
	names, policyAt := publish(t, ca, "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n")
	at := netip.MustParseAddrPort(ln.Addr().String())
	c := &config.Config{Services: []config.Service{{
		Name: "mx", Origins: []netip.AddrPort{at}, Listen: []config.Target{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Port: 25}},
		TLS: config.TLS{Mode: config.TLSMirror, Certificates: []config.Certificate{{Chain: chain, Key: key}}, Domains: []string{"example.org"},
			Client: config.TLSClient{CA: key}},
	}}}
	got := LookTLS(t.Context(), c, Published{DNS: resolve.New(names.Addr), Roots: ca.Pool(), Port: policyAt}, func(o config.TLSOrigin) (*trust.Policy, error) {
		return &trust.Policy{Method: trust.Roots, Name: "other.example.org", Pool: ca.Pool()}, nil
	})
	if s := got.Certificates[config.Certificate{Chain: chain, Key: key}]; s.Err != nil || len(s.Chain) != 1 || s.Trusted == nil {
		t.Errorf("certificate: %+v", s)
	}
	if err := got.Authorities[key]; err == nil {
		t.Error("a key is taken for authorities")
	}
	o := got.Offers[Asked{Origin: at, Proof: true}]
	if why := got.Judgements[Judge{"mx", at}]; why.Policy != nil || !errors.As(why.Refused, &x509.HostnameError{}) {
		t.Errorf("judgement: %+v", why)
	}
	if o.Err != nil || !o.STARTTLS || o.Version == "" || o.Greeting != "origin.example.org" || len(o.Chain) != 1 || trust.PinOf(o.Chain[0]) != trust.PinOf(inner.Certificate) {
		t.Errorf("origin: %+v", o)
	}
	d := got.Domains["example.org"]
	if d.Err != nil || len(d.MX) != 1 || d.MX[0] != "mx.example.org" || len(d.TLSA["mx.example.org"].List) != 1 || !d.TLSA["mx.example.org"].Secure || len(d.Addresses["mx.example.org"]) != 1 || !d.STS.Announced || d.STS.Err != nil || !d.STS.matches("mx.example.org") || d.STS.matches("a.mx.example.org") || d.STS.matches("example.org") {
		t.Errorf("domain: %+v", d)
	}
}

// TestServicesOfOneOrigin: each service judges it by its own policy, and what it
// offers is told once.
func TestServicesOfOneOrigin(t *testing.T) {
	ca := pki.New("test")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := peer.Serve(peer.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{"origin.example.org"}).TLS()}}}, ln)
	defer origin.Close()
	at := netip.MustParseAddrPort(ln.Addr().String())
	service := func(name string, mode config.TLSMode, o config.TLSOrigin) config.Service {
		return config.Service{Name: name, Origins: []netip.AddrPort{at}, TLS: config.TLS{Mode: mode, Origin: o}}
	}
	c := &config.Config{Services: []config.Service{
		service("carries", config.TLSPassthrough, config.TLSOrigin{}),
		service("pins", config.TLSMirror, config.TLSOrigin{Verify: config.OriginPin}),
		service("pins-too", config.TLSMirror, config.TLSOrigin{Verify: config.OriginPin}),
		service("names", config.TLSMirror, config.TLSOrigin{Verify: config.OriginCA, Name: "other.example.org"}),
		service("cannot", config.TLSMirror, config.TLSOrigin{Verify: config.OriginCA, CA: "/ca.pem"}),
	}}
	seen := LookTLS(t.Context(), c, Published{}, func(o config.TLSOrigin) (*trust.Policy, error) {
		switch {
		case o.CA != "":
			return nil, errors.New("no such file")
		case o.Verify == config.OriginPin:
			return &trust.Policy{Method: trust.Pins, Pins: []trust.Pin{{}}}, nil
		case o.Verify == config.OriginCA:
			return &trust.Policy{Method: trust.Roots, Name: o.Name, Pool: ca.Pool()}, nil
		}
		return &trust.Policy{}, nil
	})
	e := begin(c, Machine{TLS: seen, Now: time.Now()})
	tlsTopic{e}.judge()
	want := []string{
		"offers TLS 1.3, ",
		"its key is none of those under tls.origin.pins of service pins:",
		"its key is none of those under tls.origin.pins of service pins-too:",
		"its certificate is refused, as verify: ca of service names asks",
		"nothing of it can be judged as tls.origin asks: no such file",
	}
	if len(e.report()) != len(want) {
		t.Fatalf("found\n%+v", e.report())
	}
	for i, f := range e.report() {
		if f.Object != "origin "+at.String() || !strings.HasPrefix(f.Text, want[i]) {
			t.Errorf("found %s, want %s", f, want[i])
		}
	}
	if n := len(origin.Sessions()); n != 3 { // with RSA key exchange, and without it with and without the name
		t.Errorf("the origin was asked %d times", n)
	}
}

// TestOriginKnowsRSAOnly: it is talked to as sessions do, which offer such an origin
// nothing where it has to prove who it is.
func TestOriginKnowsRSAOnly(t *testing.T) {
	pair := pki.New("test").IssueFor(pki.RSA(), []string{"origin.example.org"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	suite := uint16(tls.TLS_RSA_WITH_AES_256_CBC_SHA)
	origin := peer.Serve(peer.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{pair.TLS()}, CipherSuites: []uint16{suite}, MaxVersion: tls.VersionTLS12}}, ln)
	defer origin.Close()
	at := netip.MustParseAddrPort(ln.Addr().String())
	c := &config.Config{Services: []config.Service{
		{Name: "any", Origins: []netip.AddrPort{at}, TLS: config.TLS{Mode: config.TLSMirror}},
		{Name: "pins", Origins: []netip.AddrPort{at}, TLS: config.TLS{Mode: config.TLSMirror, Origin: config.TLSOrigin{Verify: config.OriginPin}}},
	}}
	seen := LookTLS(t.Context(), c, Published{}, func(o config.TLSOrigin) (*trust.Policy, error) {
		if o.Verify == config.OriginPin {
			return &trust.Policy{Method: trust.Pins, Pins: []trust.Pin{trust.PinOf(pair.Certificate)}}, nil
		}
		return &trust.Policy{}, nil
	})
	if o := seen.Offers[Asked{Origin: at}]; o.Err != nil || o.Suite != suite {
		t.Errorf("one that can be anybody: %+v", o)
	}
	if o := seen.Offers[Asked{Origin: at, Proof: true}]; o.Err == nil || o.Version != "" {
		t.Errorf("one that has to prove who it is: %+v", o)
	}
	if j := seen.Judgements[Judge{"pins", at}]; !j.Proof {
		t.Errorf("the judgement: %+v", j)
	}
}

// publish serves what a domain publishes.
func publish(t *testing.T, ca *pki.Authority, policy string) (*nameserver.Server, uint16) {
	t.Helper()
	s, err := nameserver.Serve("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Secure("_25._tcp.mx.example.org.")
	if err := s.Add("example.org. 60 IN MX 10 mx.example.org.", "_mta-sts.example.org. 60 IN TXT \"v=STSv1; id=1;\"",
		"mta-sts.example.org. 60 IN A 127.0.0.1", "mx.example.org. 60 IN AAAA 2001:db8::1", "_25._tcp.mx.example.org. 60 IN TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Host != "mta-sts.example.org" || q.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, q)
			return
		}
		if strings.HasPrefix(policy, "https:") {
			http.Redirect(w, q, policy, http.StatusFound)
			return
		}
		fmt.Fprint(w, policy)
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue([]string{"mta-sts.example.org"}).TLS()}}
	web.StartTLS()
	t.Cleanup(web.Close)
	return s, netip.MustParseAddrPort(web.Listener.Addr().String()).Port()
}

func TestPolicies(t *testing.T) {
	for text, want := range map[string]string{
		"version: STSv1\r\nmode: none\r\nmax_age: 1\r\n":                      "",
		"version: STSv1\nmode: testing\nmx: a.example\nmax_age: 86400\n":      "",
		"version: STSv1\nmode:testing\nmx: a.example\nmax_age:31557600":       "",
		"mode: enforce\nmx: a.example\nmax_age: 1\n":                          "version",
		"version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1\n":          "version",
		"version: STSv1\nmode: maybe\nmx: a.example\nmax_age: 1\n":            "mode",
		"version: STSv1\nmode: enforce\nmax_age: 1\n":                         "names no mail server",
		"version: STSv1\nmode: enforce\nmx: a.example\n":                      "max_age",
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 31557601\n":   "max_age",
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n":         "max_age",
		"<html>version: STSv1</html>\nmode: enforce\nmx: a.b\nmax_age: 1\n":   "version",
		"version: STSv2\nversion: STSv1\nmode: none\nmax_age: 1\n":            "version",
		"version: STSv1\nmode: none\nmode: enforce\nmax_age: 1\nmax_age: x\n": "",
	} {
		_, err := parsePolicy(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestAnnouncements(t *testing.T) {
	for _, k := range []struct {
		records []string
		is      bool
		want    string // in the error
	}{
		{nil, false, ""},
		{[]string{"v=spf1", "v=STSv10; id=1", "V=STSv1; id=1;"}, false, ""},
		{[]string{"v=spf1 -all", "v=STSv1; id=20260101T000000;"}, true, ""},
		{[]string{"v=STSv1 ;\tid=1"}, true, ""},
		{[]string{"v=STSv1; x=y; id=1; z=1"}, true, ""},
		{[]string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, true, "2 TXT records"},
		{[]string{"v=STSv1;"}, true, "has no id"},
		{[]string{"v=STSv1"}, true, "has no id"},
		{[]string{"v=STSv1; id=2026-01-01;"}, true, "has no id"},
		{[]string{"v=STSv1; id=" + strings.Repeat("1", 33)}, true, "has no id"},
	} {
		is, err := announced(k.records)
		if is != k.is || (err != nil) != (k.want != "") || err != nil && !strings.Contains(err.Error(), k.want) {
			t.Errorf("%q: %t, %v", k.records, is, err)
		}
	}
}

// TestFetchingPolicies: what senders would not take is told.
func TestFetchingPolicies(t *testing.T) {
	ca := pki.New("test")
	const good = "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n"
	for name, k := range map[string]struct {
		roots  *x509.CertPool
		policy string // where it begins with "https:", a redirect
		want   string
	}{
		"in order":           {ca.Pool(), good, ""},
		"a redirect":         {ca.Pool(), "https://elsewhere.example/mta-sts.txt", "302 Found"},
		"too long":           {ca.Pool(), good + strings.Repeat("#", maxPolicy), "longer than 64 KiB"},
		"of a bad authority": {pki.New("other").Pool(), good, "unknown authority"},
		"a page":             {ca.Pool(), "<html>nothing here", "version is"},
	} {
		names, port := publish(t, ca, k.policy)
		got := Published{DNS: resolve.New(names.Addr), Roots: k.roots, Port: port}.sts(t.Context(), "example.org")
		if !got.Announced || (got.Err != nil) != (k.want != "") || got.Err != nil && !strings.Contains(got.Err.Error(), k.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// FuzzPolicy reads what a stranger has put where a policy should be.
func FuzzPolicy(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n", "v=STSv1; id=1;", "mx.example.org")
	f.Add("version: STSv1\r\nmode: testing\r\nmx: a\r\nmx: *.\r\nmax_age: 1", "v=STSv1", "")
	f.Fuzz(func(t *testing.T, text, record, mx string) {
		s, err := parsePolicy(text)
		if err == nil && (s.Mode == "" || s.Mode != "none" && len(s.MX) == 0) {
			t.Errorf("%q is taken for %+v", text, s)
		}
		if s.matches(mx) != slices.ContainsFunc(s.MX, func(pattern string) bool { return labelled(pattern, mx) }) {
			t.Errorf("%q against %q: %t", s.MX, mx, s.matches(mx))
		}
		if is, err := announced([]string{record}); is && !strings.HasPrefix(record, "v=STSv1") || !is && err != nil {
			t.Errorf("%q announces a policy: %t, %v", record, is, err)
		}
	})
}

// labelled says the same label by label.
func labelled(pattern, name string) bool {
	p, n := strings.Split(pattern, "."), strings.Split(name, ".")
	if len(p) > 1 && p[0] == "*" && len(n) > 1 {
		n[0] = "*"
	}
	return slices.Equal(p, n)
}
