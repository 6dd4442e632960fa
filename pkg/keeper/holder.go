package keeper

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/confine"
	"github.com/portreeve/portreeve/pkg/keyring"
)

// Hold is the life of the holder: it answers what comes by the socket until its
// other end is closed, which the inspector's end does. It reads the pairs of the
// grants in list, as Start has written it, and no others. No other process of the same
// user can look into this one from the first key on, and it leaves no core behind.
func Hold(socket *os.File, list io.Reader) error {
	var grants []Grant
	if err := json.NewDecoder(list).Decode(&grants); err != nil {
		return fmt.Errorf("hold keys: read which: %w", err)
	}
	if err := confine.Hide(); err != nil {
		return fmt.Errorf("hold keys: %w", err)
	}
	conn, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("hold keys: use the inspector's socket: %w", err)
	}
	socket.Close()
	defer conn.Close()
	return newHolder(conn, keyring.Files{}, grants).serve()
}

// holder answers one inspector.
type holder struct {
	in     io.Reader
	files  keyring.Source
	grants []Grant
	seed   []byte // of what is answered where there is no secret

	mu      sync.Mutex // of out
	out     io.Writer
	turn    chan struct{} // signatures and decryptions at once, as many as there are processors
	loading chan struct{} // pairs at once: one

	keys sync.RWMutex // of the following
	have map[keyID]key
	last map[keyring.Pair][]keyID // newest first; a handshake may still want the one before
}

// key is a private key, and whether it may decrypt.
type key struct {
	crypto.Signer
	decrypts bool
}

func newHolder(conn io.ReadWriter, files keyring.Source, grants []Grant) *holder {
	seed := make([]byte, sha512.Size384)
	rand.Read(seed) // never fails
	return &holder{
		in: bufio.NewReader(conn), out: conn, files: files, grants: grants, seed: seed,
		turn: make(chan struct{}, runtime.GOMAXPROCS(0)), loading: make(chan struct{}, 1),
		have: make(map[keyID]key), last: make(map[keyring.Pair][]keyID),
	}
}

// serve answers requests; the end of the stream is its own.
func (h *holder) serve() error {
	for {
		var q request
		switch err := readMessage(h.in, maxRequest, &q); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
			return nil
		case err != nil:
			return fmt.Errorf("hold keys: read a request: %w", err)
		case q.Sign != nil:
			h.inTurn(h.sign, &q)
		case q.Decrypt != nil:
			h.inTurn(h.decrypt, &q)
		case q.Load != nil:
			h.beginLoad(&q)
		default:
			h.answer(reply{ID: q.ID, Err: "hold keys: nothing is asked for"})
		}
	}
}

// inTurn answers a request that takes a processor, when there is one.
func (h *holder) inTurn(work func(*request) reply, q *request) {
	h.turn <- struct{}{}
	go func() {
		h.answer(work(q))
		<-h.turn
	}()
}

func (h *holder) answer(r reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	writeMessage(h.out, r) // fails when the inspector is gone, which serve notices
}

// beginLoad answers a request for a pair while signatures go on: a file system
// that hangs must not stop them.
func (h *holder) beginLoad(q *request) {
	select {
	case h.loading <- struct{}{}:
		go func() {
			r := h.load(q)
			<-h.loading // before the answer, after which the next request may come
			h.answer(r)
		}()
	default:
		h.answer(reply{ID: q.ID, Err: "hold keys: another certificate is still being read"})
	}
}

func (h *holder) load(q *request) reply {
	l, err := h.read(q.Load)
	if err != nil {
		return reply{ID: q.ID, Err: err.Error()}
	}
	return reply{ID: q.ID, Loaded: l}
}

// read reads a pair that is on the list. Nothing else is ever opened, whatever is
// asked for.
func (h *holder) read(q *load) (*loaded, error) {
	granted := func(g Grant) bool { return g.Pair == q.Pair }
	if !slices.ContainsFunc(h.grants, granted) {
		return nil, fmt.Errorf("hold keys: certificate %s is not of this configuration", q.Pair.Chain)
	}
	l, err := h.files.Load(q.Pair, q.Stamp)
	if l == nil || err != nil {
		return nil, err
	}
	sum := sha256.Sum256(l.Certificate.Leaf.RawSubjectPublicKeyInfo)
	id := keyID(hex.EncodeToString(sum[:]))
	h.keep(q.Pair, id, key{
		Signer:   l.Certificate.PrivateKey.(crypto.Signer),
		decrypts: slices.ContainsFunc(h.grants, func(g Grant) bool { return granted(g) && g.Decrypt }),
	})
	return &loaded{Stamp: l.Stamp, Chain: l.Certificate.Certificate, Warnings: l.Warnings, Key: id}, nil
}

// keep remembers a pair's key and the one before it, and forgets older ones that
// no other pair has.
func (h *holder) keep(p keyring.Pair, id keyID, k key) {
	h.keys.Lock()
	defer h.keys.Unlock()
	k.decrypts = k.decrypts || h.have[id].decrypts // by another pair, which has it too
	h.have[id] = k
	if list := h.last[p]; len(list) == 0 || list[0] != id {
		h.last[p] = append([]keyID{id}, list[:min(len(list), 1)]...)
	}
	wanted := make(map[keyID]bool)
	for _, list := range h.last {
		for _, id := range list {
			wanted[id] = true
		}
	}
	for id := range h.have {
		if !wanted[id] {
			delete(h.have, id)
		}
	}
}

func (h *holder) sign(q *request) reply {
	r := reply{ID: q.ID}
	h.keys.RLock()
	key, known := h.have[q.Sign.Key]
	h.keys.RUnlock()
	if !known {
		r.Err = "hold keys: no such key"
		return r
	}
	options, err := q.Sign.options(key.Public())
	if err == nil {
		r.Signature, err = key.Sign(rand.Reader, q.Sign.Digest, options)
	}
	if err != nil {
		r.Err = "hold keys: sign: " + err.Error()
	}
	return r
}
