package keyring

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portreeve/portreeve/testenv/pki"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// must is for what cannot fail here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestForms: the forms in which people keep keys and chains.
func TestForms(t *testing.T) {
	ca := pki.New("test")
	between := ca.Intermediate("between")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	rsaKey := pki.RSA().(*rsa.PrivateKey)
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	for _, k := range []struct {
		name       string
		pair       *pki.Pair
		chain, key func(*pki.Pair) []byte // nil: as it is written by pki
		warning    string
	}{
		{name: "PKCS #1", pair: ca.IssueFor(rsaKey, []string{"mx"}), key: func(*pki.Pair) []byte { return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)) }},
		{name: "SEC 1 behind its parameters", pair: ca.IssueFor(p384, []string{"mx"}), key: func(*pki.Pair) []byte {
			return append(block("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p384)))...)
		}},
		{name: "Ed25519", pair: ca.IssueFor(ed, []string{"mx"})},
		{name: "RSA of 1024 bits", pair: ca.IssueFor(small, []string{"mx"}), warning: "an RSA key of 1024 bits"},
		{name: "lines ended by CRLF", pair: between.Issue([]string{"mx"}), chain: func(p *pki.Pair) []byte { return crlf(p.ChainPEM()) }, key: func(p *pki.Pair) []byte { return crlf(p.KeyPEM()) }},
		{name: "text around it", pair: between.Issue([]string{"mx"}), chain: func(p *pki.Pair) []byte { return append([]byte("subject=CN=mx\n"), p.ChainPEM()...) }},
		{name: "root and intermediate the wrong way round", pair: between.Issue([]string{"mx"}), chain: func(p *pki.Pair) []byte {
			return bytes.Join([][]byte{block("CERTIFICATE", p.Chain[0]), ca.PEM(), between.PEM()}, nil)
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			pair := write(t, t.TempDir(), "mx", k.pair)
			if k.chain != nil {
				put(t, pair.Chain, k.chain(k.pair), 0o644)
			}
			if k.key != nil {
				put(t, pair.Key, k.key(k.pair), 0o600)
			}
			ring, news, err := Open(Files{}, []Pair{pair})
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(news[0].Warnings, "\n"); (said == "") != (k.warning == "") || !strings.Contains(said, k.warning) {
				t.Errorf("it warns %q", said)
			}
			if got := shown(t, ring.Config(Clients{Pairs: []Pair{pair}}), "mx"); got != "mx" {
				t.Errorf("shown %s", got)
			}
		})
	}
}

// TestOneFileForBoth: chain and key in one file that is named for both is read; a
// key in a file that is for everybody is not.
func TestOneFileForBoth(t *testing.T) {
	p := pki.New("test").Issue([]string{"mx"})
	pair := write(t, t.TempDir(), "mx", p)
	put(t, pair.Key, append(p.KeyPEM(), p.ChainPEM()...), 0o600)
	if _, _, err := Open(Files{}, []Pair{{Chain: pair.Key, Key: pair.Key}}); err != nil {
		t.Error(err)
	}
	put(t, pair.Chain, append(p.KeyPEM(), p.ChainPEM()...), 0o600)
	if _, _, err := Open(Files{}, []Pair{pair}); err == nil || !strings.Contains(err.Error(), "the file has a private key in it") {
		t.Errorf("a key in the chain's file: %v", err)
	}
}

// TestNoFiles: what is no file is refused at once, also where opening it would wait.
func TestNoFiles(t *testing.T) {
	for _, which := range []string{"chain", "key"} {
		pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx"}))
		name := map[string]string{"chain": pair.Chain, "key": pair.Key}[which]
		remove(t, name)
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, _, err := Open(Files{}, []Pair{pair})
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), name+" is not a file") {
				t.Errorf("a FIFO for %s: %v", which, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("a FIFO for %s is waited for", which)
			if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
				f.Close()
			}
		}
	}
}

