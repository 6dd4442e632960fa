package testenv

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestCaptureSeesSYN(t *testing.T) {
	e := open(t, Options{})
	capture, err := e.Origin.Capture("dmz0")
	if err != nil {
		t.Fatal(err)
	}
	defer capture.Close()
	for from, to := range map[netip.Addr]netip.Addr{e.Client4: e.Origin4, e.Client6: e.Origin6} {
		hello(t, e, from, to)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := capture.Await(ctx, func(p Packet) bool {
			return p.Opening() && p.From.Addr() == from && p.To == netip.AddrPortFrom(to, 25)
		})
		if err != nil {
			t.Errorf("the SYN from %s: %v", from, err)
		}
	}
	for _, p := range capture.Packets() {
		if p.Size < 40 || p.Fragment || (p.TTL != 64 && p.TTL != 62) {
			t.Errorf("odd packet %+v", p)
		}
	}
}

func TestCaptureAwaitGivesUp(t *testing.T) {
	e := open(t, Options{})
	capture, err := e.Origin.Capture("dmz0")
	if err != nil {
		t.Fatal(err)
	}
	defer capture.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := capture.Await(ctx, func(Packet) bool { return true }); err == nil {
		t.Error("a packet came out of nothing")
	}
}

func TestParsePacketSurvivesAnything(t *testing.T) {
	whole := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
		0, 80, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0}
	p, ok := parsePacket(whole)
	if !ok || p.From.String() != "10.0.0.1:80" || p.To.String() != "10.0.0.2:25" || !p.Opening() {
		t.Fatalf("got %+v, %t", p, ok)
	}
	for n := range len(whole) {
		if p, ok := parsePacket(whole[:n]); ok {
			t.Errorf("%d octets gave %+v", n, p)
		}
	}
}
