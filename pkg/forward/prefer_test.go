package forward

import (
	"errors"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
)

func TestPreferForges(t *testing.T) {
	o := listen(t, four.origin)
	_, path := dial(t, forge(config.ForgePrefer, config.PortAny, o.addr), four.flow(41000))
	if o.seen(t).Addr() != four.client || !path.Forged() || path.Fallback != nil {
		t.Errorf("path %+v", path)
	}
}

func TestPreferFallsBackOnSilence(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		silence(t, n, n.client)
		d := forge(config.ForgePrefer, config.PortAny, o.addr)
		d.Timeout = brief
		_, path := dial(t, d, n.flow(41001))
		if o.seen(t).Addr() == n.client || path.Forged() || path.Attempts != 2 || !errors.Is(path.Fallback, ErrTimeout) {
			t.Errorf("path %+v", path)
		}
	})
}

// TestPreferAgain: whether the first connection was forged does not bind the second.
func TestPreferAgain(t *testing.T) {
	o := listen(t, four.origin)
	d := forge(config.ForgePrefer, config.PortAny, o.addr)
	d.Timeout = brief
	f := four.flow(41007)
	again := func(t *testing.T, earlier Path) Path {
		t.Helper()
		conn, path, err := d.DialAgain(t.Context(), f, earlier)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if seen := o.seen(t); seen != path.Source || path.Forged() != (seen.Addr() == four.client) {
			t.Errorf("origin saw %s; path %+v", seen, path)
		}
		return path
	}
	path := Path{Origin: o.addr, Rung: RungAny, Attempts: 1}
	t.Run("silence", func(t *testing.T) {
		silence(t, four, four.client)
		if path = again(t, path); path.Forged() || path.Attempts != 3 || !errors.Is(path.Fallback, ErrTimeout) {
			t.Errorf("path %+v", path)
		}
	})
	d.Timeout = timeout
	if path = again(t, path); !path.Forged() || path.Attempts != 4 || path.Fallback != nil {
		t.Errorf("path %+v", path)
	}
}

func TestPreferFallsBackOnATakenPort(t *testing.T) {
	families(t, func(t *testing.T, n network) {
		o := listen(t, n.origin)
		dial(t, forge(config.ForgeAlways, config.PortExact, o.addr), n.flow(41002))
		_, path := dial(t, forge(config.ForgePrefer, config.PortExact, o.addr), n.flow(41002))
		if path.Forged() || !errors.Is(path.Fallback, ErrNoAddress) {
			t.Errorf("path %+v", path)
		}
	})
}

func TestPreferFallsBackOnFamily(t *testing.T) {
	o := listen(t, six.origin)
	_, path := dial(t, forge(config.ForgePrefer, config.PortAny, o.addr), four.flow(41003))
	if path.Forged() || path.Attempts != 1 || !errors.Is(path.Fallback, ErrNoAddress) {
		t.Errorf("path %+v", path)
	}
	if err := fails(t, forge(config.ForgeAlways, config.PortAny, o.addr), four.flow(41003)); !errors.Is(err, ErrNoAddress) {
		t.Errorf("always: %v, want %v", err, ErrNoAddress)
	}
}

func TestPreferTriesTheClientsFamilyFirst(t *testing.T) {
	o4, o6 := listen(t, four.origin), listen(t, six.origin)
	_, path := dial(t, forge(config.ForgePrefer, config.PortAny, o6.addr, o4.addr), four.flow(41004))
	if path.Origin != o4.addr || !path.Forged() {
		t.Errorf("path %+v, want the forged one to %s", path, o4.addr)
	}
	_, path = dial(t, forge(config.ForgeNever, config.PortAny, o6.addr, o4.addr), four.flow(41004))
	if path.Origin != o6.addr {
		t.Errorf("never forging: path %+v, want the first origin, %s", path, o6.addr)
	}
}

func TestPreferTakesARefusalAsTheOriginsWord(t *testing.T) {
	d := forge(config.ForgePrefer, config.PortAny, closedPort(t, four.origin))
	_, path, err := d.Dial(t.Context(), four.flow(41005))
	if !errors.Is(err, ErrRefused) || path.Attempts != 1 {
		t.Errorf("%v after %d attempts, want one refusal", err, path.Attempts)
	}
}

func TestPreferReportsBothFailures(t *testing.T) {
	o := listen(t, four.origin)
	silence(t, four, four.client)
	silence(t, four, gateway4)
	d := forge(config.ForgePrefer, config.PortAny, o.addr)
	d.Timeout = brief
	err := fails(t, d, four.flow(41006))
	var both Failures
	if !errors.As(err, &both) || len(both) != 2 || !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want both attempts", err)
	}
}
