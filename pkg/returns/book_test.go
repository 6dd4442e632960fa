package returns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portreeve/portreeve/pkg/forward"
)

var (
	mx     = netip.MustParseAddrPort("172.16.20.254:25")
	client = netip.MustParseAddr("172.16.10.99")
	banned = netip.MustParseAddr("172.16.10.66")
)

// world is an origin, and what it and its packet filter make of addresses.
type world struct {
	mu      sync.Mutex
	silent  bool         // it answers nobody at all
	refuses bool         // nobody listens there
	broken  bool         // replies to addresses that are not the gateway's do not come back
	filter  bool         // it does not answer addresses that belong to nobody
	bans    netip.Prefix // nor these clients
	lost    int          // so many connections are lost before one comes through
	tried   []netip.Addr // from where; not valid: the gateway's own
	during  func(*Book)  // called with each try
	book    *Book
	log     *bytes.Buffer
}

func (w *world) dial(ctx context.Context, _ netip.AddrPort, from netip.Addr) error {
	if w.during != nil {
		w.during(w.book)
	}
	w.mu.Lock()
	w.tried = append(w.tried, from)
	answers, refuses := w.answers(from), w.refuses
	w.mu.Unlock()
	switch {
	case !answers:
		select {
		case <-time.After(Patience):
			return &forward.Error{Class: forward.ErrTimeout}
		case <-ctx.Done():
			return &forward.Error{Class: context.Canceled}
		}
	case refuses:
		return &forward.Error{Class: forward.ErrRefused}
	}
	return nil
}

func (w *world) answers(from netip.Addr) bool {
	if w.lost > 0 {
		w.lost--
		return false
	}
	if w.bans.Contains(from) {
		return false
	}
	belongsToNobody := from.IsValid() && from != client && from != banned
	return !w.silent && !(from.IsValid() && w.broken) && !(belongsToNobody && w.filter) && from != banned
}

// set changes the world.
func (w *world) set(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// forged and plain are how many connections of each kind were tried.
func (w *world) forged() (n int) { return len(w.tries()) - w.plain() }

func (w *world) plain() (n int) {
	for _, from := range w.tries() {
		if !from.IsValid() {
			n++
		}
	}
	return n
}

func (w *world) tries() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]netip.Addr(nil), w.tried...)
}

// counting returns addresses of nobody, one after the other.
func counting() func(netip.Addr) netip.Addr {
	var mu sync.Mutex
	next := uint32(0xc0000200) // 192.0.2.0
	return func(netip.Addr) netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		next++
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, next)))
	}
}

// in runs a story in virtual time, with a book in which mx is known.
func in(t *testing.T, w *world, story func(b *Book)) {
	synctest.Test(t, func(t *testing.T) {
		w.log = new(bytes.Buffer)
		w.book = New(Options{Dial: w.dial, Nobody: counting(), Origins: []netip.AddrPort{mx}, Near: netip.MustParsePrefix("10.0.0.0/8").Contains, Log: slog.New(slog.NewTextHandler(w.log, nil))})
		defer w.book.Close()
		story(w.book)
	})
}

// awhile is long enough for a suspicion to be looked into.
func awhile() {
	time.Sleep(tries*2*Patience + tries*pause)
	synctest.Wait()
}

const givenUp, worksAgain, noWitness = "do not come back to this gateway", "come back again", "cannot be found out"

// said returns how often the log says something.
func (w *world) said(what string) int { return strings.Count(w.log.String(), what) }

// TestBanIsNoEvidence: whoever gets no answer has it looked into, and nothing comes
// of it while others are answered, however often it happens.
func TestBanIsNoEvidence(t *testing.T) {
	w := &world{}
	in(t, w, func(b *Book) {
		for range 1000 {
			b.Silent(mx)
			synctest.Wait()
		}
		if b.Broken(mx, banned) || w.forged() != 1 || w.plain() != 0 {
			t.Errorf("given up: %v; tried %v", b.Broken(mx, banned), w.tries())
		}
		time.Sleep(10 * rest)
		synctest.Wait()
		if b.Broken(mx, banned) || w.forged() != 2 || w.log.Len() != 0 {
			t.Errorf("tried %v; said %s", w.tries(), w.log)
		}
	})
}

func TestOneLossIsNoEvidence(t *testing.T) {
	w := &world{lost: 1}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		if b.Broken(mx, client) || w.forged() != 2 || w.plain() != 1 {
			t.Errorf("given up: %v; tried %v", b.Broken(mx, client), w.tries())
		}
	})
}

