package keeper

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/testenv/pki"
)

// TestBurst: more handshakes at once than the socket has room for come to an end.
func TestBurst(t *testing.T) {
	p := pki.New("test").Issue([]string{"mx.example"})
	pair := write(t, t.TempDir(), "mx", p)
	keys := start(t, pair)
	l, err := keys.Load(pair, "")
	if err != nil {
		t.Fatal(err)
	}
	signer := l.Certificate.PrivateKey.(crypto.Signer)
	public := p.Certificate.PublicKey.(*ecdsa.PublicKey)
	var all sync.WaitGroup
	for i := range 5000 {
		all.Go(func() {
			digest := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			s, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(public, digest[:], s) {
				t.Errorf("signature %d is another's, or %v", i, err)
			}
		})
	}
	all.Wait()
}

// idOf returns the name of a key that was loaded.
func idOf(l *keyring.Loaded) keyID {
	if k, is := l.Certificate.PrivateKey.(*remoteRSA); is {
		return k.id
	}
	return l.Certificate.PrivateKey.(*remote).id
}

// TestOnlyHandshakes: what no handshake asks for is not signed, and a request for
// it does not end the holder.
func TestOnlyHandshakes(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]keyring.Pair{
		"rsa": write(t, dir, "rsa", ca.IssueFor(pki.RSA(), []string{"a"})),
		"ec":  write(t, dir, "ec", ca.Issue([]string{"b"})),
		"ed":  write(t, dir, "ed", ca.IssueFor(edKey, []string{"c"})),
	}
	keys := start(t, pairs["rsa"], pairs["ec"], pairs["ed"])
	ids := map[string]keyID{}
	for name, p := range pairs {
		l, err := keys.Load(p, "")
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = idOf(l)
	}
	digest, long := make([]byte, 32), make([]byte, 48)
	for _, k := range []struct {
		what  string
		key   string
		as    sign
		fails bool
	}{
		{"PKCS #1", "rsa", sign{Digest: digest, Hash: crypto.SHA256}, false},
		{"PSS", "rsa", sign{Digest: long, Hash: crypto.SHA384, PSS: true}, false},
		{"ECDSA", "ec", sign{Digest: digest, Hash: crypto.SHA256}, false},
		{"Ed25519", "ed", sign{Digest: []byte("a message"), Hash: 0}, false},
		{"octets as they are, PKCS #1", "rsa", sign{Digest: digest}, true},
		{"octets as they are, PSS", "rsa", sign{Digest: digest, PSS: true}, true},
		{"octets as they are, ECDSA", "ec", sign{Digest: digest}, true},
		{"a digest of another length", "rsa", sign{Digest: long, Hash: crypto.SHA256}, true},
		{"a digest of another length, PSS", "rsa", sign{Digest: digest[:31], Hash: crypto.SHA256, PSS: true}, true},
		{"no digest", "ec", sign{Hash: crypto.SHA256}, true},
		{"an old hash", "rsa", sign{Digest: digest[:20], Hash: crypto.SHA1}, true},
		{"a hash that is not built in", "rsa", sign{Digest: digest[:16], Hash: crypto.MD4, PSS: true}, true},
		{"a hash that does not exist", "rsa", sign{Digest: digest, Hash: 99, PSS: true}, true},
		{"PSS with an EC key", "ec", sign{Digest: digest, Hash: crypto.SHA256, PSS: true}, true},
		{"a hash with Ed25519", "ed", sign{Digest: make([]byte, 64), Hash: crypto.SHA512}, true},
	} {
		k.as.Key = ids[k.key]
		a, err := keys.ask(request{Sign: &k.as})
		if (err != nil) != k.fails || (len(a.Signature) > 0) == k.fails || errors.Is(err, errGone) {
			t.Errorf("%s: %d octets, %v", k.what, len(a.Signature), err)
		}
	}
	if _, err := keys.ask(request{}); err == nil || errors.Is(err, errGone) {
		t.Errorf("nothing asked for: %v", err)
	}
}

// TestKinds: handshakes with each kind of key, in both versions.
func TestKinds(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*pki.Pair{"rsa": ca.IssueFor(pki.RSA(), []string{"rsa"}), "ed": ca.IssueFor(edKey, []string{"ed"})} {
		pair := write(t, dir, name, p)
		ring, _, err := keyring.Open(start(t, pair), []keyring.Pair{pair})
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := ring.Config(keyring.Clients{Pairs: []keyring.Pair{pair}})
			if got := handshake(t, config, &tls.Config{ServerName: name, RootCAs: ca.Pool(), MaxVersion: version}); got != name {
				t.Errorf("%s, %s: shown %s", name, tls.VersionName(version), got)
			}
		}
	}
}

