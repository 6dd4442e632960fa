package metrics

import (
	"sync/atomic"

	"github.com/portreeve/portreeve/pkg/event"
)

// tlsCounts are those of one side of a service. Version, cipher, group and the
// rest are counted each by itself: a product of them all would have thousands of
// series for each service.
type tlsCounts struct {
	outcome [tlsOutcomes]atomic.Uint64 // all sessions that are over

	// Of these, the ones that had TLS.
	cipher  [len(cipherWords)]atomic.Uint64
	group   [len(groupWords)]atomic.Uint64
	peer    [event.Verifications]atomic.Uint64
	resumed [1]atomic.Uint64
}

// once returns numbers of sessions that had TLS, nil before there was one: most
// services may carry all of it unseen, or have it on one side.
func (n *tlsCounts) once(numbers []atomic.Uint64) []atomic.Uint64 {
	for i := tlsVersions; i < tlsOpaque; i++ {
		if n.outcome[i].Load() > 0 {
			return numbers
		}
	}
	return nil
}

// What became of TLS on one side: a failure, a version, or neither.
const (
	noTLS       = int(event.NoFailure)            // none was begun
	tlsVersions = int(event.Failures)             // the first of versionWords
	tlsOpaque   = tlsVersions + len(versionWords) // the peers had the session to themselves, see event.Opaque
	tlsOutcomes = tlsOpaque + 1                   // how many there are
)

// What crypto/tls can agree on with its defaults, by the words of the records. The
// last word of each list stands for all that a later crypto/tls may bring: the
// words are stable, and not its choice.
var (
	versionWords = [...]string{"TLS1.2", "TLS1.3", "other"}

	cipherWords = [...]string{
		"TLS_AES_128_GCM_SHA256",
		"TLS_AES_256_GCM_SHA384",
		"TLS_CHACHA20_POLY1305_SHA256",
		"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
		"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
		"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
		"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
		"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
		"other",
	}

	groupWords = [...]string{
		"CurveP256",
		"CurveP384",
		"CurveP521",
		"X25519",
		"SecP256r1MLKEM768",
		"X25519MLKEM768",
		"SecP384r1MLKEM1024",
		"other",
	}
)

// tlsWords are those of the failures, and what there is without one.
var tlsWords = func() (words [tlsOutcomes]string) {
	copy(words[:], event.Words(event.Failures))
	copy(words[tlsVersions:], versionWords[:])
	words[noTLS], words[tlsOpaque] = "none", "opaque"
	return words
}()

// wordOf returns the place of a word, the last one for words that are not there.
func wordOf(words []string, word string) int {
	last := len(words) - 1
	for i := range last {
		if words[i] == word {
			return i
		}
	}
	return last
}

// count counts a session by its record of the side. What was opaque counts as that,
// also when an earlier STARTTLS had failed.
func (n *tlsCounts) count(t *event.TLS, opaque bool) {
	switch {
	case opaque:
		n.outcome[tlsOpaque].Add(1)
	case t == nil:
		n.outcome[noTLS].Add(1)
	case !t.Active():
		n.outcome[t.Failure].Add(1)
	default:
		n.active(t)
	}
}

// active counts a session that had TLS.
func (n *tlsCounts) active(t *event.TLS) {
	n.outcome[tlsVersions+wordOf(versionWords[:], t.Version)].Add(1)
	n.cipher[wordOf(cipherWords[:], t.Cipher)].Add(1)
	n.group[wordOf(groupWords[:], t.Group)].Add(1)
	n.peer[t.Peer].Add(1)
	if t.Resumed {
		n.resumed[0].Add(1)
	}
}

// ofTLS are the families of one side.
func ofTLS(side string, of func(*counts) *tlsCounts) []family {
	name, with := side+"_tls", "Sessions that are over and had TLS with the "+side
	return []family{
		{counter(name+"_total", "Sessions that are over, by what became of TLS with the "+side+".", "service", "outcome"),
			tlsWords[:], func(n *counts) []atomic.Uint64 { return of(n).outcome[:] }},
		{counter(name+"_ciphers_total", with+", by cipher suite.", "service", "cipher"),
			cipherWords[:], func(n *counts) []atomic.Uint64 { return of(n).once(of(n).cipher[:]) }},
		{counter(name+"_groups_total", with+", by key exchange group.", "service", "group"),
			groupWords[:], func(n *counts) []atomic.Uint64 { return of(n).once(of(n).group[:]) }},
		{counter(name+"_peers_total", with+", by what was found out about its certificate.", "service", "peer"),
			event.Words(event.Verifications), func(n *counts) []atomic.Uint64 { return of(n).once(of(n).peer[:]) }},
		{counter(name+"_resumed_total", "Sessions that are over and took up an earlier TLS session with the "+side+".", "service"),
			nil, func(n *counts) []atomic.Uint64 { return of(n).once(of(n).resumed[:]) }},
	}
}
