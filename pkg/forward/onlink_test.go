package forward

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/event"
)

// neighbours makes a client and an origin live in one network.
func neighbours(n network) func(client, origin netip.Addr) bool {
	return func(client, origin netip.Addr) bool { return client == n.client && origin == n.origin }
}

// TestOnLinkIsRefusedAtOnce: without an attempt, in each way to forge.
func TestOnLinkIsRefusedAtOnce(t *testing.T) {
	for _, address := range []config.ForgeAddress{config.ForgeAlways, config.ForgePrefer} {
		families(t, func(t *testing.T, n network) {
			o := listen(t, n.origin)
			d := forge(address, config.PortAny, o.addr)
			d.OnLink, d.Returns = neighbours(n), &told{broken: true}
			_, path, err := d.Dial(t.Context(), n.flow(43000))
			if !errors.Is(err, ErrOnLink) || path.Attempts != 0 || len(o.accepted) != 0 {
				t.Errorf("%s: %v after %d attempts", address, err, path.Attempts)
			}
			if text := err.Error(); !strings.Contains(text, n.client.String()) || !strings.Contains(text, "past the gateway") {
				t.Errorf("%q does not say who and why", text)
			}
		})
	}
}

func TestOnLinkPlain(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		d := forge(config.ForgeAlways, config.PortExact, o.addr)
		d.Forge.OnLink, d.OnLink = config.OnLinkPlain, neighbours(n)
		conn, path := dial(t, d, n.flow(43001))
		if o.seen(t).Addr() == n.client || path.Forged() || path.Unforged != event.UnforgedOnLink || path.Attempts != 1 {
			t.Errorf("path %+v", path)
		}
		if got := markOf(t, conn); got != 0 {
			t.Errorf("mark 0x%x keeps the administrator's SNAT away", got)
		}
	})
}

// TestOnLinkTriesTheNext: an origin in another network can see the client.
func TestOnLinkTriesTheNext(t *testing.T) {
	near, far := listen(t, four.origin), listen(t, four.second)
	d := forge(config.ForgeAlways, config.PortAny, near.addr, far.addr)
	d.OnLink = neighbours(four)
	_, path := dial(t, d, four.flow(43002))
	if path.Origin != far.addr || !path.Forged() || !errors.Is(path.Failed, ErrOnLink) {
		t.Errorf("path %+v, want the forged one to %s", path, far.addr)
	}
}

// TestNeverForgingKnowsNoLink: the gateway's address is answered at the gateway.
func TestNeverForgingKnowsNoLink(t *testing.T) {
	o := listen(t, four.origin)
	d := forge(config.ForgeNever, config.PortAny, o.addr)
	d.OnLink = neighbours(four)
	if _, path := dial(t, d, four.flow(43003)); path.Unforged != event.NotUnforged {
		t.Errorf("path %+v", path)
	}
}
