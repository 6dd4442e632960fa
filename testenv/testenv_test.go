package testenv

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// open builds a network that is closed at the end of the test.
func open(t *testing.T, options Options) *Env {
	t.Helper()
	e, err := New(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// hello connects and expects the listener to see the connection come from the
// address that it was made from.
func hello(t *testing.T, e *Env, from, to netip.Addr) {
	t.Helper()
	listener, err := e.Origin.Listen(netip.AddrPortFrom(to, 25))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := e.Client.Dial(t.Context(), netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 25))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	seen := accepted.RemoteAddr().String()
	if seen != conn.LocalAddr().String() || netip.MustParseAddrPort(seen).Addr() != from {
		t.Errorf("origin saw %s, client is %s and wanted %s", seen, conn.LocalAddr(), from)
	}
}

func TestClientReachesOriginThroughGateway(t *testing.T) {
	for name, options := range map[string]Options{"plain": {}, "inner router": {Inner: true, InnerMTU: 1300}} {
		t.Run(name, func(t *testing.T) {
			e := open(t, options)
			hello(t, e, e.Client4, e.Origin4)
			hello(t, e, e.Client6, e.Origin6)
			hello(t, e, e.MoreClients[len(e.MoreClients)-1], e.More4)
			hello(t, e, e.MoreClients6[0], e.More6)
		})
	}
}

func TestPreferredSources(t *testing.T) {
	e := open(t, Options{})
	for from, to := range map[netip.Addr]netip.Addr{e.Client4: e.Origin4, e.Client6: e.Origin6} {
		listener, err := e.Origin.Listen(netip.AddrPortFrom(to, 25))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := e.Client.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(to, 25))
		if err != nil {
			t.Fatal(err)
		}
		if got := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr(); got != from {
			t.Errorf("source towards %s is %s, want %s", to, got, from)
		}
		conn.Close()
		listener.Close()
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	e, err := New(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	sleeper := e.Gateway.Command(context.Background(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("a process of the gateway outlived the network")
	}
	for _, pattern := range []string{filepath.Join(netnsDir, e.prefix+"-*"), e.Dir} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	}
}

func TestSweepRemovesTheDead(t *testing.T) {
	// No process has this id: the kernel's limit is 1<<22.
	const prefix = "portreeve-4194305-1"
	e := &Env{prefix: prefix}
	dir := filepath.Join(os.TempDir(), prefix+"-dead")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := e.host(t.Context(), "ip", "netns", "add", prefix+"-client"); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(netnsDir, prefix+"-client")} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

func TestCommandKnowsNothingOfItsCaller(t *testing.T) {
	t.Setenv("SWAKS_OPT_to", "postmaster@example.com")
	got, err := open(t, Options{}).Client.Run(t.Context(), "env")
	if want := "PATH=" + os.Getenv("PATH") + "\nHOME=/nonexistent\nRES_OPTIONS=attempts:0\n"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestSysctlIsTheNodes(t *testing.T) {
	e := open(t, Options{})
	const key = "net.ipv4.tcp_syncookies"
	before, err := e.Client.Sysctl(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Gateway.SetSysctl(key, "2"); err != nil {
		t.Fatal(err)
	}
	gateway, err := e.Gateway.Sysctl(key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := e.Client.Sysctl(key)
	if err != nil {
		t.Fatal(err)
	}
	if gateway != "2" || client != before {
		t.Errorf("gateway %s, client %s; want 2 and %s", gateway, client, before)
	}
}

func TestTopologyRejectsNonsense(t *testing.T) {
	for _, text := range []string{"CLIENT4", "CLIENT4=nowhere"} {
		if _, err := parseTopology(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
