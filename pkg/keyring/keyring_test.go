package keyring

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv/pki"
)

// write puts a pair into a directory.
func write(t *testing.T, dir, name string, p *pki.Pair) Pair {
	t.Helper()
	chain, key, err := p.Write(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{chain, key}
}

func open(t *testing.T, pairs ...Pair) *Ring {
	t.Helper()
	r, _, err := Open(Files{}, pairs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// shown returns whose certificate a client sees that asks for name.
func shown(t *testing.T, c *tls.Config, name string, options ...func(*tls.Config)) string {
	t.Helper()
	got, err := seen(c, append(options, func(asks *tls.Config) { asks.ServerName = name })...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// seen is shown, for a handshake that may fail.
func seen(c *tls.Config, options ...func(*tls.Config)) (string, error) {
	s, err := agreed(c, options...)
	if err != nil {
		return "", err
	}
	return s.PeerCertificates[0].Subject.CommonName, nil
}

// agreed is what a client sees of a handshake.
func agreed(c *tls.Config, options ...func(*tls.Config)) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		tls.Server(b, c).Handshake()
		b.Close()
	}()
	asks := &tls.Config{InsecureSkipVerify: true}
	for _, o := range options {
		o(asks)
	}
	client := tls.Client(a, asks)
	err := client.Handshake()
	return client.ConnectionState(), err
}

func TestChoice(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pairs := []Pair{
		write(t, dir, "default", ca.Issue([]string{"default.example"})),
		write(t, dir, "a", ca.Issue([]string{"a.example", "*.a.example"})),
		write(t, dir, "b", ca.Issue([]string{"b.example"})),
		write(t, dir, "rsa", ca.IssueFor(key, []string{"rsa.example", "b.example"})),
	}
	c := open(t, pairs...).Config(Clients{Pairs: pairs, Minimum: tls.VersionTLS12})
	for name, want := range map[string]string{
		"":                  "default.example",
		"unknown.example":   "default.example",
		"default.example":   "default.example",
		"A.Example":         "a.example",
		"mx.a.example":      "a.example",
		"mx.mx.a.example":   "default.example",
		"b.example":         "b.example",
		"xn--nothing.b.exa": "default.example",
	} {
		if got := shown(t, c, name); got != want {
			t.Errorf("a client that asks for %q sees %s, not %s", name, got, want)
		}
	}
	for _, name := range []string{"b.example", "", "a.example"} {
		if got := shown(t, c, name, knowing["RSA"]); got != "rsa.example" {
			t.Errorf("a client that knows RSA only and asks for %q sees %s", name, got)
		}
	}
}

// knowing are clients that can use keys of one kind only.
var knowing = map[string]func(*tls.Config){
	"RSA": func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	},
	"ECDSA": func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	},
	"both": func(*tls.Config) {},
}

// altered makes clients say what Go's own would not say.
func altered(c *tls.Config, alter func(*tls.ClientHelloInfo)) *tls.Config {
	c = c.Clone()
	choose := c.GetCertificate
	c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		other := *h
		alter(&other)
		return choose(&other)
	}
	return c
}

// asking makes clients ask for a name, which may be an address.
func asking(c *tls.Config, name string) *tls.Config {
	return altered(c, func(h *tls.ClientHelloInfo) { h.ServerName = name })
}

