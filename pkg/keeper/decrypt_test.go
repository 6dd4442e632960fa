package keeper

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/keyring"
	"github.com/portreeve/portreeve/testenv/pki"
)

// encrypted is what a client makes of a secret.
func encrypted(t testing.TB, public *rsa.PublicKey, secret []byte) []byte {
	t.Helper()
	//lint:ignore SA1019 it is what clients do
	c, err := rsa.EncryptPKCS1v15(rand.Reader, public, secret)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// raised is a block as it is, under the key.
func raised(public *rsa.PublicKey, block []byte) []byte {
	c := new(big.Int).Exp(new(big.Int).SetBytes(block), big.NewInt(int64(public.E)), public.N)
	return c.FillBytes(make([]byte, public.Size()))
}

// TestRSAKeyExchange: clients that know nothing else get through, by each of its suites.
func TestRSAKeyExchange(t *testing.T) {
	pair := write(t, t.TempDir(), "mx", pki.New("test").IssueFor(pki.RSA(), []string{"mx.example"}))
	l, err := start(t, pair).Load(pair, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []uint16{
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	} {
		a, b := net.Pipe()
		server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{l.Certificate}, CipherSuites: []uint16{suite}})
		go func() {
			server.Write([]byte("220 ready"))
			server.Close()
		}()
		client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, CipherSuites: []uint16{suite}, MaxVersion: tls.VersionTLS12})
		said, err := io.ReadAll(client)
		if got := client.ConnectionState().CipherSuite; string(said) != "220 ready" || got != suite {
			t.Errorf("%s: by %s it reads %q, %v", tls.CipherSuiteName(suite), tls.CipherSuiteName(got), said, err)
		}
	}
}

// TestOnlySecrets: the holder decrypts secrets of the one length, and nothing of an
// answer tells what else was in a ciphertext.
func TestOnlySecrets(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	mine := write(t, dir, "mine", ca.IssueFor(pki.RSA(), []string{"mine"}))
	for _, keys := range []*Keys{start(t, mine), start(t, mine)} {
		l, err := keys.Load(mine, "")
		if err != nil {
			t.Fatal(err)
		}
		id, public := idOf(l), l.Certificate.Leaf.PublicKey.(*rsa.PublicKey)
		ask := func(c []byte) ([]byte, error) {
			a, err := keys.ask(request{Decrypt: &decrypt{id, c}})
			return a.Secret, err
		}
		secret := bytes.Repeat([]byte{7}, secretSize)
		if got, err := ask(encrypted(t, public, secret)); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("a secret: %x, %v", got, err)
		}
		block := func(first, second byte, rest []byte) []byte {
			b := bytes.Repeat([]byte{0xff}, public.Size())
			b[0], b[1] = first, second
			copy(b[len(b)-len(rest):], rest)
			return raised(public, b)
		}
		oaep, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		framed := append([]byte{0}, secret...)
		answers := make(map[string]string)
		for what, c := range map[string][]byte{
			"an octet less":      encrypted(t, public, secret[1:]),
			"an octet more":      encrypted(t, public, append(secret, 7)),
			"nothing":            encrypted(t, public, nil),
			"a long text":        encrypted(t, public, make([]byte, public.Size()-11)),
			"OAEP":               oaep,
			"a block type of 1":  block(0, 1, framed),
			"no zero in front":   block(1, 2, framed),
			"no zero in between": block(0, 2, secret),
			"a zero too early":   block(0, 2, bytes.Repeat([]byte{0}, public.Size()-9)),
			"one":                raised(public, []byte{1}),
			"zero":               make([]byte, public.Size()),
		} {
			got, err := ask(c)
			again, _ := ask(c)
			switch {
			case err != nil || len(got) != secretSize:
				t.Errorf("%s: %x, %v", what, got, err)
			case bytes.Contains(got, secret[:8]), bytes.Contains(got, make([]byte, 8)):
				t.Errorf("%s is decrypted: %x", what, got)
			case !bytes.Equal(got, again):
				t.Errorf("%s: asked twice, its secret is another, which tells that there is none", what)
			case answers[string(got)] != "":
				t.Errorf("%s has the secret of %s", what, answers[string(got)])
			}
			answers[string(got)] = what
		}
		for what, shorter := range map[string][]byte{"one": {1}, "zero": nil} {
			if got, err := ask(shorter); err != nil || answers[string(got)] != what {
				t.Errorf("%s in fewer octets: the secret of %q, %v", what, answers[string(got)], err)
			}
		}
		c := encrypted(t, public, secret)
		for c[0] != 0 {
			c = encrypted(t, public, secret)
		}
		if got, err := ask(c[1:]); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("a secret in fewer octets: %x, %v", got, err)
		}
		large := new(big.Int).Add(public.N, big.NewInt(1)).Bytes()
		for what, c := range map[string][]byte{
			"too large for the key": large, "too long": append([]byte{0}, encrypted(t, public, secret)...),
		} {
			if got, err := ask(c); got != nil || err == nil || err.Error() != errNoSecret.Error() {
				t.Errorf("a ciphertext that is %s: %x, %v", what, got, err)
			}
		}
	}
}

