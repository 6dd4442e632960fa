package relay

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/forward"
)

// TestTried: every origin that failed is told, once, and none that we gave up.
func TestTried(t *testing.T) {
	one, two := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::1]:25")
	failed := func(o netip.AddrPort, class error) error { return &forward.Error{Class: class, Origin: o} }
	for name, c := range map[string]struct {
		err  error
		want []event.Unreached
	}{
		"nothing":    {nil, nil},
		"one":        {failed(one, forward.ErrRefused), []event.Unreached{{Origin: one, Trouble: event.TroubleRefused}}},
		"given up":   {failed(one, context.Canceled), nil},
		"two, given": {forward.Failures{failed(one, forward.ErrLoop), failed(two, context.Canceled)}, []event.Unreached{{Origin: one, Trouble: event.TroubleLoop}}},
		"from two addresses": {
			forward.Failures{forward.Failures{failed(one, forward.ErrNoAddress), failed(one, forward.ErrTimeout)}, failed(two, forward.ErrUnreachable)},
			[]event.Unreached{{Origin: one, Trouble: event.TroubleTimeout}, {Origin: two, Trouble: event.TroubleUnreachable}},
		},
		"something else": {errors.New("else"), nil},
	} {
		if got := tried(c.err, nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
