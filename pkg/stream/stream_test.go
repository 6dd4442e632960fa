package stream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/testenv/peer"
)

// pair returns a Conn and the other end of its connection.
func pair(t testing.TB) (ours *Conn, theirs *net.TCPConn) {
	t.Helper()
	conn, theirs, err := peer.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ours = New(conn)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// await waits until the connection has something to read or has ended.
func await(t *testing.T, s *Conn) {
	t.Helper()
	s.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 10_000); n != 1 {
			t.Errorf("nothing arrived: %d, %v", n, err)
		}
	})
}

// done is how a Read or Write ended.
type done struct {
	n   int
	err error
}

// tooMuch is more than both sockets' buffers hold.
const tooMuch = 64 << 20

// stuck starts a write that cannot end while the peer reads nothing, and waits
// until some of it has arrived.
func stuck(t *testing.T, ours *Conn, theirs *net.TCPConn) <-chan done {
	t.Helper()
	ended := make(chan done, 1)
	go func() {
		n, err := ours.Write(make([]byte, tooMuch))
		ended <- done{n, err}
	}()
	await(t, New(theirs))
	return ended
}

// isPart reports whether a write ended in the middle, because of an error.
func (d done) isPart(because ...error) bool {
	for _, err := range because {
		if errors.Is(d.err, err) {
			return d.n > 0 && d.n < tooMuch
		}
	}
	return false
}

// reset makes the peer break the connection.
func reset(theirs *net.TCPConn) {
	theirs.SetLinger(0)
	theirs.Close()
}

func TestEveryOctetArrives(t *testing.T) {
	ours, theirs := pair(t)
	sent := make([]byte, 8<<20) // more than both sockets' buffers hold
	source := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(source.Uint32())
	}
	go func() { // what arrives is sent back
		io.Copy(theirs, theirs)
		theirs.CloseWrite()
	}()
	written := make(chan error, 1)
	go func() {
		n, err := ours.Write(sent)
		if n != len(sent) && err == nil {
			err = io.ErrShortWrite
		}
		written <- errors.Join(err, ours.CloseWrite())
	}()
	var got bytes.Buffer
	if _, err := io.Copy(&got, struct{ io.Reader }{ours}); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d octets came back of %d, or others", got.Len(), len(sent))
	}
}

func TestReadTakesWhatIsThere(t *testing.T) {
	ours, theirs := pair(t)
	theirs.Write([]byte("220 hi"))
	var p [4]byte
	for _, want := range []string{"220 ", "hi"} {
		await(t, ours)
		if n, err := ours.Read(p[:]); string(p[:n]) != want || err != nil {
			t.Errorf("%q, %v; want %q", p[:n], err, want)
		}
	}
}

func TestReadMeetsTheEnd(t *testing.T) {
	ours, theirs := pair(t)
	theirs.CloseWrite()
	if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v; want the bare EOF", n, err)
	}
}

func TestBrokenConnection(t *testing.T) {
	ours, theirs := pair(t)
	reset(theirs)
	await(t, ours)
	var op *net.OpError
	if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, unix.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := ours.Write([]byte("x")); n != 0 || !errors.Is(err, unix.EPIPE) || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("write %d, %v", n, err)
	}
}

// A write that was partly done says how far it came.
func TestWriteBrokenHalfWay(t *testing.T) {
	ours, theirs := pair(t)
	ended := stuck(t, ours, theirs)
	reset(theirs)
	if d := <-ended; !d.isPart(unix.ECONNRESET, unix.EPIPE) {
		t.Errorf("%+v", d)
	}
}

func TestPastDeadlines(t *testing.T) {
	ours, theirs := pair(t)
	ours.SetDeadline(time.Unix(1, 0))
	for range 2 {
		if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := ours.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write %d, %v", n, err)
		}
	}
	ours.SetDeadline(time.Time{})
	theirs.Write([]byte("y"))
	if n, err := ours.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("after the deadline was taken back: %d, %v", n, err)
	}
}

// read starts a read.
func read(ours *Conn) <-chan done {
	ended := make(chan done, 1)
	go func() {
		n, err := ours.Read(make([]byte, 1))
		ended <- done{n, err}
	}()
	return ended
}

// A deadline that somebody else sets ends a wait: so are sessions drained.
func TestDeadlineEndsWaits(t *testing.T) {
	ours, theirs := pair(t)
	reading, writing := read(ours), stuck(t, ours, theirs)
	ours.SetDeadline(time.Unix(1, 0))
	if d := <-reading; d.n != 0 || !errors.Is(d.err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %+v", d)
	}
	if d := <-writing; !d.isPart(os.ErrDeadlineExceeded) {
		t.Errorf("write: %+v", d)
	}
}

