package sockopt

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a TCP connection and a Peeker for the first.
func pair(t testing.TB) (a, b *net.TCPConn, p *Peeker) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = conn.(*net.TCPConn), other.(*net.TCPConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b, NewPeeker(a)
}

// await waits until the connection has something to read or has ended.
func await(t *testing.T, p *Peeker) {
	t.Helper()
	p.conn.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 10_000); n != 1 {
			t.Errorf("nothing arrived: %d, %v", n, err)
		}
	})
}

func TestPendingTakesNothing(t *testing.T) {
	a, b, p := pair(t)
	if n, err := p.Pending(); n != 0 || err != nil {
		t.Errorf("idle: %d, %v", n, err)
	}
	b.Write([]byte("220 "))
	await(t, p)
	for range 2 {
		if n, err := p.Pending(); n != 1 || err != nil {
			t.Errorf("with octets: %d, %v", n, err)
		}
	}
	var got [8]byte
	if n, err := a.Read(got[:]); string(got[:n]) != "220 " || err != nil {
		t.Errorf("read %q, %v after Pending", got[:n], err)
	}
	if n, err := p.Pending(); n != 0 || err != nil {
		t.Errorf("after the read: %d, %v", n, err)
	}
}

func TestPendingSeesTheEnd(t *testing.T) {
	_, b, p := pair(t)
	b.CloseWrite()
	await(t, p)
	if n, err := p.Pending(); n != 0 || err != io.EOF {
		t.Errorf("after the peer's FIN: %d, %v, want EOF", n, err)
	}
}

func TestPendingSeesOctetsBeforeTheEnd(t *testing.T) {
	_, b, p := pair(t)
	b.Write([]byte("x"))
	b.Close()
	await(t, p)
	if n, err := p.Pending(); n != 1 || err != nil {
		t.Errorf("%d, %v, want the octet first", n, err)
	}
}

func TestPendingSeesAReset(t *testing.T) {
	_, b, p := pair(t)
	b.SetLinger(0)
	b.Close()
	await(t, p)
	if n, err := p.Pending(); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
}

func TestPendingOfAClosedConnection(t *testing.T) {
	a, _, p := pair(t)
	a.Close()
	if _, err := p.Pending(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after our close: %v, want %v", err, net.ErrClosed)
	}
}

func TestPendingWithoutAConnection(t *testing.T) {
	if _, err := NewPeeker(new(net.TCPConn)).Pending(); err == nil {
		t.Error("no error")
	}
}

func TestPendingAllocatesNothing(t *testing.T) {
	_, _, p := pair(t)
	if n := testing.AllocsPerRun(100, func() { p.Pending() }); n != 0 {
		t.Errorf("%v allocations per Pending", n)
	}
}

func BenchmarkPending(b *testing.B) {
	_, _, p := pair(b)
	for b.Loop() {
		p.Pending()
	}
}
