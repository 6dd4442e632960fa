package sockopt

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a TCP connection and the raw form of the first.
func pair(t *testing.T) (a, b *net.TCPConn, raw syscall.RawConn) {
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
	raw, err = a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return a, b, raw
}

// await waits until the connection has something to read or has ended.
func await(t *testing.T, raw syscall.RawConn) {
	t.Helper()
	raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 10_000); n != 1 {
			t.Errorf("nothing arrived: %d, %v", n, err)
		}
	})
}

func TestPendingTakesNothing(t *testing.T) {
	a, b, raw := pair(t)
	if n, err := Pending(raw); n != 0 || err != nil {
		t.Errorf("idle: %d, %v", n, err)
	}
	b.Write([]byte("220 "))
	await(t, raw)
	for range 2 {
		if n, err := Pending(raw); n != 1 || err != nil {
			t.Errorf("with octets: %d, %v", n, err)
		}
	}
	var got [8]byte
	if n, err := a.Read(got[:]); string(got[:n]) != "220 " || err != nil {
		t.Errorf("read %q, %v after Pending", got[:n], err)
	}
	if n, err := Pending(raw); n != 0 || err != nil {
		t.Errorf("after the read: %d, %v", n, err)
	}
}

func TestPendingSeesTheEnd(t *testing.T) {
	_, b, raw := pair(t)
	b.CloseWrite()
	await(t, raw)
	if n, err := Pending(raw); n != 0 || err != io.EOF {
		t.Errorf("after the peer's FIN: %d, %v, want EOF", n, err)
	}
}

func TestPendingSeesOctetsBeforeTheEnd(t *testing.T) {
	_, b, raw := pair(t)
	b.Write([]byte("x"))
	b.Close()
	await(t, raw)
	if n, err := Pending(raw); n != 1 || err != nil {
		t.Errorf("%d, %v, want the octet first", n, err)
	}
}

func TestPendingSeesAReset(t *testing.T) {
	_, b, raw := pair(t)
	b.SetLinger(0)
	b.Close()
	await(t, raw)
	if n, err := Pending(raw); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
}

func TestPendingOfAClosedConnection(t *testing.T) {
	a, _, raw := pair(t)
	a.Close()
	if _, err := Pending(raw); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after our close: %v, want %v", err, net.ErrClosed)
	}
}
