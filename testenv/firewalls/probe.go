package firewalls

import (
	"fmt"
	"net/netip"
	"strings"
)

// Way is what a probe tries.
type Way string

// The ways. The first two are portreeve's affair, the others are not.
const (
	Addressed Way = "addressed" // a client to the gateway's port 25
	Transit   Way = "transit"   // a client to the origin's port 25
	Unrelated Way = "unrelated"
)

// Probe is one who tries to get somewhere.
type Probe struct {
	Way   Way
	By    Host // whose connection it is: the gateway's or the origin's own; Anybody: a client's
	From  netip.Addr
	To    netip.AddrPort
	User  int  // of the gateway
	UDP   bool // a datagram and its answer
	Times int  // one after the other, until one is stopped
}

// Family is that of its addresses.
func (p Probe) Family() Family {
	if p.To.Addr().Is6() {
		return 6
	}
	return 4
}

// String says who wants what.
func (p Probe) String() string {
	by, protocol := "client", "TCP"
	if p.UDP {
		protocol = "UDP"
	}
	if p.By != Anybody {
		by = string(p.By)
	}
	if p.By == Gateway {
		by += fmt.Sprintf(" as user %d", p.User)
	}
	if p.From.IsValid() {
		by += " " + p.From.String()
	}
	return fmt.Sprintf("%s %s: %s to %s", p.Way, protocol, by, p.To)
}

// Verdict is what a probe met.
type Verdict struct {
	Through int    // how often words were exchanged
	Heard   string // what the one at the other end said the last time
}

// String is short: who answered whom is in the greeting.
func (v Verdict) String() string {
	if v.Through == 0 {
		return "stopped"
	}
	greeting, _, _ := strings.Cut(v.Heard, " ESMTP")
	return fmt.Sprintf("through %d (%s)", v.Through, strings.TrimPrefix(greeting, "220 "))
}

// Verdicts are those of a phase.
type Verdicts map[Probe]Verdict

// rated is how often the client that rules count tries: more often than they let it.
const rated = burst + 2

// Probes lists all.
func Probes(b Book) (all []Probe) {
	for _, f := range Families {
		a := b[f]
		for n, from := range a.Clients {
			times := 1
			if n == Rated {
				times = rated
			}
			all = append(all,
				Probe{Way: Addressed, From: from, To: addrPort(a.Gateway, 25), Times: times},
				Probe{Way: Transit, From: from, To: addrPort(a.Origin, 25), Times: times},
				Probe{Way: Unrelated, From: from, To: addrPort(a.Gateway, OtherPort), Times: 1},
				Probe{Way: Unrelated, From: from, To: addrPort(a.Origin, OtherPort), Times: 1})
		}
		all = append(all, strangers(a)...)
		for _, user := range Users {
			all = append(all,
				Probe{Way: Unrelated, By: Gateway, User: user, To: addrPort(a.Origin, OtherPort), Times: 1},
				Probe{Way: Unrelated, By: Gateway, User: user, To: addrPort(a.Origin, 25), Times: 1})
		}
	}
	return all
}

// strangers are further probes that are nothing to portreeve.
func strangers(a Addresses) []Probe {
	var all []Probe
	for _, from := range []netip.Addr{a.Clients[Innocent], a.Clients[1]} {
		all = append(all,
			Probe{Way: Unrelated, From: from, To: addrPort(a.More, 25), Times: 1},
			Probe{Way: Unrelated, From: from, To: addrPort(a.Gateway, DNATPort), Times: 1},
			Probe{Way: Unrelated, From: from, To: addrPort(a.Gateway, OtherPort), UDP: true, Times: 1},
			Probe{Way: Unrelated, From: from, To: addrPort(a.Origin, OtherPort), UDP: true, Times: 1},
			Probe{Way: Unrelated, By: Origin, To: addrPort(from, 25), Times: 1})
	}
	return append(all, Probe{Way: Unrelated, By: Gateway, To: addrPort(a.loopback(), 25), Times: 1})
}

// loopback is where a server of the gateway is that is the gateway's alone.
func (a Addresses) loopback() netip.Addr {
	if a.Gateway.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
