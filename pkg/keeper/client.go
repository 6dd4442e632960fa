package keeper

import (
	"bufio"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/keyring"
)

// Keys is the inspector's end: a keyring.Source whose keys are elsewhere.
type Keys struct {
	conn net.Conn
	gone chan struct{} // closed when the holder is gone

	confined bool // by Exec

	out sync.Mutex // of writing to conn

	// mu is of the following. It is never held while something is written: the
	// holder reads no more requests than it can answer, and listen, which takes the
	// answers, needs mu for each.
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan reply
	err     error
}

// patience is how long the holder may take for an answer. It is a second's
// fraction in practice; a file system that hangs must not keep handshakes for ever.
const patience = 30 * time.Second

var (
	errGone error = keyError("the process that holds the keys is gone; start the inspector again")
	errSlow error = keyError(fmt.Sprintf("the process that holds the keys has not answered for %s", patience))
)

// keyError makes the word in a handshake's record right.
type keyError string

func (e keyError) Error() string { return string(e) }

func (keyError) Failure() event.Failure { return event.FailureKey }

// Connect takes the socket over that Start has made. A process that Exec has
// confined says so, and then hears of keys that come to where it can read them.
func Connect(socket *os.File, confined bool) (*Keys, error) {
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("reach the process that holds the keys: %w", err)
	}
	socket.Close()
	k := newKeys(conn)
	k.confined = confined
	return k, nil
}

func newKeys(conn net.Conn) *Keys {
	k := &Keys{conn: conn, gone: make(chan struct{}), waiting: make(map[uint64]chan reply)}
	go k.listen(bufio.NewReader(conn))
	return k
}

// Gone is closed when the holder has ended. No handshake succeeds after that.
func (k *Keys) Gone() <-chan struct{} { return k.gone }

// Close ends the holder.
func (k *Keys) Close() error { return k.conn.Close() }

// listen hands replies to those who wait for them.
func (k *Keys) listen(in io.Reader) {
	defer close(k.gone)
	for {
		var r reply
		if err := readMessage(in, maxReply, &r); err != nil {
			k.lose()
			return
		}
		if to := k.forget(r.ID); to != nil {
			to <- r
		}
	}
}

// forget returns who waits for a reply, and takes it from the list.
func (k *Keys) forget(id uint64) chan reply {
	k.mu.Lock()
	defer k.mu.Unlock()
	to := k.waiting[id]
	delete(k.waiting, id)
	return to
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
	to, err := k.expect(&q)
	if err != nil {
		return reply{}, err
	}
	defer k.forget(q.ID)
	if err := k.send(&q); err != nil {
		return reply{}, errGone
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case r, ok := <-to:
		return r.judged(ok)
	case <-late.C:
		return reply{}, errSlow
	}
}

// judged returns a reply, or the error that it is.
func (r reply) judged(came bool) (reply, error) {
	switch {
	case !came:
		return reply{}, errGone
	case r.Err != "":
		return reply{}, errors.New(r.Err)
	}
	return r, nil
}

// expect gives a request its number, and a place for the reply.
func (k *Keys) expect(q *request) (chan reply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	k.next++
	q.ID = k.next
	to := make(chan reply, 1)
	k.waiting[q.ID] = to
	return to, nil
}

// send writes a request. A holder that takes none is as good as gone: all who
// have something to sign would wait behind it, whatever time their handshakes have.
func (k *Keys) send(q *request) error {
	k.out.Lock()
	defer k.out.Unlock()
	k.conn.SetWriteDeadline(time.Now().Add(patience)) // fails only on a closed connection, as will the write
	err := writeMessage(k.conn, q)
	if err != nil {
		k.conn.Close() // which listen notices
	}
	return err
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
	if k.confined && opens(p.Key) {
		r.Loaded.Warnings = append(r.Loaded.Warnings, fmt.Sprintf("the key %s has come to where the inspector can read it; start the inspector again to shut it out", p.Key))
	}
	return &keyring.Loaded{
		Stamp:    r.Loaded.Stamp,
		Warnings: r.Loaded.Warnings,
		Certificate: tls.Certificate{
			Certificate: r.Loaded.Chain, Leaf: leaf,
			PrivateKey: k.remote(r.Loaded.Key, leaf.PublicKey),
		},
	}, nil
}

// opens reports whether this process could read a file, and reads nothing.
func opens(file string) bool {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// remote is a key that the holder has.
type remote struct {
	keys   *Keys
	id     keyID
	public crypto.PublicKey
}

// remoteRSA can decrypt, too. crypto/tls fails with a key of another kind that could.
type remoteRSA struct{ remote }

func (k *Keys) remote(id keyID, public crypto.PublicKey) crypto.Signer {
	r := remote{k, id, public}
	if _, is := public.(*rsa.PublicKey); is {
		return &remoteRSA{r}
	}
	return &r
}

// Public returns the public half.
func (r *remote) Public() crypto.PublicKey { return r.public }

// Sign has the holder sign; it uses its own source of randomness.
func (r *remote) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	a, err := r.keys.ask(request{Sign: signOf(r.id, digest, o)})
	return a.Signature, err
}