// A close ends them too: so are sessions cut.
func TestCloseEndsWaits(t *testing.T) {
	ours, theirs := pair(t)
	reading, writing := read(ours), stuck(t, ours, theirs)
	ours.Close()
	if d := <-reading; d.n != 0 || !errors.Is(d.err, net.ErrClosed) {
		t.Errorf("read: %+v", d)
	}
	if d := <-writing; !d.isPart(net.ErrClosed) {
		t.Errorf("write: %+v", d)
	}
	if _, err := ours.Pending(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("look: %v", err)
	}
}

func TestNothingToDo(t *testing.T) {
	ours, _ := pair(t)
	if n, err := ours.Read(nil); n != 0 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := ours.Write(nil); n != 0 || err != nil {
		t.Errorf("write %d, %v", n, err)
	}
}

func TestPendingTakesNothing(t *testing.T) {
	ours, theirs := pair(t)
	if n, err := ours.Pending(); n != 0 || err != nil {
		t.Errorf("idle: %d, %v", n, err)
	}
	theirs.Write([]byte("220 "))
	await(t, ours)
	for range 2 {
		if n, err := ours.Pending(); n != 1 || err != nil {
			t.Errorf("with octets: %d, %v", n, err)
		}
	}
	var got [8]byte
	if n, err := ours.Read(got[:]); string(got[:n]) != "220 " || err != nil {
		t.Errorf("read %q, %v after Pending", got[:n], err)
	}
	if n, err := ours.Pending(); n != 0 || err != nil {
		t.Errorf("after the read: %d, %v", n, err)
	}
}

func TestPendingSeesTheEnd(t *testing.T) {
	ours, theirs := pair(t)
	theirs.CloseWrite()
	await(t, ours)
	if n, err := ours.Pending(); n != 0 || err != io.EOF {
		t.Errorf("after the peer's FIN: %d, %v, want EOF", n, err)
	}
}

func TestPendingSeesOctetsBeforeTheEnd(t *testing.T) {
	ours, theirs := pair(t)
	theirs.Write([]byte("x"))
	theirs.Close()
	await(t, ours)
	if n, err := ours.Pending(); n != 1 || err != nil {
		t.Errorf("%d, %v, want the octet first", n, err)
	}
}

func TestPendingSeesAReset(t *testing.T) {
	ours, theirs := pair(t)
	reset(theirs)
	await(t, ours)
	if n, err := ours.Pending(); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
}

func TestWithoutAConnection(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(new(net.TCPConn))
}

func TestNothingIsAllocated(t *testing.T) {
	ours, theirs := pair(t)
	go io.Copy(theirs, theirs)
	p := []byte("x")
	n := testing.AllocsPerRun(100, func() {
		ours.Pending()
		ours.Write(p)
		ours.Read(p)
	})
	if n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}

// An idle connection must not keep the last buffer alive.
func TestBuffersAreForgotten(t *testing.T) {
	ours, theirs := pair(t)
	theirs.Write([]byte("x"))
	ours.Write([]byte("x"))
	ours.Read(make([]byte, 1))
	if ours.in.p != nil || ours.out.p != nil {
		t.Error("a buffer is kept")
	}
}

func BenchmarkPending(b *testing.B) {
	ours, _ := pair(b)
	for b.Loop() {
		ours.Pending()
	}
}

func BenchmarkExchange(b *testing.B) {
	ours, theirs := pair(b)
	go io.Copy(theirs, theirs)
	p := make([]byte, 100)
	for b.Loop() {
		ours.Write(p)
		ours.Read(p)
	}
}

// TestUnacknowledged: what the peer's host has is not counted, whether it was read there
// or not; what its full buffer leaves no room for is.
func TestUnacknowledged(t *testing.T) {
	ours, theirs := pair(t)
	if n := ours.Unacknowledged(); n != 0 {
		t.Errorf("%d octets before the first write", n)
	}
	ours.Write([]byte("250 ok"))
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("waited in vain: ", what)
			}
		}
	}
	until("it is acknowledged", func() bool { return ours.Unacknowledged() == 0 })
	ended := stuck(t, ours, theirs)
	until("it is not", func() bool { return ours.Unacknowledged() > 0 })
	ours.Close()
	<-ended
	if n := ours.Unacknowledged(); n != 0 {
		t.Errorf("%d octets of a closed connection", n)
	}
}
