package relay

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/forward"
	"github.com/portreeve/portreeve/testenv/peer"
)

// TestTried: every origin that failed is told, and none that we gave up.
func TestTried(t *testing.T) {
	one, two := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::1]:25")
	failed := func(o netip.AddrPort, class error) error { return &forward.Error{Class: class, Origin: o} }
	for name, c := range map[string]struct {
		err  error
		want []event.Unreached
	}{
		"nothing":        {nil, nil},
		"one":            {failed(one, forward.ErrRefused), []event.Unreached{{Origin: one, Trouble: event.TroubleRefused}}},
		"given up":       {failed(one, context.Canceled), nil},
		"two, given":     {forward.Failures{failed(one, forward.ErrLoop), failed(two, context.Canceled)}, []event.Unreached{{Origin: one, Trouble: event.TroubleLoop}}},
		"two":            {forward.Failures{failed(one, forward.ErrOnLink), failed(two, forward.ErrUnreachable)}, []event.Unreached{{Origin: one, Trouble: event.TroubleOnLink}, {Origin: two, Trouble: event.TroubleUnreachable}}},
		"something else": {errors.New("else"), nil},
	} {
		if got := tried(c.err, nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestFailoverIsRecorded: an origin that was tried before the one that served is
// in the session's record, and so is one when none served.
func TestFailoverIsRecorded(t *testing.T) {
	originOf := func(o *Options) netip.AddrPort { return o.Services["mx"].Dialer.Origins[0] }
	var closed, open netip.AddrPort
	start(t, peer.Behaviour{}, func(o *Options) { closed = originOf(o) }).origin.Close()
	first := func(o *Options) {
		open = originOf(o)
		d := o.Services["mx"].Dialer
		d.Origins = append([]netip.AddrPort{closed}, d.Origins...)
	}
	g := start(t, peer.Behaviour{}, first)
	g.open().Command("QUIT")
	g.empty()
	g.origin.Close()
	g.dial().expect("421 4.4.1")
	g.empty()
	refused := func(o netip.AddrPort) event.Unreached {
		return event.Unreached{Origin: o, Trouble: event.TroubleRefused}
	}
	if want := []event.Unreached{refused(closed), refused(closed), refused(open)}; !slices.Equal(g.records.tried, want) {
		t.Errorf("tried %v, want %v", g.records.tried, want)
	}
}
