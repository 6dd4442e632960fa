package secure

import (
	"crypto/tls"
	"slices"
)

// rsaKeyExchange are the suites of TLS 1.2 for peers that do not know ECDHE. RFC 5246
// section 9 asks every peer for the third; 3DES, RC4 and CBC with SHA-256, which
// crypto/tls does not protect from Lucky 13, are left out.
var rsaKeyExchange = []uint16{
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// LacksSecrecy reports whether a handshake by a suite has no forward secrecy: who gets the
// server's key later can read what was said.
func LacksSecrecy(suite uint16) bool { return slices.Contains(rsaKeyExchange, suite) }

// Suites returns the cipher suites of a tls.Config, with or without those of RSA key
// exchange. Their order there means nothing: crypto/tls offers and chooses in an order
// of its own, in which ECDHE comes first.
func Suites(rsa bool) []uint16 {
	var all []uint16
	for _, s := range tls.CipherSuites() {
		all = append(all, s.ID)
	}
	if rsa {
		all = append(all, rsaKeyExchange...)
	}
	return all
}
