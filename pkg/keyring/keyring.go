// Package keyring holds the certificates that clients are shown.
//
// It owns which certificate a client gets, by the name that it asks for, and when
// a newer one takes the place of an older. Sessions never notice: a handshake
// takes the certificate of its moment. It never looks at a private key: a Source
// hands out certificates with something that signs. The daemon makes it and calls
// Refresh now and then.
package keyring

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
)

// Pair names the two files of a certificate.
type Pair struct {
	Chain string // PEM: the certificate, then what leads to the root
	Key   string // PEM: its private key
}

// Source reads pairs.
type Source interface {
	// Load reads a pair if its files differ from those with the stamp, which is ""
	// for none. It returns nil and no error when they do not.
	Load(p Pair, stamp string) (*Loaded, error)
}

// Loaded is a pair that was read and found good.
type Loaded struct {
	Stamp       string // of the files
	Certificate tls.Certificate
	Warnings    []string // what is not well with the files, and no reason to refuse them
}

// Ring holds certificates, each once however many services show it.
type Ring struct {
	source  Source
	entries map[Pair]*entry
	order   []Pair

	mu      sync.Mutex // of Refresh and the following
	shelves []*shelf
}

// entry is one pair.
type entry struct {
	current atomic.Pointer[uses]
	stamp   string
	failed  string // the last error, so that it is reported once
}

// Open reads all pairs. Its error has a line for each that cannot be used.
func Open(s Source, pairs []Pair) (*Ring, []Change, error) {
	r := &Ring{source: s, entries: make(map[Pair]*entry)}
	for _, p := range pairs {
		if r.entries[p] == nil {
			r.entries[p] = &entry{}
			r.order = append(r.order, p)
		}
	}
	changes := r.Refresh()
	var all []error
	for _, c := range changes {
		if c.Err != nil {
			all = append(all, c.Err)
		}
	}
	return r, changes, errors.Join(all...)
}

// Change is news of a pair.
type Change struct {
	Pair        Pair
	Certificate *x509.Certificate // that is shown from now on; nil: as before
	Warnings    []string
	Err         error // why the new files are not used
}

// Refresh reads the pairs whose files have changed. A pair that cannot be used
// leaves the one before it in force, and is reported once.
func (r *Ring) Refresh() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	var news []Change
	for _, p := range r.order {
		if c, is := r.entries[p].refresh(r.source, p); is {
			news = append(news, c)
		}
	}
	if len(news) > 0 {
		for _, s := range r.shelves {
			s.arrange()
		}
	}
	return news
}

func (e *entry) refresh(s Source, p Pair) (Change, bool) {
	l, err := s.Load(p, e.stamp)
	switch {
	case err != nil && err.Error() == e.failed:
		return Change{}, false
	case err != nil:
		e.failed = err.Error()
		return Change{Pair: p, Err: err}, true
	case l == nil:
		e.failed = "" // the files are those in use, again
		return Change{}, false
	}
	e.stamp, e.failed = l.Stamp, ""
	e.current.Store(usesOf(l.Certificate))
	return Change{Pair: p, Certificate: l.Certificate.Leaf, Warnings: l.Warnings}, true
}

// Leaves returns the certificates in force, in the order of their pairs.
func (r *Ring) Leaves() map[Pair]*x509.Certificate {
	all := make(map[Pair]*x509.Certificate, len(r.entries))
	for p, e := range r.entries {
		if c := e.current.Load(); c != nil {
			all[p] = c.leaf
		}
	}
	return all
}

// Expiring returns the pairs whose certificate has expired or will before at.
func (r *Ring) Expiring(at time.Time) (late []Pair) {
	for p, c := range r.Leaves() {
		if c.NotAfter.Before(at) {
			late = append(late, p)
		}
	}
	slices.SortFunc(late, func(a, b Pair) int { return slices.Index(r.order, a) - slices.Index(r.order, b) })
	return late
}

// Clients says how clients are met by one service.
type Clients struct {
	Pairs   []Pair   // the first is the default: for clients that ask for no name, or one that none is for
	Minimum uint16   // version of TLS
	Suites  []uint16 // of TLS 1.2; nil: those that crypto/tls prefers
	Auth    tls.ClientAuthType
	Roots   *x509.CertPool // of clients' certificates
}

// Config returns what a server needs. It stays good while the certificates
// change. crypto/tls makes the keys of its session tickets anew each day and
// keeps an old one for a week; they exist in memory only, and a certificate of a
// client that has expired meanwhile is not taken.
func (r *Ring) Config(c Clients) *tls.Config {
	s := r.shelve(c.Pairs)
	return &tls.Config{
		MinVersion:                  c.Minimum,
		CipherSuites:                c.Suites,
		ClientAuth:                  c.Auth,
		ClientCAs:                   c.Roots,
		DynamicRecordSizingDisabled: true, // a message is waited for as a whole
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if chosen := s.order.Load().choose(h); chosen != nil {
				return chosen, nil
			}
			return nil, errEmpty
		},
	}
}

// errEmpty cannot happen to a ring that was opened without an error.
var errEmpty = keyError{errors.New("no certificate could be read")}

// keyError makes the word in the record right.
type keyError struct{ error }

func (keyError) Failure() event.Failure { return event.FailureKey }

// describe names a pair in an error.
func (p Pair) describe() string { return fmt.Sprintf("certificate %s", p.Chain) }
