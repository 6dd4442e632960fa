// Package keeper holds private keys in a process of their own.
//
// The holder reads the files of certificates, checks them and signs; it listens
// to one socket, which only the inspector has, and to nothing on any network. The
// inspector, which parses what strangers send, gets chains and signatures and
// never a key: it does not open the files, and after Confine it cannot, where the
// kernel has Landlock. The verb run starts the holder; nothing else calls this
// package, but for the holder's own verb.
//
// What remains to one who has taken the inspector over is to have signatures made
// for as long as it lasts; nothing that could be carried away.
package keeper

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"

	"github.com/portreeve/portreeve/pkg/keyring"
)

// request is what the inspector asks the holder; one of its parts is set.
type request struct {
	ID   uint64
	Load *load
	Sign *sign
}

type load struct {
	Pair  keyring.Pair
	Stamp string
}

type sign struct {
	Key    keyID
	Digest []byte
	Hash   crypto.Hash
	PSS    bool
	Salt   int // of PSS, as in rsa.PSSOptions
}

// reply answers the request of the same ID.
type reply struct {
	ID        uint64
	Err       string // empty: it went well
	Loaded    *loaded
	Signature []byte
}

// loaded is keyring.Loaded without the key.
type loaded struct {
	Stamp    string
	Chain    [][]byte
	Warnings []string
	Key      keyID
}

// keyID names a key: the hash of its public half.
type keyID [sha256.Size]byte

// optionsOf writes down how a digest is to be signed.
func optionsOf(s *sign, o crypto.SignerOpts) {
	s.Hash = o.HashFunc()
	if pss, is := o.(*rsa.PSSOptions); is {
		s.PSS, s.Salt = true, pss.SaltLength
	}
}

// options reads it again.
func (s *sign) options() crypto.SignerOpts {
	if s.PSS {
		return &rsa.PSSOptions{SaltLength: s.Salt, Hash: s.Hash}
	}
	return s.Hash
}
