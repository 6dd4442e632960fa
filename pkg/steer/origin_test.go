package steer

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/portreeve/portreeve/pkg/plan"
)

// A reply is claimed in every state of a connection that bears the mark, and
// of no other connection.
func TestOriginSocket(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		forged, server := connect(t, w.client, w.origin, originMark|foreignMark)
		from, to := at(w.origin, smtpPort), addrPort(forged.LocalAddr())
		ours := claimed(bpfReasonREASON_ORIGIN_SOCKET)
		for _, flags := range []byte{ack, synAck, ack | fin, rst, syn} {
			g.want(originHook, w.name()+" established", segment(from, to, flags).bytes(), ours)
		}
		stranger := netip.AddrPortFrom(w.router, to.Port())
		g.want(originHook, w.name()+" to a client past us", segment(from, stranger, ack).bytes(), left(bpfReasonREASON_ORIGIN_FORWARDED))
		g.want(originHook, w.name()+" other origin", segment(at(w.nobody, smtpPort), to, ack).bytes(), ignored)
		g.want(originHook, w.name()+" other port", segment(at(w.origin, 80), to, ack).bytes(), ignored)
		g.want(originHook, w.name()+" the other direction", segment(to, from, ack).bytes(), ignored)
		udp := segment(from, to, ack)
		udp.proto = protoUDP
		g.want(originHook, w.name()+" UDP", udp.bytes(), ignored)

		must(t, forged.Close()) // first: this end keeps TIME_WAIT
		must(t, server.Close())
		awaitState(t, timeWait, to, from)
		g.want(originHook, w.name()+" TIME_WAIT", segment(from, to, ack).bytes(), ours)
	}
}

// The gateway's own connections to an origin do not bear the mark.
func TestOriginForeignSocket(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		for _, mark := range []int{0, foreignMark, clientMark} {
			own, _ := connect(t, w.client, w.origin, mark)
			p := segment(at(w.origin, smtpPort), addrPort(own.LocalAddr()), ack)
			g.want(originHook, fmt.Sprintf("%s mark 0x%x", w.name(), mark), p.bytes(), left(bpfReasonREASON_ORIGIN_FOREIGN))
		}
	}
}

// A listener at the address that a reply goes to is no connection.
func TestOriginListener(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		l := listen(t, at(w.client, 0).String())
		p := segment(at(w.origin, smtpPort), addrPort(l.Addr()), ack)
		g.want(originHook, w.name(), p.bytes(), left(bpfReasonREASON_ORIGIN_FORWARDED))
	}
}

func TestOriginWithoutSettingsLeavesEverything(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		forged, _ := connect(t, w.client, w.origin, originMark)
		p := segment(at(w.origin, smtpPort), addrPort(forged.LocalAddr()), ack)
		g.want(originHook, w.name(), p.bytes(), claimed(bpfReasonREASON_ORIGIN_SOCKET))
		must(t, g.Remove(plan.Settings{}))
		g.want(originHook, w.name(), p.bytes(), ignored)
		g.add(plan.Settings{ClientMark: clientMark, OriginMark: originMark})
	}
}

func TestOriginFragmentsAndHeaders(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		forged, _ := connect(t, w.client, w.origin, originMark)
		p := segment(at(w.origin, smtpPort), addrPort(forged.LocalAddr()), ack)
		ours := claimed(bpfReasonREASON_ORIGIN_SOCKET)
		g.want(originHook, w.name()+" first fragment", p.asFragment(0, true).bytes(), ours)
		g.want(originHook, w.name()+" later fragment", p.asFragment(3, true).bytes(), left(bpfReasonREASON_ORIGIN_FRAGMENT))
		if w.client.Is4() {
			p.options = bytes.Repeat([]byte{1}, 40)
			g.want(originHook, "IP options", p.bytes(), ours)
			continue
		}
		p.headers = slices.Repeat([]header{option(extOptions, 3)}, 8)
		g.want(originHook, "eight extension headers", p.bytes(), ours)
		p.headers = slices.Repeat([]header{option(extOptions, 1)}, 9)
		g.want(originHook, "nine extension headers", p.bytes(), left(bpfReasonREASON_ORIGIN_HIDDEN))
	}
}

// An ICMP error about what a forged connection sent, from anywhere.
func TestOriginICMP(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		forged, _ := connect(t, w.client, w.origin, originMark)
		own, _ := connect(t, w.client, w.origin, 0)
		peer := at(w.origin, smtpPort)
		sent := segment(addrPort(forged.LocalAddr()), peer, ack)
		g.checkOriginICMP(w, sent)

		kind := errorKinds(w.client)[0]
		about := func(what string, inner ip, want outcome) {
			t.Helper()
			g.want(originHook, w.name()+" ICMP about "+what, icmpError(w.router, w.client, kind, inner.bytes()).bytes(), want)
		}
		about("the gateway's own connection", segment(addrPort(own.LocalAddr()), peer, ack), left(bpfReasonREASON_ORIGIN_FOREIGN))
		about("a connection past us", segment(at(w.client, 1), peer, ack), left(bpfReasonREASON_ORIGIN_FORWARDED))
		about("another origin", segment(addrPort(forged.LocalAddr()), at(w.nobody, smtpPort), ack), ignored)
		about("another port", segment(addrPort(forged.LocalAddr()), at(w.origin, 80), ack), ignored)
		about("a later fragment", sent.asFragment(2, true), ignored)
		g.want(originHook, w.name()+" ICMP to another than the sender", icmpError(w.router, w.nobody, kind, sent.bytes()).bytes(), ignored)
	}
}

func (g *stage) checkOriginICMP(w world, sent ip) {
	g.Helper()
	for _, from := range []netip.Addr{w.router, w.origin} {
		for _, kind := range errorKinds(w.client) {
			what := fmt.Sprintf("%s ICMP type %d from %s", w.name(), kind, from)
			g.want(originHook, what, icmpError(from, w.client, kind, sent.bytes()).bytes(), claimed(bpfReasonREASON_ORIGIN_ICMP))
		}
	}
	for _, kind := range otherKinds(w.client) {
		what := fmt.Sprintf("%s ICMP type %d", w.name(), kind)
		g.want(originHook, what, icmpError(w.router, w.client, kind, sent.bytes()).bytes(), ignored)
	}
}

// A path MTU notice comes in TIME_WAIT too.
func TestOriginICMPInTimeWait(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		forged, server := connect(t, w.client, w.origin, originMark)
		local, peer := addrPort(forged.LocalAddr()), at(w.origin, smtpPort)
		must(t, forged.Close())
		must(t, server.Close())
		awaitState(t, timeWait, local, peer)
		p := icmpError(w.router, w.client, errorKinds(w.client)[0], segment(local, peer, ack).bytes())
		g.want(originHook, w.name(), p.bytes(), claimed(bpfReasonREASON_ORIGIN_ICMP))
	}
}
