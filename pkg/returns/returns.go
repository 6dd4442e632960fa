// Package returns finds out whether the replies of origins to addresses that are not
// the gateway's come back to it, without which no forged connection comes about.
//
// It tries with addresses that belong to nobody (Try, which doctor asks, too), and
// keeps a Book of what was found, so that a service that prefers forging does
// without only while it works for no client. No client has a say in that: not by
// what it meets itself, a ban or a port that is taken, and not by what it does to
// others. It never touches a session; forward asks the Book and tells it how its
// dials went, the daemon makes it.
package returns

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/portreeve/portreeve/pkg/descriptors"
)

// When a client got no answer, tries are made, pause apart, before forging is given
// up: once is no evidence. While it is given up it is tried again and again. After a
// suspicion that was not borne out the next one waits for rest.
const (
	tries = 3
	pause = time.Second
	again = 15 * time.Second
	rest  = 30 * time.Second
)

// Bounds on what is done at once, and on what clients that choose their origins can
// make the Book do.
const (
	maxPages  = 1024 // origins that are known, beyond those of the configuration
	maxChosen = 8    // of these that are looked into at once; more are forgotten
)

// Options say what a Book works with.
type Options struct {
	Dial    Dial
	Nobody  func(origin netip.Addr) netip.Addr // addresses that are tried
	Origins []netip.AddrPort                   // that are known from the start, each once
	Near    func(origin netip.Addr) bool       // whether an origin is next to the gateway, in a network of its own
	Log     *slog.Logger                       // where forging is given up, and when it works again
}

// Book keeps for each origin whether its replies come back. It is a
// forward.Returns.
type Book struct {
	opts  Options
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	tasks sync.WaitGroup

	trying chan struct{} // a place for each that is tried
	chosen chan struct{} // the same for looking into origins that clients chose

	mu     sync.RWMutex
	pages  map[netip.AddrPort]*page
	closed bool
}

// New returns a Book in which forging works everywhere. End it with Close.
func New(o Options) *Book {
	b := &Book{opts: o, trying: make(chan struct{}, descriptors.Tries), chosen: make(chan struct{}, maxChosen), pages: make(map[netip.AddrPort]*page)}
	b.ctx, b.stop = context.WithCancel(context.Background())
	for _, origin := range o.Origins {
		b.pages[origin] = &page{origin: origin, lasting: true}
	}
	return b
}

// Start begins to try the origins that are known from the start: whether forging is
// broken at the first client's time already, and, where it is not, whether addresses
// of nobody are answered at all. Call it once replies can be claimed.
func (b *Book) Start() {
	for _, origin := range b.opts.Origins {
		if p := b.page(origin); p.take() {
			b.spawn(func() { b.begin(p) })
		}
	}
}

// Close ends what is being tried, and tries nothing any more.
func (b *Book) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.tasks.Wait()
}

// spawn runs a task that Close waits for.
func (b *Book) spawn(task func()) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if !b.closed {
		b.tasks.Go(task)
	}
}

// Broken reports whether forging is given up at an origin for now. The client is one
// that would have been forged.
func (b *Book) Broken(origin netip.AddrPort, client netip.Addr) bool {
	p := b.page(origin)
	if p == nil || !p.broken.Load() {
		return false
	}
	p.serve(client)
	return true
}

// Answered notes that an origin answered a forged connection of a client. Of one that
// clients chose, too, where forging may be given up on the word of nobody alone: else
// the first of whom the Book hears there could be a client that is banned.
func (b *Book) Answered(origin netip.AddrPort) {
	p := b.page(origin)
	if p == nil && b.opts.Near(origin.Addr()) {
		p = b.meet(origin)
	}
	if p != nil {
		p.answers.Add(1)
	}
}

// Silent notes that an origin did not answer one, and has it looked into.
func (b *Book) Silent(origin netip.AddrPort) {
	p := b.page(origin)
	if p == nil {
		p = b.open(origin)
	}
	if p != nil && p.take() {
		b.spawn(func() { b.suspect(p) })
	}
}

// State is whether forging is given up at an origin.
type State struct {
	Origin netip.AddrPort
	Broken bool
}

// States returns the states of the origins that are known from the start.
func (b *Book) States() []State {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []State
	for _, origin := range b.opts.Origins {
		all = append(all, State{origin, b.pages[origin].broken.Load()})
	}
	return all
}

func (b *Book) page(origin netip.AddrPort) *page {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.pages[origin]
}

// open makes a page for an origin that a client chose. Where there are too many the
// page of another such one goes, if one is idle; else the origin stays unknown, and
// forging is not given up there.
func (b *Book) open(origin netip.AddrPort) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, known := b.pages[origin]; known {
		return p
	}
	if len(b.pages) >= len(b.opts.Origins)+maxPages && !b.forget() {
		return nil
	}
	p := &page{origin: origin}
	b.pages[origin] = p
	return p
}

