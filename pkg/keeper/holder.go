package keeper

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
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
// other end is closed, which the inspector's end does. It reads the pairs of
// list, as Start has written it, and no others. No other process of the same user
// can look into this one from the first key on, and it leaves no core behind.
func Hold(socket *os.File, list io.Reader) error {
	var pairs []keyring.Pair
	if err := json.NewDecoder(list).Decode(&pairs); err != nil {
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
	return newHolder(conn, keyring.Files{}, pairs).serve()
}

// holder answers one inspector.
type holder struct {
	in    io.Reader
	files keyring.Source
	pairs []keyring.Pair // that may be loaded

	mu      sync.Mutex // of out
	out     io.Writer
	turn    chan struct{} // signatures at once, as many as there are processors
	loading chan struct{} // pairs at once: one

	keys sync.RWMutex // of the following
	have map[keyID]crypto.Signer
	last map[keyring.Pair][]keyID // newest first; a handshake may still want the one before
}

func newHolder(conn io.ReadWriter, files keyring.Source, pairs []keyring.Pair) *holder {
	return &holder{
		in: bufio.NewReader(conn), out: conn, files: files, pairs: pairs,
		turn: make(chan struct{}, runtime.GOMAXPROCS(0)), loading: make(chan struct{}, 1),
		have: make(map[keyID]crypto.Signer), last: make(map[keyring.Pair][]keyID),
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
			h.turn <- struct{}{}
			go func() {
				h.answer(h.sign(&q))
				<-h.turn
			}()
		case q.Load != nil:
			h.beginLoad(&q)
		default:
			h.answer(reply{ID: q.ID, Err: "hold keys: nothing is asked for"})
		}
	}
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
	if !slices.Contains(h.pairs, q.Pair) {
		return nil, fmt.Errorf("hold keys: certificate %s is not of this configuration", q.Pair.Chain)
	}
	l, err := h.files.Load(q.Pair, q.Stamp)
	if l == nil || err != nil {
		return nil, err
	}
	sum := sha256.Sum256(l.Certificate.Leaf.RawSubjectPublicKeyInfo)
	id := keyID(hex.EncodeToString(sum[:]))
	h.keep(q.Pair, id, l.Certificate.PrivateKey.(crypto.Signer))
	return &loaded{Stamp: l.Stamp, Chain: l.Certificate.Certificate, Warnings: l.Warnings, Key: id}, nil
}

// keep remembers a pair's key and the one before it, and forgets older ones that
// no other pair has.
func (h *holder) keep(p keyring.Pair, id keyID, key crypto.Signer) {
	h.keys.Lock()
	defer h.keys.Unlock()
	h.have[id] = key
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
	key := h.have[q.Sign.Key]
	h.keys.RUnlock()
	if key == nil {
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