// TestNamesOfTheDefault: who asks for no name of ours sees one of the default's names,
// with the kind of key that it can use. Only where there is none it sees another.
func TestNamesOfTheDefault(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	both := []string{"mx.example", "mail.example", "192.0.2.1"}
	pair := func(name, kind string, names ...string) Pair {
		if kind == "RSA" {
			return write(t, dir, name, ca.IssueFor(pki.RSA(), append([]string{name}, names...)))
		}
		return write(t, dir, name, ca.Issue(append([]string{name}, names...)))
	}
	var (
		ecDefault, rsaDefault = pair("ec-default", "ECDSA", both...), pair("rsa-default", "RSA", both...)
		ecTwin, rsaTwin       = pair("ec-twin", "ECDSA", both...), pair("rsa-twin", "RSA", both...)
		rsaPart               = pair("rsa-part", "RSA", "mail.example")
		rsaWide               = pair("rsa-wide", "RSA", "*.example")
		rsaOther, ecOther     = pair("rsa-other", "RSA", "other.example", "2001:db8::1"), pair("ec-other", "ECDSA", "other.example")
	)
	for what, k := range map[string]struct {
		pairs []Pair
		knows string
		want  string
		names []string // nil: those that no certificate is for
	}{
		"RSA client":                      {[]Pair{ecDefault, rsaOther, rsaTwin}, "RSA", "rsa-twin", nil},
		"ECDSA client":                    {[]Pair{rsaDefault, ecOther, ecTwin}, "ECDSA", "ec-twin", nil},
		"client of both":                  {[]Pair{ecDefault, rsaOther, rsaTwin}, "both", "ec-default", nil},
		"client of the default's key":     {[]Pair{rsaDefault, rsaTwin, ecTwin}, "RSA", "rsa-default", nil},
		"most of its names":               {[]Pair{ecDefault, rsaPart, rsaTwin}, "RSA", "rsa-twin", nil},
		"some of its names":               {[]Pair{ecDefault, rsaOther, rsaPart}, "RSA", "rsa-part", nil},
		"names by a wildcard":             {[]Pair{ecDefault, rsaOther, rsaPart, rsaWide}, "RSA", "rsa-wide", nil},
		"none of its names":               {[]Pair{ecDefault, ecTwin, rsaOther}, "RSA", "rsa-other", nil},
		"none that the client can use":    {[]Pair{rsaDefault, rsaOther}, "ECDSA", "rsa-default", nil},
		"a name of another":               {[]Pair{ecDefault, rsaTwin, rsaOther}, "RSA", "rsa-other", []string{"other.example", "2001:db8::1"}},
		"a name whose key does not help":  {[]Pair{ecDefault, rsaOther, ecOther, rsaTwin}, "RSA", "rsa-twin", []string{"ec-other"}},
		"a name of the default":           {[]Pair{rsaOther, ecDefault, rsaTwin}, "RSA", "rsa-twin", []string{"mail.example", "192.0.2.1"}},
		"a name of two, listed before it": {[]Pair{ecOther, ecDefault, ecTwin}, "ECDSA", "ec-default", []string{"mx.example"}},
	} {
		if k.names == nil {
			k.names = []string{"", "unknown.test", "203.0.113.9", "2001:db8::9"}
		}
		config := open(t, k.pairs...).Config(Clients{Pairs: k.pairs, Minimum: tls.VersionTLS12})
		for _, name := range k.names {
			got, err := seen(asking(config, name), knowing[k.knows])
			if what == "none that the client can use" {
				if err == nil {
					t.Errorf("%s: it sees %s", what, got)
				}
				if c, err := config.GetCertificate(&tls.ClientHelloInfo{ServerName: name}); err != nil || c.Leaf.Subject.CommonName != k.want {
					t.Errorf("%s: it would see %v, %v", what, c, err)
				}
				continue
			}
			if err != nil || got != k.want {
				t.Errorf("%s: one that asks for %q sees %s, not %s: %v", what, name, got, k.want, err)
			}
		}
	}
}

// TestNamesChange: the order is that of the certificates in use.
func TestNamesChange(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pairs := []Pair{
		write(t, dir, "default", ca.Issue([]string{"old.example"})),
		write(t, dir, "a", ca.IssueFor(pki.RSA(), []string{"a", "old.example"})),
		write(t, dir, "b", ca.IssueFor(pki.RSA(), []string{"b", "new.example"})),
	}
	r := open(t, pairs...)
	c := r.Config(Clients{Pairs: pairs})
	if got := shown(t, c, "", knowing["RSA"]); got != "a" {
		t.Errorf("at first it sees %s", got)
	}
	write(t, dir, "default", ca.Issue([]string{"new.example"}))
	r.Refresh()
	if got := shown(t, c, "", knowing["RSA"]); got != "b" {
		t.Errorf("after the change it sees %s", got)
	}
}