// TestUnreachableOriginIsNoEvidence: nor is one that refuses everybody.
func TestUnreachableOriginIsNoEvidence(t *testing.T) {
	for _, w := range []*world{{silent: true}, {refuses: true}, {refuses: true, broken: true}} {
		in(t, w, func(b *Book) {
			b.Silent(mx)
			awhile()
			if b.Broken(mx, client) {
				t.Errorf("given up for %+v", w)
			}
		})
	}
}

// TestBrokenPath: given up for everybody, told once, tried again, and taken up.
func TestBrokenPath(t *testing.T) {
	w := &world{broken: true}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		time.Sleep(time.Second)
		if b.Broken(mx, client) {
			t.Error("given up on one silence")
		}
		awhile()
		if !b.Broken(mx, client) || w.forged() != tries || w.plain() != tries || !b.States()[0].Broken {
			t.Errorf("not given up; tried %v", w.tries())
		}
		seen := map[netip.Addr]bool{}
		for _, from := range w.tries() {
			if from.IsValid() && seen[from] {
				t.Errorf("%s was tried twice", from)
			}
			seen[from] = true
		}
		time.Sleep(10 * (again + Patience))
		synctest.Wait()
		if !b.Broken(mx, client) || w.plain() != tries || w.said(givenUp) != 1 {
			t.Errorf("after a while: %d plain connections; said %s", w.plain(), w.log)
		}
		w.set(func(w *world) { w.broken = false })
		time.Sleep(again + (1+witnesses)*Patience)
		synctest.Wait()
		if b.Broken(mx, client) || w.said(worksAgain) != 1 || b.States()[0].Broken {
			t.Errorf("mended, and not taken up; said %s", w.log)
		}
		w.set(func(w *world) { w.broken = true })
		time.Sleep(rest)
		b.Silent(mx)
		awhile()
		if !b.Broken(mx, client) || w.said(givenUp) != 2 {
			t.Errorf("broken again, and not given up; said %s", w.log)
		}
	})
}

// TestOthersAreAnsweredMeanwhile: it cannot be broken then, whatever was tried.
func TestOthersAreAnsweredMeanwhile(t *testing.T) {
	w := &world{filter: true, during: func(b *Book) { b.Answered(mx) }}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		if b.Broken(mx, banned) {
			t.Error("given up while clients are answered")
		}
	})
}

// TestFilteredWitnesses: an origin that drops addresses of nobody, but answers its
// clients, does not make forging seem broken when one of them is banned.
func TestFilteredWitnesses(t *testing.T) {
	w := &world{filter: true}
	in(t, w, func(b *Book) {
		b.Answered(mx)
		for range 3 {
			b.Silent(mx)
			awhile()
			time.Sleep(rest)
		}
		if b.Broken(mx, banned) || w.said(noWitness) != 1 {
			t.Errorf("given up: %v; said %s", b.Broken(mx, banned), w.log)
		}
	})
}

// TestClientsAreWitnesses: where no client was answered before, the wrong witnesses
// are believed; until one client is served, and answered when it is tried. A banned
// one that comes all the time does not keep that from happening.
func TestClientsAreWitnesses(t *testing.T) {
	w := &world{filter: true}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		if !b.Broken(mx, banned) {
			t.Fatal("not given up")
		}
		for range 100 {
			b.Broken(mx, banned)
		}
		b.Broken(mx, client)
		time.Sleep(again + (1+witnesses)*Patience)
		synctest.Wait()
		if b.Broken(mx, banned) || w.said(worksAgain) != 1 {
			t.Errorf("a client is answered, and forging is given up; said %s", w.log)
		}
		time.Sleep(rest)
		b.Silent(mx)
		awhile()
		if b.Broken(mx, banned) || w.said(noWitness) != 1 {
			t.Errorf("the wrong witnesses are believed again; said %s", w.log)
		}
	})
}

// TestBannedOnesAreNoCrowd: who has a whole network takes one place of the witnesses,
// and not those of others.
func TestBannedOnesAreNoCrowd(t *testing.T) {
	w := &world{filter: true, bans: netip.MustParsePrefix("2001:db8:66:1::/64")}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		crowd := w.bans.Addr()
		for range 100 {
			crowd = crowd.Next()
			b.Broken(mx, crowd)
		}
		b.Broken(mx, client)
		time.Sleep(again + (1+witnesses)*Patience)
		synctest.Wait()
		if b.Broken(mx, client) {
			t.Errorf("one network has taken all places; tried %v", w.tries())
		}
	})
}

