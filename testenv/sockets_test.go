package testenv

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestSocketsShowWhatIsUnread(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := New(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, address := range []netip.Addr{e.Origin4, e.Origin6} {
		checkSockets(ctx, t, e, netip.AddrPortFrom(address, 25))
	}
}

func checkSockets(ctx context.Context, t *testing.T, e *Env, at netip.AddrPort) {
	t.Helper()
	listener, err := e.Origin.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := e.Client.Dial(ctx, netip.AddrPort{}, at)
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() bool { return pending(t, e.Origin) == "0 5" && pending(t, e.Client) == "0 0" })
	if _, err := server.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, e.Origin); got != "0 0" {
		t.Errorf("%s octets are pending after all are read", got)
	}
	client.Close()
	if open, err := e.Origin.Connected(); err != nil || !open {
		t.Errorf("connected %t, %v; the server has not closed its own end", open, err)
	}
	server.Close()
	await(ctx, t, func() bool { open, err := e.Origin.Connected(); return err == nil && !open })
}

// pending prints what is unsent and unread on a node.
func pending(t *testing.T, n *Node) string {
	t.Helper()
	unsent, unread, err := n.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(unsent, unread)
}

// await looks at a condition again and again.
func await(ctx context.Context, t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}

func TestSocketRowsAreChecked(t *testing.T) {
	for _, row := range [][]string{{"0:", "1:19", "2:0", "01"}, {"0:", "1:19", "2:0", "0x", "0:0"}, {"0:", "1:19", "2:0", "01", "0:y"}} {
		if s, err := parseSocket(row); err == nil {
			t.Errorf("%q was read as %+v", row, s)
		}
	}
}
