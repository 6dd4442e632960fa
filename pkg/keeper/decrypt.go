package keeper

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha512"
	"errors"
	"io"
)

// decrypt asks for the secret that a client has encrypted in the RSA key exchange of
// TLS 1.2, RFC 5246 section 7.4.7.1.
type decrypt struct {
	Key        keyID
	Ciphertext []byte
}

// secretSize is how long that secret is, in octets.
const secretSize = 48

var (
	errNoExchange = errors.New("no handshake of TLS asks for such a decryption")

	// errNoSecret is the only other answer. It says nothing of what was decrypted.
	errNoSecret = errors.New("hold keys: decrypt: refused")
)

// Decrypt has the holder decrypt a client's secret, as crypto/tls asks for it and in
// no other form.
func (r *remoteRSA) Decrypt(_ io.Reader, ciphertext []byte, o crypto.DecrypterOpts) ([]byte, error) {
	//lint:ignore SA1019 the key exchange rests on it
	p, is := o.(*rsa.PKCS1v15DecryptOptions)
	if !is || p.SessionKeyLen != secretSize {
		return nil, errNoExchange
	}
	a, err := r.keys.ask(request{Decrypt: &decrypt{r.id, ciphertext}})
	return a.Secret, err
}

// decrypt answers with the secret that a ciphertext has, where the key may decrypt.
func (h *holder) decrypt(q *request) reply {
	h.keys.RLock()
	k := h.have[q.Decrypt.Key]
	h.keys.RUnlock()
	if key, is := k.Signer.(*rsa.PrivateKey); is && k.decrypts {
		if secret, err := h.secretOf(key, q.Decrypt); err == nil {
			return reply{ID: q.ID, Secret: secret}
		}
	}
	return reply{ID: q.ID, Err: errNoSecret.Error()}
}

// secretOf decrypts a secret. A ciphertext whose padding is wrong, or that holds
// something of another length, has a secret as well: one that looks like any other, and
// is the same whenever it is asked for. If it were made anew each time, one who has
// taken the inspector over would ask twice, and two different answers would tell him
// that the padding is wrong. Who learns that often enough decrypts and signs anything
// with the key (Bleichenbacher 1998). Right and wrong padding take the same time.
func (h *holder) secretOf(key *rsa.PrivateKey, q *decrypt) ([]byte, error) {
	if len(q.Ciphertext) > key.Size() {
		return nil, errNoSecret
	}
	ciphertext := make([]byte, key.Size()) // one number, one substitute, however it was written
	copy(ciphertext[len(ciphertext)-len(q.Ciphertext):], q.Ciphertext)
	substitute := hmac.New(sha512.New384, h.seed)
	substitute.Write([]byte(q.Key))
	substitute.Write(ciphertext)
	secret := substitute.Sum(make([]byte, 0, secretSize))
	//lint:ignore SA1019 the key exchange rests on it
	if rsa.DecryptPKCS1v15SessionKey(nil, key, ciphertext, secret) != nil {
		return nil, errNoSecret // a number that is too large for the key, which who sent it knows
	}
	return secret, nil
}
