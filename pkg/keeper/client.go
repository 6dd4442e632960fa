package keeper

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/portreeve/portreeve/pkg/keyring"
)

// Keys is the inspector's end: a keyring.Source whose keys are elsewhere.
type Keys struct {
	conn io.ReadWriteCloser
	gone chan struct{} // closed when the holder is gone

	mu      sync.Mutex // of the following
	out     *gob.Encoder
	next    uint64
	waiting map[uint64]chan reply
	err     error
}

var errGone = errors.New("the process that holds the keys is gone; start the inspector again")

// Connect takes the socket over that Start has made.
func Connect(socket *os.File) (*Keys, error) {
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("reach the process that holds the keys: %w", err)
	}
	socket.Close()
	return newKeys(conn), nil
}

func newKeys(conn io.ReadWriteCloser) *Keys {
	k := &Keys{conn: conn, gone: make(chan struct{}), out: gob.NewEncoder(conn), waiting: make(map[uint64]chan reply)}
	go k.listen(gob.NewDecoder(conn))
	return k
}

// Gone is closed when the holder has ended. No handshake succeeds after that.
func (k *Keys) Gone() <-chan struct{} { return k.gone }

// Close ends the holder.
func (k *Keys) Close() error { return k.conn.Close() }

// listen hands replies to those who wait for them.
func (k *Keys) listen(in *gob.Decoder) {
	defer close(k.gone)
	for {
		var r reply
		if err := in.Decode(&r); err != nil {
			k.lose()
			return
		}
		k.mu.Lock()
		to := k.waiting[r.ID]
		delete(k.waiting, r.ID)
		k.mu.Unlock()
		if to != nil {
			to <- r
		}
	}
}

// lose tells all who wait that there will be no reply.
func (k *Keys) lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = errGone
	for _, to := range k.waiting {
		close(to)
	}
	k.waiting = nil
}

// ask sends a request and waits for its reply.
func (k *Keys) ask(q request) (reply, error) {
	to := make(chan reply, 1)
	if err := k.send(&q, to); err != nil {
		return reply{}, err
	}
	r, ok := <-to
	switch {
	case !ok:
		return reply{}, errGone
	case r.Err != "":
		return reply{}, errors.New(r.Err)
	}
	return r, nil
}

func (k *Keys) send(q *request, to chan reply) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.next++
	q.ID = k.next
	k.waiting[q.ID] = to
	if err := k.out.Encode(q); err != nil {
		delete(k.waiting, q.ID)
		return errGone
	}
	return nil
}

// Load implements keyring.Source.
func (k *Keys) Load(p keyring.Pair, stamp string) (*keyring.Loaded, error) {
	r, err := k.ask(request{Load: &load{p, stamp}})
	if err != nil || r.Loaded == nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(r.Loaded.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", p.Chain, err)
	}
	return &keyring.Loaded{
		Stamp:    r.Loaded.Stamp,
		Warnings: r.Loaded.Warnings,
		Certificate: tls.Certificate{
			Certificate: r.Loaded.Chain, Leaf: leaf,
			PrivateKey: &remote{k, r.Loaded.Key, leaf.PublicKey},
		},
	}, nil
}

// remote is a key that the holder has.
type remote struct {
	keys   *Keys
	id     keyID
	public crypto.PublicKey
}

// Public returns the public half.
func (r *remote) Public() crypto.PublicKey { return r.public }

// Sign has the holder sign; it uses its own source of randomness.
func (r *remote) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s := &sign{Key: r.id, Digest: digest}
	optionsOf(s, o)
	a, err := r.keys.ask(request{Sign: s})
	return a.Signature, err
}
