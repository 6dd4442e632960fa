package keyring

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/testenv/pki"
)

// suitesOf are the cipher suites with a word in their names.
func suitesOf(words ...string) (ids []uint16) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(s.Name, "TLS_"+w) }) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// TestRSAKeyExchange: it is for clients that have nothing better, with the certificate
// that they would get anyway, and for nobody where it is turned off.
func TestRSAKeyExchange(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	names := []string{"mx.example"}
	rsa, ec := write(t, dir, "rsa", ca.IssueFor(pki.RSA(), append([]string{"rsa"}, names...))), write(t, dir, "ec", ca.Issue(append([]string{"ec"}, names...)))
	other := write(t, dir, "other", ca.IssueFor(pki.RSA(), []string{"other"}))
	offer := func(words ...string) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, suitesOf(words...) }
	}
	signing := func(s ...tls.SignatureScheme) func(*tls.ClientHelloInfo) {
		return func(h *tls.ClientHelloInfo) { h.SignatureSchemes = s }
	}
	as := func(*tls.ClientHelloInfo) {}
	for what, k := range map[string]struct {
		pairs  []Pair
		offers func(*tls.Config)
		says   func(*tls.ClientHelloInfo)
		want   string // the beginning of the suite, and the certificate; "": the handshake fails
	}{
		"nothing better":                            {[]Pair{rsa}, offer("RSA_"), as, "TLS_RSA_ rsa"},
		"something better":                          {[]Pair{rsa}, offer("RSA_", "ECDHE_RSA_"), as, "TLS_ECDHE_RSA_ rsa"},
		"a version that is better":                  {[]Pair{rsa}, func(*tls.Config) {}, as, "TLS_AES_ rsa"},
		"no signature that we make":                 {[]Pair{rsa}, offer("RSA_", "ECDHE_RSA_"), signing(tls.PKCS1WithSHA1), "TLS_RSA_ rsa"},
		"no signatures at all":                      {[]Pair{rsa}, offer("RSA_", "ECDHE_RSA_"), signing(), "TLS_RSA_ rsa"},
		"something better, for another key":         {[]Pair{rsa, ec}, offer("RSA_", "ECDHE_ECDSA_"), as, "TLS_ECDHE_ECDSA_ ec"},
		"something better, for a key without names": {[]Pair{ec, other}, offer("RSA_", "ECDHE_RSA_"), as, "TLS_ECDHE_RSA_ other"},
		"the names of the default":                  {[]Pair{ec, other, rsa}, offer("RSA_"), as, "TLS_RSA_ rsa"},
		"others' names":                             {[]Pair{ec, other}, offer("RSA_"), as, "TLS_RSA_ other"},
		"a name":                                    {[]Pair{rsa, ec, other}, offer("RSA_"), func(h *tls.ClientHelloInfo) { h.ServerName = "other" }, "TLS_RSA_ other"},
		"no key for it":                             {[]Pair{ec}, offer("RSA_"), as, ""},
	} {
		config := open(t, k.pairs...).Config(Clients{Pairs: k.pairs, Minimum: tls.VersionTLS12, Suites: suitesOf("ECDHE_", "RSA_")})
		if got := result(altered(config, k.says), k.offers); !fits(got, k.want) {
			t.Errorf("%s: got %q, not %q", what, got, k.want)
		}
	}
	off := open(t, rsa).Config(Clients{Pairs: []Pair{rsa}, Minimum: tls.VersionTLS12, Suites: suitesOf("ECDHE_")})
	if got := result(off, offer("RSA_")); got != "" {
		t.Errorf("nothing better, and it is turned off: got %q", got)
	}
	if got := result(off, offer("RSA_", "ECDHE_RSA_")); !fits(got, "TLS_ECDHE_RSA_ rsa") {
		t.Errorf("something better, and it is turned off: got %q", got)
	}
}

// result is the cipher suite and the certificate of a handshake, "" of one that fails.
func result(server *tls.Config, client func(*tls.Config)) string {
	s, err := agreed(server, client)
	if err != nil {
		return ""
	}
	return tls.CipherSuiteName(s.CipherSuite) + " " + s.PeerCertificates[0].Subject.CommonName
}

// fits compares a result with the beginning of a suite and a certificate.
func fits(got, want string) bool {
	begin, end, _ := strings.Cut(want, " ")
	return (got == "") == (want == "") && strings.HasPrefix(got, begin) && strings.HasSuffix(got, end)
}

// TestRSAKeyExchangeResumes: such a session can be taken up again.
func TestRSAKeyExchangeResumes(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").IssueFor(pki.RSA(), []string{"mx"}))
	config := open(t, pair).Config(Clients{Pairs: []Pair{pair}, Suites: suitesOf("ECDHE_", "RSA_")})
	cache := tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		s, err := agreed(config, func(c *tls.Config) {
			c.ServerName, c.ClientSessionCache, c.MaxVersion, c.CipherSuites = "mx", cache, tls.VersionTLS12, suitesOf("RSA_")
		})
		if err != nil || s.DidResume != resumed {
			t.Errorf("resumed %t, not %t: %v", s.DidResume, resumed, err)
		}
	}
}
