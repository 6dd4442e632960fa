package secure

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestSegments: however records are cut on their way, and however a leg is asked for
// them, with deadlines that have passed and looks in between, what was sent is what
// is read, and what Pending has promised is there.
func TestSegments(t *testing.T) {
	for seed := range uint64(40) {
		draw := rand.New(rand.NewPCG(seed, 0))
		server, client := opened(t)
		sent, wire := records(draw, client)
		go deliver(rand.New(rand.NewPCG(seed, 1)), client.under.Stream.(*tap), wire)
		got, err := collect(draw, server)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("seed %d: %d octets of %d, %v", seed, len(got), len(sent), err)
		}
	}
}

// records returns octets, and the records that they are sent in.
func records(draw *rand.Rand, c *Conn) (sent, wire []byte) {
	for range 20 {
		p := make([]byte, 1+draw.IntN([]int{3, 100, 20000, 60000}[draw.IntN(4)]))
		for i := range p {
			p[i] = byte(draw.Uint32())
		}
		sent, wire = append(sent, p...), append(wire, seal(c, p)...)
	}
	return sent, wire
}

// deliver writes in segments, and ends the stream.
func deliver(draw *rand.Rand, to *tap, wire []byte) {
	for len(wire) > 0 {
		n := min(len(wire), 1+draw.IntN([]int{1, 10, 5000, 50000}[draw.IntN(4)]))
		to.Conn.Write(wire[:n])
		wire = wire[n:]
	}
	to.CloseWrite()
}

// collect reads up to the end of the stream.
func collect(draw *rand.Rand, c *Conn) (got []byte, err error) {
	limit := soon()
	for time.Now().Before(limit) {
		c.SetReadDeadline([]time.Time{time.Unix(1, 0), time.Now().Add(50 * time.Microsecond), limit}[draw.IntN(3)])
		promised := 0
		if draw.IntN(2) == 0 {
			promised, _ = c.Pending()
		}
		p := make([]byte, 1+draw.IntN([]int{1, 512, 64 << 10}[draw.IntN(3)]))
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		switch {
		case n < promised:
			return got, errors.Join(errors.New("what was promised is not there"), err)
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return got, nil
		}
	}
	return got, errors.New("no end")
}
