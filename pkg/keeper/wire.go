package keeper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A message is its length in four octets, and JSON. Neither side remembers
// anything between two of them, so that one who has taken the inspector over has
// no more to play with at the holder than a single small message.
const (
	maxRequest = 64 << 10 // octets; a request to sign has some 200
	maxReply   = 4 << 20  // a chain of the largest file, in base64
)

// writeMessage sends a message with one write.
func writeMessage(w io.Writer, m any) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	whole := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(whole, body...))
	return err
}

// readMessage reads a message of at most limit octets into m. Its error is io.EOF
// where the stream ends between two.
func readMessage(r io.Reader, limit uint32, m any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return fmt.Errorf("a message of %d octets, more than %d", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, m)
}
