package forward

import (
	"errors"
	"net"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
)

func TestGroups(t *testing.T) {
	for port, want := range map[uint16]span{1: {1, 511}, 511: {1, 511}, 512: {512, 1023}, 1023: {512, 1023}, 1024: {1024, 65535}, 65535: {1024, 65535}} {
		if got := group(port); got != want {
			t.Errorf("group of %d is %v, want %v", port, got, want)
		}
	}
}

func TestWalkStaysInTheGroupAndNeverRepeats(t *testing.T) {
	for _, client := range []uint16{25, 600, 50000} {
		g := group(client)
		met := make(map[uint16]bool)
		for rung, port := range ports(config.ForgePort{Mode: config.PortRandom}, client) {
			if rung != RungRandom || port < g.first || port > g.last || met[port] {
				t.Fatalf("%s %d (met before: %v) outside of %v", rung, port, met[port], g)
			}
			met[port] = true
		}
		if len(met) != portTries {
			t.Errorf("%d ports, want %d", len(met), portTries)
		}
	}
}

func TestStrideMeetsEveryPort(t *testing.T) {
	for _, g := range []span{group(1), group(512), group(1024)} {
		size := uint32(g.last-g.first) + 1
		met := make(map[uint32]bool)
		for at := uint32(0); !met[at]; at = (at + stride) % size {
			met[at] = true
		}
		if uint32(len(met)) != size {
			t.Errorf("%v: %d of %d ports met", g, len(met), size)
		}
	}
}

func TestRandomPortsAreNotInARow(t *testing.T) {
	starts := make(map[uint16]bool)
	for range 20 {
		for _, port := range ports(config.ForgePort{Mode: config.PortRandom}, 50000) {
			starts[port] = true
			break
		}
	}
	if len(starts) < 10 { // of 64512: cannot happen by chance
		t.Errorf("only %d different first ports in 20", len(starts))
	}
}

func TestExactPortTaken(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		first, second := listen(t, n.origin), listen(t, n.second)
		d := forge(config.ForgeAlways, config.PortExact, first.addr)
		dial(t, d, n.flow(42000))
		if err := fails(t, d, n.flow(42000)); !errors.Is(err, ErrNoAddress) {
			t.Errorf("%v, want %v", err, ErrNoAddress)
		}
		_, path := dial(t, forge(config.ForgeAlways, config.PortExact, second.addr), n.flow(42000))
		if path.Source.Port() != 42000 {
			t.Errorf("port %d towards another origin, want the same", path.Source.Port())
		}
	})
}

func TestGroupTakesAnotherPort(t *testing.T) {
	for _, port := range []uint16{300, 700, 42001} {
		families(t, func(t *testing.T, n network) {
			o := listen(t, n.origin)
			d := forge(config.ForgeAlways, config.PortGroup, o.addr)
			dial(t, d, n.flow(port))
			_, path := dial(t, d, n.flow(port))
			got := path.Source.Port()
			if path.Rung != RungGroup || got == port || group(got) != group(port) || path.Attempts < 2 {
				t.Errorf("path %+v for the client's port %d", path, port)
			}
		})
	}
}

// A port that the kernel chose for one service must not stand in the way of
// another service that forges the port.
func TestExactPortBesideAny(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		first, second := listen(t, n.origin), listen(t, n.second)
		_, chosen := dial(t, forge(config.ForgeAlways, config.PortAny, first.addr), n.flow(42002))
		_, path := dial(t, forge(config.ForgeAlways, config.PortExact, second.addr), n.flow(chosen.Source.Port()))
		if path.Source != chosen.Source {
			t.Errorf("source %s, want %s for both", path.Source, chosen.Source)
		}
	})
}

// One client may have more connections at once than the range of ports is long,
// as long as they go to different origins.
func TestAnyPortIsPerOrigin(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		origins := []*origin{listen(t, n.origin), listen(t, n.second)} // with ports outside of the range
		sysctl(t, "ip_local_port_range", "1024 1027")
		for _, o := range origins {
			for range 4 {
				dial(t, forge(config.ForgeAlways, config.PortAny, o.addr), n.flow(42003))
			}
			if err := fails(t, forge(config.ForgeAlways, config.PortAny, o.addr), n.flow(42003)); !errors.Is(err, ErrNoAddress) {
				t.Errorf("with all ports in use: %v, want %v", err, ErrNoAddress)
			}
		}
	})
}

func TestReconnectInTimeWait(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		d := forge(config.ForgeAlways, config.PortExact, o.addr)
		leaveTimeWait(t, d, o, n, 42004)
		if _, path := dial(t, d, n.flow(42004)); path.Source.Port() != 42004 {
			t.Errorf("path %+v", path)
		}
	})
}

// Without timestamps the kernel cannot tell old segments from new ones and keeps
// the port.
func TestTimeWaitWithoutTimestamps(t *testing.T) {
	sysctl(t, "tcp_timestamps", "0")
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		exact := forge(config.ForgeAlways, config.PortExact, o.addr)
		leaveTimeWait(t, exact, o, n, 42005)
		if err := fails(t, exact, n.flow(42005)); !errors.Is(err, ErrNoAddress) {
			t.Errorf("exact: %v, want %v", err, ErrNoAddress)
		}
		_, path := dial(t, forge(config.ForgeAlways, config.PortGroup, o.addr), n.flow(42005))
		if path.Rung != RungGroup {
			t.Errorf("group: path %+v, want another port of the group", path)
		}
	})
}

// leaveTimeWait makes a connection and closes it in order, our side first.
func leaveTimeWait(t *testing.T, d Dialer, o *origin, n network, port uint16) {
	t.Helper()
	conn, _, err := d.Dial(t.Context(), n.flow(port))
	if err != nil {
		t.Fatal(err)
	}
	peer := <-o.accepted
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readEnd(t, peer)
	peer.Close()
	readEnd(t, conn)
	conn.Close()
}

// readEnd waits for the peer's FIN.
func readEnd(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d, %v; want the end", n, err)
	}
}
