package stream

import (
	"errors"
	"net"
	"testing"
	"time"
)

// asleep puts a connection to sleep, and returns a channel that is closed when
// it is woken.
func asleep(t *testing.T, w *Watch, c *Conn, until time.Duration) <-chan struct{} {
	t.Helper()
	woken := make(chan struct{})
	if err := w.Sleep(c, time.Now().Add(until), func() { close(woken) }); err != nil {
		t.Fatal(err)
	}
	return woken
}

func awaitWoken(t *testing.T, woken <-chan struct{}) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not woken")
	}
}

// sleeps reports whether a connection is still asleep, after another one, put to
// sleep later, was woken by the same watch.
func sleeps(t *testing.T, w *Watch, woken <-chan struct{}) bool {
	t.Helper()
	other, peer := pair(t)
	later := asleep(t, w, other, time.Hour)
	peer.Write([]byte("x"))
	awaitWoken(t, later)
	select {
	case <-woken:
		return false
	default:
		return true
	}
}

func TestWatchWakes(t *testing.T) {
	for name, wake := range map[string]func(w *Watch, c *Conn, peer *net.TCPConn){
		"input":      func(_ *Watch, _ *Conn, peer *net.TCPConn) { peer.Write([]byte("x")) },
		"end":        func(_ *Watch, _ *Conn, peer *net.TCPConn) { peer.CloseWrite() },
		"reset":      func(_ *Watch, _ *Conn, peer *net.TCPConn) { peer.SetLinger(0); peer.Close() },
		"Wake":       func(w *Watch, c *Conn, _ *net.TCPConn) { w.Wake(c) },
		"own close":  func(w *Watch, c *Conn, _ *net.TCPConn) { c.Close(); w.Wake(c) },
		"Wake twice": func(w *Watch, c *Conn, _ *net.TCPConn) { w.Wake(c); w.Wake(c) },
	} {
		t.Run(name, func(t *testing.T) {
			w := &Watch{}
			c, peer := pair(t)
			woken := asleep(t, w, c, time.Hour)
			if !sleeps(t, w, woken) {
				t.Fatal("it was woken before anything happened")
			}
			wake(w, c, peer)
			awaitWoken(t, woken)
			w.Wake(c) // does nothing: close would panic
		})
	}
}

func TestWatchSeesWhatIsThere(t *testing.T) {
	w := &Watch{}
	c, peer := pair(t)
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c.Sleep()
	awaitWoken(t, asleep(t, w, c, time.Hour))
}

func TestWatchEndsWhenTimeIsOver(t *testing.T) {
	w := &Watch{}
	early, _ := pair(t)
	late, _ := pair(t)
	lateWoken := asleep(t, w, late, time.Hour)
	awaitWoken(t, asleep(t, w, early, 0))
	if !sleeps(t, w, lateWoken) {
		t.Error("another one was woken before its time")
	}
}

// An event that was meant for an earlier sleep, and one that nobody took, must
// not matter.
func TestWatchAgainAndAgain(t *testing.T) {
	w := &Watch{}
	c, peer := pair(t)
	for range 50 {
		woken := asleep(t, w, c, time.Hour)
		w.Wake(c)
		awaitWoken(t, woken)
		woken = asleep(t, w, c, time.Hour)
		peer.Write([]byte("x"))
		awaitWoken(t, woken)
		var p [8]byte
		if n, err := c.Read(p[:]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	woken := asleep(t, w, c, time.Hour)
	if !sleeps(t, w, woken) {
		t.Error("it was woken for nothing")
	}
}

func TestWatchTakesNoClosedConnection(t *testing.T) {
	w := &Watch{}
	c, _ := pair(t)
	c.Close()
	if err := w.Sleep(c, time.Now(), func() { t.Error("woken") }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