// forget removes one page that is idle, of an origin that has answered nobody if there
// is one: anybody can make any number of those.
func (b *Book) forget() bool {
	var victim *page
	for _, p := range b.pages {
		if p.lasting || !p.idle() {
			continue
		}
		if victim = p; p.answers.Load() == 0 {
			break
		}
	}
	if victim == nil {
		return false
	}
	delete(b.pages, victim.origin)
	return true
}

// meet opens the page of an origin that clients chose and that answers them, and has it
// found out, where there is a place for that, whether addresses of nobody are answered
// as well.
func (b *Book) meet(origin netip.AddrPort) *page {
	p := b.open(origin)
	if p != nil && p.take() {
		b.spawn(func() {
			defer p.release(0)
			b.placed(p, b.prove)
		})
	}
	return p
}

// begin looks at an origin for the first time, as often as it takes to learn
// anything: one that is down says nothing.
func (b *Book) begin(p *page) {
	defer p.release(0)
	for {
		switch t := b.try(p); {
		case t.Answered():
			p.proved = true
			return
		case t.Lost():
			if b.isBroken(p) {
				b.giveUp(p)
			}
			return
		}
		if !b.sleep(rest) {
			return
		}
	}
}

// suspect looks into what a client met, now or when the last time is long enough ago.
func (b *Book) suspect(p *page) {
	defer p.release(rest)
	if b.sleep(p.tired()) && b.placed(p, b.isBroken) {
		b.giveUp(p)
	}
}

// placed asks something of a page; for an origin that a client chose only where there
// is a place for that.
func (b *Book) placed(p *page, is func(*page) bool) bool {
	if p.lasting {
		return is(p)
	}
	select {
	case b.chosen <- struct{}{}:
		defer func() { <-b.chosen }()
		return is(p)
	default:
		return false
	}
}

// prove reports whether addresses of nobody are answered at an origin.
func (b *Book) prove(p *page) bool {
	p.proved = p.proved || answered(b.asNobody(p))
	return p.proved
}

// isBroken reports whether forging works for nobody: addresses of nobody get no
// answer, while the gateway's own does, each time, and no client gets one
// meanwhile.
func (b *Book) isBroken(p *page) bool {
	before := p.answers.Load()
	for n := range tries {
		if n > 0 && !b.sleep(pause) {
			return false
		}
		switch t := b.try(p); {
		case t.Answered():
			p.proved = true
			return false
		case !t.Lost():
			return false
		}
	}
	after := p.answers.Load()
	switch {
	case after != before:
		return false
	case p.proved:
		return true
	case after > 0:
		b.cannotTell(p)
		return false
	}
	return p.lasting || b.opts.Near(p.origin.Addr()) // on the way to others, and back, many drop what comes from nobody
}

// cannotTell says once that addresses of nobody are no witnesses at an origin.
func (b *Book) cannotTell(p *page) {
	if !p.told {
		b.opts.Log.Warn("an origin answers clients, but no addresses that belong to nobody, perhaps by a packet filter of its own: whether forging is broken there cannot be found out, so it is not given up", "origin", p.origin)
	}
	p.told = true
}

// giveUp gives forging up at an origin until it works again.
func (b *Book) giveUp(p *page) {
	p.broken.Store(true)
	b.opts.Log.Warn("an origin's replies to clients' addresses do not come back to this gateway: until they do, all of its clients come from the gateway's own address", "origin", p.origin)
	for b.sleep(again) {
		if b.isMended(p) {
			p.broken.Store(false)
			b.opts.Log.Info("an origin's replies to clients' addresses come back again: it sees its clients", "origin", p.origin)
			return
		}
	}
}

// isMended reports whether forging works again. Where addresses of nobody get no
// answer, that of a client may: then they were the wrong witnesses, and are not
// believed before they have got one.
func (b *Book) isMended(p *page) bool {
	if answered(b.asNobody(p)) {
		p.proved = true
		return true
	}
	for _, client := range p.takeServed() {
		if answered(b.dial(b.ctx, p.origin, client)) {
			p.answers.Add(1)
			p.proved = answered(b.asNobody(p)) // it may have been mended a moment ago
			return true
		}
	}
	return false
}

// try tries an origin with an address of nobody, and the gateway's own.
func (b *Book) try(p *page) Trial {
	from := b.opts.Nobody(p.origin.Addr())
	if !from.IsValid() {
		return Trial{Origin: p.origin, Forged: errNobody}
	}
	return Try(b.ctx, b.dial, p.origin, from)
}

// asNobody connects to an origin from an address of nobody.
func (b *Book) asNobody(p *page) error {
	from := b.opts.Nobody(p.origin.Addr())
	if !from.IsValid() {
		return errNobody
	}
	return b.dial(b.ctx, p.origin, from)
}

// errNobody is why nothing could be tried.
var errNobody = errors.New("each address that belongs to nobody has somebody here")

// dial is Options.Dial when there is a place for it.
func (b *Book) dial(ctx context.Context, origin netip.AddrPort, from netip.Addr) error {
	select {
	case b.trying <- struct{}{}:
		defer func() { <-b.trying }()
		return b.opts.Dial(ctx, origin, from)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sleep waits; false: the Book is closed.
func (b *Book) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}
