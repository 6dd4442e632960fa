package forward

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
)

// forge returns a dialer that forges address and port in the given ways.
func forge(address config.ForgeAddress, port config.PortMode, origins ...netip.AddrPort) Dialer {
	return Dialer{
		Origins: origins,
		Forge:   config.Forge{Address: address, Port: config.ForgePort{Mode: port, Number: 2525}},
		Mark:    mark,
		Timeout: timeout,
	}
}

func TestOriginSeesTheClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   config.PortMode
		client uint16
		rung   Rung
		port   func(uint16) bool
	}{
		{"any", config.PortAny, 40001, RungAny, func(p uint16) bool { return p >= 1024 }},
		{"exact", config.PortExact, 40001, RungClient, func(p uint16) bool { return p == 40001 }},
		{"exact low", config.PortExact, 25, RungClient, func(p uint16) bool { return p == 25 }},
		{"group", config.PortGroup, 40002, RungClient, func(p uint16) bool { return p == 40002 }},
		{"random low", config.PortRandom, 25, RungRandom, func(p uint16) bool { return p >= 1 && p <= 511 }},
		{"random middle", config.PortRandom, 1000, RungRandom, func(p uint16) bool { return p >= 512 && p <= 1023 }},
		{"random high", config.PortRandom, 40003, RungRandom, func(p uint16) bool { return p >= 1024 }},
		{"number", config.PortNumber, 40004, RungNumber, func(p uint16) bool { return p == 2525 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			families(t, func(t *testing.T, n network) {
				o := listen(t, n.origin)
				conn, path := dial(t, forge(config.ForgeAlways, c.mode, o.addr), n.flow(c.client))
				seen := o.seen(t)
				if seen.Addr() != n.client || !c.port(seen.Port()) {
					t.Errorf("origin saw %s", seen)
				}
				if want := (Path{Origin: o.addr, Source: seen, Rung: c.rung, Attempts: 1}); path != want {
					t.Errorf("path %+v, want %+v", path, want)
				}
				if got := markOf(t, conn); got != mark {
					t.Errorf("mark 0x%x, want 0x%x", got, mark)
				}
				if option(t, conn, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
					t.Error("keep-alive was set up")
				}
				if got := option(t, conn, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
					t.Errorf("protocol %d, want plain TCP", got)
				}
			})
		})
	}
}

func TestNeverForging(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		conn, path := dial(t, forge(config.ForgeNever, config.PortExact, o.addr), n.flow(40010))
		seen := o.seen(t)
		if seen.Addr() == n.client || seen.Port() == 40010 || path.Source != seen || path.Forged() {
			t.Errorf("origin saw %s; path %+v", seen, path)
		}
		if got := markOf(t, conn); got != 0 {
			t.Errorf("mark 0x%x keeps the administrator's SNAT away", got)
		}
	})
}

func TestTransparentDialsWhatTheClientChose(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		f := n.flow(40011)
		f.Server = o.addr
		_, path := dial(t, forge(config.ForgeAlways, config.PortAny), f)
		if seen := o.seen(t); seen.Addr() != n.client || path.Origin != o.addr {
			t.Errorf("origin saw %s; path %+v", seen, path)
		}
	})
}

func TestNeverDialsTheGateway(t *testing.T) {
	o := listen(t, four.origin)
	for _, address := range []config.ForgeAddress{config.ForgeAlways, config.ForgePrefer, config.ForgeNever} {
		d := forge(address, config.PortAny, o.addr)
		d.Local = func(a netip.Addr) bool { return a == four.origin }
		if err := fails(t, d, four.flow(40012)); !errors.Is(err, ErrLoop) {
			t.Errorf("forging %d: %v, want %v", address, err, ErrLoop)
		}
	}
	if len(o.accepted) != 0 {
		t.Error("the gateway was dialled")
	}
}

func TestOriginsInOrder(t *testing.T) {
	o := listen(t, four.origin)
	dead := closedPort(t, four.second)
	d := forge(config.ForgeAlways, config.PortAny, dead, netip.AddrPortFrom(six.origin, 25), o.addr)
	_, path := dial(t, d, four.flow(40013))
	if path.Origin != o.addr || path.Attempts != 2 || o.seen(t).Addr() != four.client {
		t.Errorf("path %+v, want %s at the second attempt", path, o.addr)
	}
}

// TestDialAgain: the same origin whatever others are configured before it, and an
// account that goes on.
func TestDialAgain(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		other, o := listen(t, n.second), listen(t, n.origin)
		d := forge(config.ForgeAlways, config.PortExact, other.addr, o.addr)
		before := errors.New("it was away")
		conn, path, err := d.DialAgain(t.Context(), n.flow(40019), Path{Origin: o.addr, Rung: RungRandom, Attempts: 2, Failed: before})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if want := (Path{Origin: o.addr, Source: netip.AddrPortFrom(n.client, 40019), Rung: RungClient, Attempts: 3, Failed: before}); path != want {
			t.Errorf("path %+v, want %+v", path, want)
		}
		if seen := o.seen(t); seen != path.Source || len(other.accepted) != 0 {
			t.Errorf("origin saw %s, the other %d connections", seen, len(other.accepted))
		}
	})
}