// TestBannedOnesComeFirst: nor do more networks than are remembered, all banned, that
// are back each time before anybody else comes.
func TestBannedOnesComeFirst(t *testing.T) {
	w := &world{filter: true, bans: netip.MustParsePrefix("198.18.0.0/15")}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		for range 500 { // one of them decides with 4 in 6
			for n := range byte(witnesses + 1) {
				b.Broken(mx, netip.AddrFrom4([4]byte{198, 18, n, 66}))
			}
			if !b.Broken(mx, client) {
				return
			}
			time.Sleep(again + (1+witnesses)*Patience)
			synctest.Wait()
		}
		t.Error("forging is given up for as long as those who are banned like it")
	})
}

// TestMendedBetweenTwoTries: addresses of nobody are witnesses afterwards.
func TestMendedBetweenTwoTries(t *testing.T) {
	w := &world{broken: true}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		awhile()
		b.Broken(mx, client)
		w.set(func(w *world) { w.broken, w.lost = false, 1 })
		time.Sleep(again + 2*Patience)
		synctest.Wait()
		if b.Broken(mx, client) {
			t.Fatal("not mended")
		}
		w.set(func(w *world) { w.broken = true })
		time.Sleep(rest)
		b.Silent(mx)
		awhile()
		if !b.Broken(mx, client) {
			t.Errorf("broken again, and not given up; said %s", w.log)
		}
	})
}

// TestStart: a path that is broken at the start is known before a client comes; one
// that works then is known to be one that can be tried; and who is down is asked
// again.
func TestStart(t *testing.T) {
	w := &world{broken: true}
	in(t, w, func(b *Book) {
		b.Start()
		awhile()
		awhile()
		if !b.Broken(mx, client) {
			t.Error("broken at the start, and not given up")
		}
	})
	w = &world{silent: true}
	in(t, w, func(b *Book) {
		b.Start()
		time.Sleep(3 * rest)
		w.set(func(w *world) { w.silent = false })
		time.Sleep(2 * rest)
		w.set(func(w *world) { w.broken = true })
		b.Answered(mx)
		b.Silent(mx)
		awhile()
		if !b.Broken(mx, client) {
			t.Errorf("witnesses at the start are none later; said %s", w.log)
		}
	})
}

// TestChosenOrigins: how many are known, and looked into at once, does not depend on
// how many clients choose. None of that is in the way of one of the configuration.
func TestChosenOrigins(t *testing.T) {
	w := &world{silent: true}
	in(t, w, func(b *Book) {
		chosen := func(n int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 25)
		}
		for n := range 3 * maxPages {
			b.Silent(chosen(n))
		}
		synctest.Wait()
		if len(b.pages) > 1+maxPages || w.forged() > maxChosen {
			t.Errorf("%d origins known, %d tried at once", len(b.pages), w.forged())
		}
		b.Silent(mx)
		synctest.Wait()
		if w.forged() != maxChosen+1 {
			t.Errorf("%d tried at once: not that of the configuration", w.forged())
		}
		awhile()
		time.Sleep(rest)
		w.set(func(w *world) { w.silent, w.broken = false, true })
		late := chosen(4 * maxPages)
		b.Silent(late)
		awhile()
		if !b.Broken(late, client) || b.Broken(chosen(1), client) || len(b.States()) != 1 {
			t.Errorf("the last that was chosen is not looked into")
		}
		b.Answered(chosen(5 * maxPages)) // nobody knows it
	})
}

// TestChosenOriginHasClients: one that answers clients is no stranger when the first of
// them is banned, however many others are chosen meanwhile that answer nobody.
func TestChosenOriginHasClients(t *testing.T) {
	w := &world{filter: true}
	near := netip.MustParseAddrPort("10.0.0.25:25")
	in(t, w, func(b *Book) {
		b.Answered(near)
		awhile()
		w.set(func(w *world) { w.silent = true })
		for n := range 3 * maxPages {
			b.Silent(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 25))
			if n%maxChosen == 0 {
				awhile()
			}
		}
		awhile()
		if len(b.pages) > 1+maxPages {
			t.Errorf("%d pages", len(b.pages))
		}
		time.Sleep(rest)
		w.set(func(w *world) { w.silent = false })
		b.Silent(near)
		awhile()
		if b.Broken(near, banned) {
			t.Error("given up for one client, though another was answered")
		}
	})
}

// TestChosenOriginBreaks: what works at first for clients, and for addresses of nobody,
// is given up when it does not any more.
func TestChosenOriginBreaks(t *testing.T) {
	w := &world{}
	near, far := netip.MustParseAddrPort("10.0.0.25:25"), netip.MustParseAddrPort("203.0.113.25:25")
	in(t, w, func(b *Book) {
		b.Answered(far)
		synctest.Wait()
		if len(w.tries()) != 0 {
			t.Errorf("far away, where it is no evidence, it is tried: %v", w.tries())
		}
		for range 10 {
			b.Answered(near)
			synctest.Wait()
		}
		if len(w.tries()) != 1 {
			t.Errorf("tried %v", w.tries())
		}
		w.set(func(w *world) { w.broken = true })
		b.Silent(near)
		awhile()
		if !b.Broken(near, client) {
			t.Error("broken, and not given up")
		}
	})
}