// TestKindsThatCannotServe have a sentence each.
func TestKindsThatCannotServe(t *testing.T) {
	p := pki.New("test").Issue([]string{"mx"})
	agreement := must(ecdh.X25519().GenerateKey(rand.Reader))
	for name, k := range map[string]struct {
		key  []byte
		want string
	}{
		"for agreement only": {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(agreement))), "its kind of key cannot sign"},
		"DSA":                {block("DSA PRIVATE KEY", []byte{0x30, 3, 2, 1, 0}), "neither a PKCS #8"},
		"of old OpenSSL":     {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("secret")}), "it is encrypted"},
		"empty":              {nil, "no private key in PEM"},
		"cut off":            {p.KeyPEM()[:60], "no private key in PEM"},
	} {
		pair := write(t, t.TempDir(), "mx", p)
		put(t, pair.Key, k.key, 0o600)
		if _, _, err := Open(Files{}, []Pair{pair}); err == nil || !strings.Contains(err.Error(), k.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRenewals: what renewal programs do, seen between any two of their steps:
// clients see the old certificate or the new one, never neither.
func TestRenewals(t *testing.T) {
	ca := pki.New("test")
	before, after := ca.Issue([]string{"old"}), ca.Issue([]string{"new"})
	atomically := func(path string, data []byte, m os.FileMode) func(*testing.T) {
		return func(t *testing.T) {
			put(t, path+".new", data, m)
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
	}
	inPlace := func(path string, data []byte, m os.FileMode) []func(*testing.T) {
		return []func(*testing.T){
			func(t *testing.T) { put(t, path, nil, m) },
			func(t *testing.T) { put(t, path, data[:len(data)/2], m) },
			func(t *testing.T) { put(t, path, data, m) },
		}
	}
	for name, steps := range map[string]func(dir string, p Pair) []func(*testing.T){
		"renamed, chain first": func(_ string, p Pair) []func(*testing.T) {
			return []func(*testing.T){atomically(p.Chain, after.ChainPEM(), 0o644), atomically(p.Key, after.KeyPEM(), 0o600)}
		},
		"renamed, key first": func(_ string, p Pair) []func(*testing.T) {
			return []func(*testing.T){atomically(p.Key, after.KeyPEM(), 0o600), atomically(p.Chain, after.ChainPEM(), 0o644)}
		},
		"in place (acme.sh)": func(_ string, p Pair) []func(*testing.T) {
			return append(inPlace(p.Key, after.KeyPEM(), 0o600), inPlace(p.Chain, after.ChainPEM(), 0o644)...)
		},
		"new names behind links (certbot)": func(dir string, p Pair) []func(*testing.T) {
			link := func(path, to string) func(*testing.T) {
				return func(t *testing.T) {
					remove(t, path)
					if err := os.Symlink(to, path); err != nil {
						t.Fatal(err)
					}
				}
			}
			return []func(*testing.T){
				func(t *testing.T) {
					put(t, dir+"/privkey2.pem", after.KeyPEM(), 0o600)
					put(t, dir+"/fullchain2.pem", after.ChainPEM(), 0o644)
				},
				link(p.Key, "privkey2.pem"), link(p.Chain, "fullchain2.pem"),
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pair := write(t, dir, "mx", before)
			ring := open(t, pair)
			c := ring.Config(Clients{Pairs: []Pair{pair}})
			list := steps(dir, pair)
			for n, step := range list {
				step(t)
				ring.Refresh()
				want := "old"
				if n == len(list)-1 {
					want = "new"
				}
				if got := shown(t, c, ""); got != want {
					t.Errorf("after step %d clients see %s, not %s", n+1, got, want)
				}
			}
		})
	}
}

// TestTroubleComesBack: what is well again in between is told again.
func TestTroubleComesBack(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx"}))
	ring := open(t, pair)
	for _, k := range []struct {
		from, to string
		news     int
	}{{pair.Key, pair.Key + ".away", 1}, {pair.Key + ".away", pair.Key, 0}, {pair.Key, pair.Key + ".away", 1}} {
		if err := os.Rename(k.from, k.to); err != nil {
			t.Fatal(err)
		}
		if news := ring.Refresh(); len(news) != k.news {
			t.Errorf("after mv %s %s: %+v", k.from, k.to, news)
		}
	}
}

// resumes reports whether a client with a cache takes its session up again.
func resumes(t *testing.T, c *tls.Config, client *tls.Config) bool {
	t.Helper()
	var resumed bool
	client.VerifyConnection = func(s tls.ConnectionState) error {
		resumed = s.DidResume
		return nil
	}
	shown(t, c, "mx", func(asks *tls.Config) {
		asks.ClientSessionCache, asks.VerifyConnection, asks.Certificates, asks.MaxVersion = client.ClientSessionCache, client.VerifyConnection, client.Certificates, tls.VersionTLS12
	})
	return resumed
}

// TestTicketsExpire: a ticket is good for a week at most, and each day has a key of
// its own: who gets hold of one day's key cannot open what comes after.
func TestTicketsExpire(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").Issue([]string{"mx"}))
	began := time.Now()
	now := began
	c := open(t, pair).Config(Clients{Pairs: []Pair{pair}})
	c.Time = func() time.Time { return now }
	first := &tickets{}
	if resumes(t, c, &tls.Config{ClientSessionCache: first}) {
		t.Fatal("there was nothing to take up")
	}
	firstDay := c.Clone() // with that day's keys, for good
	firstDay.Time = func() time.Time { return began }
	if !resumes(t, c, &tls.Config{ClientSessionCache: first.frozen()}) || !resumes(t, firstDay, &tls.Config{ClientSessionCache: first.frozen()}) {
		t.Error("not taken up on its day")
	}
	for day := 1; day <= 6; day++ {
		now = now.Add(24*time.Hour + time.Second)
		later := &tickets{}
		resumes(t, c, &tls.Config{ClientSessionCache: later})
		if !resumes(t, c, &tls.Config{ClientSessionCache: later.frozen()}) {
			t.Errorf("day %d: not taken up on its day", day)
		}
		if resumes(t, firstDay, &tls.Config{ClientSessionCache: later.frozen()}) {
			t.Errorf("day %d: the key is that of the first", day)
		}
		if !resumes(t, c, &tls.Config{ClientSessionCache: first.frozen()}) {
			t.Errorf("day %d: a ticket of the first is worth nothing", day)
		}
	}
	now = now.Add(24 * time.Hour)
	if resumes(t, c, &tls.Config{ClientSessionCache: first.frozen()}) {
		t.Error("a ticket is good for more than a week")
	}
}

// tickets is a client's memory of one session.
type tickets struct {
	state *tls.ClientSessionState
	full  bool
}

// frozen returns a memory with the same session, which learns no other.
func (s *tickets) frozen() *tickets { return &tickets{s.state, true} }

func (s *tickets) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.state != nil }

func (s *tickets) Put(_ string, state *tls.ClientSessionState) {
	if !s.full {
		s.state = state
	}
}

// TestTicketsStayInTheirService: a ticket of a service that asks for no
// certificates is worth nothing at one that requires them.
func TestTicketsStayInTheirService(t *testing.T) {
	ca := pki.New("test")
	pair := write(t, t.TempDir(), "mx", ca.Issue([]string{"mx"}))
	ring := open(t, pair)
	lax := ring.Config(Clients{Pairs: []Pair{pair}})
	strict := ring.Config(Clients{Pairs: []Pair{pair}, Auth: tls.RequireAndVerifyClientCert, Roots: ca.Pool()})
	client := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), Certificates: []tls.Certificate{ca.Issue([]string{"client"}).TLS()}}
	resumes(t, lax, client)
	if !resumes(t, lax, client) {
		t.Error("not taken up where it is from")
	}
	if resumes(t, strict, client) {
		t.Error("a session without a certificate was taken up where one is required")
	}
	if !resumes(t, strict, client) {
		t.Error("not taken up where it is from, with a certificate")
	}
	if resumes(t, lax, client) {
		t.Error("the two share keys")
	}
}
