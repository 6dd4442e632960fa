package steer

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portreeve/portreeve/pkg/plan"
)

const (
	loopMark = 1 << 22
	redirect = 7 // TC_ACT_REDIRECT
)


// With the loop a SYN that would be taken is sent round first; everything else is
// as without.
func TestLoopSends(t *testing.T) {
	g := newStage(t)
	g.add(plan.Loop{Mark: loopMark})
	sent := outcome{next, foreignMark | loopMark, "loop-out"}
	for _, w := range worlds {
		client, _ := connect(t, w.client, w.origin, 0)
		known := segment(addrPort(client.LocalAddr()), at(w.origin, smtpPort), ack)
		g.want(clientHook, w.name()+" SYN", w.fromClient(w.origin, syn).bytes(), sent)
		g.want(clientHook, w.name()+" ACK of a connection", known.bytes(), diverted(bpfReasonREASON_CLIENT_SOCKET))
		g.want(clientHook, w.name()+" dead, closed", w.fromClient(w.closed, syn).bytes(), dropped(bpfReasonREASON_CLIENT_ABSENT_CLOSED))
		g.want(clientHook, w.name()+" dead, open", w.fromClient(w.opened, syn).bytes(), left(bpfReasonREASON_CLIENT_ABSENT_OPEN))
		g.want(clientHook, w.name()+" bypass", w.fromClient(w.bypass, syn).bytes(), left(bpfReasonREASON_CLIENT_BYPASS))
		g.want(wallHook, w.name()+" at the wall", w.fromClient(w.origin, syn).bytes(), dropped(bpfReasonREASON_WALL_LEAK))
	}
	must(t, g.Remove(plan.Loop{Mark: loopMark}))
	g.want(clientHook, "switched off", world4.fromClient(world4.origin, syn).bytes(), diverted(bpfReasonREASON_CLIENT_SYN))
}

// The program at our own link fetches SYNs of the client side back, and lets nothing
// else through.
func TestLoopLink(t *testing.T) {
	g := newStage(t)
	g.add(plan.Loop{Mark: loopMark})
	stray := outcome{shot, foreignMark | loopMark, "loop-stray"}
	silent := outcome{shot, foreignMark, ""}
	for _, w := range worlds {
		for _, c := range []struct {
			what   string
			from   plan.Side
			mark   uint32
			packet []byte
			want   outcome
		}{
			{"SYN", plan.ClientSide, loopMark, w.fromClient(w.origin, syn).bytes(), outcome{redirect, foreignMark | loopMark, "loop-fetched"}},
			{"SYN, one-armed", plan.ClientSide | plan.OriginSide, loopMark, w.fromClient(w.origin, syn).bytes(), outcome{redirect, foreignMark | loopMark, "loop-fetched"}},
			{"SYN by an unnamed interface", 0, loopMark, w.fromClient(w.origin, syn).bytes(), stray},
			{"SYN by the origin side", plan.OriginSide, loopMark, w.fromClient(w.origin, syn).bytes(), stray},
			{"SYN without the mark", plan.ClientSide, 0, w.fromClient(w.origin, syn).bytes(), silent},
			{"SYN to another address, as after DNAT", plan.ClientSide, loopMark, w.fromClient(w.nobody, syn).bytes(), stray},
			{"ACK", plan.ClientSide, loopMark, w.fromClient(w.origin, ack).bytes(), stray},
		} {
			g.comesBy(c.from)
			if got := g.atLoop(c.packet, c.mark); got != c.want {
				t.Errorf("%s %s: %s, want %s", w.name(), c.what, got, c.want)
			}
		}
	}
	must(t, g.Remove(plan.Loop{Mark: loopMark}))
	if got := g.atLoop(world4.fromClient(world4.origin, syn).bytes(), loopMark); got != (outcome{shot, foreignMark | loopMark, ""}) {
		t.Errorf("switched off: %s", got)
	}
}

// atLoop runs a packet with a mark through the program at our own link.
func (g *stage) atLoop(packet []byte, mark uint32) outcome {
	g.Helper()
	g.clearCounts()
	context := forwarded()
	binary.NativeEndian.PutUint32(context[markOffset:], foreignMark|mark)
	out := make([]byte, 256)
	ret, err := g.set.programs[bpfProgSteerLoop].Run(&ebpf.RunOptions{Data: ethernet(packet), Context: context, ContextOut: out})
	must(g.T, err)
	return outcome{int32(ret), binary.NativeEndian.Uint32(out[markOffset:]), g.onlyReason()}
}
