package forward

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
)

// told is what a dialer tells of origins, and is told of them.
type told struct {
	broken bool

	mu               sync.Mutex
	answered, silent []netip.AddrPort
	asked            []netip.Addr
}

func (r *told) Broken(_ netip.AddrPort, client netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, client)
	return r.broken
}

func (r *told) Answered(origin netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = append(r.answered, origin)
}

func (r *told) Silent(origin netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = append(r.silent, origin)
}

// prefer returns a dialer that prefers forging, and what it tells.
func prefer(port config.PortMode, origins ...netip.AddrPort) (Dialer, *told) {
	d, r := forge(config.ForgePrefer, port, origins...), &told{}
	d.Returns = r
	return d, r
}

func TestPreferForges(t *testing.T) {
	o := listen(t, four.origin)
	d, r := prefer(config.PortAny, o.addr)
	_, path := dial(t, d, four.flow(41000))
	if o.seen(t).Addr() != four.client || !path.Forged() || path.Unforged != event.NotUnforged {
		t.Errorf("path %+v", path)
	}
	if len(r.answered) != 1 || r.answered[0] != o.addr || len(r.silent) != 0 {
		t.Errorf("told %+v", r)
	}
}

// TestPreferHoldsWhenAClientIsBanned: an origin that is silent to one client is not
// shown the gateway's address in its place.
func TestPreferHoldsWhenAClientIsBanned(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		silence(t, n, n.client)
		d, r := prefer(config.PortAny, o.addr)
		d.Timeout = brief
		conn, path, err := d.Dial(t.Context(), n.flow(41001))
		if !errors.Is(err, ErrTimeout) || conn != nil || path.Attempts != 1 || len(o.accepted) != 0 {
			t.Errorf("%+v, %v; the origin saw %d connections", path, err, len(o.accepted))
		}
		if len(r.silent) != 1 || r.silent[0] != o.addr || len(r.answered) != 0 {
			t.Errorf("told %+v", r)
		}
	})
}

// TestPreferGivesUpForAll: while forging is broken there is no attempt to forge.
func TestPreferGivesUpForAll(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		d, r := prefer(config.PortExact, o.addr)
		r.broken = true
		_, path := dial(t, d, n.flow(41002))
		if o.seen(t).Addr() == n.client || path.Forged() || path.Attempts != 1 || path.Unforged != event.NoReturn {
			t.Errorf("path %+v", path)
		}
		if len(r.asked) != 1 || r.asked[0] != n.client || len(r.answered)+len(r.silent) != 0 {
			t.Errorf("told %+v", r)
		}
	})
}

// TestPreferAgain: whether the first connection was forged does not bind the second.
func TestPreferAgain(t *testing.T) {
	o := listen(t, four.origin)
	d, r := prefer(config.PortAny, o.addr)
	f := four.flow(41007)
	path := Path{Origin: o.addr, Rung: RungAny, Attempts: 1}
	for _, broken := range []bool{true, false} {
		r.broken = broken
		conn, next, err := d.DialAgain(t.Context(), f, path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if seen := o.seen(t); seen != next.Source || next.Forged() == broken || (seen.Addr() == four.client) == broken ||
			(next.Unforged == event.NoReturn) != broken || next.Attempts != path.Attempts+1 {
			t.Errorf("broken %v: origin saw %s; path %+v", broken, seen, next)
		}
		path = next
	}
}

// TestPreferHoldsOnATakenPort: ports run out by what clients do.
func TestPreferHoldsOnATakenPort(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		dial(t, forge(config.ForgeAlways, config.PortExact, o.addr), n.flow(41003))
		d, r := prefer(config.PortExact, o.addr)
		if err := fails(t, d, n.flow(41003)); !errors.Is(err, ErrNoAddress) {
			t.Errorf("%v, want %v", err, ErrNoAddress)
		}
		if len(r.answered)+len(r.silent) != 0 {
			t.Errorf("told %+v of a port", r)
		}
	})
}

// TestPreferServesAnotherFamily: that no origin is of the client's family is in the
// file, and the same for all of its clients.
func TestPreferServesAnotherFamily(t *testing.T) {
	o := listen(t, six.origin)
	d, _ := prefer(config.PortAny, o.addr)
	_, path := dial(t, d, four.flow(41004))
	if path.Forged() || path.Attempts != 1 || path.Unforged != event.OtherFamily {
		t.Errorf("path %+v", path)
	}
	if err := fails(t, forge(config.ForgeAlways, config.PortAny, o.addr), four.flow(41004)); !errors.Is(err, ErrFamily) {
		t.Errorf("always: %v, want %v", err, ErrFamily)
	}
}

func TestPreferTriesTheClientsFamilyFirst(t *testing.T) {
	o4, o6 := listen(t, four.origin), listen(t, six.origin)
	d, _ := prefer(config.PortAny, o6.addr, o4.addr)
	_, path := dial(t, d, four.flow(41005))
	if path.Origin != o4.addr || !path.Forged() {
		t.Errorf("path %+v, want the forged one to %s", path, o4.addr)
	}
	_, path = dial(t, forge(config.ForgeNever, config.PortAny, o6.addr, o4.addr), four.flow(41005))
	if path.Origin != o6.addr {
		t.Errorf("never forging: path %+v, want the first origin, %s", path, o6.addr)
	}
}

// TestBanIsNotEvadedByTheOtherFamily: a client whose own family's origin is silent to
// it does not come to the other one from the gateway's address.
func TestBanIsNotEvadedByTheOtherFamily(t *testing.T) {
	o4, o6 := listen(t, four.origin), listen(t, six.origin)
	silence(t, four, four.client)
	d, _ := prefer(config.PortAny, o6.addr, o4.addr)
	d.Timeout = brief
	if err := fails(t, d, four.flow(41006)); !errors.Is(err, ErrTimeout) || len(o6.accepted) != 0 {
		t.Errorf("%v; the other saw %d connections", err, len(o6.accepted))
	}
}

func TestPreferTakesARefusalAsTheOriginsWord(t *testing.T) {
	d, r := prefer(config.PortAny, closedPort(t, four.origin))
	_, path, err := d.Dial(t.Context(), four.flow(41008))
	if !errors.Is(err, ErrRefused) || path.Attempts != 1 || len(r.answered) != 1 || len(r.silent) != 0 {
		t.Errorf("%v after %d attempts, told %+v; want one refusal, which came back", err, path.Attempts, r)
	}
}
