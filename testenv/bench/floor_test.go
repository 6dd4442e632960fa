package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// floor is a relay on the loopback interface.
type floor struct {
	cmd *exec.Cmd
	at  netip.AddrPort
}

// newFloor starts a relay to an origin.
func newFloor(t *testing.T, origin netip.AddrPort) *floor {
	t.Helper()
	program, err := compileRelay(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &floor{at: spareAddress(t)}
	f.cmd = exec.Command(program, f.at.Addr().String(), strconv.Itoa(int(f.at.Port())), origin.Addr().String(), strconv.Itoa(int(origin.Port())))
	f.cmd.Stderr = os.Stderr
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.cmd.Process.Kill()
		f.cmd.Wait()
	})
	within(t, "it listens", func() bool {
		conn, err := net.Dial("tcp", f.at.String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return f
}

// spareAddress returns an address that nobody listens on.
func spareAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// dial connects from an address that is not that of the relay.
func (f *floor) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	conn, err := dialer.Dial("tcp", f.at.String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// idle waits until the relay's only socket is its listener.
func (f *floor) idle(t *testing.T) {
	t.Helper()
	within(t, "all connections are closed", func() bool {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", f.cmd.Process.Pid))
		sockets := 0
		for _, file := range files {
			if to, _ := os.Readlink(file); strings.HasPrefix(to, "socket:") {
				sockets++
			}
		}
		return sockets == 1
	})
}

// slowEcho answers a client that has said all with the same, and is slow to read.
func slowEcho(conn net.Conn) error {
	defer conn.Close()
	time.Sleep(50 * time.Millisecond)
	said, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	_, err = conn.Write(said)
	return err
}

// echoes serves, and returns where, and whom from.
func echoes(t *testing.T) (at netip.AddrPort, clients <-chan net.Addr) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	all := make(chan net.Addr, 1000)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all <- conn.RemoteAddr()
			go slowEcho(conn) // whoever was reset does not care
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String()), all
}

// Both ways are stuffed, since who should read sleeps first; each end comes by itself.
func TestFloorCarriesAllBothWays(t *testing.T) {
	origin, _ := echoes(t)
	f := newFloor(t, origin)
	var all sync.WaitGroup
	for n := range 40 {
		conn := f.dial(t)
		all.Go(func() {
			defer conn.Close()
			want := bytes.Repeat([]byte{byte(n), 'x', '\n'}, n*n*1500)
			_, err := conn.Write(want)
			err = errors.Join(err, conn.CloseWrite())
			time.Sleep(100 * time.Millisecond)
			got, err2 := io.ReadAll(conn)
			if err := errors.Join(err, err2); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d octets came back: %v", len(got), len(want), err)
			}
		})
	}
	all.Wait()
	f.idle(t)
}

func TestFloorKeepsTheClientsAddress(t *testing.T) {
	origin, clients := echoes(t)
	f := newFloor(t, origin)
	<-clients // that has found out whether it listens
	conn := f.dial(t)
	defer conn.Close()
	if from := (<-clients).(*net.TCPAddr); !from.IP.Equal(net.IPv4(127, 0, 0, 9)) {
		t.Errorf("the origin was reached from %s", from)
	}
}

func TestFloorLosesNoDescriptor(t *testing.T) {
	origin, _ := echoes(t)
	f := newFloor(t, origin)
	for n := range 300 {
		conn := f.dial(t)
		switch n % 3 {
		case 0: // reset, perhaps before the origin is there
			conn.SetLinger(0)
		case 1: // reset amid what nobody has read yet
			conn.Write(make([]byte, 1<<20))
			conn.SetLinger(0)
		}
		conn.Close()
	}
	last := f.dial(t) // accepted after all others
	defer last.Close()
	last.CloseWrite()
	if _, err := io.ReadAll(last); err != nil {
		t.Error(err)
	}
	f.idle(t)
}

func TestFloorEndsWhatTheOriginRefuses(t *testing.T) {
	f := newFloor(t, spareAddress(t))
	conn := f.dial(t)
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d octets, %v", n, err)
	}
	f.idle(t)
}