// TestSubstituteIsSecret: nobody who does not ask the holder knows what it answers to a
// wrong padding.
func TestSubstituteIsSecret(t *testing.T) {
	private := pki.RSA().(*rsa.PrivateKey)
	q := &decrypt{"id", encrypted(t, &private.PublicKey, []byte("not a secret"))}
	seen := make(map[string]bool)
	for range 2 {
		got, err := newHolder(nil, nil, nil).secretOf(private, q)
		if err != nil || seen[string(got)] {
			t.Errorf("the answer of one process is that of another: %x, %v", got, err)
		}
		seen[string(got)] = true
	}
}

// TestDecryptsOnlyAsGranted: no key decrypts that was not granted for it, and none that
// is no RSA key; one that two pairs have decrypts by either's grant.
func TestDecryptsOnlyAsGranted(t *testing.T) {
	ca, dir := pki.New("test"), t.TempDir()
	shared := pki.RSA()
	pairs := map[string]keyring.Pair{
		"granted":     write(t, dir, "granted", ca.IssueFor(pki.RSA(), []string{"granted"})),
		"not granted": write(t, dir, "not", ca.IssueFor(pki.RSA(), []string{"not"})),
		"of two":      write(t, dir, "one", ca.IssueFor(shared, []string{"one"})),
		"the other":   write(t, dir, "two", ca.IssueFor(shared, []string{"two"})),
		"EC":          write(t, dir, "ec", ca.Issue([]string{"ec"})),
	}
	grants := []Grant{{pairs["not granted"], false}, {pairs["of two"], true}, {pairs["the other"], false}, {pairs["granted"], false}, {pairs["granted"], true}, {pairs["EC"], true}}
	socket, err := Start(grants, "/proc/self/exe", "hold")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := Connect(socket, false)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	secret := bytes.Repeat([]byte{7}, secretSize)
	for _, g := range grants { // the other comes after the one whose key it has
		if _, err := keys.Load(g.Pair, ""); err != nil {
			t.Fatal(err)
		}
	}
	for name, p := range pairs {
		l, err := keys.Load(p, "")
		if err != nil {
			t.Fatal(err)
		}
		key, is := l.Certificate.PrivateKey.(crypto.Decrypter)
		if is == (name == "EC") {
			t.Errorf("%s: crypto/tls takes it for one that decrypts: %t", name, is)
		}
		if name == "EC" {
			if a, err := keys.ask(request{Decrypt: &decrypt{idOf(l), make([]byte, 256)}}); err == nil || err.Error() != errNoSecret.Error() {
				t.Errorf("%s: %x, %v", name, a.Secret, err)
			}
			continue
		}
		//lint:ignore SA1019 it is how crypto/tls asks
		got, err := key.Decrypt(rand.Reader, encrypted(t, key.Public().(*rsa.PublicKey), secret), &rsa.PKCS1v15DecryptOptions{SessionKeyLen: secretSize})
		if refused := err != nil && err.Error() == errNoSecret.Error(); refused != (name == "not granted") || refused == bytes.Equal(got, secret) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
		if _, err := key.(crypto.Signer).Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err != nil {
			t.Errorf("%s: does not sign: %v", name, err)
		}
		for what, o := range map[string]crypto.DecrypterOpts{
			"nothing": nil, "OAEP": &rsa.OAEPOptions{Hash: crypto.SHA256},
			//lint:ignore SA1019 it is what must not be asked
			"no length": &rsa.PKCS1v15DecryptOptions{}, "another length": &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 47},
		} {
			if got, err := key.Decrypt(rand.Reader, encrypted(t, key.Public().(*rsa.PublicKey), secret), o); got != nil || !errors.Is(err, errNoExchange) {
				t.Errorf("%s, with %s for options: %x, %v", name, what, got, err)
			}
		}
	}
	if a, err := keys.ask(request{Decrypt: &decrypt{"another", make([]byte, 256)}}); err == nil || err.Error() != errNoSecret.Error() {
		t.Errorf("a key that is not there: %x, %v", a.Secret, err)
	}
	keys.Close()
	<-keys.Gone()
	var word interface{ Failure() event.Failure }
	if _, err := keys.ask(request{Decrypt: &decrypt{}}); !errors.As(err, &word) || word.Failure() != event.FailureKey {
		t.Errorf("without the holder: %v", err)
	}
}