// TestFarOrigins: addresses of nobody are dropped on the way to somebody's server far
// away, and no witnesses there before they were answered.
func TestFarOrigins(t *testing.T) {
	w := &world{filter: true}
	far := netip.MustParseAddrPort("203.0.113.25:25")
	in(t, w, func(b *Book) {
		b.Silent(far)
		awhile()
		if b.Broken(far, banned) || w.forged() != tries {
			t.Errorf("given up: %v; tried %v", b.Broken(far, banned), w.tries())
		}
		w.set(func(w *world) { w.filter = false })
		time.Sleep(rest)
		b.Silent(far)
		awhile()
		w.set(func(w *world) { w.broken = true })
		time.Sleep(rest)
		b.Silent(far)
		awhile()
		if !b.Broken(far, client) {
			t.Error("not given up, though it could be found out before")
		}
	})
}

// TestClose: whatever is being tried ends, and nothing begins.
func TestClose(t *testing.T) {
	w := &world{silent: true}
	in(t, w, func(b *Book) {
		b.Silent(mx)
		synctest.Wait()
		began := time.Now()
		b.Close()
		b.Silent(netip.MustParseAddrPort("10.0.0.1:25"))
		b.Start()
		synctest.Wait()
		if time.Since(began) != 0 || w.forged() != 1 || b.Broken(mx, client) {
			t.Errorf("closed after %s, tried %v", time.Since(began), w.tries())
		}
	})
}

// TestNobodyLeft: where each address has somebody, nothing can be found out.
func TestNobodyLeft(t *testing.T) {
	w := &world{broken: true}
	in(t, w, func(b *Book) {
		b.opts.Nobody = func(netip.Addr) netip.Addr { return netip.Addr{} }
		b.Silent(mx)
		awhile()
		if b.Broken(mx, client) || len(w.tries()) != 0 {
			t.Errorf("tried %v", w.tries())
		}
	})
}

func TestNobody(t *testing.T) {
	none := func(netip.Addr) bool { return false }
	for _, origin := range []string{"172.16.20.254", "2001:db8:20::254"} {
		addr := netip.MustParseAddr(origin)
		seen, blocks := map[netip.Addr]bool{}, map[netip.Prefix]bool{}
		for range 1000 {
			a := Nobody(addr, none)
			inside := false
			for _, p := range append(nobody4, nobody6...) {
				inside = inside || p.Contains(a)
				if p.Contains(a) {
					blocks[p] = true
				}
			}
			if !inside || a.Is4() != addr.Is4() || a.As16()[15] == 0 || a.Is4() && a.As4()[3] == 255 {
				t.Fatalf("%s for %s", a, origin)
			}
			seen[a] = true
		}
		if len(seen) < 200 {
			t.Errorf("%d different addresses of 1000 for %s", len(seen), origin)
		}
	}
	first := nobody4[0]
	for range 100 {
		if a := Nobody(netip.MustParseAddr("::ffff:172.16.20.254"), first.Contains); !a.Is4() || first.Contains(a) {
			t.Fatalf("%s is somebody's here", a)
		}
	}
	if a := Nobody(mx.Addr(), func(netip.Addr) bool { return true }); a.IsValid() {
		t.Errorf("%s, though all are somebody's", a)
	}
}

func TestTrial(t *testing.T) {
	timeout, refused := &forward.Error{Class: forward.ErrTimeout}, &forward.Error{Class: forward.ErrRefused}
	for name, c := range map[string]struct {
		trial          Trial
		answered, lost bool
	}{
		"answered":                  {Trial{}, true, false},
		"refused":                   {Trial{Forged: refused}, true, false},
		"lost":                      {Trial{Forged: timeout}, false, true},
		"silent to both":            {Trial{Forged: timeout, Plain: timeout}, false, false},
		"refuses the gateway":       {Trial{Forged: timeout, Plain: refused}, false, false},
		"we could not":              {Trial{Forged: &forward.Error{Class: forward.ErrNoAddress}}, false, false},
		"something else in the way": {Trial{Forged: errors.New("else")}, false, false},
	} {
		if c.trial.Answered() != c.answered || c.trial.Lost() != c.lost {
			t.Errorf("%s: answered %v, lost %v", name, c.trial.Answered(), c.trial.Lost())
		}
	}
}