// TestGarbage: whatever comes in place of a request ends the holder, in order and
// without taking memory for what is only promised.
func TestGarbage(t *testing.T) {
	message := func(n uint32, body string) string { return string(binary.BigEndian.AppendUint32(nil, n)) + body }
	for what, sent := range map[string]string{
		"text":            "EHLO there\r\n",
		"a huge length":   message(1<<32-1, "x"),
		"just too long":   message(maxRequest+1, strings.Repeat(" ", maxRequest+1)),
		"no JSON":         message(4, "\x00\x01\x02\x03"),
		"another type":    message(9, `{"ID":"x"}`),
		"an octet":        "\x00",
		"a part":          message(100, `{"ID":1`),
		"nothing in it":   message(0, ""),
		"deeply nested":   message(40000, strings.Repeat("[", 40000)),
		"a negative hash": message(22, `{"Sign":{"Hash":-123}}`),
	} {
		a, b := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- newHolder(b, keyring.Files{}, nil).serve()
			b.Close()
		}()
		go io.Copy(io.Discard, a)
		io.WriteString(a, sent) // the end may come before all is written
		a.Close()
		if err := <-ended; err != nil && !strings.HasPrefix(err.Error(), "hold keys: read a request: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// stuck is a file system that hangs.
type stuck struct{ until chan struct{} }

func (s stuck) Load(keyring.Pair, string) (*keyring.Loaded, error) {
	<-s.until
	return nil, errors.New("back again")
}

// TestSlowFiles: while a pair cannot be read, signatures are made, and whoever
// wants the pair is told.
func TestSlowFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pki.New("test").Issue([]string{"mx"})
		pair := keyring.Pair{Chain: "/mx.pem", Key: "/mx.key"}
		files := stuck{make(chan struct{})}
		a, b := net.Pipe()
		h := newHolder(b, files, granted(pair))
		h.have["id"] = key{Signer: p.Key}
		go h.serve()
		keys := newKeys(a)
		first := make(chan error)
		go func() {
			_, err := keys.Load(pair, "")
			first <- err
		}()
		synctest.Wait()
		if _, err := (&remote{keys, "id", p.Key.Public()}).Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
			t.Errorf("no signature meanwhile: %v", err)
		}
		if _, err := keys.Load(pair, ""); err == nil || !strings.Contains(err.Error(), "still being read") {
			t.Errorf("the next to ask: %v", err)
		}
		began := time.Now()
		if err := <-first; !errors.Is(err, errSlow) || time.Since(began) != patience {
			t.Errorf("the first, after %s: %v", time.Since(began), err)
		}
		if len(keys.waiting) > 0 {
			t.Error("who has gone is still waited for")
		}
		close(files.until)
		synctest.Wait()
		if _, err := keys.Load(pair, ""); err == nil || err.Error() != "back again" {
			t.Errorf("afterwards: %v", err)
		}
		keys.Close()
		b.Close()
	})
}

// TestHolderTakesNothing: a holder that is stopped keeps nobody longer than one that
// does not answer, and after the first nobody at all.
func TestHolderTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pki.New("test").Issue([]string{"mx"})
		a, b := net.Pipe()
		defer b.Close()
		keys := newKeys(a)
		began := time.Now()
		for range 2 {
			if _, err := (&remote{keys, "id", p.Key.Public()}).Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, errGone) {
				t.Errorf("a signature: %v", err)
			}
		}
		if took := time.Since(began); took != patience {
			t.Errorf("they waited %s", took)
		}
		<-keys.Gone()
	})
}

// FuzzRequests sends the holder what one who has taken the inspector over might.
// It must neither panic nor sign anything but what the key's owner would verify, and what
// it decrypts has one length.
func FuzzRequests(f *testing.F) {
	private := pki.RSA().(*rsa.PrivateKey)
	for _, q := range []request{
		{ID: 1, Sign: &sign{Key: "id", Digest: make([]byte, 32), Hash: crypto.SHA256}},
		{ID: 2, Sign: &sign{Key: "id", Digest: make([]byte, 48), Hash: crypto.SHA384, PSS: true}},
		{ID: 3, Load: &load{keyring.Pair{Chain: "/a", Key: "/b"}, "stamp"}},
		{ID: 4, Decrypt: &decrypt{Key: "id", Ciphertext: make([]byte, 256)}},
		{ID: 4, Decrypt: &decrypt{Key: "id", Ciphertext: make([]byte, 255)}}, // the same number
		{ID: 4, Decrypt: &decrypt{Key: "id", Ciphertext: make([]byte, 257)}},
		{ID: 5, Decrypt: &decrypt{Key: "id", Ciphertext: encrypted(f, &private.PublicKey, make([]byte, secretSize))}},
		{},
	} {
		body, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		whole := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
		out := &answers{}
		h := newHolder(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(string(whole) + string(whole)), out}, nil, nil)
		h.have["id"] = key{private, true}
		h.serve()
		for range cap(h.turn) {
			h.turn <- struct{}{} // all signatures are made
		}
		for {
			var r reply
			if readMessage(out, maxReply, &r) != nil {
				break
			}
			var q request
			err := json.Unmarshal(body, &q)
			if len(r.Signature) > 0 && (err != nil || !verifies(&private.PublicKey, q.Sign, r.Signature)) {
				t.Errorf("%q: signed %x, %v", body, r.Signature, err)
			}
			if len(r.Secret) > 0 && (err != nil || len(r.Secret) != secretSize || len(q.Decrypt.Ciphertext) > private.Size()) {
				t.Errorf("%q: decrypted %x, %v", body, r.Secret, err)
			}
		}
	})
}

func verifies(key *rsa.PublicKey, s *sign, signature []byte) bool {
	if s.Hash == 0 {
		return false
	}
	if s.PSS {
		return rsa.VerifyPSS(key, s.Hash, s.Digest, signature, &rsa.PSSOptions{SaltLength: s.Hash.Size()}) == nil
	}
	return rsa.VerifyPKCS1v15(key, s.Hash, s.Digest, signature) == nil
}

// answers is what the holder has written.
type answers struct {
	mu sync.Mutex
	strings.Builder
	read int
}

func (a *answers) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Builder.Write(p)
}

func (a *answers) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := copy(p, a.String()[a.read:])
	a.read += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