// TestDialAgainFails: no other origin takes the place of the one that is gone.
func TestDialAgainFails(t *testing.T) {
	o, gone := listen(t, four.origin), closedPort(t, four.second)
	d := forge(config.ForgeAlways, config.PortAny, o.addr, gone)
	_, path, err := d.DialAgain(t.Context(), four.flow(40020), Path{Origin: gone, Attempts: 1})
	if !errors.Is(err, ErrRefused) || path.Attempts != 2 || len(o.accepted) != 0 {
		t.Errorf("%v after %d attempts, the other saw %d connections", err, path.Attempts, len(o.accepted))
	}
}

func TestAllOriginsFail(t *testing.T) {
	refused, unreachable := closedPort(t, four.origin), netip.MustParseAddrPort("198.18.0.1:25")
	err := fails(t, forge(config.ForgeAlways, config.PortAny, refused, unreachable), four.flow(40014))
	for _, class := range []error{ErrRefused, ErrUnreachable} {
		if !errors.Is(err, class) {
			t.Errorf("%v is not %v", err, class)
		}
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, refused.String()) || !strings.Contains(text, unreachable.String()) {
		t.Errorf("error %q does not name both origins on one line", text)
	}
}

func TestClasses(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		if err := fails(t, forge(config.ForgeAlways, config.PortAny, closedPort(t, n.origin)), n.flow(40015)); !errors.Is(err, ErrRefused) {
			t.Errorf("%v, want %v", err, ErrRefused)
		}
		o := listen(t, n.origin)
		silence(t, n, n.client)
		d := forge(config.ForgeAlways, config.PortAny, o.addr)
		d.Timeout = brief
		err := fails(t, d, n.flow(40015))
		if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "route back to the client") {
			t.Errorf("%v, want %v and its remedy", err, ErrTimeout)
		}
	})
}

func TestContextEndsADial(t *testing.T) {
	o := listen(t, four.origin)
	silence(t, four, four.client)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, r := prefer(config.PortAny, o.addr, o.addr)
	_, path, err := d.Dial(ctx, four.flow(40016))
	if !errors.Is(err, context.Canceled) || path.Attempts > 1 {
		t.Errorf("%v after %d attempts", err, path.Attempts)
	}
	if len(r.silent) != 0 {
		t.Error("an attempt that we broke off counts as silence")
	}
	ctx, cancel = context.WithTimeout(t.Context(), brief)
	defer cancel()
	if _, _, err := d.Dial(ctx, four.flow(40016)); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want %v", err, ErrTimeout)
	}
}

func TestOutOfDescriptors(t *testing.T) {
	o := listen(t, four.origin)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	d, r := prefer(config.PortAny, o.addr)
	_, _, err := d.Dial(t.Context(), four.flow(40017))
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, ErrResources) || len(r.answered)+len(r.silent) != 0 {
		t.Errorf("%v, told %+v, want %v", err, r, ErrResources)
	}
}

// Without privileges the client's address cannot be borne. No other takes its place.
func TestWithoutPrivileges(t *testing.T) {
	o := listen(t, four.origin)
	always := forge(config.ForgeAlways, config.PortAny, o.addr)
	prefers, _ := prefer(config.PortAny, o.addr)
	done := make(chan struct{})
	go func() { // its thread has lost its capabilities and ends with it
		defer close(done)
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		for _, d := range []Dialer{always, prefers} {
			_, _, err := d.Dial(t.Context(), four.flow(40018))
			if !errors.Is(err, ErrNoAddress) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "IP_TRANSPARENT") {
				t.Errorf("%s: %v", d.Forge.Address, err)
			}
		}
	}()
	<-done
}

// TestOnlyTheClientsFamilyIsTried: an origin of the other family is no attempt, and
// hides nothing of what the others met.
func TestOnlyTheClientsFamilyIsTried(t *testing.T) {
	o6 := listen(t, six.origin)
	dead := netip.AddrPortFrom(four.origin, 9)
	err := fails(t, forge(config.ForgeAlways, config.PortAny, o6.addr, dead), four.flow(41020))
	if !errors.Is(err, ErrRefused) || errors.Is(err, ErrFamily) || errors.Is(err, ErrNoAddress) {
		t.Errorf("%v, want %v alone", err, ErrRefused)
	}
}

// TestLinkLocalClients: no reply to their address comes through a router, so they are
// told so, or served without it.
func TestLinkLocalClients(t *testing.T) {
	o := listen(t, six.origin)
	f := six.flow(41021)
	f.Client = netip.AddrPortFrom(netip.MustParseAddr("fe80::7"), 41021)
	if err := fails(t, forge(config.ForgeAlways, config.PortAny, o.addr), f); !errors.Is(err, ErrLinkLocal) {
		t.Errorf("always: %v, want %v", err, ErrLinkLocal)
	}
	d, _ := prefer(config.PortAny, o.addr)
	if _, path := dial(t, d, f); path.Forged() || path.Unforged != event.UnforgedLinkLocal {
		t.Errorf("prefer: path %+v", path)
	}
}
