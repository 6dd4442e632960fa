package returns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// page is what is known of an origin.
type page struct {
	origin  netip.AddrPort
	lasting bool // known from the start

	broken  atomic.Bool   // forging is given up
	answers atomic.Uint64 // that clients got to forged connections, and isMended to a client's address

	// Only the task that has the page looks at these.
	proved bool // addresses of nobody were answered, and since then it did not happen that a client was and they were not
	told   bool // that they are no witnesses

	mu     sync.Mutex
	busy   bool         // a task has it
	until  time.Time    // when the next suspicion may be looked into
	served []netip.Addr // some clients of late that came from the gateway's own address
	passed int          // how many more could have been among them
}

// witnesses is how many clients are remembered, so that one alone, who may be banned,
// does not stand for all.
const witnesses = 4

// subnet is the prefix of an IPv6 network. Who has one address there has all of it.
const subnet = 64

// take gives the page to a task, if none has it.
func (p *page) take() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy {
		return false
	}
	p.busy = true
	return true
}

// tired returns how long the page has to rest before it is looked into again.
func (p *page) tired() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.until)
}

// release ends the task that has the page.
func (p *page) release(tired time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy, p.until = false, time.Now().Add(tired)
}

// idle reports whether no task has the page.
func (p *page) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.busy
}

// serve notes a client that comes from the gateway's own address. Of many each is as
// likely to be remembered: were it the first ones, some that are banned and come back
// at once would keep all others out. A network has one place at most, so that one
// who is banned is no crowd of witnesses.
func (p *page) serve(client netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := slices.IndexFunc(p.served, network(client).Contains); n >= 0 {
		if rand.IntN(2) == 0 {
			p.served[n] = client
		}
		return
	}
	if len(p.served) < witnesses {
		p.served = append(p.served, client)
		return
	}
	p.passed++
	if n := rand.IntN(witnesses + p.passed); n < witnesses {
		p.served[n] = client
	}
}

// network returns what belongs to a client: its address, or the subnet of that.
func network(client netip.Addr) netip.Prefix {
	bits := client.BitLen()
	if client.Is6() {
		bits = subnet
	}
	return netip.PrefixFrom(client.WithZone(""), bits).Masked()
}

// takeServed returns the clients that were noted since it was called last.
func (p *page) takeServed() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	served := p.served
	p.served, p.passed = nil, 0
	return served
}
