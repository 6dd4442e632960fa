package steer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/portreeve/portreeve/pkg/plan"
)

// randomPackets is how many packets each program judges in a test.
const randomPackets = 20_000

// seed makes the packets of a run the same every time.
func seeded() *rand.Rand { return rand.New(rand.NewPCG(25, 587)) }

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Noise is never marked and never dropped, in whatever EtherType and behind
// whatever beginning of an IP header.
func TestRandomPackets(t *testing.T) {
	g := newStage(t)
	r := seeded()
	for n := range randomPackets {
		packet := randomBytes(r, 40+r.IntN(120))
		if n%2 == 0 {
			packet[0] = 0x45 + byte(r.IntN(11))
			packet[9] = []byte{protoTCP, protoICMP, protoUDP}[r.IntN(3)]
		} else {
			packet[0] = 0x60
			packet[6] = []byte{protoTCP, protoICMPv6, extHop, extRouting, extFragment, extOptions}[r.IntN(6)]
		}
		g.leavesAlone(packet)
	}
}

// leavesAlone runs a packet through all TC programs of others' links and allows no verdict on
// it.
func (g *stage) leavesAlone(packet []byte) {
	g.Helper()
	data := ethernet(packet)
	for t, programs := range tcPrograms {
		if t.Side == plan.LoopSide {
			continue // nobody has any business there, see TestLoopLink
		}
		for _, program := range programs {
			o, err := g.runTC(program, data)
			must(g.T, err)
			if o.verdict != next || o.mark != foreignMark {
				g.Fatalf("%s: %s on %x", program, o, data)
			}
		}
	}
}

// Packets of ours with random damage may be ours or not, but a packet whose
// addresses and port are bound to nothing is never touched.
func TestDamagedStrangers(t *testing.T) {
	g := newStage(t)
	r := seeded()
	for range randomPackets / 10 {
		for _, w := range worlds {
			for _, p := range []ip{
				w.fromClient(w.nobody, syn),
				segment(at(w.nobody, smtpPort), at(w.client, 40000), synAck),
				icmpError(w.router, w.nobody, errorKinds(w.client)[0], segment(at(w.nobody, smtpPort), at(w.client, 40000), ack).bytes()),
			} {
				packet := p.bytes()
				for range 1 + r.IntN(3) { // not the addresses
					i := r.IntN(len(packet))
					if from, to := ipLen(w)-2*len(w.client.AsSlice()), ipLen(w); i < from || i >= to {
						packet[i] ^= byte(1 << r.IntN(8))
					}
				}
				packet[0] = packet[0]&0x0f | byte(map[bool]int{true: 0x40, false: 0x60}[w.client.Is4()])
				g.leavesAlone(packet)
			}
		}
	}
}

// A packet that ends before its TCP flags, or before the ports that an ICMP
// error is about, is left alone wherever it ends.
func TestTruncated(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		client, _ := connect(t, w.client, w.origin, originMark)
		peer := addrPort(client.LocalAddr())
		for _, p := range []ip{
			w.fromClient(w.origin, syn),
			w.fromClient(w.closed, syn),
			icmpError(w.router, w.origin, errorKinds(w.client)[0], segment(at(w.origin, smtpPort), peer, ack).bytes()),
			icmpError(w.router, w.client, errorKinds(w.client)[0], segment(peer, at(w.origin, smtpPort), ack).bytes()),
			segment(at(w.origin, smtpPort), peer, ack),
		} {
			whole := p.bytes()
			enough := ipLen(w) + 4 // the ports are all that the origin side needs
			if p.proto != protoTCP {
				enough = 2*ipLen(w) + 8 + 4
			} else if p.src != w.origin {
				enough = ipLen(w) + 20
			}
			for n := ipLen(w); n < enough; n++ {
				g.truncated(whole, n)
			}
		}
	}
}

// truncated cuts a packet: in the buffer alone, and in its length field too.
func (g *stage) truncated(whole []byte, n int) {
	g.Helper()
	honest := bytes.Clone(whole[:n])
	if honest[0]>>4 == 4 {
		binary.BigEndian.PutUint16(honest[2:], uint16(n))
	} else {
		binary.BigEndian.PutUint16(honest[4:], uint16(n-40))
	}
	for _, hook := range []plan.TC{clientHook, originHook, wallHook} {
		name, err := tcProgram(hook, true)
		must(g.T, err)
		for _, packet := range [][]byte{whole[:n], honest} {
			o, err := g.runTC(name, ethernet(packet))
			must(g.T, err)
			if o.verdict != next || o.mark != foreignMark {
				g.Errorf("%s on the first %d bytes: %s\n%x", name, n, o, packet)
			}
		}
	}
}

// Frames that are not of IP, or belong to a VLAN interface, are nobody's.
func TestOtherFrames(t *testing.T) {
	g := newStage(t)
	for _, w := range worlds {
		packet := w.fromClient(w.origin, syn).bytes()
		for what, data := range map[string][]byte{
			"802.1Q":                  tagged(packet),
			"ARP":                     frame(0x0806, packet),
			"802.1ad":                 frame(0x88a8, packet),
			"PPPoE":                   frame(0x8864, packet),
			"the other family's type": swapType(ethernet(packet)),
		} {
			o, err := g.runTC(bpfProgSteerClient, data)
			must(t, err)
			if o.verdict != next || o.mark != foreignMark {
				t.Errorf("%s %s: %s", w.name(), what, o)
			}
		}
	}
	if n := g.counts(); len(n) > 0 {
		t.Errorf("counted %v", n)
	}
}

// swapType gives a frame the EtherType of the other IP version.
func swapType(f []byte) []byte {
	f = slices.Clone(f)
	if binary.BigEndian.Uint16(f[12:]) == 0x0800 {
		binary.BigEndian.PutUint16(f[12:], 0x86dd)
	} else {
		binary.BigEndian.PutUint16(f[12:], 0x0800)
	}
	return f
}