func TestRefresh(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pair := write(t, dir, "mx", ca.Issue([]string{"old.example"}))
	r := open(t, pair)
	c := r.Config(Clients{Pairs: []Pair{pair}})
	if news := r.Refresh(); len(news) != 0 {
		t.Errorf("nothing has changed, and it says %+v", news)
	}
	write(t, dir, "mx", ca.Issue([]string{"new.example"}))
	if news := r.Refresh(); len(news) != 1 || news[0].Certificate == nil || news[0].Err != nil {
		t.Errorf("after a change: %+v", news)
	}
	if got := shown(t, c, ""); got != "new.example" {
		t.Errorf("clients see %s", got)
	}
	// Half a pair, as between the two renames of a renewal.
	if err := os.WriteFile(pair.Key, pki.New("x").Issue([]string{"x"}).KeyPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if news := r.Refresh(); len(news) != 1 || news[0].Err == nil {
		t.Errorf("with another key: %+v", news)
	}
	if news := r.Refresh(); len(news) != 0 {
		t.Errorf("the same trouble is told again: %+v", news)
	}
	if got := shown(t, c, ""); got != "new.example" {
		t.Errorf("clients see %s", got)
	}
	write(t, dir, "mx", ca.Issue([]string{"last.example"}))
	if news := r.Refresh(); len(news) != 1 || news[0].Err != nil {
		t.Errorf("when it is in order again: %+v", news)
	}
	if got := shown(t, c, ""); got != "last.example" {
		t.Errorf("clients see %s", got)
	}
}

// TestTicketsOutliveACertificate: a session can be taken up again after a change,
// for the keys of tickets are not those of certificates.
func TestTicketsOutliveACertificate(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pair := write(t, dir, "mx", ca.Issue([]string{"mx.example"}))
	r := open(t, pair)
	c := r.Config(Clients{Pairs: []Pair{pair}})
	cache := tls.NewLRUClientSessionCache(1)
	remember := func(c *tls.Config) { c.ClientSessionCache, c.MaxVersion = cache, tls.VersionTLS12 }
	shown(t, c, "mx.example", remember)
	write(t, dir, "mx", ca.Issue([]string{"mx.example"}))
	r.Refresh()
	a, b := net.Pipe()
	go tls.Server(b, c).Handshake()
	client := tls.Client(a, &tls.Config{ServerName: "mx.example", InsecureSkipVerify: true, ClientSessionCache: cache, MaxVersion: tls.VersionTLS12})
	if err := client.Handshake(); err != nil || !client.ConnectionState().DidResume {
		t.Errorf("not taken up again: %v", err)
	}
}

func TestExpiring(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	pairs := []Pair{
		write(t, dir, "good", ca.Issue([]string{"a.example"})),
		write(t, dir, "soon", ca.Issue([]string{"b.example"}, pki.Until(time.Now().AddDate(0, 0, 10)))),
		write(t, dir, "gone", ca.Issue([]string{"c.example"}, pki.Expired)),
	}
	r := open(t, pairs...)
	if late := r.Expiring(time.Now()); len(late) != 1 || late[0] != pairs[2] {
		t.Errorf("expired: %v", late)
	}
	if late := r.Expiring(time.Now().AddDate(0, 0, 14)); len(late) != 2 || late[0] != pairs[1] {
		t.Errorf("in a fortnight: %v", late)
	}
}

// TestBadFiles: each is refused with the sentence that helps.
func TestBadFiles(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	good := ca.Issue([]string{"mx.example"})
	der, _ := pem.Decode(good.KeyPEM())
	for _, k := range []struct {
		name, want string
		spoil      func(t *testing.T, p Pair)
	}{
		{"no chain", "cannot read", func(t *testing.T, p Pair) { remove(t, p.Chain) }},
		{"no key", "cannot read", func(t *testing.T, p Pair) { remove(t, p.Key) }},
		{"empty chain", "no certificate in PEM", func(t *testing.T, p Pair) { put(t, p.Chain, nil, 0o644) }},
		{"broken chain", "certificate 1 of the file cannot be read", func(t *testing.T, p Pair) {
			put(t, p.Chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2, 3}}), 0o644)
		}},
		{"authority first", "put the server's own first", func(t *testing.T, p Pair) { put(t, p.Chain, append(ca.PEM(), good.ChainPEM()...), 0o644) }},
		{"key of another", "belongs to another certificate", func(t *testing.T, p Pair) { put(t, p.Key, ca.Issue([]string{"x"}).KeyPEM(), 0o600) }},
		{"no key in the file", "no private key in PEM", func(t *testing.T, p Pair) { put(t, p.Key, good.ChainPEM(), 0o600) }},
		{"key in no form", "neither a PKCS #8", func(t *testing.T, p Pair) {
			put(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), 0o600)
		}},
		{"encrypted key", "it is encrypted", func(t *testing.T, p Pair) {
			put(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der.Bytes}), 0o600)
		}},
		{"key for everybody", "chmod 600", func(t *testing.T, p Pair) { mode(t, p.Key, 0o644) }},
		{"key that others change", "chmod 600", func(t *testing.T, p Pair) { mode(t, p.Key, 0o660) }},
		{"directory", "is not a file", func(t *testing.T, p Pair) {
			remove(t, p.Key)
			if err := os.Mkdir(p.Key, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"too large", "larger than 1024 KiB", func(t *testing.T, p Pair) { put(t, p.Chain, make([]byte, maxFile+1), 0o644) }},
	} {
		t.Run(k.name, func(t *testing.T) {
			sub := filepath.Join(dir, strings.ReplaceAll(k.name, " ", "-"))
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			p := write(t, sub, "mx", good)
			k.spoil(t, p)
			_, _, err := Open(Files{}, []Pair{p})
			if err == nil || !strings.Contains(err.Error(), k.want) || !strings.Contains(err.Error(), p.Chain) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the key is in the error: %v", err)
			}
		})
	}
}

func TestGroupMayRead(t *testing.T) {
	p := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx.example"}))
	mode(t, p.Key, 0o640)
	_, news, err := Open(Files{}, []Pair{p})
	if err != nil || len(news) != 1 || len(news[0].Warnings) != 1 || !strings.Contains(news[0].Warnings[0], "by its group") {
		t.Errorf("got %+v, %v", news, err)
	}
}

// TestKeyOfTwoNames: only the one that is known is kept from the inspector.
func TestKeyOfTwoNames(t *testing.T) {
	p := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx.example"}))
	if err := os.Link(p.Key, p.Key+".again"); err != nil {
		t.Fatal(err)
	}
	_, news, err := Open(Files{}, []Pair{p})
	if err != nil || len(news) != 1 || len(news[0].Warnings) != 1 || !strings.Contains(news[0].Warnings[0], "is a file of 2 names") {
		t.Errorf("got %+v, %v", news, err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path string, data []byte, m os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, m); err != nil {
		t.Fatal(err)
	}
}

func mode(t *testing.T, path string, m os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
}
