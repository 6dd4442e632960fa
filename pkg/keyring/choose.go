package keyring

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync/atomic"
)

// uses is a certificate, once for each way in which its key is used. A client is shown it
// for one of them alone: with a key that does both, crypto/tls prefers ECDHE and looks for
// a signature that the client knows when it is too late.
type uses struct {
	leaf     *x509.Certificate
	signs    *tls.Certificate // with ECDHE, and in TLS 1.3
	decrypts *tls.Certificate // RSA key exchange; nil: its key cannot
}

func usesOf(c tls.Certificate) *uses {
	signs, decrypts := c, c
	signer, _ := c.PrivateKey.(crypto.Signer)
	decrypter, both := c.PrivateKey.(crypto.Decrypter)
	if !both {
		return &uses{leaf: c.Leaf, signs: &signs}
	}
	signs.PrivateKey = struct{ crypto.Signer }{signer}
	decrypts.PrivateKey = struct{ crypto.Decrypter }{decrypter}
	return &uses{leaf: c.Leaf, signs: &signs, decrypts: &decrypts}
}

// shelf has the certificates of one service. What handshakes see of it changes in one
// step.
type shelf struct {
	entries []*entry // the first is the default
	order   atomic.Pointer[order]
}

// order is the certificates of a service in the order in which they are tried.
type order struct {
	own    []*uses // the default, then those for names of the default: most of its names first
	others []*uses // as they are listed
}

// shelve makes a shelf that Refresh keeps in order.
func (r *Ring) shelve(pairs []Pair) *shelf {
	s := &shelf{}
	for _, p := range pairs {
		if e := r.entries[p]; e != nil {
			s.entries = append(s.entries, e)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.arrange()
	r.shelves = append(r.shelves, s)
	return s
}

// arrange puts the certificates in order, once for all handshakes: a certificate may
// have hundreds of names.
func (s *shelf) arrange() {
	o := &order{}
	var names []string // of the default
	shared := make(map[*uses]int)
	for _, e := range s.entries {
		c := e.current.Load()
		switch {
		case c == nil:
			continue
		case o.own == nil:
			names = namesIn(c.leaf)
			shared[c] = len(names)
		default:
			shared[c] = countFor(c.leaf, names)
		}
		if o.own == nil || shared[c] > 0 {
			o.own = append(o.own, c)
		} else {
			o.others = append(o.others, c)
		}
	}
	slices.SortStableFunc(o.own, func(a, b *uses) int { return shared[b] - shared[a] })
	s.order.Store(o)
}

// namesIn returns the names and addresses that a certificate is for.
func namesIn(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	return names
}

// countFor returns for how many of the names a certificate is.
func countFor(c *x509.Certificate, names []string) int {
	n := 0
	for _, name := range names {
		if c.VerifyHostname(name) == nil {
			n++
		}
	}
	return n
}

// choose returns the certificate for a client, of those whose key it can use: one for
// the name that it asks for, else the default or one for names of the default, else any.
// A client that asks for no name expects one of the default's, whatever key it can use.
// RSA key exchange is for those that can use none of them otherwise. Who can use none at
// all gets the default; nil: there is none.
func (o *order) choose(h *tls.ClientHelloInfo) *tls.Certificate {
	for _, some := range [][]*uses{o.named(h.ServerName), o.own, o.others} {
		for _, c := range some {
			if len(h.SignatureSchemes) > 0 && understood(h, c.signs) { // without, crypto/tls makes no signature
				return c.signs
			}
		}
		for _, c := range some {
			if c.decrypts != nil && understood(h, c.decrypts) {
				return c.decrypts
			}
		}
	}
	if len(o.own) == 0 {
		return nil
	}
	return o.own[0].signs
}

// named returns the certificates for a name, which may be an address.
func (o *order) named(name string) (list []*uses) {
	if name == "" {
		return nil
	}
	for _, some := range [][]*uses{o.own, o.others} {
		for _, c := range some {
			if c.leaf.VerifyHostname(name) == nil {
				list = append(list, c)
			}
		}
	}
	return list
}

// understood reports whether a client can use the certificate's kind of key. The
// question is asked without the name, which is ours to weigh.
func understood(h *tls.ClientHelloInfo, c *tls.Certificate) bool {
	nameless := *h
	nameless.ServerName = ""
	return nameless.SupportsCertificate(c) == nil
}
