// Package keeper holds private keys in a process of their own.
//
// The holder reads the files of certificates, checks them, signs, and decrypts what
// clients without a better key exchange send. It listens to one socket, which only the
// inspector has, and to nothing on any network. The inspector, which parses what
// strangers send, gets chains, signatures and secrets of sessions and never a key: it
// does not open the files, and in its confines (package confine) it cannot, where the
// kernel has Landlock. The verb run starts the holder; nothing else calls this package,
// but for the holder's own verb.
//
// What remains to one who has taken the inspector over is to have signatures made, and
// such secrets decrypted, also those of sessions that he has recorded, for as long as it
// lasts. The key is out of that process's own reach; but where the inspector is root, so
// are the files by which other programs of the machine are told what to do: narrow those
// by what starts it (for systemd: ProtectSystem=strict).
package keeper

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"

	"github.com/portreeve/portreeve/pkg/keyring"
)

// Grant is a pair whose key may be used: to sign, and if it says so to decrypt.
type Grant struct {
	Pair    keyring.Pair
	Decrypt bool // the secrets of sessions by RSA key exchange
}

// request is what the inspector asks the holder; one of its parts is set.
type request struct {
	ID      uint64
	Load    *load
	Sign    *sign
	Decrypt *decrypt
}

type load struct {
	Pair  keyring.Pair
	Stamp string
}

type sign struct {
	Key    keyID
	Digest []byte
	Hash   crypto.Hash // that made the digest; 0 with an Ed25519 key, which signs the message itself
	PSS    bool        // of RSA
}

// reply answers the request of the same ID.
type reply struct {
	ID        uint64
	Err       string // empty: it went well
	Loaded    *loaded
	Signature []byte
	Secret    []byte // that was decrypted
}

// loaded is keyring.Loaded without the key.
type loaded struct {
	Stamp    string
	Chain    [][]byte
	Warnings []string
	Key      keyID
}

// keyID names a key: the hash of its public half, in hexadecimal digits.
type keyID string

// signOf writes down what is to be signed, and how.
func signOf(key keyID, digest []byte, o crypto.SignerOpts) *sign {
	_, pss := o.(*rsa.PSSOptions)
	return &sign{Key: key, Digest: digest, Hash: o.HashFunc(), PSS: pss}
}

var errNoHandshake = errors.New("no handshake of TLS asks for such a signature")

// options reads how it is to be signed with the key of a public half. Only the forms
// that handshakes of TLS 1.2 and 1.3 ask for are granted: RSA without the name of a
// hash would put the inspector's own octets under the key. What is signed in them is
// the inspector's to say: any digest, and with Ed25519 any message as long as a
// request can be.
func (s *sign) options(public crypto.PublicKey) (crypto.SignerOpts, error) {
	_, isRSA := public.(*rsa.PublicKey)
	if _, is := public.(ed25519.PublicKey); is {
		if s.Hash != 0 || s.PSS {
			return nil, errNoHandshake
		}
		return crypto.Hash(0), nil
	}
	switch s.Hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return nil, errNoHandshake
	}
	if len(s.Digest) != s.Hash.Size() || s.PSS && !isRSA {
		return nil, errNoHandshake
	}
	if s.PSS {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.Hash}, nil // RFC 8446 section 4.2.3
	}
	return s.Hash, nil
}
