package returns

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/pkg/flow"
	"github.com/portreeve/portreeve/pkg/forward"
)

// Patience is how long an origin may take to answer a connection that is tried: it
// spans the loss of two SYNs.
const Patience = 3 * time.Second

// Dial tries a connection to an origin, from an address that is not the gateway's
// or, where it is not valid, from the gateway's own. Its errors are forward's.
type Dial func(ctx context.Context, origin netip.AddrPort, from netip.Addr) error

// Dialer returns the Dial that opens a connection and closes it at once. An origin's
// log may note a client that said nothing. mark is that of forged packets.
func Dialer(mark uint32) Dial {
	return func(ctx context.Context, origin netip.AddrPort, from netip.Addr) error {
		d := forward.Dialer{Origins: []netip.AddrPort{origin}, Mark: mark, Timeout: Patience}
		if !from.IsValid() {
			d.Forge.Address = config.ForgeNever
		}
		conn, _, err := d.Dial(ctx, flow.Flow{ID: flow.NewID(), Client: netip.AddrPortFrom(from, 0)})
		if err != nil {
			return err
		}
		conn.SetLinger(0) // no TIME_WAIT
		return conn.Close()
	}
}

// Trial is what connections to an origin came to.
type Trial struct {
	Origin netip.AddrPort
	From   netip.Addr // not the gateway's
	Forged error      // of the connection from there; nil: it was made
	Plain  error      // of the one from the gateway's own address; nil also where the other got an answer, and it was not tried
}

// Try connects to an origin from an address that is not the gateway's. Gets that no
// answer, it looks whether the gateway's own address does.
func Try(ctx context.Context, dial Dial, origin netip.AddrPort, from netip.Addr) Trial {
	t := Trial{Origin: origin, From: from, Forged: dial(ctx, origin, from)}
	if silent(t.Forged) {
		t.Plain = dial(ctx, origin, netip.Addr{})
	}
	return t
}

// Answered reports whether the origin's reply came back. A refusal is one.
func (t Trial) Answered() bool { return answered(t.Forged) }

// Lost reports whether the origin serves the gateway's own address, and its reply to
// the other did not come back.
func (t Trial) Lost() bool { return silent(t.Forged) && t.Plain == nil }

func answered(err error) bool { return err == nil || errors.Is(err, forward.ErrRefused) }

func silent(err error) bool { return errors.Is(err, forward.ErrTimeout) }
